"""Who checks the checker of the scenarios: a true world that it accepts, and for each rule worlds that it rejects."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.store.sql import text
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests import invariants
from tests.faults.ledger import Effect
from tests.flows.conftest import database, make_world, world
from tests.flows.steps import PARALLEL, running
from tests.world import World

__all__ = ["database", "make_world", "world"]

RULES = {name for name in vars(invariants) if name.startswith("_assert_")}


def forge(world: World, statement: str) -> None:
    """Writes past the triggers, as no driver of Tern can."""
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text(statement))


def of(deployment: str, assignment: str) -> Callable[[World], None]:
    return lambda world: forge(
        world, f"UPDATE apply_operations SET {assignment} WHERE id = {world.operation(deployment).id}"
    )


def parent(assignment: str) -> Callable[[World], None]:
    return lambda world: forge(
        world, f"UPDATE applies SET {assignment} WHERE apply_identifier = '{world.last}'"
    )


def unguarded(assignment: str) -> Callable[[World], None]:
    """What the table itself would refuse."""

    def lie(world: World) -> None:
        for name in ("applies_only_single_ones_hold_a_remote_id", "applies_finished_ones_are_completed"):
            forge(world, f"ALTER TABLE applies DROP CONSTRAINT {name}")
        parent(assignment)(world)

    return lie


def event(change: str) -> Callable[[World], None]:
    """B's last arrow."""
    return lambda world: forge(world, f"{change} event = 'observe_stopped'")


def heard(at: str, method: str, operation: str, request: Any) -> Callable[[World], None]:
    """A call that the engine at that deployment notes; `operation` names an operation of the last apply."""
    return lambda world: world.engines[at].ledger.add_call(
        method, {"tern-operation": f"{world.last}/{operation}"}, request(world)
    )


def held(world: World) -> None:
    forge(
        world,
        "INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)"
        " SELECT a.environment, a.database, o.deployment, a.id, o.id FROM applies a"
        " JOIN apply_operations o ON o.apply_id = a.id WHERE o.deployment = 'A'",
    )


def started_again(world: World) -> None:
    (first,) = world.engines["A"].effects("apply")
    again = Effect(time.time(), "apply", "A-2", first.key, first.operation, is_duplicate=False)
    world.engines["A"].ledger.add_effect(again)


def a_stop_of(name: str) -> Callable[[World], Any]:
    return lambda world: tern_v1.StopRequest(apply_id=str(world.remote_id(name)))


FORGED: list[tuple[str, str, Callable[[World], None]]] = [
    ("_assert_ids_have_one_home", "the parent holds a child's id", unguarded("external_id = 'A-1'")),
    (
        "_assert_ids_have_one_home",
        "a state that needs an id has none",
        of("A", "engine_resume_context = NULL, state = 'waiting_for_cutover', completed_at = NULL"),
    ),
    ("_assert_ids_have_one_home", "completed without an id", of("A", "engine_resume_context = NULL")),
    (
        "_assert_nothing_was_sent_of_what_is_pending",
        "a pending one whose key may have started something",
        of("B", "engine_resume_context = NULL, state = 'pending', completed_at = NULL"),
    ),
    ("_assert_parent_is_a_function", "settled over live work", unguarded("state = 'completed'")),
    ("_assert_parent_is_a_function", "one stopped child decided", parent("state = 'running'")),
    ("_assert_targets_are_held_by_what_may_act", "a finished operation that keeps its target", held),
    (
        "_assert_targets_are_held_by_what_may_act",
        "a target that its own stopped work does not hold",
        lambda world: forge(world, "TRUNCATE target_reservations"),
    ),
    (
        "_assert_events_tell_the_story",
        "a state without its event",
        event("DELETE FROM apply_events WHERE"),
    ),
    (
        "_assert_events_tell_the_story",
        "an event from another state",
        event("UPDATE apply_events SET before = 'pending' WHERE"),
    ),
    (
        "_assert_events_tell_the_story",
        "an event into another state",
        event("UPDATE apply_events SET after = 'failed' WHERE"),
    ),
    (
        "_assert_ids_and_claims_are_told",
        "an id that no event names",
        lambda world: forge(world, "UPDATE apply_events SET detail = '{}' WHERE event = 'remote_id_stored'"),
    ),
    (
        "_assert_ids_and_claims_are_told",
        "a claim that no event names",
        of("A", "attempt = attempt + 1"),
    ),
    ("_assert_engines_were_asked_rightly", "one key, two effects", started_again),
    (
        "_assert_engines_were_asked_rightly",
        "a sibling's id",
        heard("A", "Stop", "A", a_stop_of("B")),
    ),
    (
        "_assert_engines_were_asked_rightly",
        "the right id for another operation",
        heard("A", "Stop", "B", a_stop_of("A")),
    ),
    (
        "_assert_engines_were_asked_rightly",
        "the public id",
        heard("A", "Stop", "A", lambda world: tern_v1.StopRequest(apply_id=world.last)),
    ),
    (
        "_assert_engines_were_asked_rightly",
        "an empty id",
        heard("A", "Cancel", "A", lambda _: tern_v1.CancelRequest()),
    ),
    (
        "_assert_engines_were_asked_rightly",
        "an Apply without a key",
        heard("A", "Apply", "A", lambda _: tern_v1.ApplyRequest()),
    ),
    (
        "_assert_engines_were_asked_rightly",
        "an Apply for somebody who isn't there",
        heard("A", "Apply", "Z", lambda _: tern_v1.ApplyRequest(idempotency_key="k")),
    ),
    (
        "_assert_engines_were_asked_rightly",
        "an Apply at a sibling's engine",
        heard("A", "Apply", "B", lambda _: tern_v1.ApplyRequest(idempotency_key="k")),
    ),
]


def judged(world: World) -> str:
    """The rule that rejects this world; empty for none."""
    try:
        invariants.assert_safe(world)
    except AssertionError as error:
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return next(name for name in reversed(frames) if name in RULES)
    return ""


@pytest.fixture
def true_world(world: World) -> World:
    """A completed, B stopped by its own id."""
    ids = running(world, "A", "B", policy=PARALLEL)
    world.engines["A"].set_state(ids["A"], "completed")
    world.run(until=lambda: world.state("A") == "completed")
    world.ask(Verb.STOP)
    world.run(until=lambda: world.apply_row().state == "stopped")
    return world


def test_a_true_world_is_accepted(true_world: World) -> None:
    assert judged(true_world) == ""


@pytest.mark.parametrize(("rule", "name", "lie"), FORGED, ids=[f"{rule} {name}" for rule, name, _ in FORGED])
def test_a_forged_world_is_rejected(
    true_world: World, rule: str, name: str, lie: Callable[[World], None]
) -> None:
    lie(true_world)
    assert judged(true_world) == rule


def test_every_rule_has_a_forgery() -> None:
    assert {rule for rule, _, _ in FORGED} == RULES
