"""Observation: what a sample may change, what it never may, and what is said when there is none (G2, G10, G12)."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.identity import RemoteId
from tern.domain.model import Action, PlannedChange
from tern.domain.outcome import Ok, Outcome, Unknown
from tern.domain.samples import Sample, TableSample
from tern.domain.states import State
from tern.domain.timing import LOST_CONTACT_AFTER
from tern.flows.poll import poll
from tern.ports import Looked, NotClaimed, Poll
from tern.store.sql import text
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.faults.behaviour import fail
from tests.flows.steps import (
    PARALLEL,
    drive,
    engine_says,
    look,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    waiting,
    wishes,
)
from tests.world import World

TIMES = frozenset({"next_poll_at", "sampled_at"})


def row(world: World, name: str) -> dict[str, Any]:
    return dict(world.operation(name)._mapping)


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {column for column in before if before[column] != after[column]}


def change(world: World, name: str) -> Any:
    """The operation's only statement."""
    return world.one("SELECT * FROM table_changes WHERE operation_id = :id", id=world.operation(name).id)


def seen(world: World, name: str, outcome: Outcome[Sample]) -> None:
    """A look that has this outcome, whatever an engine would say."""
    begun = world.store.begin_look(world.operation(name).id, world.name(name))
    assert isinstance(begun, Poll)
    world.store.record_looks(begun, [Looked(begun.cursors[0], outcome)])


def sample(world: World, name: str, state: State | None, **fields: Any) -> Ok[Sample]:
    remote_id = RemoteId(str(world.remote_id(name)))
    return Ok(Sample(remote_id, state, said=str(state or "no_active_change"), **{"revision": 99, **fields}))


def statement(**fields: Any) -> TableSample:
    ddl = "ALTER TABLE orders ADD COLUMN note text"
    return TableSample(
        **{"namespace": "public", "table_name": "orders", "ddl": ddl, "status": "running", **fields}
    )


@pytest.mark.parametrize(
    "number", [tern_v1.STATE_NO_ACTIVE_CHANGE, 77], ids=["no_active_change", "unknown_number"]
)
def test_a_state_without_a_meaning_is_counted_and_changes_nothing(world: World, number: int) -> None:
    """PO1 (G10): no state, no cursor, no statement is written; the words are shown."""
    running(world, "A", "B")
    before, statement_before = row(world, "A"), change(world, "A")

    def says(turn: Any) -> Any:
        answer = turn.perform()
        for entry in answer.entries:
            entry.revision = 99
            entry.progress.state = number
        return answer

    world.engines["A"].always("BatchProgress", says)
    world.write("UPDATE apply_operations SET progress_revision = 0")
    look(world, "A")
    look(world, "A")
    after = row(world, "A")
    assert (after["state"], after["poll_failures"]) == ("running", 2)
    assert "no meaning here" in after["poll_error"]
    assert after["sampled_at"] == before["sampled_at"]
    assert after["progress_revision"] == 0
    assert change(world, "A") == statement_before
    world.engines["A"].always("BatchProgress", None)
    look(world, "A")
    assert (row(world, "A")["poll_failures"], row(world, "A")["poll_error"]) == (0, "")


def test_an_id_the_engine_does_not_know_is_uncertain_and_never_dispatched_again(world: World) -> None:
    """PO2 (G4, G10): lost, or the wrong engine; a definite sample brings it back."""
    ids = running(world, "A", "B")
    job = world.engines["A"].jobs.by_id.pop(ids["A"])
    world.pass_time(3)
    world.sweep()
    operation = world.operation("A")
    assert (operation.state, operation.error_reason) == ("uncertain", "REMOTE_ID_UNKNOWN")
    assert ids["A"] in operation.error_message
    for _ in range(3):
        world.pass_time(31)
        world.sweep()
    assert methods(world, "A") == ["Apply"]
    assert world.remote_id("A") == ids["A"]
    assert world.apply_row().state == "running"
    world.engines["A"].jobs.by_id[ids["A"]] = job
    world.pass_time(31)
    world.sweep()
    operation = world.operation("A")
    assert (operation.state, operation.error_message, operation.error_reason) == ("running", "", "")


def test_nine_failed_looks_and_a_good_one_leave_nothing(world: World) -> None:
    """PO3: one success clears the count."""
    running(world, "A", "B")
    world.engines["A"].script("BatchProgress", *[fail("UNAVAILABLE")] * 9)
    for _ in range(9):
        look(world, "A")
    assert row(world, "A")["poll_failures"] == 9
    look(world, "A")
    assert (row(world, "A")["poll_failures"], row(world, "A")["poll_error"]) == (0, "")


def test_ten_failed_looks_are_lost_contact_and_stop_nobody(world: World) -> None:
    """PO3 (G10): shown with the age of the last sample, polled slowly, state unchanged, remote not stopped."""
    running(world, "A", "B")
    sampled_at = row(world, "A")["sampled_at"]
    world.engines["A"].always("BatchProgress", fail("UNAVAILABLE", message="nobody home"))
    for _ in range(LOST_CONTACT_AFTER):
        look(world, "A")
    after = row(world, "A")
    assert (after["state"], after["poll_failures"]) == ("running", LOST_CONTACT_AFTER)
    assert "nobody home" in after["poll_error"]
    assert after["sampled_at"] == sampled_at
    until = world.one(
        "SELECT extract(epoch FROM next_poll_at - tern_clock())::float AS s FROM apply_operations"
        " WHERE deployment = 'A'"
    ).s
    assert until > 20
    assert methods(world, "A") == ["Apply"]
    world.engines["A"].always("BatchProgress", None)
    world.pass_time(31)
    world.sweep()
    assert row(world, "A")["poll_failures"] == 0


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "DATA_LOSS"])
def test_no_code_of_a_progress_call_fails_an_operation(world: World, code: str) -> None:
    """PO3: a refusal loses contact at once, and no more than that."""
    running(world, "A", "B")
    world.engines["A"].always("BatchProgress", fail(code))
    world.engines["A"].always("Progress", fail(code))
    look(world, "A")
    assert row(world, "A")["state"] == "running"
    assert row(world, "A")["poll_failures"] == LOST_CONTACT_AFTER
    assert world.apply_row().state == "running"


def test_progress_never_goes_backwards(world: World) -> None:
    """PO4: a lower rank is no step back."""
    waiting(world, "A", "B")
    engine_says(world, "A", "running")
    assert world.state("A") == "waiting_for_cutover"
    engine_says(world, "A", "completed")
    engine_says(world, "A", "running")
    assert world.state("A") == "completed"


def test_stopped_by_us_and_completed_there_is_completed(world: World) -> None:
    """PO4 (G10): the engine was faster than the stop that it had taken."""
    stopped(world, "A", "B")
    engine_says(world, "A", "completed")
    assert world.state("A") == "completed"
    assert change(world, "A").state == "completed"


def test_completed_means_all_of_it(world: World) -> None:
    """PO4: whatever the last words about its statements were."""
    running(world, "A", "B")
    late = statement(percent=40, rows_copied=400, rows_total=1000, status="running")
    seen(world, "A", sample(world, "A", State.COMPLETED, tables=(late,)))
    found = change(world, "A")
    assert (found.state, found.percent, found.rows_copied) == ("completed", 100, 1000)


def test_a_statement_that_is_through_stays_through(world: World) -> None:
    """PO4: of two statements the first is done while the second is copied."""
    running(world, "A", "B")
    seen(world, "A", sample(world, "A", State.RUNNING, tables=(statement(status="completed", percent=100),)))
    seen(world, "A", sample(world, "A", State.RUNNING, tables=(statement(status="running", percent=10),)))
    assert (change(world, "A").state, change(world, "A").percent) == ("completed", 100)


def test_progress_is_taken_over_in_whatever_order_and_groups_its_engine_tells_it(world: World) -> None:
    """PO5: of statements on a, a and b an engine that works by the table tells of b first, and names no namespace."""
    statements = [
        ("a", "ALTER TABLE a ADD x int"),
        ("a", "ALTER TABLE a ADD y int"),
        ("b", "ALTER TABLE b ADD z int"),
    ]
    changes = [PlannedChange("public", table, ddl, Action.ALTER) for table, ddl in statements]
    world.apply("A", "B", policy=PARALLEL, changes=changes)
    world.answer_bells()
    both = "ALTER TABLE a ADD x int, ADD y int"
    entries = (TableSample("", "b", "", "running", 70), TableSample("", "a", both, "running", 30))
    seen(world, "A", sample(world, "A", State.RUNNING, tables=entries))
    with world.database.begin() as tx:
        found = tx.execute(
            text("SELECT state, percent FROM table_changes WHERE operation_id = :id ORDER BY ordinal"),
            {"id": world.operation("A").id},
        ).all()
    assert [tuple(each) for each in found] == [("running", 30), ("running", 30), ("running", 70)]


def test_omitted_totals_keep_the_old_ones(world: World) -> None:
    """PO5."""
    running(world, "A", "B")
    known = statement(
        percent=40, rows_copied=400, rows_total=1000, checksum_rows_checked=5, checksum_rows_total=9
    )
    seen(world, "A", sample(world, "A", State.RUNNING, tables=(known,)))
    seen(world, "A", sample(world, "A", State.RUNNING, tables=(statement(),)))
    found = change(world, "A")
    assert (found.percent, found.rows_copied, found.rows_total) == (40, 400, 1000)
    assert (found.checksum_rows_checked, found.checksum_rows_total) == (5, 9)


def test_a_stale_stopped_in_the_grace_of_a_start_is_dropped_with_its_cursor(world: World) -> None:
    """PO6: taken before the start took effect; it must be seen again."""
    stopped(world, "A", "B")
    world.engines["A"].ignore("Start")
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    look(world, "A")
    after = row(world, "A")
    assert (after["state"], after["progress_revision"]) == ("resuming", 0)
    engine_says(world, "A", "running")
    assert world.state("A") == "running"
    assert row(world, "A")["progress_revision"] > 0


def test_an_unchanged_cursor_writes_times_only(world: World) -> None:
    """§8: what did not change costs nothing but its next time."""
    running(world, "A", "B")
    before, events = row(world, "A"), len(world.events())
    look(world, "A")
    after = row(world, "A")
    assert changed(before, after) <= TIMES | {"looks", "sampled_look"}
    assert after["sampled_look"] == after["looks"] == before["looks"] + 1
    assert after["sampled_at"] > before["sampled_at"]
    assert len(world.events()) == events


def test_every_half_minute_is_read_in_full(world: World) -> None:
    """§8: an engine whose cursor is wrong deceives us no longer than that."""
    running(world, "A", "B")
    begun = world.store.begin_poll("A")
    assert isinstance(begun, Poll)
    world.store.record_looks(begun, [])
    world.pass_time(31)
    begun = world.store.begin_poll("A")
    assert isinstance(begun, Poll)
    assert [cursor.revision for cursor in begun.cursors] == [0]


def test_a_control_resets_the_cursor(world: World) -> None:
    """§8: what was seen before it must be seen again after it."""
    running(world, "A", "B")
    assert row(world, "A")["progress_revision"] > 0
    world.engines["A"].ignore("Stop")
    world.ask(Verb.STOP, "A")
    drive(world, Verb.STOP, "A")
    assert row(world, "A")["progress_revision"] == 0


@pytest.mark.parametrize("what", ["fence", "remote id"])
def test_an_answer_that_was_overtaken_leaves_the_row_untouched(world: World, what: str) -> None:
    """S7 (G2, G12): a control, or another id, came between question and answer."""
    running(world, "A", "B")
    engine_says(world, "A", "waiting_for_cutover", looks=False)
    between: Callable[[], Any] = lambda: world.write(  # noqa: E731
        "UPDATE apply_operations SET fence = fence + 1 WHERE deployment = 'A'"
    )
    if what == "remote id":
        world.write("DROP TRIGGER apply_operations_are_guarded ON apply_operations")
        between = lambda: world.write(  # noqa: E731
            "UPDATE apply_operations SET engine_resume_context = 'another' WHERE deployment = 'A'"
        )
    before = row(world, "A")
    look(world, "A", meanwhile(world.ports, "record_looks", between))
    assert changed(before, row(world, "A")) <= {"fence", "engine_resume_context"}


def test_a_stop_between_question_and_answer_is_not_undone_by_the_answer(world: World) -> None:
    """G12: the answer `waiting` was true before the stop."""
    running(world, "A", "B")
    engine_says(world, "A", "waiting_for_cutover", looks=False)
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    look(world, "A", meanwhile(world.ports, "record_looks", lambda: drive(world, Verb.STOP, "A")))
    assert world.state("A") == "running"
    settle(world)
    assert (world.state("A"), wishes(world)) == ("stopped", [("A", "stop", "acknowledged")])


def test_a_row_that_somebody_holds_is_left_to_the_next_poll(world: World) -> None:
    """A frozen driver of one operation does not keep its neighbours from being seen."""
    first = running(world, "A", "B")
    assert first
    with world.database.begin() as tx:
        tx.execute(text("SELECT 1 FROM apply_operations WHERE deployment = 'A' FOR NO KEY UPDATE"))
        before = time.monotonic()
        look(world, "A")
        assert time.monotonic() - before < 2
    look(world, "A")


def test_a_poll_of_a_deployment_is_one_question_for_all_that_is_due(world: World) -> None:
    """§8: cost follows deployments and what is due."""
    ids = running(world, "A", "B")
    asked = len(world.engines["A"].calls("BatchProgress"))
    world.pass_time(3)
    poll("A", world.ports)
    questions = world.engines["A"].calls("BatchProgress")[asked:]
    assert [[cursor.apply_id for cursor in call.request.cursors] for call in questions] == [[ids["A"]]]  # type: ignore[attr-defined]
    # nothing is due: nobody is asked
    poll("A", world.ports)
    assert len(world.engines["A"].calls("BatchProgress")) == asked + 1


def test_two_polls_of_a_deployment_at_once_ask_once(world: World) -> None:
    """§8: a lease, not a lock."""
    running(world, "A", "B")
    world.pass_time(3)
    begun = world.store.begin_poll("A")
    assert isinstance(begun, Poll)
    assert isinstance(world.worker("other").store.begin_poll("A"), NotClaimed)
    # whoever took the lease died; after a while another one polls
    world.pass_time(16)
    assert isinstance(world.worker("other").store.begin_poll("A"), Poll)


def test_a_stop_nobody_asked_for_is_taken_as_said(world: World) -> None:
    """§8: with an event that names the engine."""
    running(world, "A", "B")
    engine_says(world, "A", "stopped")
    event = world.events("A")[-1]
    assert (world.state("A"), event.event, event.who) == ("stopped", "observe_stopped", "engine:A")


def test_a_failure_is_written_with_the_engines_words(world: World) -> None:
    """G10, G15."""
    running(world, "A", "B")
    engine_says(world, "A", "failed", error="duplicate key value")
    operation = world.operation("A")
    assert (operation.state, operation.error_message, operation.error_reason) == (
        "failed",
        "duplicate key value",
        "ENGINE_FAILED",
    )
    assert operation.next_poll_at is None


def test_a_failed_look_writes_no_state_and_no_cursor(world: World) -> None:
    """G10: only the count and the words."""
    running(world, "A", "B", policy=PARALLEL)
    before = row(world, "A")
    seen(world, "A", Unknown("no usable answer", "", "UNAVAILABLE"))
    counted = {"unheard_since", "unheard_tries", "unheard_look"}
    assert changed(before, row(world, "A")) == {
        "next_poll_at",
        "poll_failures",
        "poll_error",
        "looks",
        *counted,
    }
    assert open_wishes(world) == []


def test_a_poll_that_was_given_up_does_not_give_back_another_s_lease(world: World) -> None:
    """G12: its holder was frozen; somebody else polls meanwhile, and nobody else beside that one."""
    running(world, "A", "B")
    frozen = world.store.begin_poll("A")
    assert isinstance(frozen, Poll)
    world.pass_time(16)
    assert isinstance(world.worker("w2").store.begin_poll("A"), Poll)
    world.store.record_looks(frozen, [])
    assert isinstance(world.worker("w3").store.begin_poll("A"), NotClaimed)


def copied(world: World, rows: int) -> Ok[Sample]:
    return sample(
        world, "A", State.RUNNING, tables=(statement(rows_copied=rows, rows_total=1000),), revision=rows
    )


def kept(world: World) -> tuple[Any, ...]:
    """What an older sample must not take back."""
    operation, found = world.operation("A"), change(world, "A")
    return operation.progress_revision, operation.sampled_at, operation.next_poll_at, found.rows_copied


def test_a_poll_that_was_frozen_writes_nothing_over_the_next_one(world: World) -> None:
    """§11, Many: each write proves the lease; here its holder wakes up with an older answer."""
    running(world, "A", "B")
    world.pass_time(3)
    frozen = world.store.begin_poll("A")
    assert isinstance(frozen, Poll)
    world.pass_time(16)
    begun = world.worker("w2").store.begin_poll("A")
    assert isinstance(begun, Poll)
    world.worker("w2").store.record_looks(begun, [Looked(begun.cursors[0], copied(world, 900))])
    before = kept(world)
    # Nothing but its lease tells it from the other.
    (cursor,) = (replace(each, looks=None) for each in frozen.cursors)
    late = replace(frozen, cursors=(cursor,))
    assert world.store.record_looks(late, [Looked(cursor, copied(world, 100))]) == ()
    assert kept(world) == before
    assert before[3] == 900


def test_what_a_frozen_poll_has_seen_moves_nothing(world: World) -> None:
    """Not an operation's state either, and no target is given back by it."""
    running(world, "A", "B")
    world.pass_time(3)
    frozen = world.store.begin_poll("A")
    assert isinstance(frozen, Poll)
    world.pass_time(16)
    assert isinstance(world.worker("w2").store.begin_poll("A"), Poll)
    world.store.record_looks(frozen, [Looked(frozen.cursors[0], sample(world, "A", State.FAILED))])
    assert world.state("A") == "running"


def test_a_poll_whose_lease_is_over_and_was_taken_by_nobody_still_counts(world: World) -> None:
    """A definite answer is always written (G10)."""
    running(world, "A", "B")
    world.pass_time(3)
    late = world.store.begin_poll("A")
    assert isinstance(late, Poll)
    world.pass_time(16)
    world.store.record_looks(late, [Looked(late.cursors[0], copied(world, 100))])
    assert change(world, "A").rows_copied == 100


@pytest.mark.parametrize("first", ["poll", "look"])
def test_of_two_looks_at_once_the_first_that_is_written_stays(world: World, first: str) -> None:
    """Which of them was answered later nobody knows; the one after a call needs no lease."""
    running(world, "A", "B")
    world.pass_time(3)
    polled = world.store.begin_poll("A")
    looked = world.store.begin_look(world.operation("A").id, world.name("A"))
    assert isinstance(polled, Poll)
    assert isinstance(looked, Poll)
    order = (polled, looked) if first == "poll" else (looked, polled)
    world.store.record_looks(order[0], [Looked(order[0].cursors[0], copied(world, 900))])
    before = kept(world)
    world.store.record_looks(order[1], [Looked(order[1].cursors[0], copied(world, 100))])
    assert kept(world) == before


def test_an_engine_that_is_back_is_not_met_by_a_herd(world: World) -> None:
    """Its first healthy answer brings every retry forward, but not all to the same instant."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    waits = []
    for _ in range(12):
        world.write("UPDATE apply_operations SET next_attempt_at = tern_clock() + interval '60 s'")
        world.store.expedite_retries("A")
        waits.append(
            world.one(
                "SELECT extract(epoch FROM next_attempt_at - tern_clock())\\:\\:float AS s FROM apply_operations"
            ).s
        )
    assert max(waits) <= 2
    assert max(waits) - min(waits) > 0.2
