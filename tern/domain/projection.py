"""An apply's state as a function of its operations (G14). The store runs it inside every transaction that
changes an operation; nothing else writes an apply's state.
"""

from dataclasses import dataclass

from tern.domain.policy import Copy, Policy, Tally, is_halted
from tern.domain.states import ApplyState, State

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


def project(policy: Policy, tally: Tally) -> Projection:
    """First match of: something is live; everything left is held by the policy; everything is settled.

    `tally.before` must hold what stands before the first pending operation in the order.
    """
    pending = tally.count(State.PENDING)
    waiting = tally.count(State.WAITING_FOR_CUTOVER)
    halted = is_halted(policy, tally)
    blocked = _is_order_blocked(policy, tally)
    # A halted rollout holds what waits for its cutover too: it leads out only by a person's word (CU7).
    held_waiting = waiting if halted else 0
    startable = 0 if halted or blocked else pending
    moving = sum(tally.count(*states) for states, _ in _PHASES) - held_waiting

    if moving or startable:
        return Projection(_live_state(tally))
    if held_waiting or (blocked and pending and not halted):
        return Projection(ApplyState.PAUSED)
    return Projection(_verdict(tally, skipped=pending), skips_pending=pending > 0)


def _is_order_blocked(policy: Policy, tally: Tally) -> bool:
    """A stopped operation stands before the first pending one, and the order can't go around it."""
    return policy.copy is Copy.ROLLING and tally.count_before(State.STOPPED) > 0


def _live_state(tally: Tally) -> ApplyState:
    if tally.count(*_SET_ASIDE):
        return ApplyState.RUNNING_DEGRADED
    for states, phase in _PHASES:
        if tally.count(*states):
            return phase
    # Only pending ones are left to move. Once anything has started it never reads `pending` again.
    return ApplyState.PENDING if tally.count(State.PENDING) == tally.total else ApplyState.RUNNING


def _verdict(tally: Tally, *, skipped: int) -> ApplyState:
    if tally.count(State.FAILED):
        return ApplyState.FAILED
    if tally.count(State.STOPPED):
        return ApplyState.STOPPED
    if tally.count(State.CANCELLED) or tally.count(State.SKIPPED) + skipped == tally.total:
        return ApplyState.CANCELLED
    if tally.count(State.REVERTED):
        return ApplyState.REVERTED
    return ApplyState.COMPLETED
