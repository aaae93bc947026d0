"""Nobody waits behind a crowd: how far one apply's dispatches may run ahead of its drivers, and whose turn is next."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TypeVar

AHEAD_MOST = 64
"""So many dispatches of one apply are notified and not yet taken up. They stand in queues that all applies share, and
whoever comes after them waits for no more than these.
"""

AHEAD_S = 5.0
"""What was notified so long ago and not taken up counts no longer: the message may be lost, or nobody reads it."""

REFILL = 16
"""There is room for so many before a driver notifies more: one look for many drivers, and never an empty queue."""

Item = TypeVar("Item")


def room_for(ahead: int) -> int:
    """How many more may be notified; 0 until it is worth a look."""
    return AHEAD_MOST - ahead if ahead <= AHEAD_MOST - REFILL else 0


@dataclass(frozen=True, slots=True)
class Front:
    """What is known of an apply's dispatches together. is_told: some are notified and not taken up. last_told_s,
    last_taken_s: since the last one was notified, or any of its operations was taken up; infinite where none ever was.
    """

    is_told: bool
    last_told_s: float
    last_taken_s: float

    @classmethod
    def of(
        cls,
        told_for_s: Iterable[float | None],
        rung_for_s: Iterable[float | None],
        taken_for_s: Iterable[float | None],
    ) -> "Front":
        """Of each operation: since when it waits notified, since its last notification, and since its last claim."""
        return cls(any(each is not None for each in told_for_s), _newest(rung_for_s), _newest(taken_for_s))

    def untaken_for_s(self, due_for_s: float | None, told_for_s: float | None) -> float | None:
        """For how long a due dispatch has not been taken up although somebody should have; None where it is not due,
        or only waits for its turn behind those that are notified. Where none is, somebody should have notified it. As
        long as drivers take up its siblings they are there, however long the queue that it stands in.
        """
        if due_for_s is None or due_for_s <= 0 or (told_for_s is None and self.is_told):
            return None
        return min(self.last_taken_s, min(due_for_s, self.last_told_s) if told_for_s is None else told_for_s)


def _newest(ages_s: Iterable[float | None]) -> float:
    """Of a stamp that lies ahead nothing is known."""
    return min((each for each in ages_s if each is not None and each >= 0), default=inf)


def in_turn(items: Iterable[Item], group: Callable[[Item], Hashable]) -> tuple[Item, ...]:
    """The first of each group, then the second of each; the order within a group stays."""
    places: dict[Hashable, int] = defaultdict(int)
    placed: list[tuple[int, Item]] = []
    for item in items:
        name = group(item)
        placed.append((places[name], item))
        places[name] += 1
    return tuple(item for _, item in sorted(placed, key=lambda pair: pair[0]))
