"""An apply's state as a function of its operations, its policy and the open requests (G14). The store runs it inside
every transaction that changes an operation; nothing else writes an apply's state.
"""

from dataclasses import dataclass

from tern.domain.barrier import is_blocked
from tern.domain.budget import is_spent
from tern.domain.opening import is_blocked_for_good
from tern.domain.policy import OnFailure, Policy
from tern.domain.states import ApplyState, State
from tern.domain.tally import Tally

_PHASES: tuple[tuple[tuple[State, ...], ApplyState], ...] = (
    (
        (State.RUNNING, State.FAILED_RETRYABLE, State.RESUMING, State.UNCERTAIN),
        ApplyState.RUNNING,
    ),
    ((State.WAITING_FOR_CUTOVER,), ApplyState.WAITING_FOR_CUTOVER),
    ((State.CUTTING_OVER, State.REVERTING), ApplyState.CUTTING_OVER),
    ((State.REVERT_WINDOW,), ApplyState.REVERT_WINDOW),
)
"""Started phases, least advanced first."""

_SET_ASIDE = (State.FAILED, State.CANCELLED, State.SKIPPED)


@dataclass(frozen=True, slots=True)
class Projection:
    """What the apply's row must say, and whether the never-started operations are skipped with it."""

    state: ApplyState
    skips_pending: bool = False


def is_left_alone_by_claim(state: ApplyState) -> bool:
    """Whether the claim of an operation can change nothing about an apply in this state: neither what it must say, nor
    whom it lets in, nor whose turn it is.

    A claim makes a pending or retryable operation a running one. The least advanced phase is then `running`, or
    something is set aside already and stays so. What was let in takes the slot that it had been given, what is at
    risk was at risk, and nobody is through who was not.
    """
    return state in {ApplyState.RUNNING, ApplyState.RUNNING_DEGRADED}


def project(policy: Policy, tally: Tally) -> Projection:
    """First match of: something is live; everything left is held by the policy; everything is settled.

    An operation with an open wish is live whatever its state: nothing is settled while a delivery is open, and a
    stopped rollout with a start on its way is none.
    """
    if tally.wished or _moves(policy, tally) or not is_blocked_for_good(policy, tally):
        return Projection(_live_state(tally))
    pending, waiting = tally.count(State.PENDING), tally.count(State.WAITING_FOR_CUTOVER)
    never_starts = is_spent(policy, tally) and policy.on_failure is OnFailure.HALT
    if waiting or (pending and not never_starts):
        return Projection(ApplyState.PAUSED)
    return Projection(_verdict(tally), skips_pending=pending > 0)


def _moves(policy: Policy, tally: Tally) -> bool:
    """Something has started and goes on: by itself, by Tern, or by the person whose cutover the policy asks for."""
    started = sum(tally.count(*states) for states, _ in _PHASES)
    waiting = tally.count(State.WAITING_FOR_CUTOVER)
    # A spent budget holds what waits for its cutover too: it leads out only by a person's word (CU7).
    is_held = policy.defers_cutover and (is_spent(policy, tally) or is_blocked(policy, tally))
    return started > (waiting if is_held else 0)


def _live_state(tally: Tally) -> ApplyState:
    if tally.count(*_SET_ASIDE):
        return ApplyState.RUNNING_DEGRADED
    if any(group.wished for group in tally.groups if group.state is State.STOPPED):
        return ApplyState.RUNNING
    for states, phase in _PHASES:
        if tally.count(*states):
            return phase
    # Only pending ones are left to move. Once anything has started it never reads `pending` again.
    return ApplyState.PENDING if tally.count(State.PENDING) == tally.total else ApplyState.RUNNING


def _verdict(tally: Tally) -> ApplyState:
    # What is skipped with it has no say: a rollout that never starts the rest has failed.
    if tally.count(State.FAILED):
        return ApplyState.FAILED
    if tally.count(State.STOPPED):
        return ApplyState.STOPPED
    if tally.count(State.CANCELLED) or tally.count(State.SKIPPED) == tally.total:
        return ApplyState.CANCELLED
    if tally.count(State.REVERTED):
        return ApplyState.REVERTED
    return ApplyState.COMPLETED
