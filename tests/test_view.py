"""What a look amounts to: headline, blockers, holds, percent, exit code. Pure; rows are not needed."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern import holding
from tern.domain.control import Delivery, Verb
from tern.domain.holds import ClearedBy, Holding, HoldKind
from tern.domain.identity import ApplyId, PlanId, RemoteId
from tern.domain.model import Action
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.states import ApplyState, State
from tern.domain.timing import CUTOVER_REFUSALS_MAX
from tern.facts import ApplyFacts, OperationRecord, TableFacts, WishFacts
from tern.view import NEEDS_PERSON, READY_FOR_CUTOVER, apply_view
from tern.ways import ways_of
from tests.domain.rollouts import policies

APPLY = ApplyId("apl-1")


def table(state: str = "pending", percent: int = 0, **fields: object) -> TableFacts:
    made = TableFacts(
        "public",
        "orders",
        "ALTER TABLE orders ADD x int",
        Action.ALTER,
        "",
        state,
        None,
        None,
        percent,
        None,
        "",
        "",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def wish(verb: Verb, fate: Delivery = Delivery.PENDING) -> WishFacts:
    return WishFacts(7, verb, fate, "bob", "late", 0, "", 3.0)


def record(deployment: str, state: State = State.PENDING, **fields: object) -> OperationRecord:
    made = OperationRecord(
        operation_id=1,
        deployment=deployment,
        position=0,
        wave=0,
        target=f"target-{deployment}",
        state=state,
        remote_id=None if state is State.PENDING else RemoteId(f"job-{deployment}"),
        attempt=0,
        fence=1,
        is_admitted=False,
        state_age_s=5.0,
        ended_s_ago=None,
        was_seen=False,
        worked_s=4.0,
        sampled_age_s=2.0,
        poll_failures=0,
        poll_error="",
        summary="",
        error_reason="",
        error_message="",
        stop_in_force=None,
        wait_s=0.0,
        due_for_s=None,
        claimed_for_s=0.0,
        drained=False,
        blocked_by=None,
        tables=(table(),),
        wishes=(),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def facts(
    *operations: OperationRecord, state: ApplyState = ApplyState.RUNNING, policy: Policy | None = None
) -> ApplyFacts:
    placed = tuple(replace(each, position=place) for place, each in enumerate(operations))
    return ApplyFacts(
        apply_id=APPLY,
        plan_id=PlanId("pln-1"),
        environment="test",
        database="shop",
        state=state,
        policy=policy or Policy(),
        operation_count=len(placed),
        revision=3,
        caller="ann",
        reason="because",
        error_message="",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        age_s=60.0,
        state_age_s=5.0,
        took_s=None,
        observed_at=datetime(2026, 1, 1, 0, 1, tzinfo=UTC),
        operations=placed,
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (ApplyState.COMPLETED, 0),
        (ApplyState.FAILED, 10),
        (ApplyState.CANCELLED, 11),
        (ApplyState.REVERTED, 11),
        (ApplyState.STOPPED, 12),
        (ApplyState.PAUSED, 13),
    ],
)
def test_every_outcome_has_its_exit_code(state: ApplyState, code: int) -> None:
    settled = State(state.value) if state.value in set(State) else State.STOPPED
    assert apply_view(facts(record("a", settled), state=state)).exit_code == code


def test_what_moves_without_a_person_has_no_exit_code() -> None:
    for state in (State.RUNNING, State.RESUMING, State.CUTTING_OVER, State.FAILED_RETRYABLE, State.REVERTING):
        assert apply_view(facts(record("a", State.UNCERTAIN), record("b", state))).exit_code is None
    assert apply_view(facts(record("a"))).exit_code is None


def test_a_stop_that_was_asked_to_start_again_is_no_outcome() -> None:
    stopped = record("a", State.STOPPED, wishes=(wish(Verb.START),))
    assert apply_view(facts(stopped, state=ApplyState.STOPPED)).exit_code is None


def test_ready_for_a_manual_cutover_is_an_outcome_until_somebody_says_go() -> None:
    policy = Policy(cutover=Cutover.MANUAL)
    ready = record("a", State.WAITING_FOR_CUTOVER)
    view = apply_view(facts(ready, record("b"), policy=policy))
    assert view.exit_code == READY_FOR_CUTOVER
    (blocker,) = view.blockers
    assert blocker.command.startswith("tern cutover apl-1/a")
    asked = replace(ready, wishes=(wish(Verb.CUTOVER),))
    assert apply_view(facts(asked, policy=policy)).exit_code is None
    assert apply_view(facts(asked, policy=policy)).blockers == ()


def test_only_uncertain_ones_left_need_a_person_who_is_told_what_to_say() -> None:
    view = apply_view(facts(record("a", State.UNCERTAIN, error_message="no answer for a day")))
    assert view.exit_code == NEEDS_PERSON
    assert "no answer for a day" in view.blockers[0].what
    assert view.blockers[0].command.startswith("tern resolve apl-1/a --as")


def test_holds_of_a_pending_one_are_those_of_admission() -> None:
    view = apply_view(
        facts(record("a", State.RUNNING), record("b", drained=True), record("c", stop_in_force="stop"))
    )
    assert [hold.kind for hold in view.operation("b").holds] == [HoldKind.DRAINED, HoldKind.ORDER]
    assert [hold.kind for hold in view.operation("c").holds] == [HoldKind.STOP, HoldKind.ORDER]


def test_what_comes_before_it_in_the_order_is_named() -> None:
    done = [record(f"d{n}", State.COMPLETED) for n in range(3)]
    view = apply_view(facts(*done, record("next"), record("later")))
    assert view.operation("next").holds == ()
    assert view.operation("later").holds[0].detail == "next (pending) comes before it in the order"


def test_what_comes_before_it_is_of_its_own_wave() -> None:
    """A stopped one of an earlier wave is not what the order of this one waits for."""
    waves = Policy(waves=(Wave({"tier": "canary"}), Wave()))
    stands = [record("early", State.STOPPED, wave=1), record("first", wave=2), record("later", wave=2)]
    of_wave, of_order = apply_view(facts(*stands, policy=waves)).operation("later").holds
    assert (of_wave.kind, of_wave.cleared_by) == (HoldKind.WAVE, ClearedBy.FIX)
    assert "early (stopped)" in of_wave.detail
    assert (of_order.kind, of_order.cleared_by) == (HoldKind.ORDER, ClearedBy.WAIT)
    assert of_order.detail == "first (pending) comes before it in the order"


MOSTLY_PENDING = st.sampled_from(
    [*[State.PENDING] * 6, State.RUNNING, State.COMPLETED, State.STOPPED, State.FAILED]
)
ODD: tuple[dict[str, object], ...] = ({"wait_s": 9.0}, {"drained": True}, {"pauses_s": 3.0, "unanswered": 2})


@given(st.data(), policies())
def test_what_is_found_once_for_many_is_what_is_found_for_each(data: st.DataObject, policy: Policy) -> None:
    """Thousands wait alike and are looked at once: never one that is held by anything of its own."""
    records = [
        record(
            f"d{number}",
            data.draw(MOSTLY_PENDING),
            wave=data.draw(st.integers(1, len(policy.waves))) if policy.waves else 0,
            is_admitted=data.draw(st.booleans()),
            **data.draw(st.sampled_from([{}, {}, {}, *ODD])),
        )
        for number in range(data.draw(st.integers(2, 12)))
    ]
    seen = facts(*sorted(records, key=lambda each: each.wave), policy=policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holding, "holds_all_behind", lambda *_: False)
        one_by_one = list(holding.held(seen))
    assert list(holding.held(seen)) == one_by_one


def test_a_target_that_another_apply_holds_is_named() -> None:
    view = apply_view(facts(record("a", blocked_by=Holding("a", "apl-9/a", "running"))))
    assert "apl-9" in view.operation("a").holds[0].detail


def test_slots_of_a_parallel_order_are_counted() -> None:
    policy = Policy(copy=Copy.PARALLEL, max_parallel=1)
    view = apply_view(facts(record("a", State.RUNNING), record("b"), policy=policy))
    assert [hold.kind for hold in view.operation("b").holds] == [HoldKind.SLOTS]


def test_a_due_one_that_nobody_takes_points_to_the_doctor() -> None:
    view = apply_view(facts(record("a", due_for_s=50.0, untaken_for_s=40.0)))
    assert view.blockers[0].command == "tern doctor"
    assert "40 s" in view.blockers[0].what
    assert apply_view(facts(record("a", due_for_s=50.0, untaken_for_s=2.0))).blockers == ()


def test_lost_contact_is_shown_with_its_words_and_keeps_the_last_known_state() -> None:
    view = apply_view(facts(record("a", State.RUNNING, poll_failures=10, poll_error="connection refused")))
    operation = view.operation("a")
    assert operation.lost_contact
    assert operation.state is State.RUNNING
    assert "connection refused" in view.blockers[0].what
    assert not apply_view(facts(record("a", State.RUNNING, poll_failures=9))).operation("a").lost_contact
    assert not apply_view(facts(record("a", State.COMPLETED, poll_failures=10))).operation("a").lost_contact


def test_percent_is_the_mean_of_the_statements_and_a_completed_operation_is_whole() -> None:
    tables = (table("completed", 0), table("running", 50), table())
    assert apply_view(facts(record("a", State.RUNNING, tables=tables))).operation("a").percent == 50
    assert apply_view(facts(record("a", State.COMPLETED, tables=tables))).operation("a").percent == 100
    assert apply_view(facts(record("a", State.RUNNING, tables=()))).operation("a").percent == 0


def test_rows_are_those_of_the_statement_under_way_and_never_counted_twice() -> None:
    tables = (
        table("completed", 100, rows_copied=900, rows_total=900),
        table("building_index", 50, rows_copied=450, rows_total=900),
        table("pending", 0, rows_total=900),
    )
    operation = apply_view(facts(record("a", State.RUNNING, tables=tables))).operation("a")
    assert (operation.rows_copied, operation.rows_total) == (450, 900)
    done = tuple(replace(each, state="completed", rows_copied=900) for each in tables)
    operation = apply_view(facts(record("a", State.COMPLETED, tables=done))).operation("a")
    assert (operation.rows_copied, operation.rows_total) == (900, 900)


def test_each_field_of_the_document_says_what_its_name_says() -> None:
    """Every one has a value of its own, so that two that change places, or one that tells another's, are seen."""
    statement = table(
        "running",
        41,
        rows_copied=42,
        rows_total=43,
        eta_s=44,
        unsafe_reason="of the table: unsafe",
        detail="of the table: detail",
        error="of the table: error",
    )
    asked = WishFacts(7, Verb.STOP, Delivery.SENT, "bob", "late", 8, "of the wish: words", 9.0)
    failed = record(
        "a",
        State.FAILED,
        attempt=11,
        state_age_s=12.0,
        worked_s=13.0,
        sampled_age_s=14.0,
        volume=5,
        summary="of the operation: summary",
        error_message="of the operation: error",
        error_reason="OF_THE_OPERATION",
        tables=(statement,),
        wishes=(asked,),
    )
    whole = replace(
        facts(failed, state=ApplyState.FAILED),
        error_message="of the apply: error",
        age_s=15.0,
        state_age_s=16.0,
        took_s=17.0,
    )
    told = apply_view(whole).as_json()
    (operation,) = told["operations"]  # type: ignore[misc] # what a reader of the document finds there
    _say(
        operation["tables"][0],
        {
            "namespace": "public",
            "table": "orders",
            "ddl": "ALTER TABLE orders ADD x int",
            "action": "alter",
            "unsafe_reason": "of the table: unsafe",
            "state": "running",
            "percent": 41,
            "rows_copied": 42,
            "rows_total": 43,
            "eta_s": 44,
            "detail": "of the table: detail",
            "error": "of the table: error",
        },
    )
    _say(
        operation["wishes"][0],
        {
            "request_id": 7,
            "verb": "stop",
            "state": "sent",
            "caller": "bob",
            "reason": "late",
            "attempts": 8,
            "engine_words": "of the wish: words",
            "age_s": 9.0,
        },
    )
    of_operation = {
        "scope": "apl-1/a",
        "deployment": "a",
        "position": 0,
        "wave": None,
        "target": "target-a",
        "state": "failed",
        "state_age_s": 12.0,
        "remote_id": "job-a",
        "attempt": 11,
        "rows_copied": 42,
        "rows_total": 43,
        "volume": 5,
        "worked_s": 13.0,
        "sampled_age_s": 14.0,
        "lost_contact": False,
        "summary": "of the operation: summary",
        "error": "of the operation: error",
        "error_reason": "OF_THE_OPERATION",
        "preview": None,
    }
    _say(operation, of_operation)
    of_apply = {
        "apply_id": "apl-1",
        "plan_id": "pln-1",
        "state": "failed",
        "environment": "test",
        "database": "shop",
        "caller": "ann",
        "reason": "because",
        "created_at": "2026-01-01T00:00:00+00:00",
        "age_s": 15.0,
        "state_age_s": 16.0,
        "took_s": 17.0,
        "operation_count": 1,
        "counts": {"failed": 1},
        "error": "of the apply: error",
        "revision": 3,
    }
    _say(told, of_apply)


def _say(told: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Fields may be added, so only those that are wanted are looked at."""
    assert {name: told.get(name) for name in wanted} == wanted


def test_json_has_the_documented_fields() -> None:
    data = apply_view(facts(record("a", State.COMPLETED), record("b"))).as_json()
    promised = "apply_id state environment database operation_count counts operations blockers revision"
    assert set(promised.split()) <= set(data)
    assert data["counts"] == {"pending": 1, "completed": 1}
    operations = data["operations"]
    assert isinstance(operations, list)
    promised = "deployment state remote_id attempt percent rows_copied rows_total eta_s error holds tables"
    assert set(promised.split()) <= set(operations[0])


def test_the_headline_says_how_many_are_through() -> None:
    assert (
        apply_view(facts(record("a", State.COMPLETED), record("b"))).headline == "running, 1 of 2 completed"
    )
    both = facts(record("a", State.COMPLETED), record("b", State.COMPLETED), state=ApplyState.COMPLETED)
    assert apply_view(both).headline == "completed on all 2 deployments"


WAITING = State.WAITING_FOR_CUTOVER


def test_a_pause_shows_the_failure_and_what_opens_it() -> None:
    """§3: paused needs a person, and the release is printed with its consequence."""
    policy = Policy(Copy.PARALLEL, OnFailure.PAUSE)
    failed = record("a", State.FAILED, error_message="no space")
    view = apply_view(facts(failed, record("b"), state=ApplyState.PAUSED, policy=policy))
    assert view.exit_code == 13
    (blocker,) = view.blockers
    assert (blocker.deployment, blocker.command) == ("a", f"tern release {APPLY} --reason '…'")
    assert "no space" in blocker.what
    released = replace(facts(replace(failed, was_seen=True), record("b"), policy=policy), released=1)
    assert apply_view(released).blockers == ()
    assert apply_view(released).operation("b").holds == ()


def test_in_a_barrier_only_whose_turn_it_is_needs_a_person() -> None:
    """CU1: those behind it wait for it, not for somebody."""
    policy = Policy(Copy.BARRIER, cutover=Cutover.MANUAL)
    view = apply_view(
        facts(record("a", WAITING), record("b", WAITING), state=ApplyState.WAITING_FOR_CUTOVER, policy=policy)
    )
    assert [blocker.deployment for blocker in view.blockers] == ["a"]
    assert [hold.kind for hold in view.operation("b").holds] == [HoldKind.TURN, HoldKind.CUTOVER]
    assert "a (waiting for cutover)" in view.operation("b").holds[0].detail
    assert view.exit_code == 14


def test_tern_asks_by_itself_and_says_when_it_has_asked_often_enough() -> None:
    """CU5: until then nobody is needed; after it the rollout is ready for a person's word."""
    policy, refused = (
        Policy(Copy.BARRIER),
        replace(wish(Verb.CUTOVER, Delivery.FAILED), attempts=1, engine_words="lag"),
    )
    once = facts(record("a", WAITING, wishes=(refused,)), policy=policy)
    assert apply_view(once).blockers == ()
    assert apply_view(once).exit_code is None
    often = facts(
        record("a", WAITING, wishes=(refused,) * CUTOVER_REFUSALS_MAX),
        state=ApplyState.WAITING_FOR_CUTOVER,
        policy=policy,
    )
    assert apply_view(often).exit_code == 14
    (blocker,) = apply_view(often).blockers
    assert "lag" in blocker.what
    asked = facts(record("a", WAITING, wishes=(wish(Verb.CUTOVER),)), policy=policy)
    assert apply_view(asked).exit_code is None


def test_a_wish_that_waits_for_its_turn_moves_nothing() -> None:
    """§3: the stopped one needs a person, whatever was asked for behind it."""
    policy = Policy(Copy.BARRIER, cutover=Cutover.MANUAL)
    queued = replace(wish(Verb.CUTOVER), waits=True)
    stopped, behind = record("a", State.STOPPED), record("b", WAITING, wishes=(queued,))
    view = apply_view(facts(stopped, behind, state=ApplyState.PAUSED, policy=policy))
    assert view.exit_code == 13
    assert [blocker.deployment for blocker in view.blockers] == ["a"]


def test_a_stopped_one_that_is_drained_is_opened_before_it_is_started() -> None:
    """What is printed works now: a start is refused there."""
    (open_one,) = apply_view(facts(record("a", State.STOPPED))).blockers
    assert open_one.command == "tern start apl-1/a --reason '…'"
    (drained,) = apply_view(facts(record("a", State.STOPPED, drained=True))).blockers
    assert drained.command == "tern deployments undrain a"
    assert open_one.command in drained.consequence


def test_whatever_keeps_a_stopped_one_from_starting_is_among_its_reasons() -> None:
    """All reasons at once: who starts it next learns nothing new."""
    one = record("a", State.STOPPED, drained=True, blocked_by=Holding("a", "apl-9/a", "running"))
    kinds = [hold.kind for hold in apply_view(facts(one)).operation("a").holds]
    assert kinds == [HoldKind.STOP, HoldKind.RESERVATION, HoldKind.DRAINED]


def test_a_dispatch_that_waits_for_a_silent_engine_has_a_way_out() -> None:
    """Nobody was reached there, and the engine itself can be asked about it now."""
    words = "the call to Apply has no usable answer: UNAVAILABLE: connection refused"
    one = record("a", error_message=words, unanswered=3, pauses_s=4.0)
    view = apply_view(facts(one))
    (hold,) = view.operation("a").holds
    assert hold.kind is HoldKind.SILENT
    commands = [command for command, _ in ways_of(view, view.operation("a"))]
    assert commands[0] == "tern deployments check a"
    assert any(command.startswith("tern deployments set a --address") for command in commands)


def test_a_baking_wave_needs_nobody() -> None:
    """§6: it clears by itself, and says when."""
    policy = Policy(waves=(Wave({"tier": "canary"}, bake_s=600.0), Wave()))
    done = record("a", State.COMPLETED, wave=1, ended_s_ago=100.0)
    view = apply_view(facts(done, record("b", wave=2), policy=policy))
    (hold,) = view.operation("b").holds
    assert (hold.kind, hold.until_s) == (HoldKind.BAKE, 500.0)
    assert view.exit_code is None
    assert view.blockers == ()


def test_a_silent_engine_is_told_before_contact_is_lost() -> None:
    """PO3."""
    silent = record("a", State.RUNNING, poll_failures=3, poll_error="refused", sampled_age_s=33.0)
    (hold,) = apply_view(facts(silent)).operation("a").holds
    assert (hold.kind, "for 33 s" in hold.detail) == (HoldKind.SILENT, True)
    assert apply_view(facts(silent)).exit_code is None
