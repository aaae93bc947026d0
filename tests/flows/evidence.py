"""What scenarios about evidence share: worlds of which nobody has declared anything, and what was written down."""

from collections.abc import Callable
from typing import Any

import pytest

from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Capabilities
from tern.ports import Resolved
from tern.store.sql import text
from tests.flows.steps import (
    sighting,
)
from tests.world import World

MakeWorld = Callable[..., World]
EVERYTHING = Capabilities(resolve=True, batch_progress=True, preview=True)
NOTHING = Capabilities(resolve=False, batch_progress=False, preview=False)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A, B and C, of whose engines nobody has declared anything."""
    world = make_world("A", "B", "C")
    world.undeclared()
    return world


@pytest.fixture
def one_engine(make_world: MakeWorld) -> World:
    """A and B, two deployments of one engine, of which nobody has declared anything."""
    world = make_world("A")
    world.engines["B"] = world.engines["A"]
    world.add("B", world.engines["A"].address, 1, offers=True)
    world.undeclared()
    return world


def rows(world: World, statement: str, **values: Any) -> list[Any]:
    with world.database.begin() as tx:
        return tx.execute(text(statement), values).all()


def outstanding(world: World) -> list[tuple[str, str | None, str, bool]]:
    """Deployment, id, why and whether it is still open, of everything that was written down."""
    return [
        (row.deployment, row.remote_id, row.why, row.settled_at is None)
        for row in rows(world, "SELECT * FROM outstanding_calls WHERE why <> 'let_go' ORDER BY id")
    ]


def holders(world: World) -> dict[str, str]:
    """Whose each id in use is."""
    return {
        row.remote_id: row.deployment
        for row in rows(
            world,
            "SELECT r.remote_id, o.deployment FROM remote_ids r JOIN apply_operations o ON o.id = r.operation_id",
        )
    }


def resolve(
    world: World,
    found: Resolved,
    name: ScopeName,
    remote_id: str | None = None,
    taken_from: ScopeName | None = None,
) -> None:
    given = None if remote_id is None else RemoteId(remote_id)
    seen = sighting(world, name, given, taken_from) if given else None
    world.store.resolve_uncertain(name, found, given, "eve", "I looked", taken_from=taken_from, sighting=seen)


def looks(world: World, name: str) -> int:
    return len(world.engines[name].calls("BatchProgress")) + len(world.engines[name].calls("Progress"))
