"""Being a job's only runner: the advisory lock, the end of a predecessor's sessions, and the epoch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from tern.engine import job as books
from tern.engine import reconcile
from tern.engine.schema import LOCK_CLASS
from tern.engine.session import Connection, connect, value

GONE_WITHIN_SECONDS = 15.0


@dataclass(frozen=True)
class Tenure:
    """The right to write a job's rows, for as long as `control` stays connected."""

    job: str
    epoch: int
    control: Connection


@contextmanager
def hold(dsn: str, job: str, num: int) -> Iterator[Tenure | None]:
    """Takes a job over; None if somebody else runs it.

    The lock belongs to the control connection: a killed process loses it at once, a partitioned one when the server
    notices. Should that process live on, its writes meet the next epoch.
    """
    with connect(dsn, job, reconcile.CONTROLLER) as control:
        if not value(control, "SELECT pg_try_advisory_lock(%s, %s)", (LOCK_CLASS, num)):
            yield None
            return
        _end_predecessor(control, job)
        yield Tenure(job, books.begin_epoch(control, job), control)


def _end_predecessor(control: Connection, job: str) -> None:
    """Ends what a killed runner left running, except an index build, which is work worth waiting for.

    Its open transaction would make begin_epoch() wait, and its locks our next step.
    """
    _end_sessions(control, job, spared=reconcile.builders)


def end_builders(control: Connection, job: str) -> None:
    """Ends an index build as well, for a job that is not to go on."""
    _end_sessions(control, job, spared=lambda *_: [])


def _end_sessions(control: Connection, job: str, spared: Callable[[Connection, str], list[int]]) -> None:
    deadline = time.monotonic() + GONE_WITHIN_SECONDS
    while True:
        kept = set(spared(control, job))
        left = {
            pid
            for role in (reconcile.WORKER, reconcile.BUILDER)
            for pid in reconcile.sessions(control, job, role)
        } - kept
        if not left:
            return
        if time.monotonic() > deadline:
            message = f"sessions of an earlier runner of {job} don't end: {sorted(left)}"
            raise psycopg.OperationalError(message)
        for pid in left:
            reconcile.terminate(control, pid)
        time.sleep(0.05)
