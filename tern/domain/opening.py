"""How many pending operations may be let in now, and when that changes by itself. holds.py says the same of one."""

from dataclasses import dataclass

from tern.domain.budget import is_spent, strict_room
from tern.domain.policy import Copy, Policy
from tern.domain.states import State
from tern.domain.tally import COPYING, PASSED, RAN, UNDER_WAY, UNPASSED, Tally


@dataclass(frozen=True, slots=True)
class Opening:
    """Room for operations of one wave, from the front of the order.

    room: at most so many, None for all. in_order: one that is held for a reason of its own is not walked around.
    """

    wave: int
    room: int | None
    in_order: bool


def opening(policy: Policy, tally: Tally) -> Opening | None:
    """What may be let in now beside what already is; None when nothing may.

    A wave begins when all before it are through and have baked. The claim asks holds() again under the lock.
    """
    wave = tally.current_wave
    if wave is None or is_spent(policy, tally) or bakes_for_s(policy, tally, wave) > 0:
        return None
    own = tally.within(wave)
    front = own.first_outside
    if front is None:
        return None
    rooms = [strict_room(policy, tally, wave)]
    match policy.copy:
        case Copy.ROLLING:
            # A retried one stands before some that have begun since: rolling is one after the other all the same.
            is_first = own.first(*UNPASSED) == front and not own.count(*UNDER_WAY)
            rooms.append(1 if is_first else 0)
        case Copy.BARRIER | Copy.PARALLEL:
            rooms.append(free_slots(policy, tally, wave))
    room = min((each for each in rooms if each is not None), default=None)
    return None if room is not None and room <= 0 else Opening(wave, room, policy.copy is not Copy.PARALLEL)


def free_slots(policy: Policy, tally: Tally, wave: int) -> int | None:
    """How many more of the wave may copy beside those that do and those that are let in; None without a limit.

    Negative where more do than may: a resumed operation needs no slot, so it can take one that was promised.
    """
    most = policy.rules(wave).max_parallel
    if most is None:
        return None
    own = tally.within(wave)
    return most - own.count(*COPYING) - own.admitted


def bakes_for_s(policy: Policy, tally: Tally, wave: int) -> float:
    """Seconds until every wave before this one has baked; not positive when they have."""
    left = 0.0
    for group in tally.groups:
        if group.wave < wave and group.state in RAN and group.ended_s_ago is not None:
            left = max(left, policy.rules(group.wave).bake_s - group.ended_s_ago)
    return left


def opens_in_s(policy: Policy, tally: Tally) -> float | None:
    """Seconds until time alone lets somebody in: the end of a bake. None when time alone changes nothing."""
    wave = tally.current_wave
    if wave is None or is_spent(policy, tally) or not tally.within(wave).count(State.PENDING):
        return None
    left = bakes_for_s(policy, tally, wave)
    return left if left > 0 else None


def is_blocked_for_good(policy: Policy, tally: Tally) -> bool:
    """Whether no pending operation can start until a person acts, whatever is under way ends like; true
    where none is left.

    A spent budget, a stopped operation that the order can't go around, or, where the rollout is strict, stopped work
    that may still fail. Meaningful when nothing is under way.
    """
    front = next((group for group in tally.groups if group.first == tally.first(State.PENDING)), None)
    if front is None or is_spent(policy, tally):
        return True
    stopped = [group for group in tally.groups if group.state is State.STOPPED]
    if any(group.wave < front.wave for group in stopped):
        return True
    if policy.copy is Copy.ROLLING and any(group.first < front.first for group in stopped):
        return True
    room = strict_room(policy, tally, front.wave)
    return tally.admitted == 0 and room is not None and room <= 0


def waves_before(tally: Tally, wave: int) -> int:
    """How many operations of earlier waves are not through."""
    return sum(group.count for group in tally.groups if group.wave < wave and group.state not in PASSED)
