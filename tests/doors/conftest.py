"""A world with every door open: a ControlService with tokens, and whatever else asks the same desk."""

from collections.abc import Iterator

import grpc
import pytest

from tern.doors.desk import Desk
from tern.store.database import Database
from tern.store.paging import Paging
from tern.store.record import Record
from tern.wire.control.server import ControlServer
from tern.wire.control.tokens import TokenGate
from tern.wire.generated.tern.control.v1 import control_service_pb2_grpc as control_v1_grpc
from tern.wire.generated.tern.v1 import tern_pb2_grpc as tern_v1_grpc
from tests.doors.calling import ACT, READ, Stubs
from tests.flows.conftest import database, make_world, world
from tests.world import World

__all__ = ["database", "make_world", "world"]

INTERVAL_S = 0.1
"""Between two looks of a watch: a test does not wait for a second."""
MOST_WATCHERS = 8


@pytest.fixture
def desk(world: World, database: Database) -> Iterator[Desk]:
    """The door in this process, on the world's parts: what it rings for waits until a test answers."""
    opened = Desk(
        world.ports,
        Paging(database),
        Record(database),
        interval_s=INTERVAL_S,
        most_watchers=MOST_WATCHERS,
    )
    yield opened
    opened.close()


@pytest.fixture
def server(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlServer]:
    """A ControlService on this machine: `deployer` may act, `watcher` may read."""
    monkeypatch.setenv("TEST_TOKENS", f"deployer act {ACT}\nwatcher read {READ}\n")
    opened = ControlServer(desk, TokenGate("env:TEST_TOKENS"), "127.0.0.1:0", most_watchers=MOST_WATCHERS)
    opened.start()
    yield opened
    opened.stop()


@pytest.fixture
def channel(server: ControlServer) -> Iterator[grpc.Channel]:
    """As any client would open it."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as opened:
        yield opened


@pytest.fixture
def stubs(channel: grpc.Channel) -> Stubs:
    """Both services, as generated, without a token."""
    return Stubs(control_v1_grpc.ControlServiceStub(channel), tern_v1_grpc.TernStub(channel))
