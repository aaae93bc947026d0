"""The failure budget: when on_failure acts, what a release opens, and how much a strict rollout dares.

With waves every wave has a budget of its own, and one spent budget stops the whole rollout.
"""

from tern.domain.policy import OnFailure, Policy
from tern.domain.states import State
from tern.domain.tally import UNDER_WAY, Tally


def is_spent(policy: Policy, tally: Tally) -> bool:
    """More failures than are borne, in some wave, and on_failure says that this stops the rollout, in any order.

    A release opens what it saw and nothing later: the next failure is one too many again.
    """
    if policy.on_failure is OnFailure.CONTINUE:
        return False
    return any(
        group.count > policy.rules(group.wave).max_failures
        and (group.count > group.seen or not _is_released(tally))
        for group in tally.groups
        if group.state is State.FAILED
    )


def failures_to_release(tally: Tally) -> int:
    """What a release that is accepted now writes down: the failures that stand, seen by whoever releases."""
    return tally.count(State.FAILED)


def strict_room(policy: Policy, tally: Tally, wave: int) -> int | None:
    """How many more operations of the wave a strict rollout may let in; None where it is not strict.

    Each that is under way may still fail, a stopped one that a start resumes too. So one is let in only while
    failures and risks together are no more than the budget, and max_failures + 1 failures are the most there can be.
    Negative where more are let in than that.
    """
    if not policy.strict:
        return None
    own = tally.within(wave)
    at_risk = own.count(*UNDER_WAY) + own.admitted + own.resumable
    return policy.rules(wave).max_failures + 1 - counted_failures(tally, wave) - at_risk


def counted_failures(tally: Tally, wave: int) -> int:
    """The wave's failures that no release has set aside."""
    own = tally.within(wave)
    return own.count(State.FAILED) - (own.seen if _is_released(tally) else 0)


def _is_released(tally: Tally) -> bool:
    """The newest release saw all failures from before it. One that was committed while the release was being
    written was seen by nobody, and then the release opens nothing.
    """
    return tally.released is not None and tally.seen <= tally.released
