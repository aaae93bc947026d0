"""A world on a real database, for what a worker does with it."""

from tests.flows.conftest import database, make_world, world

__all__ = ["database", "make_world", "world"]
