"""The rule table of an apply's state, read once more: operation by operation, with nothing of the product's counting.

An operation `goes on` when something about it will happen without a person who changes their mind; a rollout is live
while one does.
"""

from collections.abc import Sequence

from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.states import ApplyState, State
from tern.domain.tally import Standing

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
SET_ASIDE = {State.FAILED, State.CANCELLED, State.SKIPPED}


def read_state(policy: Policy, operations: Sequence[Standing], released: int | None = None) -> ApplyState:
    """What the apply's row must say."""
    states = [each.state for each in operations]
    spent = is_spent(policy, operations, released)
    if any(goes_on(policy, operations, each, spent=spent, released=released) for each in operations):
        if SET_ASIDE & set(states):
            return ApplyState.RUNNING_DEGRADED
        phases = [PHASE[state] for state in states if state in PHASE]
        phases += [
            PHASE[State.RESUMING] for each in operations if each.is_wished and each.state is State.STOPPED
        ]
        if phases:
            return min(phases)[1]
        return ApplyState.PENDING if set(states) == {State.PENDING} else ApplyState.RUNNING
    never_starts = spent and policy.on_failure is OnFailure.HALT
    if State.WAITING_FOR_CUTOVER in states or (State.PENDING in states and not never_starts):
        return ApplyState.PAUSED
    ended = {State.SKIPPED if state is State.PENDING else state for state in states}
    for state, verdict in ((State.FAILED, ApplyState.FAILED), (State.STOPPED, ApplyState.STOPPED)):
        if state in ended:
            return verdict
    if State.CANCELLED in ended or ended == {State.SKIPPED}:
        return ApplyState.CANCELLED
    return ApplyState.REVERTED if State.REVERTED in ended else ApplyState.COMPLETED


def goes_on(
    policy: Policy, operations: Sequence[Standing], one: Standing, *, spent: bool, released: int | None
) -> bool:
    if one.is_wished:
        return True
    earlier = [each for each in operations if each.position < one.position]
    match one.state:
        case State.PENDING:
            return not spent and may_start(policy, operations, one, released)
        case State.WAITING_FOR_CUTOVER if policy.copy is Copy.BARRIER:
            # Whoever stands before it has to come through, which a stopped one does not do by itself.
            clear = all(
                each.state is not State.STOPPED
                and (each.state is not State.PENDING or may_start(policy, operations, each, released))
                for each in earlier
            )
            return not spent and clear
        case State.WAITING_FOR_CUTOVER:
            return not spent or policy.cutover is Cutover.AUTO
        case state:
            return state in PHASE


def may_start(policy: Policy, operations: Sequence[Standing], one: Standing, released: int | None) -> bool:
    """Whether it will be let in once everything that is under way has come through well."""
    for each in operations:
        if each.state is State.STOPPED and each.wave < one.wave:
            return False
        if each.state is State.STOPPED and policy.copy is Copy.ROLLING and each.position < one.position:
            return False
        if (
            policy.copy is Copy.BARRIER
            and each.state is State.PENDING
            and each.position < one.position
            and not may_start(policy, operations, each, released)
        ):
            return False
    if not policy.strict or any(each.is_admitted for each in operations):
        return True
    counted = [
        each
        for each in operations
        if each.wave == one.wave
        and (
            (each.state is State.FAILED and not (each.was_seen and release_counts(operations, released)))
            or (each.state is State.STOPPED and each.has_remote_id)
            or (each.state is State.WAITING_FOR_CUTOVER and is_stuck_before(policy, operations, each, one))
        )
    ]
    return len(counted) <= borne(policy, one.wave)


def is_stuck_before(policy: Policy, operations: Sequence[Standing], waiting: Standing, one: Standing) -> bool:
    """In a barrier: it comes after `one`, or after a stopped one; so it can't have come through first."""
    return policy.copy is Copy.BARRIER and any(
        each.position < waiting.position and (each is one or each.state is State.STOPPED)
        for each in operations
    )


def is_spent(policy: Policy, operations: Sequence[Standing], released: int | None) -> bool:
    if policy.on_failure is OnFailure.CONTINUE:
        return False
    for wave in {each.wave for each in operations}:
        failed = [each for each in operations if each.wave == wave and each.state is State.FAILED]
        forgiven = release_counts(operations, released) and all(each.was_seen for each in failed)
        if len(failed) > borne(policy, wave) and not forgiven:
            return True
    return False


def release_counts(operations: Sequence[Standing], released: int | None) -> bool:
    """A release opens what it saw: no more failures may be from before it than it wrote down."""
    old = [each for each in operations if each.state is State.FAILED and each.was_seen]
    return released is not None and len(old) <= released


def borne(policy: Policy, wave: int) -> int:
    own = policy.waves[wave - 1].max_failures if wave else None
    return policy.max_failures if own is None else own
