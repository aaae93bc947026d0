"""Stop and cancel are sent and not waited for: forty engines that swallow them cost no thread, and delay nobody.

One sender a process: at most one halting call is under way to each deployment. Its answer comes on a thread of the
transport's and is written by one of a few writers. What was claimed for it is an ordinary claim with an ordinary end:
a process that dies between call and answer leaves exactly what it leaves anywhere else.
"""

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tern.domain.errors import TernError
from tern.domain.outcome import Outcome, Unknown
from tern.domain.timing import HALT_RETRY_MAX_S
from tern.ports import DueControl, StorageUnavailable

_log = logging.getLogger("tern.halting")
WRITERS = 4
_A_MOMENT_S = 0.1
"""After the pause has ended by the database's clock; too early would be in vain, and found by the sweep."""

Value = TypeVar("Value")


class HaltSender:
    """many.Halts."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[str] = set()
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="tern-halt")
        self._again: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._closed = False
        self._timer = threading.Thread(target=self._ring_again, name="tern-halt-again", daemon=True)
        self._timer.start()

    def turn(self, due: DueControl, again: Callable[[DueControl], None]) -> "_Turn | None":
        """See many.Halts."""
        deployment = due.scope.deployment
        with self._changed:
            if self._closed or deployment in self._under_way:
                return None
            self._under_way.add(deployment)
        return _Turn(self, deployment, lambda: again(due))

    def close(self, patience_s: float) -> None:
        """Lets what is under way be answered and written, for so long. The rest ends with its claims."""
        ends_at = time.monotonic() + patience_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            while self._under_way and (left := ends_at - time.monotonic()) > 0:
                self._changed.wait(left)
        self._writers.shutdown(wait=True, cancel_futures=True)
        self._timer.join(patience_s)

    def write(self, work: Callable[[], None]) -> None:
        """Runs on a writer; never raises."""
        try:
            self._writers.submit(work)
        except RuntimeError:
            # This process ends: its claim does, too, and the next driver sends it again.
            _log.info("an answer came too late to be written here")

    def ended(self, deployment: str) -> None:
        """The next halting call to it may begin."""
        with self._changed:
            self._under_way.discard(deployment)
            self._changed.notify_all()

    def soon(self, ring: Callable[[], None]) -> None:
        """Rings when a call without an answer is due again; the sweep would find it a little later."""
        with self._changed:
            self._number += 1
            heapq.heappush(
                self._again, (time.monotonic() + HALT_RETRY_MAX_S + _A_MOMENT_S, self._number, ring)
            )
            self._changed.notify_all()

    def _ring_again(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._again or self._again[0][0] > time.monotonic()):
                    self._changed.wait(self._again[0][0] - time.monotonic() if self._again else None)
                if self._closed:
                    return
                ring = heapq.heappop(self._again)[2]
            _carefully("ringing for a halt again", ring)


class _Turn:
    """many.Turn."""

    def __init__(self, sender: HaltSender, deployment: str, again: Callable[[], None]) -> None:
        self._sender = sender
        self._deployment = deployment
        self._again = again
        self._is_given = False

    def later(self, write: Callable[[Outcome[Value]], None]) -> Callable[[Outcome[Value]], None]:
        """See many.Turn."""
        self._is_given = True

        def write_and_end(outcome: Outcome[Value]) -> None:
            try:
                _carefully(f"the answer of {self._deployment} to a halt", lambda: write(outcome))
            finally:
                self._sender.ended(self._deployment)
            if isinstance(outcome, Unknown):
                self._sender.soon(self._again)

        return lambda outcome: self._sender.write(lambda: write_and_end(outcome))

    def give_back(self) -> None:
        """See many.Turn."""
        if not self._is_given:
            self._sender.ended(self._deployment)


def _carefully(what: str, work: Callable[[], None]) -> None:
    try:
        work()
    except (TernError, StorageUnavailable) as error:
        _log.warning("%s: %s", what, error)
    except Exception:  # noqa: BLE001 - a bug in one answer must not end the thread that writes the others
        _log.exception("%s failed unexpectedly", what)
