"""The migration of control requests on a database with live applies, up and down, with workers of both versions."""

import pytest
from alembic.script import ScriptDirectory
from psycopg.errors import UniqueViolation

from tern.domain.control import Receipt, Verb
from tern.store.schema import alembic_config, migrate
from tests.faults.behaviour import fail, not_accepted
from tests.flows.steps import drive, running, settle, wishes
from tests.world import World

REVISION = "0003"


def steps_down() -> str:
    """From the newest revision to the one before this migration."""
    script = ScriptDirectory.from_config(alembic_config())
    newer = [each.revision for each in script.walk_revisions()]
    return f"-{newer.index(REVISION) + 1}"


def test_live_requests_survive_the_way_down_and_up(world: World) -> None:
    """Two stops around a start have one place in the older schema: the last word keeps it. Nothing else is lost."""
    running(world, "A", "B")
    world.engines["A"].always("Stop", fail("UNAVAILABLE"))
    world.ask(Verb.STOP, "A")
    drive(world, Verb.STOP, "A")
    world.forget_bells()
    world.ask(Verb.START, "A")
    world.ask(Verb.STOP, "A")
    migrate(world.database, steps_down())
    assert wishes(world) == [("A", "stop", "moot"), ("A", "start", "pending"), ("A", "stop", "pending")]
    migrate(world.database)
    world.engines["A"].always("Stop", None)
    settle(world)
    assert (world.state("A"), world.state("B")) == ("stopped", "running")


def test_a_refusal_that_a_worker_of_the_version_before_writes_is_readable(world: World) -> None:
    """It counts, and says no more: a start takes the stop back all the same."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    world.write("UPDATE control_deliveries SET attempts = attempts + 1, called_at = tern_clock()")
    waits = world.delivery("A", Verb.STOP)
    assert waits.attempts != waits.refused_attempt
    world.write("UPDATE control_deliveries SET refusals = refusals + 1, engine_words = 'no'")
    world.engines["A"].always("Stop", not_accepted("no"))
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ACCEPTED}
    world.answer_bells()
    assert wishes(world) == [("A", "stop", "moot"), ("A", "start", "acknowledged")]


def test_what_a_worker_of_the_version_before_asks_for_stands_once(world: World) -> None:
    """Its insert knows of no contrary, so that one open request of a verb is all there is room for."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    with pytest.raises(UniqueViolation):
        world.write(
            "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
            " SELECT request_id, apply_id, operation_id, verb FROM control_deliveries"
        )
