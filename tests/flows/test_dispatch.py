"""Remote identity in a dispatch: whose id is it, where does it live, when is Apply called (scenarios D1-D18)."""

from collections.abc import Callable

import pytest
from psycopg import IntegrityError

from tern.domain.control import Receipt, Verb
from tern.domain.identity import dispatch_key
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S
from tern.ports import Resolved
from tern.store.sql import text
from tests.faults.behaviour import Turn, altered, answer, fail, lose_answer, not_accepted, then
from tests.faults.cut import Killed, interrupted, kill
from tests.faults.fake_engine import FakeEngine
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)
MANUAL = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL)
MakeWorld = Callable[..., World]


def ask_to_dispatch(world: World, deployment: str) -> None:
    """A dispatch message, whatever the rows say."""
    operation = world.operation(deployment)
    world.do("dispatch", operation.id, str(world.name(deployment)))


def applies_of(engine: FakeEngine) -> list[str]:
    """The keys of all Apply calls."""
    return [call.key for call in engine.calls("Apply")]


def test_rolling_apply_completes_one_after_the_other(make_world: MakeWorld) -> None:
    world = make_world("A", "B", "C", complete_after_polls=2)
    world.apply("A", "B", "C")
    world.run(until=lambda: world.apply_row().state == "completed")
    for name, engine in world.engines.items():
        assert len(engine.effects("apply")) == 1
        assert world.remote_id(name) is not None
        assert world.apply_row().external_id is None


def test_d1_first_id_lives_in_its_operation_alone(world: World) -> None:
    """D1, G1: the id that A's engine answers is A's; parent and siblings hold none."""
    world.apply()
    world.answer_bells()
    assert world.operation("A").engine_resume_context == "A-1"
    assert world.apply_row().external_id is None
    for sibling in "BC":
        operation = world.operation(sibling)
        assert (operation.state, operation.engine_resume_context, operation.attempt) == ("pending", None, 0)
        assert not world.engines[sibling].calls()


def test_d2_every_call_carries_its_own_id(world: World) -> None:
    """D2, G2: polls, stop, start and cutover of A carry A's id and nothing of B's."""
    world.apply("A", "B", policy=MANUAL)
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    world.run(until=lambda: world.state("A") == "stopped")
    world.ask(Verb.START, "A")
    world.run(until=lambda: world.state("A") == "running")
    world.engines["A"].set_state("A-1", "waiting_for_cutover")
    world.run(until=lambda: world.state("A") == "waiting_for_cutover")
    world.ask(Verb.CUTOVER, "A")
    world.run(until=lambda: world.state("A") == "completed")
    for name in "AB":
        engine = world.engines[name]
        about_jobs = [
            call for call in engine.calls() if call.method not in {"Apply", "BatchProgress", "Health"}
        ]
        assert {call.remote_id for call in about_jobs} <= {f"{name}-1"}
        assert {call.operation for call in about_jobs} <= {str(world.name(name))}
        cursors = [cursor for call in engine.calls("BatchProgress") for cursor in call.request.cursors]
        assert {cursor.apply_id for cursor in cursors} == {f"{name}-1"}
    methods = {call.method for call in world.engines["A"].calls()}
    assert {"Stop", "Start", "Cutover"} <= methods


def test_d3_sibling_is_dispatched_though_the_apply_runs_already(world: World) -> None:
    """D3, G6: that the parent runs because of A says nothing about B."""
    world.apply("A", "B", policy=PARALLEL)
    bells = list(world.bells.queue)
    world.do(*bells[0][:1], *bells[0][1])
    assert world.apply_row().state == "running"
    assert world.operation("B").engine_resume_context is None
    world.answer_bells()
    assert world.operation("B").engine_resume_context == "B-1"
    assert len(world.engines["B"].calls("Apply")) == 1


@pytest.mark.parametrize("deployments", [("A",), ("A", "B")], ids=["single", "multi"])
def test_d4_running_without_id_is_dispatched_under_the_same_key(
    world: World, deployments: tuple[str, ...]
) -> None:
    """D4, G4, G6: running without an id is a legitimate dispatch, and its key is a function of its name."""
    world.apply(*deployments)
    claimed = world.worker("w1").store.claim_dispatch(world.operation("A").id, world.name("A"))
    assert world.state("A") == "running", claimed
    world.forget_bells()
    world.pass_time(31)
    ask_to_dispatch(world, "A")
    assert applies_of(world.engines["A"]) == [dispatch_key(world.name("A"), 1)]
    assert world.remote_id("A") == "A-1"
    assert world.operation("A").attempt == 2


def test_d5_retryable_without_id_is_dispatched_again(world: World) -> None:
    """D5: a lost answer leaves a retryable operation, and it is sent again under the same key."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.run(until=lambda: world.state("A") == "running")
    assert len(set(applies_of(world.engines["A"]))) == 1
    assert len(applies_of(world.engines["A"])) == 2


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "reverted", "skipped", "stopped"])
def test_d5_settled_without_id_is_never_dispatched(world: World, state: str) -> None:
    """D5, S12: nobody asks an engine for what is settled."""
    world.apply("A", "B")
    world.forget_bells()
    world.write(
        "UPDATE apply_operations SET state = :state, next_attempt_at = tern_clock(),"
        " completed_at = CASE WHEN :state <> 'stopped' THEN tern_clock() END WHERE deployment = 'A'",
        state=state,
    )
    ask_to_dispatch(world, "A")
    world.answer_bells()
    assert not world.engines["A"].calls("Apply")
    assert world.state("A") == state


@pytest.mark.parametrize(
    "state",
    [
        "pending",
        "running",
        "failed_retryable",
        "uncertain",
        "resuming",
        "waiting_for_cutover",
        "cutting_over",
        "revert_window",
        "reverting",
        "stopped",
    ],
)
@pytest.mark.parametrize("deployments", [("A",), ("A", "B")], ids=["single", "multi"])
def test_d6_a_stored_id_means_no_apply_call_in_any_state(
    world: World, state: str, deployments: tuple[str, ...]
) -> None:
    """D6, G4: whatever the state says and whoever asks, an id that is present ends all dispatching."""
    world.apply(*deployments)
    world.answer_bells()
    assert len(world.engines["A"].calls("Apply")) == 1
    world.write(
        "UPDATE apply_operations SET state = :state, attempt = 9, next_attempt_at = tern_clock()"
        " WHERE deployment = 'A'",
        state=state,
    )
    for _ in range(2):
        ask_to_dispatch(world, "A")
        world.pass_time(31)
        world.sweep()
    assert len(world.engines["A"].calls("Apply")) == 1
    assert world.remote_id("A") == "A-1"


@pytest.mark.parametrize(
    ("deployments", "home"),
    [(("A",), "applies SET external_id"), (("A", "B"), "apply_operations SET engine_resume_context")],
    ids=["single", "multi"],
)
def test_d7_another_answer_never_replaces_a_stored_id(
    world: World, deployments: tuple[str, ...], home: str
) -> None:
    """D7, G5: R1 came to stand while the call was out and the answer says R9: R1 stays, nothing follows R9. That it may
    act there is written down, and looked at.
    """
    where = "WHERE deployment = 'A'" if "operations" in home else ""

    def store_r1() -> None:
        world.write(f"UPDATE {home} = 'A-1' {where}")

    def answer_r9(turn: Turn) -> object:
        right = then(store_r1)(turn)
        right.apply_id = "R9"  # type: ignore[union-attr]
        return right

    world.engines["A"].script("Apply", answer_r9)  # type: ignore[arg-type]
    world.apply(*deployments)
    world.answer_bells()
    assert world.remote_id("A") == "A-1"
    assert "remote_id_conflict" in {event.event for event in world.events("A")}
    world.pass_time(31)
    world.sweep()
    world.pass_time(31)
    world.sweep()
    engine = world.engines["A"]
    assert world.remote_id("A") == "A-1"
    assert len(engine.calls("Apply")) == 1
    followed = {call.remote_id for call in engine.calls() if call.method != "Progress"}
    followed |= {cursor.apply_id for call in engine.calls("BatchProgress") for cursor in call.request.cursors}
    assert "A-1" in followed
    assert "R9" not in followed
    left = world.one("SELECT remote_id, settled_as FROM outstanding_calls")
    assert (left.remote_id, left.settled_as) == ("R9", "not_found")


def test_d8_the_same_id_again_is_fine(world: World) -> None:
    """D8: an engine that deduplicates answers the same id, and it is taken as if it were the first time."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B")
    world.run(until=lambda: world.remote_id("A") is not None)
    assert world.remote_id("A") == "A-1"
    assert len(world.engines["A"].effects("apply")) == 1
    assert world.state("A") == "running"


def test_d9_an_empty_id_is_never_stored(world: World) -> None:
    """D9, G5: accepted without an id fails this operation with words; its siblings go on."""
    world.engines["A"].script("Apply", answer(accepted=True, apply_id=""))
    world.apply("A", "B", policy=Policy(on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    operation = world.operation("A")
    assert (operation.state, operation.engine_resume_context) == ("failed", None)
    assert "id" in operation.error_message
    assert "A" in operation.error_message
    assert world.remote_id("B") == "B-1"


@pytest.mark.parametrize("deployments", [("A",), ("A", "B")])
def test_the_public_id_is_never_stored_as_a_remote_id(world: World, deployments: tuple[str, ...]) -> None:
    """G2, G5: an id that no call may carry, and that nothing could ever replace, is not taken for an answer."""
    apply_id = world.apply(*deployments)
    world.engines["A"].script("Apply", altered(apply_id=apply_id))
    world.answer_bells()
    assert world.remote_id("A") is None
    assert world.state("A") == "failed_retryable"
    world.run(until=lambda: world.remote_id("A") == "A-1")
    assert len(world.engines["A"].effects("apply")) == 1


def test_d10_a_single_apply_keeps_its_id_at_the_parent(world: World) -> None:
    """D10, G1: one operation, so the id is the apply's, and in one place only."""
    world.apply("A")
    world.answer_bells()
    assert world.apply_row().external_id == "A-1"
    assert world.operation("A").engine_resume_context is None


def test_d11_the_first_of_many_is_still_one_of_many(world: World) -> None:
    """D11, G1: the count decides, not that the deployment asked for leads the order."""
    world.apply("C", "A", "B")
    world.answer_bells()
    assert world.operation("C").position == 0
    assert world.operation("C").engine_resume_context == "C-1"
    assert world.apply_row().external_id is None


def test_d14_the_request_is_about_one_operation_alone(world: World) -> None:
    """D14: A is told its own DDL, target, deployment and operation, in the plan's order."""
    changes = (
        PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER),
        PlannedChange("public", "items", "ALTER TABLE items ADD COLUMN price numeric", Action.ALTER),
    )
    world.apply("A", "B", changes=changes, policy=PARALLEL)
    world.answer_bells()
    for name in "AB":
        (call,) = world.engines[name].calls("Apply")
        request = call.request
        assert [change.ddl for change in request.ddl_changes] == [change.ddl for change in changes]
        assert (request.target, request.environment, request.database) == (f"target-{name}", "test", "shop")
        assert call.operation == str(world.name(name))
        assert call.fence == 1


def test_d15_the_database_refuses_an_id_at_a_multi_parent(world: World) -> None:
    """D15, G1: whoever writes by hand is stopped by the database."""
    world.apply("A", "B")
    with pytest.raises(IntegrityError, match="applies_only_single_ones_hold_a_remote_id"):
        world.write("UPDATE applies SET external_id = 'R1'")
    with pytest.raises(IntegrityError, match="frozen"):
        world.write("UPDATE applies SET operation_count = 1")


def make_unhelpful_world(make_world: MakeWorld) -> World:
    """An engine without the second service that nobody declared to deduplicate."""
    return make_world("A", "B", offers_engine_service=False, deduplicates=False)


def test_d16_an_old_intent_is_not_repeated_to_an_engine_that_may_do_it_twice(make_world: MakeWorld) -> None:
    """D16, G4: zero Apply calls; a person has to look, and the parent says so by staying live."""
    world = make_unhelpful_world(make_world)
    world.apply("A", "B")
    world.worker("w1").store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.pass_time(31)
    world.sweep()
    world.run(until=lambda: world.state("A") == "uncertain")
    assert not world.engines["A"].calls("Apply")
    assert world.apply_row().state == "running"
    assert world.operation("A").dispatch_key is not None
    world.pass_time(3600)
    world.sweep()
    assert not world.engines["A"].calls("Apply")


def test_d16_a_person_may_say_that_repeating_is_safe_once(make_world: MakeWorld) -> None:
    """G4: the word of a person is worth one Apply with the same key, not two."""
    world = make_unhelpful_world(make_world)
    world.apply("A", "B")
    world.worker("w1").store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.pass_time(31)
    world.sweep()
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.store.resolve_uncertain(world.name("A"), Resolved.REPEAT_APPLY, None, "eve", "the ledger is empty")
    world.sweep()
    assert len(applies_of(world.engines["A"])) == 1
    assert world.state("A") == "uncertain"
    world.pass_time(3600)
    world.sweep()
    assert len(applies_of(world.engines["A"])) == 1


def test_d16_the_word_of_a_person_is_spent_by_the_claim(make_world: MakeWorld) -> None:
    """G4: the worker that took up the word died after its call; nobody calls again on the strength of it."""
    world = make_unhelpful_world(make_world)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B")
    world.answer_bells()
    world.pass_time(11)
    world.store.resolve_uncertain(world.name("A"), Resolved.REPEAT_APPLY, None, "eve", "the ledger is empty")
    with pytest.raises(Killed):
        world.do(
            "dispatch",
            world.operation("A").id,
            str(world.name("A")),
            ports=interrupted(world.worker("w1"), "apply", after=kill),
        )
    world.pass_time(31)
    world.sweep()
    assert len(applies_of(world.engines["A"])) == 2
    assert world.state("A") == "uncertain"


def test_d16_a_person_may_name_the_remote_id(make_world: MakeWorld) -> None:
    """G1, G3: an id found by a person is stored where an engine's would be, and followed."""
    world = make_unhelpful_world(make_world)
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B")
    world.answer_bells()
    assert world.state("A") == "uncertain"
    world.pass_time(11)
    world.resolve("A", Resolved.REMOTE_ID, "A-1", why="seen there")
    world.engines["A"].set_state("A-1", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    assert len(applies_of(world.engines["A"])) == 1


def test_d16_not_started_opens_a_new_generation(make_world: MakeWorld) -> None:
    """S5: the old key is never used again after a person vouched that it started nothing."""
    world = make_unhelpful_world(make_world)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B")
    world.answer_bells()
    world.pass_time(11)
    world.store.resolve_uncertain(world.name("A"), Resolved.NOT_STARTED, None, "eve", "nothing there")
    world.run(until=lambda: world.remote_id("A") is not None)
    assert applies_of(world.engines["A"]) == [
        dispatch_key(world.name("A"), 1),
        dispatch_key(world.name("A"), 2),
    ]


def test_d17_a_refusal_after_a_lost_answer_settles_nothing(world: World) -> None:
    """D17, G10: the credentials were rotated in between; the work is found by its key and never called failed."""
    world.engines["A"].script("Apply", lose_answer(), fail("UNAUTHENTICATED", message="who are you?"))
    world.apply("A", "B")
    world.run(until=lambda: world.remote_id("A") is not None)
    assert world.state("A") == "running"
    assert world.remote_id("A") == "A-1"
    assert len(world.engines["A"].calls("Resolve")) == 1
    assert "failed" not in {event.after for event in world.events("A")}


def test_d17_a_refusal_of_a_key_that_started_nothing_is_definite_once_it_is_dead(world: World) -> None:
    """D17, S5: the key is forbidden first; only then does the refusal count."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"), fail("INVALID_ARGUMENT", message="no such table"))
    world.apply("A", "B")
    world.run(until=lambda: world.state("A") == "failed")
    operation = world.operation("A")
    assert operation.dispatch_key_is_dead
    assert "no such table" in operation.error_message
    assert operation.dispatch_key in world.engines["A"].jobs.forbidden


def test_a_busy_target_says_nothing_of_an_earlier_call(make_world: MakeWorld) -> None:
    """The target may be taken by the very work that the earlier call began: under another key it would begin twice."""
    world = make_world("A", offers_engine_service=False)
    world.write("UPDATE deployments SET idempotent_dispatch = true, deduplicates = true")
    busy = answer(
        accepted=False, error_message="taken", conflict={"table": "orders", "holder_external_id": "A-1"}
    )
    world.engines["A"].script("Apply", lose_answer(), busy)
    world.apply("A")
    world.run(lambda: len(world.engines["A"].calls("Apply")) > 1)
    assert world.state("A") == "uncertain"
    world.pass_time(600.0)
    world.sweep()
    assert len(world.engines["A"].effects("apply")) == 1


def test_a_busy_target_is_waited_for_once_the_earlier_key_is_dead(world: World) -> None:
    busy = answer(
        accepted=False, error_message="taken", conflict={"table": "orders", "holder_external_id": "A-0"}
    )
    world.engines["B"].script("Apply", fail("UNAVAILABLE"), busy)
    world.apply("B")
    world.run(lambda: world.operation("B").error_reason == "TARGET_BUSY")
    assert world.state("B") == "pending"
    world.run(lambda: world.state("B") == "running")
    assert len(world.engines["B"].effects("apply")) == 1


def test_d17_a_refused_resolve_is_no_verdict_either(world: World) -> None:
    """D17, G10: as long as nobody can ask, the operation stays retryable, then uncertain, never failed."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B")
    world.answer_bells()
    world.engines["A"].always("Apply", fail("UNAUTHENTICATED"))
    world.engines["A"].always("Resolve", fail("UNAUTHENTICATED"))
    world.run(until=lambda: world.state("A") == "uncertain", step_s=65)
    assert "failed" not in {event.after for event in world.events("A")}
    assert len(world.engines["A"].effects("apply")) == 1


def test_d18_an_operation_with_an_id_is_never_started_over(world: World) -> None:
    """D18, G5: a failed operation with an id has no way back to pending; `start` says what it is."""
    world.apply("A", "B")
    world.answer_bells()
    world.engines["A"].set_state("A-1", "failed", error="disk full")
    world.run(until=lambda: world.state("A") == "failed")
    receipt = world.ask(Verb.START, "A")
    assert world.outcomes(receipt) == {"A": Receipt.TOO_LATE}
    world.pass_time(3600)
    world.sweep()
    assert world.remote_id("A") == "A-1"
    assert len(world.engines["A"].calls("Apply")) == 1


@pytest.mark.parametrize(
    "code",
    [
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "DATA_LOSS",
        "UNIMPLEMENTED",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    ],
)
def test_a_refusal_of_the_first_send_is_definite(world: World, code: str) -> None:
    """G10: a definite answer is always written, with the engine's words."""
    world.engines["A"].script("Apply", fail(code, message="certainly not"))
    world.apply("A", "B")
    world.answer_bells()
    operation = world.operation("A")
    assert operation.state == "failed"
    assert "certainly not" in operation.error_message
    assert str(world.name("A")) in operation.error_message
    assert len(world.engines["A"].calls("Apply")) == 1
    assert world.apply_row().state == "failed"


def test_an_answer_that_says_not_accepted_is_a_refusal(world: World) -> None:
    world.engines["A"].script("Apply", not_accepted("the table is too large"))
    world.apply("A", "B")
    world.answer_bells()
    assert world.state("A") == "failed"
    assert "the table is too large" in world.operation("A").error_message


@pytest.mark.parametrize(
    "code",
    ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"],
)
def test_no_usable_answer_is_never_a_failure(world: World, code: str) -> None:
    """G10: what may have happened is repeated under the same key."""
    world.engines["A"].script("Apply", lose_answer(code))
    world.apply("A", "B")
    world.answer_bells()
    operation = world.operation("A")
    assert operation.state == "failed_retryable"
    assert operation.dispatch_key == dispatch_key(world.name("A"), 1)
    assert world.apply_row().state == "running"
    world.run(until=lambda: world.remote_id("A") is not None)
    assert len(world.engines["A"].effects("apply")) == 1


def test_a_spent_budget_is_uncertainty(world: World) -> None:
    """G10: ten tries while the engine's Health answers, then a person is asked; `failed` is never written."""
    world.engines["A"].always("Apply", fail("INTERNAL"))
    world.apply("A", "B")
    world.run(until=lambda: world.state("A") == "uncertain", step_s=70)
    assert len(applies_of(world.engines["A"])) == ANSWERED_ATTEMPTS_MAX
    assert len(set(applies_of(world.engines["A"]))) == 1
    assert "failed" not in {event.after for event in world.events("A")}


def test_an_outage_spends_no_budget_and_ends_by_its_age(world: World) -> None:
    """G10: an engine that is down for hours is tried on; an intent of yesterday is not repeated by itself."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.engines["A"].always("Health", fail("UNAVAILABLE"))
    world.apply("A", "B")
    for _ in range(ANSWERED_ATTEMPTS_MAX + 3):
        world.pass_time(70)
        world.sweep()
    assert world.state("A") == "failed_retryable"
    assert world.operation("A").answered_attempts == 0
    assert len(applies_of(world.engines["A"])) > ANSWERED_ATTEMPTS_MAX
    world.pass_time(FRESHNESS_S)
    world.sweep()
    assert world.state("A") == "uncertain"


def test_an_engine_that_is_back_is_asked_soon(world: World) -> None:
    """A Health answer brings the due times of waiting retries forward."""
    world.engines["A"].script("Apply", *[fail("UNAVAILABLE")] * 7)
    world.engines["A"].always("Health", fail("UNAVAILABLE"))
    world.apply("A", "B")
    for _ in range(7):
        world.pass_time(65)
        world.sweep()
    assert world.state("A") == "failed_retryable"
    world.engines["A"].always("Health", None)
    world.pass_time(11)
    world.sweep()
    world.pass_time(3)
    world.sweep()
    assert world.state("A") == "running"


def test_the_claim_writes_its_intent_before_the_call(world: World) -> None:
    """G4, S4: at the moment of the Apply call the key stands committed, under which it is made."""
    seen: list[tuple[str, str | None]] = []

    def look_from_outside(turn: object) -> object:
        with world.database.begin() as tx:
            row = tx.execute(
                text("SELECT state, dispatch_key FROM apply_operations WHERE deployment = 'A'")
            ).one()
        seen.append((row.state, row.dispatch_key))
        return turn.perform()  # type: ignore[attr-defined]

    world.engines["A"].script("Apply", look_from_outside)  # type: ignore[arg-type]
    world.apply("A", "B")
    world.answer_bells()
    assert seen == [("running", applies_of(world.engines["A"])[0])]
