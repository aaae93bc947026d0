"""The command line, the doors and a world, each as its own tests have it."""

from tests.cli.conftest import bare, tern
from tests.doors.conftest import channel, desk, server, stubs
from tests.flows.conftest import database, make_world, world

__all__ = ["bare", "channel", "database", "desk", "make_world", "server", "stubs", "tern", "world"]
