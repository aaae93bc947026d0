"""What became of each statement: by its own evidence, whatever became of its operation (G10, G15)."""

from collections.abc import Sequence

import pytest

from tern.domain.control import Verb
from tern.domain.effect import Effect
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Action, PlannedChange
from tern.domain.outcome import Ok
from tern.domain.samples import Sample, TableSample
from tern.domain.statement import StatementAnswer
from tern.domain.states import State
from tern.flows.accept import settle_statements
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
    assert (world.state("A"), words(world)) == ("failed_retryable", ["unknown"] * 3)


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


def unknown(world: World) -> ScopeName:
    """The first is in; of the second nobody can tell, nor of the third."""
    begun(world)
    told(world, State.RUNNING, "completed", "running", "pending")
    told(world, State.FAILED)
    return world.name("A")


def settled_by(world: World) -> list[str]:
    with world.database.begin() as tx:
        return [
            row.settled_by
            for row in tx.execute(text("SELECT settled_by FROM table_changes ORDER BY ordinal"))
        ]


def test_a_person_settles_one_statement_of_unknown_effect(world: World) -> None:
    name = unknown(world)
    settle_statements(StatementAnswer(name, {2: Effect.DONE}, "eve", "the column is there"), world.ports)
    assert (words(world), settled_by(world)) == (["completed", "completed", "unknown"], ["engine", "eve", ""])
    event = world.events("A")[-1]
    assert (event.event, event.who, event.before, event.after) == (
        "statement_settled",
        "eve",
        "unknown",
        "completed",
    )
    assert event.why == "statement 2 is done: the column is there"
    settle_statements(StatementAnswer(name, {3: Effect.NOT_DONE}, "eve", "it is not"), world.ports)
    assert words(world) == ["completed", "completed", "skipped"]


def test_several_statements_are_settled_together_or_not_at_all(world: World) -> None:
    name = unknown(world)
    both = {2: Effect.DONE, 3: Effect.NOT_DONE}
    with pytest.raises(Refused):
        settle_statements(StatementAnswer(name, {**both, 1: Effect.NOT_DONE}, "eve", "I looked"), world.ports)
    assert words(world) == ["completed", "unknown", "unknown"]
    settle_statements(StatementAnswer(name, both, "eve", "I looked", dry_run=True), world.ports)
    assert words(world) == ["completed", "unknown", "unknown"]
    settle_statements(StatementAnswer(name, both, "eve", "I looked"), world.ports)
    assert words(world) == ["completed", "completed", "skipped"]
    with pytest.raises(Refused, match="nothing was said"):
        settle_statements(StatementAnswer(name, both, "eve", "I looked"), world.ports)


def test_a_statement_of_what_is_live_is_not_spoken_of(world: World) -> None:
    begun(world)
    with pytest.raises(Refused) as refusal:
        settle_statements(StatementAnswer(world.name("A"), {2: Effect.DONE}, "eve", "I looked"), world.ports)
    assert refusal.value.reason == "STILL_LIVE"
    with pytest.raises(NotFound):
        settle_statements(
            StatementAnswer(ScopeName(world.last, "Z"), {2: Effect.DONE}, "eve", "I looked"), world.ports
        )
