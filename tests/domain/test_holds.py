"""Holds: one function says why an operation stands, to the claim, to the projection and to whoever asks."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern.domain.barrier import Refusals, asks_again_in_s
from tern.domain.holds import ClearedBy, Hold, Holding, HoldKind, OperationFacts, holds, holds_all_behind
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.states import State
from tern.domain.tally import UNPASSED, Tally
from tern.domain.timing import CUTOVER_REFUSALS_MAX
from tests.domain.rollouts import Member, admit, facts_of, kinds, let_in, members, policies, rollout

MANUAL = Policy(cutover=Cutover.MANUAL)


@given(st.data(), policies(), st.none() | st.integers(0, 3))
def test_no_hold_means_let_in_and_the_other_way_round(
    data: st.DataObject, policy: Policy, released: int | None
) -> None:
    """§6: admission and explain never disagree, about any operation of any rollout."""
    given_members = data.draw(members(policy))
    expected = let_in(policy, given_members, released)
    for place, member in enumerate(given_members):
        me = member.standing
        if me.state is not State.PENDING:
            continue
        free = not holds(policy, facts_of(given_members, place, released))
        if not me.is_admitted:
            assert free is (place in expected), (policy, given_members, place)


@given(st.data(), policies(), st.none() | st.integers(0, 3))
def test_who_stands_right_behind_is_held_by_the_same(
    data: st.DataObject, policy: Policy, released: int | None
) -> None:
    """What thousands wait for is found once: only where the place in the order makes no difference any more."""
    given_members = data.draw(members(policy))
    for place in range(1, len(given_members)):
        one, other = (each.standing for each in given_members[place - 1 : place + 1])
        waits = [each.state is State.PENDING for each in (one, other)] + [
            one.is_admitted is other.is_admitted
        ]
        stuck = given_members[place - 1].is_stuck or given_members[place].is_stuck
        # Whom nobody comes before is asked about by itself: the one behind it has it in front (tern/holding.py).
        is_first = not any(each.standing.state in UNPASSED for each in given_members[: place - 1])
        if not all(waits) or stuck or is_first or one.wave != other.wave:
            continue
        found = holds(policy, facts_of(given_members, place - 1, released))
        if holds_all_behind(policy, one.wave, found):
            assert holds(policy, facts_of(given_members, place, released)) == found


@given(st.data(), policies())
def test_who_was_just_let_in_is_not_turned_away_by_the_claim(data: st.DataObject, policy: Policy) -> None:
    """§6: else one would let in for ever what the other turns away. Nothing else happens between the two."""
    outside = [
        replace(each, standing=replace(each.standing, is_admitted=False))
        for each in data.draw(members(policy))
    ]
    entering = let_in(policy, outside)
    inside = admit(outside, entering)
    for place in entering:
        assert not kinds(policy, facts_of(inside, place)), (policy, inside, place)


@given(
    policies(), st.sampled_from(["stop", "cancel"]), st.sampled_from([State.PENDING, State.FAILED_RETRYABLE])
)
def test_a_stop_holds_whatever_else_speaks_for_going(policy: Policy, verb: str, state: State) -> None:
    """G9: pending or retryable: a stop in force is a hold."""
    facts = OperationFacts(state, Tally.of(rollout(state)), stop_in_force=verb)
    assert HoldKind.STOP in kinds(policy, facts)


def test_all_reasons_are_listed() -> None:
    """`explain` shows everything that holds an operation, not the first thing."""
    waves = (Wave({"a": "1"}, bake_s=60.0), Wave())
    policy = Policy(Copy.BARRIER, OnFailure.PAUSE, max_parallel=1, strict=True, waves=waves)
    states = rollout(State.FAILED, State.RUNNING, State.PENDING, waves=(2, 2, 2))
    facts = OperationFacts(
        State.PENDING,
        Tally.of([replace(states[0], ended_s_ago=1.0), *states[1:]]),
        position=2,
        wave=2,
        stuck_ahead="west",
        stop_in_force="stop",
        claimed_for_s=2.0,
        drained=True,
        deployment="east",
        blocked_by=Holding("east", "apl-2/east", "running"),
    )
    assert kinds(policy, facts) == {
        HoldKind.STOP,
        HoldKind.RESERVATION,
        HoldKind.CLAIMED,
        HoldKind.DRAINED,
        HoldKind.FAILURES,
        HoldKind.STRICT,
        HoldKind.ORDER,
        HoldKind.SLOTS,
    }
    baking = [*rollout(State.COMPLETED, State.PENDING, waves=(1, 2))]
    baking[0] = replace(baking[0], ended_s_ago=20.0)
    (bake,) = holds(policy, OperationFacts(State.PENDING, Tally.of(baking), position=1, wave=2))
    assert (bake.kind, bake.cleared_by, bake.until_s) == (HoldKind.BAKE, ClearedBy.WAIT, 40.0)


@given(policies(), st.lists(st.sampled_from(State), max_size=5))
def test_a_retryable_operation_keeps_slot_and_place(policy: Policy, others: list[State]) -> None:
    """PL2: order, slots, waves and failures are not asked again of one that has started."""
    operations = rollout(*others, State.FAILED_RETRYABLE)
    facts = OperationFacts(
        State.FAILED_RETRYABLE, Tally.of(operations), position=len(others), stuck_ahead="x"
    )
    assert kinds(policy, facts) == set()
    assert kinds(policy, replace(facts, drained=True)) == {HoldKind.DRAINED}
    assert kinds(policy, replace(facts, wait_s=3.0)) == {HoldKind.BACKOFF}


@pytest.mark.parametrize(
    ("states", "policy", "held_by"),
    [
        ([State.RUNNING], Policy(), HoldKind.ORDER),
        ([State.WAITING_FOR_CUTOVER], Policy(), HoldKind.ORDER),
        ([State.REVERT_WINDOW], Policy(), HoldKind.ORDER),
        ([State.STOPPED], Policy(), HoldKind.ORDER),
        ([State.UNCERTAIN], Policy(), HoldKind.ORDER),
        ([State.FAILED_RETRYABLE], Policy(), HoldKind.ORDER),
        ([State.COMPLETED], Policy(), None),
        ([State.CANCELLED], Policy(), None),
        ([State.SKIPPED], Policy(), None),
        ([State.FAILED], Policy(), HoldKind.FAILURES),
        ([State.FAILED], Policy(max_failures=1), None),
        ([State.FAILED], Policy(on_failure=OnFailure.CONTINUE), None),
        ([State.FAILED], Policy(on_failure=OnFailure.PAUSE), HoldKind.FAILURES),
        ([State.FAILED], Policy(Copy.PARALLEL), HoldKind.FAILURES),
        ([State.FAILED], Policy(Copy.BARRIER), HoldKind.FAILURES),
        ([State.RUNNING], Policy(Copy.PARALLEL), None),
        ([State.RUNNING], Policy(Copy.BARRIER), None),
        ([State.RUNNING], Policy(Copy.BARRIER, max_parallel=1), HoldKind.SLOTS),
        ([State.RUNNING], Policy(Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.WAITING_FOR_CUTOVER], Policy(Copy.BARRIER, max_parallel=1), None),
        ([State.WAITING_FOR_CUTOVER], Policy(Copy.PARALLEL, max_parallel=1), None),
        ([State.UNCERTAIN], Policy(Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.FAILED_RETRYABLE], Policy(Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.RESUMING], Policy(Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.STOPPED], Policy(Copy.PARALLEL, max_parallel=1), None),
        ([State.STOPPED], Policy(Copy.BARRIER), None),
        ([State.RUNNING], Policy(Copy.PARALLEL, strict=True), HoldKind.STRICT),
        ([State.RUNNING], Policy(Copy.PARALLEL, max_failures=1, strict=True), None),
        ([State.FAILED], Policy(Copy.PARALLEL, max_failures=1, strict=True), None),
        ([State.FAILED, State.RUNNING], Policy(Copy.PARALLEL, max_failures=1, strict=True), HoldKind.STRICT),
        ([State.REVERT_WINDOW], Policy(Copy.PARALLEL, strict=True), HoldKind.STRICT),
    ],
)
def test_who_holds_the_next_one(states: list[State], policy: Policy, held_by: HoldKind | None) -> None:
    """CL2, CU8, PL2, §6: what stands before it, in each order."""
    operations = rollout(*states, State.PENDING)
    found = holds(policy, facts_of([Member(each) for each in operations], len(states)))
    relevant = [hold for hold in found if hold.kind is not HoldKind.STRICT or held_by is HoldKind.STRICT]
    assert [hold.kind for hold in relevant] == ([held_by] if held_by else [])
    assert all(hold.detail for hold in found)


def hold_of(policy: Policy, states: Sequence[State], place: int, **fields: object) -> Hold:
    facts = OperationFacts(states[place], Tally.of(rollout(*states)), position=place)
    (found,) = holds(policy, replace(facts, **fields))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("before", "cleared_by"),
    [(State.RUNNING, ClearedBy.WAIT), (State.STOPPED, ClearedBy.FIX), (State.UNCERTAIN, ClearedBy.FIX)],
)
def test_what_stands_in_the_way_says_who_moves_it(before: State, cleared_by: ClearedBy) -> None:
    """§6: the order clears by itself, unless a person has to move what stands before it."""
    order = hold_of(Policy(), [before, State.PENDING], 1, before_in_wave=f"west ({before})")
    assert (order.kind, order.cleared_by) == (HoldKind.ORDER, cleared_by)
    assert "west" in order.detail
    turn = hold_of(Policy(Copy.BARRIER), [before, State.WAITING_FOR_CUTOVER], 1, before=f"west ({before})")
    assert (turn.kind, turn.cleared_by) == (HoldKind.TURN, cleared_by)
    assert "west" in turn.detail


def test_waiting_for_a_cutover_says_whose_turn_it_is_and_who_says_when() -> None:
    waiting = State.WAITING_FOR_CUTOVER
    assert hold_of(MANUAL, [waiting], 0).kind is HoldKind.CUTOVER
    assert hold_of(Policy(Copy.BARRIER), [waiting, waiting], 1).kind is HoldKind.TURN
    facts = OperationFacts(waiting, Tally.of(rollout(waiting)))
    assert kinds(Policy(Copy.BARRIER), facts) == set()
    assert kinds(MANUAL, replace(facts, wished=frozenset({"cutover"}))) == set()
    both = Policy(Copy.BARRIER, cutover=Cutover.MANUAL)
    second = OperationFacts(waiting, Tally.of(rollout(waiting, waiting)), position=1)
    assert kinds(both, second) == {HoldKind.TURN, HoldKind.CUTOVER}


def test_a_spent_budget_holds_a_cutover_until_somebody_asks_for_it() -> None:
    """CU2, CU7."""
    states = [State.FAILED, State.WAITING_FOR_CUTOVER]
    for policy in (Policy(Copy.BARRIER), replace(MANUAL, copy=Copy.PARALLEL)):
        found = hold_of(policy, states, 1)
        assert (found.kind, found.cleared_by) == (HoldKind.FAILURES, ClearedBy.FIX)
        facts = OperationFacts(states[1], Tally.of(rollout(*states)), position=1)
        assert kinds(policy, replace(facts, wished=frozenset({"cutover"}))) == set()
    bearing = Policy(Copy.BARRIER, OnFailure.CONTINUE)
    assert kinds(bearing, OperationFacts(states[1], Tally.of(rollout(*states)), position=1)) == set()


def test_a_refused_cutover_is_asked_again_a_few_times_and_then_left_to_a_person() -> None:
    """CU5: bounded and visible, with the engine's words."""
    barrier, waiting = Policy(Copy.BARRIER), [State.WAITING_FOR_CUTOVER]
    again = hold_of(barrier, waiting, 0, refusals=Refusals(1, 0.5, "replicas lag"))
    assert (again.kind, again.cleared_by) == (HoldKind.REFUSED, ClearedBy.WAIT)
    assert again.until_s is not None
    assert again.until_s > 0
    last = hold_of(barrier, waiting, 0, refusals=Refusals(CUTOVER_REFUSALS_MAX, 900.0, "replicas lag"))
    assert (last.kind, last.cleared_by) == (HoldKind.REFUSED, ClearedBy.FIX)
    assert "replicas lag" in last.detail
    pauses = [asks_again_in_s(Refusals(count)) for count in range(CUTOVER_REFUSALS_MAX)]
    assert pauses == sorted(pauses, key=lambda each: each or 0.0)
    assert pauses[0] == 0.0
    assert asks_again_in_s(Refusals(CUTOVER_REFUSALS_MAX)) is None


@pytest.mark.parametrize("state", [State.RUNNING, State.CUTTING_OVER, State.WAITING_FOR_CUTOVER])
def test_a_silent_engine_is_said_before_contact_counts_as_lost(state: State) -> None:
    """PO3: since when it has not answered, and from the tenth look on somebody else has to look."""
    silent = hold_of(Policy(), [state], 0, silent_looks=3, silent_for_s=41.6, error="connection refused")
    assert (silent.kind, silent.cleared_by) == (HoldKind.SILENT, ClearedBy.WAIT)
    assert "for 42 s" in silent.detail
    assert "connection refused" in silent.detail
    lost = hold_of(Policy(), [state], 0, silent_looks=10)
    assert lost.cleared_by is ClearedBy.ASK
    assert "ever" in lost.detail


@pytest.mark.parametrize("state", [each for each in State if not each.is_finished])
def test_a_claim_in_progress_is_said_in_every_state(state: State) -> None:
    facts = OperationFacts(state, Tally.of(rollout(state)), claimed_for_s=12.0)
    found = [hold for hold in holds(Policy(), facts) if hold.kind is HoldKind.CLAIMED]
    assert [hold.until_s for hold in found] == [12.0]


@pytest.mark.parametrize("state", [each for each in State if each.is_finished])
def test_nothing_holds_what_is_finished(state: State) -> None:
    facts = OperationFacts(
        state, Tally.of(rollout(state)), stop_in_force="stop", drained=True, claimed_for_s=1.0
    )
    assert holds(Policy(), facts) == ()


def test_what_only_a_person_moves_says_so() -> None:
    stopped = hold_of(Policy(), [State.STOPPED], 0)
    assert (stopped.kind, stopped.cleared_by) == (HoldKind.STOP, ClearedBy.FIX)
    facts = OperationFacts(State.STOPPED, Tally.of(rollout(State.STOPPED)), wished=frozenset({"start"}))
    assert holds(Policy(), facts) == ()
    uncertain = hold_of(Policy(), [State.UNCERTAIN], 0, error="lost at the engine")
    assert (uncertain.kind, uncertain.detail) == (HoldKind.UNCERTAIN, "lost at the engine")


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ([State.RUNNING, State.RUNNING], "2 may copy at once: 2 do now"),
        ([State.RUNNING, State.PENDING], "2 may copy at once: 1 does now, others of its wave come before it"),
        ([State.PENDING, State.PENDING], "2 may copy at once: others of its wave come before it"),
    ],
)
def test_no_slot_is_said_to_be_taken_that_nobody_uses(states: list[State], said: str) -> None:
    facts = OperationFacts(State.PENDING, Tally.of(rollout(*states, State.PENDING)), position=2, ahead=2)
    (hold,) = holds(Policy(Copy.PARALLEL, max_parallel=2), facts)
    assert hold.detail == said
