"""What became of each statement: by its own evidence, whatever became of its operation (G10, G15)."""

from collections.abc import Sequence

import pytest

from tern.domain.control import Verb
from tern.domain.identity import RemoteId
from tern.domain.model import Action, PlannedChange
from tern.domain.outcome import Ok
from tern.domain.samples import Sample, TableSample
from tern.domain.states import State
from tern.ports import Looked, Poll, Resolved
from tern.store.sql import text
from tests.faults.behaviour import lose_answer, not_accepted
from tests.flows.steps import PARALLEL, settle
from tests.world import World

STATEMENTS = tuple(
    PlannedChange("public", "orders", f"ALTER TABLE orders ADD COLUMN {name} text", Action.ALTER)
    for name in ("one", "two", "three")
)


def begun(world: World, *names: str) -> None:
    """Three statements, handed over."""
    world.apply(*(names or ("A",)), policy=PARALLEL, changes=STATEMENTS)
    world.answer_bells()


def told(world: World, state: State, *words: str, name: str = "A") -> None:
    """The engine says so of the operation, and of its first statements."""
    look = world.store.begin_look(world.operation(name).id, world.name(name))
    assert isinstance(look, Poll)
    tables = tuple(
        TableSample(each.namespace, each.table_name, each.ddl, word)
        for each, word in zip(STATEMENTS, words, strict=False)
    )
    sample = Sample(RemoteId(str(world.remote_id(name))), state, state.value, tables=tables, revision=99)
    world.store.record_looks(look, [Looked(look.cursors[0], Ok(sample))])


def words(world: World, name: str = "A") -> Sequence[str]:
    with world.database.begin() as tx:
        rows = tx.execute(
            text("SELECT state FROM table_changes WHERE operation_id = :id ORDER BY ordinal"),
            {"id": world.operation(name).id},
        )
        return [row.state for row in rows]


def test_of_three_the_second_failed_and_the_third_was_never_begun(world: World) -> None:
    begun(world)
    told(world, State.FAILED, "completed", "failed", "pending")
    assert (world.state("A"), words(world)) == ("failed", ["completed", "failed", "skipped"])


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED])
def test_what_the_last_sample_does_not_settle_is_unknown(world: World, end: State) -> None:
    """That it had not begun when somebody looked before says nothing about the end."""
    begun(world)
    told(world, State.RUNNING, "completed", "running", "pending")
    assert words(world) == ["completed", "running", "pending"]
    told(world, end)
    assert (world.state("A"), words(world)) == (end.value, ["completed", "unknown", "unknown"])


def test_a_statement_left_in_the_middle_is_unknown(world: World) -> None:
    begun(world)
    told(world, State.CANCELLED, "completed", "copying_rows", "pending")
    assert words(world) == ["completed", "unknown", "skipped"]


def test_what_an_engine_completed_as_a_whole_is_done_statement_by_statement(world: World) -> None:
    begun(world)
    told(world, State.COMPLETED)
    assert words(world) == ["completed"] * 3


def test_what_is_taken_back_as_a_whole_is_in_no_more(world: World) -> None:
    begun(world)
    told(world, State.REVERT_WINDOW, *["completed"] * 3)
    told(world, State.REVERTED)
    assert words(world) == ["reverted"] * 3


def test_an_engine_that_tried_a_statement_again_has_the_last_word(world: World) -> None:
    begun(world)
    told(world, State.RUNNING, "completed", "failed", "pending")
    told(world, State.COMPLETED, *["completed"] * 3)
    assert words(world) == ["completed"] * 3


def test_a_person_who_calls_it_ended_says_nothing_about_its_statements(world: World) -> None:
    """Whatever was seen of them before: what had not begun then may have begun since."""
    begun(world)
    told(world, State.RUNNING, "completed", "running", "pending")
    world.write("UPDATE apply_operations SET state = 'uncertain'")
    world.resolve("A", Resolved.ENDED)
    assert (world.state("A"), words(world)) == ("failed", ["completed", "unknown", "unknown"])


def test_what_its_engine_refused_was_never_begun(world: World) -> None:
    world.engines["A"].script("Apply", not_accepted("no such table"))
    begun(world)
    assert (world.state("A"), words(world)) == ("failed", ["skipped"] * 3)
    world.ask(Verb.RETRY, "A")
    settle(world)
    assert words(world) == ["running"] * 3


def test_what_was_never_sent_waits_while_it_may_still_run(world: World) -> None:
    """G8."""
    world.apply("A", "B", policy=PARALLEL, changes=STATEMENTS)
    world.ask(Verb.STOP, "A")
    settle(world)
    assert (world.state("A"), words(world)) == ("stopped", ["pending"] * 3)
    world.ask(Verb.CANCEL, "A")
    settle(world)
    assert (world.state("A"), words(world)) == ("cancelled", ["skipped"] * 3)


def test_a_stopped_operation_s_statements_stand_as_its_engine_says(world: World) -> None:
    begun(world)
    told(world, State.RUNNING, "completed", "running", "pending")
    told(world, State.STOPPED, "completed", "stopped", "pending")
    assert (world.state("A"), words(world)) == ("stopped", ["completed", "stopped", "pending"])


def test_what_a_person_called_ended_stays_unknown_when_it_is_tried_again(world: World) -> None:
    """Until its engine has spoken of it."""
    world.engines["A"].script("Apply", lose_answer())
    begun(world)
    world.write("UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL")
    world.pass_time(11)
    world.resolve("A", Resolved.ENDED)
    assert words(world) == ["unknown"] * 3
    world.ask(Verb.RETRY, "A")
    world.store.settle_uncalled(world.last, 10)
    assert (world.state("A"), words(world)) == ("pending", ["unknown"] * 3)


OLD_END = (
    "UPDATE table_changes SET state = :state, eta_seconds = NULL WHERE operation_id = :id"
    " AND state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'skipped')"
)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_worker_of_the_version_before_writes_an_end_over_nothing_that_nobody_knows(
    world: World, end: str
) -> None:
    """It writes the operation first, and then its state over every statement that was not settled."""
    begun(world)
    told(world, State.RUNNING, "completed", "running", "pending")
    key = world.operation("A").id
    world.write(
        "UPDATE apply_operations SET state = :state, completed_at = tern_clock() WHERE id = :id",
        state=end,
        id=key,
    )
    world.write(OLD_END, state=end, id=key)
    assert words(world) == ["completed", "unknown", "unknown"]


def test_a_worker_of_the_version_before_keeps_what_an_engine_says_of_a_statement(world: World) -> None:
    """It writes that before the operation's own end."""
    begun(world)
    key = world.operation("A").id
    world.write("UPDATE table_changes SET state = 'failed' WHERE operation_id = :id AND ordinal = 1", id=key)
    world.write(
        "UPDATE apply_operations SET state = 'failed', completed_at = tern_clock() WHERE id = :id", id=key
    )
    world.write(OLD_END, state="failed", id=key)
    assert words(world) == ["unknown", "failed", "unknown"]


def test_a_worker_of_the_version_before_stops_and_revives_what_was_never_begun(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL, changes=STATEMENTS)
    key = world.operation("A").id
    world.write("UPDATE apply_operations SET state = 'stopped' WHERE id = :id", id=key)
    world.write(OLD_END, state="stopped", id=key)
    assert words(world) == ["pending"] * 3
    world.write(
        "UPDATE apply_operations SET state = 'failed', completed_at = tern_clock() WHERE id = :id", id=key
    )
    world.write(OLD_END, state="failed", id=key)
    assert words(world) == ["skipped"] * 3
    world.write("UPDATE apply_operations SET state = 'pending', completed_at = NULL WHERE id = :id", id=key)
    assert words(world) == ["pending"] * 3
