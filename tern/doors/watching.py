"""Many who watch, one who looks: however many follow the same apply, it is read once in each interval.

The watchers' own threads do it: whoever finds that the last look is old enough looks for all. Nothing runs while
nobody watches.
"""

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from tern.domain.errors import TryAgain
from tern.domain.identity import ApplyId
from tern.doors.answers import Apply
from tern.ports import StorageUnavailable

INTERVAL_S = 1.0
MOST_WATCHERS = 128
LARGE = 1_000
"""Above so many operations a look costs more, so it is taken less often."""


@dataclass
class _Subject:
    """One apply that is watched. number: how many looks there were."""

    watchers: int = 0
    number: int = 0
    due_at: float = 0.0
    somebody_looks: bool = False
    seen: Apply | None = None
    error: Exception | None = None
    news: threading.Condition = field(default_factory=threading.Condition)


class Watching:
    """The watchers of a process. `look` may raise TernError and StorageUnavailable."""

    def __init__(
        self,
        look: Callable[[ApplyId], Apply],
        *,
        interval_s: float = INTERVAL_S,
        most: int = MOST_WATCHERS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._interval_s = interval_s
        self._most = most
        self._monotonic = monotonic
        self._subjects: dict[ApplyId, _Subject] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._closed = False

    def watch(
        self,
        apply_id: ApplyId,
        *,
        revision: int = 0,
        until_person: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Apply, None, None]:
        """Each look that differs from the one before; operations that didn't change are the very same objects.

        With a revision nothing comes until it is another one. Ends with a settled apply, or when nobody wants it any
        more. A database that is away for a while ends no watch; one that is away at the first look does. Raises
        TryAgain where too many watch already, or the process ends.
        """
        subject = self._enter(apply_id)
        try:
            number, last = 0, None
            while is_wanted():
                number, seen = self._next(apply_id, subject, number, is_wanted)
                if seen is None or seen is last:
                    continue
                is_known = last is None and revision != 0 and seen.revision == revision
                last = seen
                if not is_known:
                    yield seen
                if seen.is_settled or (until_person and seen.exit_code is not None):
                    return
        finally:
            self._leave(apply_id, subject)

    def close(self) -> None:
        """Ends every watch with TryAgain: whoever watched asks another process, from the revision that it saw."""
        with self._lock:
            self._closed = True
            subjects = list(self._subjects.values())
        for subject in subjects:
            with subject.news:
                subject.news.notify_all()

    def _enter(self, apply_id: ApplyId) -> _Subject:
        with self._lock:
            if self._count >= self._most:
                what = f"{self._most} watchers are the most that this process serves"
                raise TryAgain(
                    what, next_step="Try again later, or look from time to time.", reason="TOO_MANY_WATCHERS"
                )
            self._count += 1
            subject = self._subjects.setdefault(apply_id, _Subject())
            subject.watchers += 1
            return subject

    def _leave(self, apply_id: ApplyId, subject: _Subject) -> None:
        with self._lock:
            self._count -= 1
            subject.watchers -= 1
            if not subject.watchers:
                del self._subjects[apply_id]

    def _next(
        self, apply_id: ApplyId, subject: _Subject, number: int, is_wanted: Callable[[], bool]
    ) -> tuple[int, Apply | None]:
        """The first look after that of this number, by whomever."""
        with subject.news:
            while True:
                if self._closed:
                    what = "this process ends"
                    raise TryAgain(what, next_step="Watch again, from the last revision.", reason="CLOSING")
                if subject.number > number:
                    if subject.error is not None and subject.seen is None:
                        raise subject.error
                    return subject.number, subject.seen
                rest_s = subject.due_at - self._monotonic()
                if rest_s <= 0 and not subject.somebody_looks:
                    subject.somebody_looks = True
                    break
                subject.news.wait(min(max(rest_s, 0.01), self._interval_s))
                if not is_wanted():
                    return number, None
        self._look_for_all(apply_id, subject)
        return self._next(apply_id, subject, number, is_wanted)

    def _look_for_all(self, apply_id: ApplyId, subject: _Subject) -> None:
        seen: Apply | None = None
        error: Exception | None = None
        try:
            seen = self._look(apply_id)
        except Exception as raised:  # noqa: BLE001 - it is raised again in every watcher that has seen nothing yet
            error = raised
        with subject.news:
            if seen is not None:
                subject.seen = _with_known_parts(seen, subject.seen)
            elif not isinstance(error, StorageUnavailable):
                subject.seen = None
            is_large = subject.seen is not None and subject.seen.operation_count > LARGE
            subject.error = error
            subject.number += 1
            subject.due_at = self._monotonic() + self._interval_s * (5 if is_large else 1)
            subject.somebody_looks = False
            subject.news.notify_all()


def _with_known_parts(seen: Apply, before: Apply | None) -> Apply:
    """The new look, made of the old one's parts wherever they are equal."""
    if before is None or before == seen:
        return before or seen
    known = {operation.deployment: operation for operation in before.operations}
    return replace(
        seen,
        operations=tuple(
            known[each.deployment] if known.get(each.deployment) == each else each for each in seen.operations
        ),
    )
