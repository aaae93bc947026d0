"""Bells that do the work in this process: for a worker that sweeps for itself while nobody else does."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.identity import ApplyId
from tern.flows.advance import advance
from tern.flows.control import deliver
from tern.flows.dispatch import dispatch
from tern.flows.poll import look, poll
from tern.ports import Bells, Due, DueControl, Ports, StorageUnavailable

_log = logging.getLogger("tern.direct")


class DirectBells:
    """ports.Bells on a few threads of their own. The same bell twice is rung once while the first still runs."""

    def __init__(self, ports: Callable[[Bells], Ports], threads: int = 4) -> None:
        self._ports = ports(self)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tern-direct")
        self._running: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def dispatch(self, due: Due) -> None:
        """Drives a dispatch."""
        scope = str(due.scope)
        self._do("dispatch", scope, lambda: dispatch(due.operation_id, scope, self._ports))

    def control(self, due: DueControl) -> None:
        """Drives a wish."""
        scope, verb = str(due.scope), Verb(due.verb)
        self._do(verb.value, scope, lambda: deliver(verb, due.operation_id, scope, self._ports))

    def progress(self, due: Due) -> None:
        """Looks at one operation."""
        scope = str(due.scope)
        self._do("progress", scope, lambda: look(due.operation_id, scope, self._ports))

    def poll(self, deployment: str) -> None:
        """Looks at a deployment."""
        self._do("poll", deployment, lambda: poll(deployment, self._ports))

    def advance(self, apply_id: ApplyId) -> None:
        """Keeps an apply true."""
        self._do("advance", apply_id, lambda: advance(apply_id, self._ports))

    def close(self) -> None:
        """Lets what runs finish its tick."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _do(self, kind: str, name: str, work: Callable[[], None]) -> None:
        key = (kind, name)
        with self._lock:
            if key in self._running:
                return
            self._running.add(key)
        try:
            self._pool.submit(self._run, key, work)
        except RuntimeError:
            # Closing: the rows stay due.
            self._done(key)

    def _run(self, key: tuple[str, str], work: Callable[[], None]) -> None:
        try:
            work()
        except (TernError, StorageUnavailable) as error:
            _log.warning("%s of %s: %s", *key, error)
        except Exception:  # noqa: BLE001 - a bug in one flow must not end the thread that drives the others
            _log.exception("%s of %s failed unexpectedly", *key)
        finally:
            self._done(key)

    def _done(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._running.discard(key)
