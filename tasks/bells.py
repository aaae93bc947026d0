"""Ringing through the broker: best effort, after the commit, never an error (G11)."""

import logging
import time

from celery import Celery, Signature, chain

from tern.domain.errors import TernError
from tern.domain.identity import ApplyId
from tern.metrics import BELLS
from tern.ports import Due, DueControl

_log = logging.getLogger("tern.bells")
_SILENCE_S = 2.0


LOOKS_AT_ONCE = 20
"""So many operations are looked at by a bell of their own in a second."""


class _Burst:
    """How many in this second. Threads may count one too many between them, which costs nothing."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._second = 0
        self._count = 0

    def has_room(self) -> bool:
        """Counts one more."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count <= self._most


class CeleryBells:
    """ports.Bells over a Celery app. A bell that can't be rung is logged; the sweeps ring again for what is due."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._burst = _Burst(LOOKS_AT_ONCE)
        self._quiet_until: dict[str, float] = {}

    def dispatch(self, due: Due) -> None:
        """tern.operation.dispatch."""
        self._ring(self._operation("tern.operation.dispatch", due.operation_id, str(due.scope)))

    def control(self, due: DueControl) -> None:
        """tern.operation.VERB and then its progress, as two bells in one message."""
        verb = self._operation(f"tern.operation.{due.verb}", due.operation_id, str(due.scope))
        progress = self._operation("tern.operation.progress", due.operation_id, str(due.scope))
        self._ring(chain(verb, progress))

    def progress(self, due: Due) -> None:
        """tern.operation.progress. In a burst the sweep rings for the rest, deployment by deployment: a bell for each
        operation beside that would be one message more for every dispatch.
        """
        if not self._burst.has_room():
            return
        self._ring(self._operation("tern.operation.progress", due.operation_id, str(due.scope)))

    def poll(self, deployment: str) -> None:
        """tern.deployment.poll."""
        self._ring(self._signature("tern.deployment.poll", deployment=deployment))

    def advance(self, apply_id: ApplyId) -> None:
        """tern.apply.advance."""
        self._ring(self._signature("tern.apply.advance", apply_id=apply_id))

    def _operation(self, name: str, operation_id: int, scope: str) -> Signature:
        # Flower shows fifty characters of these: where it is about comes first.
        return self._signature(name, scope=scope, operation_id=str(operation_id))

    def _signature(self, name: str, **kwargs: str) -> Signature:
        return self._app.signature(name, kwargs=kwargs, immutable=True)

    def _ring(self, signature: Signature) -> None:
        name = str(signature.task)
        if time.monotonic() < self._quiet_until.get(name, 0.0):
            return
        try:
            signature.apply_async()
            BELLS.add("rung")
        except TernError:
            # A bell that must not be rung is a bug of ours, not the broker's.
            raise
        except Exception as error:  # noqa: BLE001 - nothing that a broker or its library does may undo a commit
            # One that hangs would cost every ringer its time-out; the rows don't need it. One that refuses a single
            # queue is still there for the others.
            BELLS.add("failed")
            self._quiet_until[name] = time.monotonic() + _SILENCE_S
            _log.warning("the broker does not take %s, the sweeps take over: %r", name, error)
