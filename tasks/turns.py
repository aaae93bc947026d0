"""In which order a worker looks at its queues, those of the broker and the one that it keeps for itself."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence

ORDER = ("control", "sweep", "dispatch", "poll")
"""What a person asked for, what finds lost work, new work, and looking at work that goes on anyway."""

TURNS = 8
"""Every eighth message at the latest comes from the other end, so that nothing waits for ever."""


class Turns:
    """Kombu's order of queues: which is looked at first, each time that a message is taken."""

    def __init__(self, queues: Iterable[str] = ()) -> None:
        self._queues = list(queues)
        self._in_a_row = 0

    def update(self, queues: Iterable[str]) -> None:
        """These are listened to from now on."""
        self._queues = list(queues)

    def consume(self, count: int) -> Sequence[str]:
        """All queues, the one first whose message is wanted first."""
        ordered = sorted(self._queues[:count], key=_place)
        return ordered[::-1] if self._in_a_row >= TURNS - 1 else ordered

    def rotate(self, last_used: str) -> None:
        """Notes where the last message came from."""
        has_others = any(_place(queue) > _place(last_used) for queue in self._queues)
        self._in_a_row = self._in_a_row + 1 if has_others else 0


class Line:
    """Work that waits in this process: kinds by the order above, and within a kind each group in turn, so that nobody
    waits behind a crowd. Not thread-safe.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._waiting: dict[str, OrderedDict[str, deque[Callable[[], None]]]] = {}

    def put(self, kind: str, group: str, work: Callable[[], None]) -> None:
        """To the end of its group's own line."""
        self._waiting.setdefault(kind, OrderedDict()).setdefault(group, deque()).append(work)

    def take(self) -> Callable[[], None] | None:
        """Whose turn it is; None when nobody waits."""
        kinds = [kind for kind, groups in self._waiting.items() if groups]
        if not kinds:
            return None
        self._turns.update(kinds)
        kind = self._turns.consume(len(kinds))[0]
        self._turns.rotate(kind)
        groups = self._waiting[kind]
        group, waiting = groups.popitem(last=False)
        work = waiting.popleft()
        if waiting:
            groups[group] = waiting
        return work


def _place(queue: str) -> tuple[int, str]:
    return (ORDER.index(queue), "") if queue in ORDER else (len(ORDER), queue)
