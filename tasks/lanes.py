"""Where ticks run that call engines, so that an engine which leaves calls without an answer costs nobody else anything.

Each tick runs on a thread of its own. Whoever hands it in waits for its end, as if it were his; but once it has waited
a moment for an engine, he lets go of it, and goes on with what others need. Of each deployment only so many ticks run
here at once. One whose engine was silent for several calls in a row goes slowly: with pauses that grow, on a few
threads that all of its kind share. How often is counted in PostgreSQL, for all workers; what is kept here is a copy of
it, a second old at most.

A tick that is turned away has claimed nothing: its row stays due.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field

from tern.domain.errors import TernError
from tern.domain.silence import CALLS_AT_ONCE, KINDS, CallKind, Ended, Silence, ended
from tern.many import ManyStore
from tern.ports import StorageUnavailable

_log = logging.getLogger("tern.lanes")
PATIENCE_S = 0.1
"""So long a tick may wait for its engine before it is let go of, and so long one waits for a place. Nobody waits for
an engine that was silent the last time.
"""

THREADS_MOST = 128
"""Ticks of one process, those that were let go of included. Beyond that everybody waits."""

SLOW_MOST = 8
"""Of these, so many of deployments that go slowly."""

_COPY_LASTS_S = 1.0


@dataclass
class _Tick:
    """One tick on its way. calling_since: when the call began that it waits for, by this process's own clock."""

    deployment: str
    is_slow: bool
    is_suspect: bool
    calling_since: float | None = None
    is_let_go: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


_tick: ContextVar[_Tick | None] = ContextVar("tick", default=None)


class Lanes:
    """The ticks of one process. `store` is asked for when it is needed, and may raise what opening it raises."""

    def __init__(self, store: Callable[[], ManyStore]) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS_MOST, thread_name_prefix="tern-tick")
        self._changed = threading.Condition()
        self._running: Counter[str] = Counter()
        self._let_go: Counter[str] = Counter()
        self._slow = 0
        self._silent: dict[tuple[str, CallKind], tuple[Silence, float]] = {}
        self._copied_at = float("-inf")

    def drive(self, kind: CallKind, place: str, work: Callable[[], None]) -> None:
        """Runs a tick about `place`, a scope or a deployment, and waits for it unless its engine is slow. Raises what
        it raises by then; what comes later is logged.
        """
        deployment = str(place).rpartition("/")[2]
        tick = self._enter(kind, deployment)
        if tick is None:
            return
        context = copy_context()
        context.run(_tick.set, tick)
        try:
            future = self._threads.submit(context.run, work)
        except RuntimeError:
            # This process ends; the row stays due.
            self._leave(tick)
            return
        future.add_done_callback(lambda done: self._end(tick, done))
        patience_s = 0.0 if tick.is_suspect else PATIENCE_S
        while not tick.ended.wait(patience_s):
            if self._lets_go(tick):
                return
            since = tick.calling_since
            patience_s = PATIENCE_S if since is None else max(0.0, since + PATIENCE_S - time.monotonic())
        future.result()

    def close(self, patience_s: float) -> None:
        """Lets what runs come to its end, for so long."""
        ends_at = time.monotonic() + patience_s
        with self._changed:
            while self._running and (left := ends_at - time.monotonic()) > 0:
                self._changed.wait(left)
        self._threads.shutdown(wait=False, cancel_futures=True)

    # transport.Listener

    def begun(self, deployment: str) -> None:
        """This thread's tick waits for an engine."""
        del deployment
        if (tick := _tick.get()) is not None:
            tick.calling_since = time.monotonic()

    def ended(self, deployment: str, method: str, code: str, seconds: float) -> None:
        """It does so no longer. Counts what had no answer, and ends the count with the first that had one."""
        if (tick := _tick.get()) is not None:
            tick.calling_since = None
        kind = KINDS.get(method)
        if kind is None or not deployment:
            return
        try:
            match ended(code, seconds):
                case Ended.SILENT:
                    found = self._store().record_silence(deployment, kind)
                    if found is not None:
                        self._remember(found)
                case Ended.ANSWERED if (deployment, kind) in self._silent:
                    self._store().record_answer(deployment, kind)
                    with self._changed:
                        self._silent.pop((deployment, kind), None)
                case _:
                    pass
        except (TernError, StorageUnavailable) as error:
            # The call is over either way, and what it came to is written by its own flow.
            _log.info("it is not counted that %s of %s ended with %s: %s", method, deployment, code, error)

    # Who may run

    def _enter(self, kind: CallKind, deployment: str) -> _Tick | None:
        self._copy()
        ends_at = time.monotonic() + PATIENCE_S
        with self._changed:
            known = [
                silent[0] for each in CallKind if (silent := self._silent.get((deployment, each))) is not None
            ]
            is_slow = any(found.is_slow for found in known)
            if self._pauses(kind, deployment) or (is_slow and self._slow >= SLOW_MOST):
                return None
            while self._running[deployment] >= CALLS_AT_ONCE or self._running.total() >= THREADS_MOST:
                left = ends_at - time.monotonic()
                if left <= 0 or self._let_go[deployment]:
                    return None
                self._changed.wait(left)
            is_suspect = bool(known or self._let_go[deployment])
            self._running[deployment] += 1
            self._slow += is_slow
        return _Tick(deployment, is_slow, is_suspect)

    def _pauses(self, kind: CallKind, deployment: str) -> bool:
        known = self._silent.get((deployment, kind))
        return known is not None and known[0].is_slow and time.monotonic() < known[1]

    def _leave(self, tick: _Tick) -> None:
        with self._changed:
            self._running[tick.deployment] -= 1
            self._let_go[tick.deployment] -= tick.is_let_go
            for counted in (self._running, self._let_go):
                if not counted[tick.deployment]:
                    del counted[tick.deployment]
            self._slow -= tick.is_slow
            tick.ended.set()
            self._changed.notify_all()

    def _lets_go(self, tick: _Tick) -> bool:
        since = tick.calling_since
        if not tick.is_suspect and (since is None or time.monotonic() - since < PATIENCE_S):
            return False
        with self._changed:
            # Its end and this are one after the other: somebody always hears of a failure.
            if tick.ended.is_set():
                return False
            tick.is_let_go = True
            self._let_go[tick.deployment] += 1
        return True

    def _end(self, tick: _Tick, done: "Future[None]") -> None:
        self._leave(tick)
        if not tick.is_let_go or done.cancelled():
            return
        match done.exception():
            case None:
                pass
            case TernError() | StorageUnavailable() as error:
                _log.warning("a tick at %s: %s", tick.deployment, error)
            case error:
                _log.error("a tick at %s failed unexpectedly", tick.deployment, exc_info=error)

    # Who is silent

    def _copy(self) -> None:
        with self._changed:
            if time.monotonic() - self._copied_at < _COPY_LASTS_S:
                return
            self._copied_at = time.monotonic()
        try:
            found = self._store().silences()
        except (TernError, StorageUnavailable):
            # Nothing can be claimed either; the flow says so.
            return
        now = time.monotonic()
        with self._changed:
            self._silent = {(each.deployment, each.kind): (each, now + each.retry_in_s) for each in found}

    def _remember(self, found: Silence) -> None:
        with self._changed:
            self._silent[found.deployment, found.kind] = (found, time.monotonic() + found.retry_in_s)
