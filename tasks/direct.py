"""Bells that do the work in this process: for a worker that sweeps for itself while nobody else does."""

import logging
import threading
from collections.abc import Callable

from tasks.turns import Line
from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.identity import ApplyId
from tern.domain.silence import CallKind
from tern.flows.advance import advance
from tern.flows.control import deliver
from tern.flows.dispatch import dispatch
from tern.flows.poll import look, poll
from tern.ports import Bells, Due, DueControl, Ports, StorageUnavailable

_log = logging.getLogger("tern.direct")

Drive = Callable[[CallKind, str, Callable[[], None]], None]
"""Lanes.drive, or whatever else runs a tick."""


class DirectBells:
    """ports.Bells on a few threads of their own. The same bell twice is rung once while the first still runs."""

    def __init__(
        self,
        ports: Callable[[Bells], Ports],
        drive: Drive = lambda _kind, _place, work: work(),
        threads: int = 4,
    ) -> None:
        self._ports = ports(self)
        self._drive = drive
        self._running: set[tuple[str, str]] = set()
        self._line = Line()
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"tern-direct-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def dispatch(self, due: Due) -> None:
        """Drives a dispatch."""
        scope = str(due.scope)
        self._do(
            "dispatch",
            due.scope.apply_id,
            ("dispatch", scope),
            lambda: self._drive(
                CallKind.DISPATCH, scope, lambda: dispatch(due.operation_id, scope, self._ports)
            ),
        )

    def control(self, due: DueControl) -> None:
        """Drives a wish."""
        scope, verb = str(due.scope), Verb(due.verb)

        def work() -> None:
            deliver(verb, due.operation_id, scope, self._ports)

        in_lane = work if verb.is_halting else lambda: self._drive(CallKind.CONTROL, scope, work)
        self._do("control", due.scope.apply_id, (verb.value, scope), in_lane)

    def progress(self, due: Due) -> None:
        """Looks at one operation."""
        scope = str(due.scope)
        self._do(
            "poll",
            due.scope.deployment,
            ("progress", scope),
            lambda: self._drive(CallKind.POLL, scope, lambda: look(due.operation_id, scope, self._ports)),
        )

    def poll(self, deployment: str) -> None:
        """Looks at a deployment."""
        self._do(
            "poll",
            deployment,
            ("poll", deployment),
            lambda: self._drive(CallKind.POLL, deployment, lambda: poll(deployment, self._ports)),
        )

    def advance(self, apply_id: ApplyId) -> None:
        """Keeps an apply true."""
        self._do("control", apply_id, ("advance", apply_id), lambda: advance(apply_id, self._ports))

    def close(self) -> None:
        """Lets what runs finish its tick; what waits stays due in its row."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _do(self, kind: str, group: str, key: tuple[str, str], work: Callable[[], None]) -> None:
        with self._changed:
            if self._closed or key in self._running:
                return
            self._running.add(key)
            self._line.put(kind, group, lambda: self._run(key, work))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while (work := None if self._closed else self._line.take()) is None:
                    if self._closed:
                        return
                    self._changed.wait()
            work()

    def _run(self, key: tuple[str, str], work: Callable[[], None]) -> None:
        try:
            work()
        except (TernError, StorageUnavailable) as error:
            _log.warning("%s of %s: %s", *key, error)
        except Exception:  # noqa: BLE001 - a bug in one flow must not end the thread that drives the others
            _log.exception("%s of %s failed unexpectedly", *key)
        finally:
            with self._changed:
                self._running.discard(key)
