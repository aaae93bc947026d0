"""The barrier: copies overlap, cutovers follow one another in the order, and Tern asks for each when its turn comes."""

from dataclasses import dataclass

from tern.domain.budget import is_spent
from tern.domain.opening import is_blocked_for_good
from tern.domain.policy import Copy, Cutover, Policy
from tern.domain.states import State
from tern.domain.tally import UNPASSED, Tally
from tern.domain.timing import CUTOVER_REFUSALS_MAX, backoff_s

REASON = "its turn to cut over has come: all before it in the order are through"
"""Why Tern asks for a cutover by itself, as the record says it."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Cutovers of one operation that came to nothing, in a row: how many, and how long ago the last, with its words."""

    count: int = 0
    s_ago: float = 0.0
    words: str = ""


def turn(policy: Policy, tally: Tally) -> int | None:
    """The position of the operation whose turn to cut over it is; None when it is nobody's.

    The first that is not through, if it waits: whatever stands before it, stopped, uncertain or in its revert window,
    keeps it waiting.
    """
    if policy.copy is not Copy.BARRIER:
        return None
    first = tally.first(*UNPASSED)
    return first if first is not None and first == tally.first(State.WAITING_FOR_CUTOVER) else None


def asks_by_itself(policy: Policy, tally: Tally) -> bool:
    """Tern cuts over whose turn it is. With cutover=manual a person says when, and a spent budget leaves it to a
    person too (CU2).
    """
    return policy.cutover is Cutover.AUTO and not is_spent(policy, tally)


def failed_since(policy: Policy, tally: Tally, *, has_failed: bool) -> bool:
    """Whether a failure after a wish was accepted holds the rollout: what was asked for before it no longer stands."""
    return has_failed and is_spent(policy, tally)


def is_its_turn(policy: Policy, tally: Tally, position: int) -> bool:
    """Nothing before it in the order keeps its cutover waiting, whoever asks for it."""
    first = tally.first(*UNPASSED)
    return policy.copy is not Copy.BARRIER or first is None or position <= first


def is_blocked(policy: Policy, tally: Tally) -> bool:
    """No operation that waits for its cutover can have it until a person clears what stands before it in the order."""
    waiting = tally.first(State.WAITING_FOR_CUTOVER)
    if policy.copy is not Copy.BARRIER or waiting is None:
        return False
    stopped, pending = tally.first(State.STOPPED), tally.first(State.PENDING)
    if stopped is not None and stopped < waiting:
        return True
    return pending is not None and pending < waiting and is_blocked_for_good(policy, tally)


def asks_again_in_s(refusals: Refusals) -> float | None:
    """Seconds until Tern asks for a refused cutover again; not positive when it does so now. None when it has asked
    often enough and leaves it to a person (CU5).
    """
    if refusals.count >= CUTOVER_REFUSALS_MAX:
        return None
    return backoff_s(refusals.count, 0.5) * 2.0 - refusals.s_ago if refusals.count else 0.0
