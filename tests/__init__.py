"""Tests of Tern, in the places of what they test."""
