"""A ControlService on a world of fake engines."""

from tests.doors.conftest import channel, database, desk, make_world, server, stubs, world

__all__ = ["channel", "database", "desk", "make_world", "server", "stubs", "world"]
