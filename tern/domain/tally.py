"""An apply's operations, counted: all that policy and projection look at, however many operations there are.

The store counts in one statement, tests and views from a list; what is made of the counts is decided elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tern.domain.states import State

COPYING = (State.RUNNING, State.RESUMING, State.FAILED_RETRYABLE, State.UNCERTAIN)
"""States that hold a slot. One that waits for its cutover holds none; one we know too little of does."""

PASSED = (State.COMPLETED, State.FAILED, State.CANCELLED, State.REVERTED, State.SKIPPED)
"""States that let the next deployment in the order go (a failure only where the policy bears it)."""

UNPASSED = tuple(state for state in State if state not in PASSED)

UNDER_WAY = tuple(state for state in State if state.is_live and state is not State.PENDING)
"""Started and not settled: each of these can still fail."""

RAN = (State.COMPLETED, State.FAILED, State.REVERTED)
"""Endings of operations whose change was at work, which is what a wave bakes after."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One operation as far as anybody counts it.

    wave: from 1, 0 without waves. is_admitted: pending, let in, and not claimed yet. is_wished: a wish about it is
    open, and driven some time. has_remote_id: work that was handed over may go on. was_seen: it failed before the
    newest release. ended_s_ago: seconds since it was finished.
    """

    position: int
    state: State
    wave: int = 0
    is_admitted: bool = False
    is_wished: bool = False
    has_remote_id: bool = False
    was_seen: bool = False
    ended_s_ago: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The operations of one wave that are in one state.

    first: the lowest position. admitted, first_outside: of pending ones, how many are let in, and the lowest position
    of one that is not. wished: with an open wish that is driven. resumable: stopped ones that a start resumes at
    their engines. seen: failed ones from before the newest release. ended_s_ago: seconds since the newest ending.
    """

    wave: int
    state: State
    count: int
    first: int
    admitted: int = 0
    first_outside: int | None = None
    wished: int = 0
    resumable: int = 0
    seen: int = 0
    ended_s_ago: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """An apply's operations by wave and state.

    released: how many failures the newest release opened, None when nothing was ever released.
    """

    groups: tuple[Group, ...] = ()
    released: int | None = None

    @classmethod
    def of(cls, standings: Iterable[Standing], released: int | None = None) -> "Tally":
        """Counts a list."""
        alike: dict[tuple[int, State], list[Standing]] = defaultdict(list)
        for each in standings:
            alike[each.wave, each.state].append(each)
        return cls(tuple(_group(wave, state, each) for (wave, state), each in alike.items()), released)

    def within(self, wave: int) -> "Tally":
        """Only the operations of one wave."""
        return Tally(tuple(group for group in self.groups if group.wave == wave), self.released)

    def count(self, *states: State) -> int:
        """How many operations are in one of these states."""
        return sum(group.count for group in self.groups if group.state in states)

    def first(self, *states: State) -> int | None:
        """The lowest position of an operation in one of these states."""
        return min((group.first for group in self.groups if group.state in states), default=None)

    @property
    def total(self) -> int:
        """How many operations there are."""
        return sum(group.count for group in self.groups)

    @property
    def admitted(self) -> int:
        """How many pending operations are let in and not claimed yet."""
        return sum(group.admitted for group in self.groups)

    @property
    def first_outside(self) -> int | None:
        """The lowest position of a pending operation that is not let in."""
        found = [group.first_outside for group in self.groups if group.first_outside is not None]
        return min(found, default=None)

    @property
    def wished(self) -> int:
        """How many operations have an open wish."""
        return sum(group.wished for group in self.groups)

    @property
    def resumable(self) -> int:
        """How many stopped operations a start would resume at the engine."""
        return sum(group.resumable for group in self.groups)

    @property
    def seen(self) -> int:
        """How many of the failed operations failed before the newest release."""
        return sum(group.seen for group in self.groups)

    @property
    def waves(self) -> tuple[int, ...]:
        """The waves that have operations, in order."""
        return tuple(sorted({group.wave for group in self.groups}))

    @property
    def current_wave(self) -> int | None:
        """The first wave that is not through; None when all are."""
        return min((group.wave for group in self.groups if group.state not in PASSED), default=None)


def _group(wave: int, state: State, alike: list[Standing]) -> Group:
    outside = [each.position for each in alike if state is State.PENDING and not each.is_admitted]
    ages = [each.ended_s_ago for each in alike if each.ended_s_ago is not None]
    return Group(
        wave=wave,
        state=state,
        count=len(alike),
        first=min(each.position for each in alike),
        admitted=sum(state is State.PENDING and each.is_admitted for each in alike),
        first_outside=min(outside, default=None),
        wished=sum(each.is_wished for each in alike),
        resumable=sum(state is State.STOPPED and each.has_remote_id for each in alike),
        seen=sum(state is State.FAILED and each.was_seen for each in alike),
        ended_s_ago=min(ages, default=None),
    )
