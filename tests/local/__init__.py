"""Tests of tern.local with real servers and real processes."""
