"""The policy: one function says who may go, to the claim, to the projection and to whoever asks why."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern.domain.policy import (
    COPYING,
    PASSED,
    Copy,
    Cutover,
    HoldKind,
    OnFailure,
    OperationFacts,
    Policy,
    Tally,
    admissible,
    holds,
    is_halted,
)
from tern.domain.states import State

ROLLOUT = {HoldKind.ORDER, HoldKind.SLOTS, HoldKind.FAILURES}
POLICIES = st.builds(
    Policy,
    copy=st.sampled_from(Copy),
    on_failure=st.sampled_from(OnFailure),
    cutover=st.sampled_from(Cutover),
    max_parallel=st.none() | st.integers(1, 4),
    max_failures=st.integers(0, 3),
)
STATES = st.lists(st.sampled_from(State), min_size=1, max_size=8)


def tally_at(states: Sequence[State], position: int, admitted: int = 0) -> Tally:
    return Tally(Counter(states), Counter(states[:position]), admitted)


def front(states: Sequence[State]) -> int | None:
    return next((index for index, state in enumerate(states) if state is State.PENDING), None)


@given(POLICIES, STATES)
def test_no_hold_means_admissible_for_the_front_and_the_other_way_round(
    policy: Policy, states: list[State]
) -> None:
    """Admission and claim never disagree: else one would let in for ever what the other turns away."""
    position = front(states)
    if position is None:
        assert admissible(policy, tally_at(states, 0)) == 0
        return
    tally = tally_at(states, position)
    free = not holds(policy, OperationFacts(State.PENDING, tally))
    assert free is (admissible(policy, tally) > 0)


@given(POLICIES, st.integers(1, 8), st.data())
def test_a_rollout_never_has_more_under_way_than_it_may(
    policy: Policy, size: int, data: st.DataObject
) -> None:
    """S18: admitted one by one in any interleaving with endings, order, slots and halt hold."""
    states = [State.PENDING] * size
    for _ in range(24):
        position = front(states)
        if position is not None and admissible(policy, tally_at(states, position)) > 0:
            failed = states.count(State.FAILED)
            assert policy.on_failure is OnFailure.CONTINUE or failed <= policy.max_failures
            states[position] = State.RUNNING
        else:
            under_way = [index for index, state in enumerate(states) if state in COPYING]
            if not under_way:
                break
            chosen = data.draw(st.sampled_from(under_way))
            states[chosen] = data.draw(
                st.sampled_from([State.COMPLETED, State.FAILED, State.FAILED_RETRYABLE])
            )
        copying = sum(state in COPYING for state in states)
        if policy.copy is Copy.ROLLING:
            assert copying <= 1
            started = [state for state in states if state is not State.PENDING]
            assert all(state in PASSED for state in started[:-1])
        elif policy.max_parallel is not None:
            assert copying <= policy.max_parallel


@given(POLICIES, STATES, st.integers(0, 4))
def test_what_was_admitted_counts(policy: Policy, states: list[State], admitted: int) -> None:
    """Two projections in a row let nobody in twice."""
    position = front(states) or 0
    more = admissible(policy, tally_at(states, position, admitted))
    assert more >= 0
    if policy.copy is Copy.PARALLEL and policy.max_parallel is not None and more:
        copying = sum(state in COPYING for state in states)
        assert copying + admitted + more <= policy.max_parallel
    assert more <= max(0, states.count(State.PENDING) - admitted)


@given(POLICIES, STATES, st.sampled_from(["stop", "cancel"]))
def test_a_stop_holds_whatever_else_speaks_for_going(policy: Policy, states: list[State], verb: str) -> None:
    """G9: pending or retryable, first or last: a stop in force is a hold."""
    for state in (State.PENDING, State.FAILED_RETRYABLE, State.RUNNING):
        found = holds(policy, OperationFacts(state, tally_at(states, 0), stop_in_force=verb))
        assert HoldKind.STOP in {hold.kind for hold in found}


@given(POLICIES, STATES)
def test_all_reasons_are_listed(policy: Policy, states: list[State]) -> None:
    """`explain` shows everything that holds an operation, not the first thing."""
    facts = OperationFacts(
        State.PENDING,
        tally_at(states, len(states)),
        stop_in_force="stop",
        wait_s=3.0,
        claimed_for_s=2.0,
        drained=True,
        holds_target=False,
        target_holder="apl-2",
    )
    kinds = {hold.kind for hold in holds(policy, facts)}
    assert kinds >= {
        HoldKind.STOP,
        HoldKind.RESERVATION,
        HoldKind.CLAIMED,
        HoldKind.BACKOFF,
        HoldKind.DRAINED,
    }
    assert (HoldKind.FAILURES in kinds) is is_halted(policy, facts.tally)


@given(POLICIES, STATES)
def test_a_retryable_operation_keeps_slot_and_place(policy: Policy, states: list[State]) -> None:
    """PL2: order, slots and failures are not asked again of one that has started."""
    facts = OperationFacts(State.FAILED_RETRYABLE, tally_at(states, len(states)), drained=True)
    assert not {hold.kind for hold in holds(policy, facts)} & (ROLLOUT | {HoldKind.DRAINED})


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
        ([State.FAILED], Policy(copy=Copy.PARALLEL), HoldKind.FAILURES),
        ([State.RUNNING], Policy(copy=Copy.PARALLEL), None),
        ([State.RUNNING], Policy(copy=Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.WAITING_FOR_CUTOVER], Policy(copy=Copy.PARALLEL, max_parallel=1), None),
        ([State.UNCERTAIN], Policy(copy=Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.FAILED_RETRYABLE], Policy(copy=Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.RESUMING], Policy(copy=Copy.PARALLEL, max_parallel=1), HoldKind.SLOTS),
        ([State.STOPPED], Policy(copy=Copy.PARALLEL, max_parallel=1), None),
    ],
)
def test_who_holds_the_next_one(states: list[State], policy: Policy, held_by: HoldKind | None) -> None:
    """CL2, CU8, PL2: what stands before it, in each order."""
    found = holds(policy, OperationFacts(State.PENDING, tally_at([*states, State.PENDING], len(states))))
    assert [hold.kind for hold in found] == ([held_by] if held_by else [])
    assert all(hold.detail for hold in found)


@given(POLICIES)
def test_a_policy_survives_its_column(policy: Policy) -> None:
    """PL1: what is frozen with an apply is read back as it was."""
    assert Policy.from_json(policy.as_json()) == policy


@pytest.mark.parametrize("wrong", [{"max_parallel": 0}, {"max_parallel": -1}, {"max_failures": -1}])
def test_a_policy_that_makes_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        Policy(**wrong)  # type: ignore[arg-type]


def test_manual_cutover_tells_the_engine_to_wait() -> None:
    assert Policy(cutover=Cutover.MANUAL).defers_cutover
    assert not Policy().defers_cutover
