"""Tern against an engine that somebody else made from the numbers of the public contract: no second service, no
database named beside an answer, one entry for each table, and words that nobody here knows.
"""

from collections.abc import Callable, Iterator

import pytest

from tern.domain.control import Verb
from tern.domain.holds import HoldKind
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Copy, Cutover, Policy
from tern.holding import held
from tern.store.reading import Reading
from tests.faults.foreign_contract import LATER, TODAY, Contract, ForeignEngine, serving
from tests.world import World

TABLE = {"namespace": "public", "table_name": "orders", "task_id": "t-1"}
TWO = (
    PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER),
    PlannedChange("public", "orders", "CREATE INDEX orders_note ON orders (note)", Action.OTHER),
)


@pytest.fixture(params=[TODAY, LATER], ids=["today", "later"])
def theirs(request: pytest.FixtureRequest) -> Iterator[ForeignEngine]:
    with serving(ForeignEngine(Contract(request.param, more_states={"STATE_DREAMING": 40}))) as engine:
        yield engine


@pytest.fixture
def abroad(make_world: Callable[..., World], theirs: ForeignEngine) -> World:
    """A world with one deployment more: `abroad`, whose engine is not ours."""
    world = make_world("A")
    world.add("abroad", theirs.address, 1, offers=False)
    return world


def look(world: World) -> None:
    """Whatever is due is looked at."""
    world.pass_time(60.0)
    world.do("poll", "abroad")
    world.answer_bells()


def holds_of(world: World) -> dict[HoldKind, str]:
    facts = Reading(world.database).apply(world.last)
    return {
        hold.kind: hold.detail
        for record, holds in held(facts)
        for hold in holds
        if record.deployment == "abroad"
    }


def test_a_rollout_from_its_beginning_to_its_end(abroad: World, theirs: ForeignEngine) -> None:
    abroad.apply("A", "abroad", policy=Policy(copy=Copy.PARALLEL))
    abroad.run(lambda: abroad.state("abroad") == "running")
    (request,) = theirs.requests("Apply")
    assert (request.database, request.target, request.type) == ("shop", "target-abroad", "postgres")
    assert [change.ddl for change in request.ddl_changes] == [TWO[0].ddl]
    assert abroad.remote_id("abroad") == "theirs-1"
    theirs.state = theirs.contract.number("completed")
    abroad.run(lambda: abroad.state("abroad") == "completed")
    assert {each.apply_id for each in theirs.requests("Progress")} == {"theirs-1"}


@pytest.mark.parametrize("word", ["catching_up", "checksumming", "post_checksum", "validating_branch"])
def test_every_way_of_being_under_way_is_running_in_its_own_word(
    word: str, abroad: World, theirs: ForeignEngine
) -> None:
    abroad.apply("abroad")
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.state = theirs.contract.number(word)
    look(abroad)
    row = abroad.operation("abroad")
    assert (row.state, row.poll_failures, row.summary) == ("running", 0, word.replace("_", " "))


def test_what_tries_again_by_itself_is_neither_lost_nor_failed(abroad: World, theirs: ForeignEngine) -> None:
    """For as long as it likes; and its trouble is shown."""
    abroad.apply("abroad")
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.state = theirs.contract.number("failed_retryable")
    theirs.said = {"error_message": "replica too far behind"}
    for _ in range(15):
        look(abroad)
    row = abroad.operation("abroad")
    assert (row.state, row.poll_failures, row.completed_at) == ("running", 0, None)
    assert row.summary == "its engine tries again by itself: replica too far behind"
    theirs.state, theirs.said = theirs.contract.number("completed"), {}
    look(abroad)
    assert abroad.state("abroad") == "completed"


def test_a_state_that_nobody_here_knows_writes_nothing_and_is_counted(
    abroad: World, theirs: ForeignEngine
) -> None:
    abroad.apply("abroad")
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.state = 40
    look(abroad)
    row = abroad.operation("abroad")
    assert (row.state, row.poll_failures) == ("running", 1)
    assert "the engine says state 40, which has no meaning here" in row.poll_error


def test_a_busy_target_is_waited_for_and_its_holder_is_named(abroad: World, theirs: ForeignEngine) -> None:
    """G13, of work that Tern knows nothing about: nothing is wrong with the change, so it has not failed."""
    conflict = theirs.contract.of("ApplyConflict", table="orders", holder_external_id="theirs-0")
    refusal = {"accepted": False, "error_message": "orders is taken by dana", "conflict": conflict}
    theirs.answers["Apply"] = lambda _request: theirs.contract.of("ApplyResponse", **refusal)
    abroad.apply("abroad")
    abroad.answer_bells()
    row = abroad.operation("abroad")
    assert (row.state, row.error_reason, row.answered_attempts) == ("pending", "TARGET_BUSY", 0)
    words = holds_of(abroad)[HoldKind.BACKOFF]
    said = "table orders is held by theirs-0; orders is taken by dana"
    assert words == f"its target is taken, says its engine: {said}; it is asked again"
    for _ in range(12):
        abroad.pass_time(80.0)
        abroad.sweep()
    # However often: a target that is taken uses no try up.
    assert len(theirs.requests("Apply")) > 10
    assert (abroad.state("abroad"), abroad.operation("abroad").answered_attempts) == ("pending", 0)
    del theirs.answers["Apply"]
    abroad.run(lambda: abroad.state("abroad") == "running")
    keys = [request.idempotency_key for request in theirs.requests("Apply")]
    assert len(set(keys)) == len(keys)
    assert abroad.operation("abroad").error_message == ""


def test_a_refusal_without_a_holder_is_the_end(abroad: World, theirs: ForeignEngine) -> None:
    theirs.answers["Apply"] = lambda _request: theirs.contract.of(
        "ApplyResponse", accepted=False, error_message="unsafe change"
    )
    abroad.apply("abroad")
    abroad.answer_bells()
    row = abroad.operation("abroad")
    assert (row.state, row.error_reason) == ("failed", "NOT_ACCEPTED")


def test_one_entry_for_a_table_says_of_no_statement_that_it_is_done(
    abroad: World, theirs: ForeignEngine
) -> None:
    """The first may be in and the second not: the engine has one entry for both."""

    def states() -> list[str]:
        facts = Reading(abroad.database).apply(abroad.last)
        return [each.state for each in facts.operations[0].tables]

    abroad.apply("abroad", changes=TWO)
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.tables = [{**TABLE, "status": "running", "rows_copied": 3, "rows_total": 10}]
    look(abroad)
    assert states() == ["running", "running"]
    theirs.tables = [{**TABLE, "status": "completed", "percent_complete": 100}]
    look(abroad)
    assert "completed" not in states()
    theirs.state = theirs.contract.number("completed")
    look(abroad)
    assert states() == ["completed", "completed"]


def statements(world: World) -> list[str]:
    facts = Reading(world.database).apply(world.last)
    return [each.state for each in facts.operations[0].tables]


def test_one_entry_for_a_table_says_of_no_statement_that_it_never_began(
    abroad: World, theirs: ForeignEngine
) -> None:
    """The least advanced stands for its table: the first may be in. A follow-up would run it again (G10)."""
    abroad.apply("abroad", changes=TWO)
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.tables = [{**TABLE, "status": "pending"}]
    theirs.state = theirs.contract.number("cancelled")
    look(abroad)
    assert (abroad.state("abroad"), statements(abroad)) == ("cancelled", ["unknown", "unknown"])


@pytest.mark.parametrize("changes", [TWO, TWO[:1]], ids=["two", "one"])
def test_a_table_that_failed_and_is_tried_again_has_not_failed(
    changes: tuple[PlannedChange, ...], abroad: World, theirs: ForeignEngine
) -> None:
    """What came of the next try nobody says: it may be in."""
    abroad.apply("abroad", changes=changes)
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.tables = [{**TABLE, "status": "failed"}]
    theirs.state = theirs.contract.number("failed_retryable")
    look(abroad)
    assert "failed" not in statements(abroad)
    theirs.tables = [{**TABLE, "status": "running"}]
    theirs.state = theirs.contract.number("running")
    look(abroad)
    assert set(statements(abroad)) == {"running"}
    theirs.tables = []
    theirs.state = theirs.contract.number("failed")
    look(abroad)
    assert (abroad.state("abroad"), set(statements(abroad))) == ("failed", {"unknown"})


def test_why_a_table_waits_is_shown(abroad: World, theirs: ForeignEngine) -> None:
    abroad.apply("abroad")
    abroad.run(lambda: abroad.state("abroad") == "running")
    theirs.tables = [
        {
            **TABLE,
            "status": "running",
            "throttled": True,
            "throttle_reason": "replica lag 12 s",
            "error_message": "hm",
        }
    ]
    look(abroad)
    (table,) = Reading(abroad.database).apply(abroad.last).operations[0].tables
    assert table.detail == "throttled: replica lag 12 s; hm"


def test_controls_carry_the_own_id_and_who_asked(abroad: World, theirs: ForeignEngine) -> None:
    abroad.apply("abroad", policy=Policy(cutover=Cutover.MANUAL))
    abroad.run(lambda: abroad.state("abroad") == "running")
    abroad.ask(Verb.STOP, "abroad", who="bob")
    abroad.answer_bells()
    theirs.state = theirs.contract.number("stopped")
    abroad.run(lambda: abroad.state("abroad") == "stopped")
    abroad.ask(Verb.START, "abroad", who="eve")
    abroad.run(lambda: bool(theirs.requests("Start")))
    theirs.state = theirs.contract.number("waiting_for_cutover")
    abroad.run(lambda: abroad.state("abroad") == "waiting_for_cutover")
    abroad.ask(Verb.CUTOVER, "abroad", who="ann")
    abroad.run(lambda: bool(theirs.requests("Cutover")))
    abroad.ask(Verb.CANCEL, "abroad", who="zoe")
    abroad.run(lambda: bool(theirs.requests("Cancel")))
    for method, who in {"Stop": "bob", "Start": "eve", "Cutover": "ann", "Cancel": "zoe"}.items():
        request = theirs.requests(method)[0]
        assert (request.apply_id, request.environment, request.caller) == ("theirs-1", "test", who)
