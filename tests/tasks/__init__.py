"""Tests of Celery's half."""
