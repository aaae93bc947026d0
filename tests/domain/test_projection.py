"""The parent as a function of its operations: every combination of up to four under every policy (G14)."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tern.domain.policy import Copy, OnFailure, Policy, Tally
from tern.domain.projection import Projection, project
from tern.domain.states import ApplyState, State

POLICIES = [
    Policy(copy=copy, on_failure=on_failure, max_failures=borne)
    for copy in Copy
    for on_failure in OnFailure
    for borne in (0, 1)
]
STARTED = {
    State.RUNNING,
    State.RESUMING,
    State.FAILED_RETRYABLE,
    State.UNCERTAIN,
    State.WAITING_FOR_CUTOVER,
    State.CUTTING_OVER,
    State.REVERTING,
    State.REVERT_WINDOW,
}
PHASE = {
    State.RUNNING: (0, ApplyState.RUNNING),
    State.RESUMING: (0, ApplyState.RUNNING),
    State.FAILED_RETRYABLE: (0, ApplyState.RUNNING),
    State.UNCERTAIN: (0, ApplyState.RUNNING),
    State.WAITING_FOR_CUTOVER: (1, ApplyState.WAITING_FOR_CUTOVER),
    State.CUTTING_OVER: (2, ApplyState.CUTTING_OVER),
    State.REVERTING: (2, ApplyState.CUTTING_OVER),
    State.REVERT_WINDOW: (3, ApplyState.REVERT_WINDOW),
}


def projected(states: Sequence[State], policy: Policy) -> Projection:
    front = next((index for index, state in enumerate(states) if state is State.PENDING), len(states))
    return project(policy, Tally(Counter(states), Counter(states[:front])))


def combinations() -> Iterator[tuple[tuple[State, ...], Policy]]:
    """Every rollout of one to four operations that differs in what a projection may look at."""
    for size in (1, 2, 3, 4):
        seen = set()
        for states in itertools.product(State, repeat=size):
            front = next((index for index, state in enumerate(states) if state is State.PENDING), size)
            alike = (tuple(sorted(states)), tuple(sorted(states[:front])) if front < size else ())
            if alike not in seen:
                seen.add(alike)
                yield from ((states, policy) for policy in POLICIES)


def expected(states: Sequence[State], policy: Policy) -> ApplyState:
    """The same rules, written once more and operation by operation."""
    halted = policy.on_failure is OnFailure.HALT and states.count(State.FAILED) > policy.max_failures
    blocked = False
    moving, held = [], []
    for state in states:
        if state is State.PENDING:
            (held if halted or blocked else moving).append(state)
        elif state is State.WAITING_FOR_CUTOVER and halted:
            held.append(state)
        elif state in STARTED:
            moving.append(state)
        if state is State.STOPPED and policy.copy is Copy.ROLLING:
            blocked = State.PENDING not in states[: states.index(State.STOPPED)]
    if moving:
        if any(state in {State.FAILED, State.CANCELLED, State.SKIPPED} for state in states):
            return ApplyState.RUNNING_DEGRADED
        phases = [PHASE[state] for state in states if state in PHASE]
        if phases:
            return min(phases)[1]
        only_pending = all(state is State.PENDING for state in states)
        return ApplyState.PENDING if only_pending else ApplyState.RUNNING
    if State.WAITING_FOR_CUTOVER in held or (held and not halted):
        return ApplyState.PAUSED
    ended = [State.SKIPPED if state is State.PENDING else state for state in states]
    for state, verdict in ((State.FAILED, ApplyState.FAILED), (State.STOPPED, ApplyState.STOPPED)):
        if state in ended:
            return verdict
    if State.CANCELLED in ended or set(ended) == {State.SKIPPED}:
        return ApplyState.CANCELLED
    return ApplyState.REVERTED if State.REVERTED in ended else ApplyState.COMPLETED


def test_every_combination_of_up_to_four_operations() -> None:
    """G14: first match of the three rules, and the verdict is honest; never settled over something that lives."""
    for states, policy in combinations():
        found = projected(states, policy)
        picture = (states, policy, found)
        assert found.state is expected(states, policy), picture
        settled = found.state.is_settled
        assert not (settled and STARTED & set(states)), picture
        assert found.skips_pending is (settled and State.PENDING in states), picture
        if State.FAILED in states and settled:
            assert found.state is ApplyState.FAILED, picture
        if found.state is ApplyState.PENDING:
            assert set(states) == {State.PENDING}, picture
        if found.state is ApplyState.COMPLETED:
            assert set(states) <= {State.COMPLETED, State.SKIPPED}, picture


@pytest.mark.parametrize(
    ("states", "policy", "verdict"),
    [
        (["failed", "running"], Policy(copy=Copy.PARALLEL), ApplyState.RUNNING_DEGRADED),
        (["failed", "completed"], Policy(copy=Copy.PARALLEL), ApplyState.FAILED),
        (["completed", "pending"], Policy(), ApplyState.RUNNING),
        (["failed", "pending", "pending"], Policy(), ApplyState.FAILED),
        (["failed", "pending"], Policy(on_failure=OnFailure.CONTINUE), ApplyState.RUNNING_DEGRADED),
        (["stopped", "running"], Policy(copy=Copy.PARALLEL), ApplyState.RUNNING),
        (["stopped", "pending"], Policy(), ApplyState.PAUSED),
        (["stopped", "pending"], Policy(copy=Copy.PARALLEL), ApplyState.RUNNING),
        (["stopped", "completed"], Policy(), ApplyState.STOPPED),
        (["failed", "waiting_for_cutover"], Policy(copy=Copy.PARALLEL), ApplyState.PAUSED),
        (
            ["failed", "waiting_for_cutover", "running"],
            Policy(copy=Copy.PARALLEL),
            ApplyState.RUNNING_DEGRADED,
        ),
        (["cancelled", "completed"], Policy(), ApplyState.CANCELLED),
        (["skipped", "completed"], Policy(), ApplyState.COMPLETED),
        (["skipped", "skipped"], Policy(), ApplyState.CANCELLED),
        (["reverted", "completed"], Policy(), ApplyState.REVERTED),
        (["uncertain", "waiting_for_cutover"], Policy(copy=Copy.PARALLEL), ApplyState.RUNNING),
        (["waiting_for_cutover", "cutting_over"], Policy(), ApplyState.WAITING_FOR_CUTOVER),
        (["reverting", "revert_window"], Policy(), ApplyState.CUTTING_OVER),
        (["pending", "pending"], Policy(), ApplyState.PENDING),
    ],
)
def test_words_for_a_rollout(states: list[str], policy: Policy, verdict: ApplyState) -> None:
    """PR1, PR2, PR4, PR5, CU7 as examples, by hand."""
    assert projected([State(state) for state in states], policy).state is verdict
