"""A broker that anybody can write to: every message is a bell at most, and none ends a worker (G7, G11)."""

from pathlib import Path
from typing import Any

import pytest
import redis

from tern.domain.control import Verb
from tern.store.sql import text
from tests.e2e.conftest import fleet
from tests.e2e.processes import Fleet, wait_for
from tests.flows.steps import FORWARD, MANUAL, methods, running, waiting
from tests.hostile.poison import about_operations, about_others, around_a_bell, envelope, queue_of
from tests.world import World

__all__ = ["fleet"]

QUEUES = ("control", "sweep", "dispatch", "poll")
TABLES = (
    "plans",
    "deployments",
    "control_requests",
    "control_deliveries",
    "target_reservations",
    "apply_events",
)
ACTING = FORWARD | {"Stop", "Cancel"}


def standing(world: World) -> dict[str, Any]:
    """All that is written on purpose; what a look refreshes is left out."""
    columns = (
        "id, state, fence, engine_resume_context, dispatch_key, dispatch_generation, attempt, completed_at,"
        " error_message"
    )
    with world.database.begin() as tx:
        found: dict[str, Any] = {
            table: sorted(map(str, tx.execute(text(f"SELECT * FROM {table}")).all())) for table in TABLES
        }
        found["operations"] = tx.execute(text(f"SELECT {columns} FROM apply_operations ORDER BY id")).all()
        found["applies"] = tx.execute(text("SELECT id, state, external_id FROM applies ORDER BY id")).all()
    found["acts"] = {name: methods(world, name, ACTING) for name in world.engines}
    return found


@pytest.fixture
def keys(broker_url: str) -> redis.Redis:
    return redis.Redis.from_url(broker_url)


def test_a_thousand_poisoned_messages_write_nothing_and_healthy_work_goes_on(
    fleet: Fleet, world: World, keys: redis.Redis, tmp_path: Path
) -> None:
    """G7, G11: forged ids, other people's scopes, pickles, wrappings that lie, and bells for wishes that nobody has."""
    ids = waiting(world, "A", "B", policy=MANUAL)
    multi = world.last
    own, sibling = int(world.operation("A").id), str(world.name("B"))
    running(world, "C", policy=MANUAL)
    stranger, name = str(world.name("C")), f"{multi}/A"
    before = standing(world)
    leaves = tmp_path / "pwned"
    worker = fleet.worker()
    poison = [
        *about_operations(own, name, sibling, stranger),
        *about_others(),
        *around_a_bell(own, name, leaves),
        # Sound bells, for wishes that nobody has: a message is no permission.
        *((f"tern.operation.{verb}", envelope(f"tern.operation.{verb}", {"operation_id": str(own), "scope": name}))
          for verb in ("dispatch", "stop", "start", "cutover", "cancel") for _ in range(3)),
    ]  # fmt: skip
    for task, message in poison:
        keys.lpush(queue_of(task), message)
    wait_for(lambda: not any(keys.llen(queue) for queue in QUEUES), fleet.picture)
    wait_for(lambda: not keys.hlen("unacked"), lambda: str(keys.hgetall("unacked"))[:3000])
    assert worker.is_running
    assert not leaves.exists()
    assert len(poison) > 500
    assert standing(world) == before
    world.engines["C"].set_state(str(world.remote_id("C")), "completed")
    world.ask(Verb.CUTOVER, "A", "B", apply_id=multi)
    wait_for(
        lambda: {world.state(n, multi) for n in "AB"} == {"completed"},
        lambda: world.picture() + fleet.picture(),
    )
    assert {n: world.remote_id(n, multi) for n in "AB"} == ids
    assert worker.terminate() == 0
