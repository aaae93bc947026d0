"""Nobody waits behind a crowd: how far one apply's dispatches may run ahead of its drivers, and whose turn is next."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
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


def in_turn(items: Iterable[Item], group: Callable[[Item], Hashable]) -> tuple[Item, ...]:
    """The first of each group, then the second of each; the order within a group stays."""
    places: dict[Hashable, int] = defaultdict(int)
    placed: list[tuple[int, Item]] = []
    for item in items:
        name = group(item)
        placed.append((places[name], item))
        places[name] += 1
    return tuple(item for _, item in sorted(placed, key=lambda pair: pair[0]))
