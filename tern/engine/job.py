"""The books of a job: every read and write of its rows, each write fenced by the runner's epoch.

A job's revision rises in the same transaction as whatever a look from outside could notice.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tern.engine.recipes.model import Step
from tern.engine.session import Connection, Row, row, rows, value


class State(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING_FOR_CUTOVER = "waiting_for_cutover"
    CUTTING_OVER = "cutting_over"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_settled(self) -> bool:
        """Nothing follows."""
        return self in {State.COMPLETED, State.FAILED, State.CANCELLED}

    @property
    def is_begun(self) -> bool:
        """Somebody carries it out, or would but for its cutover."""
        return self in {State.RUNNING, State.WAITING_FOR_CUTOVER, State.CUTTING_OVER}

    @property
    def words(self) -> str:
        """As a sentence names it."""
        return self.value.replace("_", " ")


class FencedOutError(Exception):
    """Another runner has taken the job over; whatever this one still wants to write must not be written."""


@dataclass(frozen=True)
class Job:
    """The part of a job's row by which decisions are made."""

    id: str
    operation: str | None
    environment: str
    time_zone: str
    defer_cutover: bool
    cutover_allowed: bool
    state: State
    control: str | None
    ending: str | None
    error: str
    note: str
    epoch: int
    revision: int


@dataclass(frozen=True)
class KeptStep:
    """A step and what became of it."""

    n: int
    change: int
    atom: int
    status: str
    attempts: int
    step: Step


_JOB = (
    "SELECT id, operation, environment, time_zone, defer_cutover, cutover_allowed, state, control, ending, error,"
    "       note, epoch, revision FROM _tern.job WHERE id = %s"
)


def load(connection: Connection, job: str, *, lock: bool = False) -> Job | None:
    """A job; with `lock`, nobody else changes its row before the transaction ends (control against control)."""
    found = row(connection, _JOB + (" FOR NO KEY UPDATE" if lock else ""), (job,))
    return None if found is None else Job(**{**found, "state": State(found["state"])})


def steps(connection: Connection, job: str) -> list[KeptStep]:
    """All steps of a job in their order."""
    found = rows(
        connection,
        "SELECT n, change, atom, status, attempts, body FROM _tern.step WHERE job = %s ORDER BY n",
        (job,),
    )
    return [KeptStep(step=Step.from_json(each.pop("body")), **each) for each in found]


def begin_epoch(connection: Connection, job: str) -> int:
    """Makes the caller the only runner whose writes count.

    FOR UPDATE, and not what UPDATE alone would take: it waits for the open transaction of an earlier runner, which
    holds FOR KEY SHARE, so that whatever that one still commits is seen by us.
    """
    with connection.transaction():
        connection.execute("SELECT FROM _tern.job WHERE id = %s FOR UPDATE", (job,))
        return int(
            value(connection, "UPDATE _tern.job SET epoch = epoch + 1 WHERE id = %s RETURNING epoch", (job,))
        )


def check_epoch(connection: Connection, job: str, epoch: int) -> None:
    """Refuses to go on for a runner that was replaced; holds off a new one until this transaction ends."""
    query = "SELECT 1 FROM _tern.job WHERE id = %s AND epoch = %s FOR KEY SHARE"
    if value(connection, query, (job, epoch)) is None:
        raise FencedOutError(job)


@contextmanager
def fenced(connection: Connection, job: str, epoch: int) -> Iterator[None]:
    """A transaction that only the current runner can commit."""
    with connection.transaction():
        check_epoch(connection, job, epoch)
        yield


def touch(connection: Connection, job: str) -> None:
    """Lets those who follow the job by its revision look again."""
    connection.execute("UPDATE _tern.job SET revision = revision + 1 WHERE id = %s", (job,))


def tell(
    connection: Connection,
    job: str,
    event_type: str,
    message: str,
    *,
    change: int | None = None,
    level: str = "info",
    old: str = "",
    new: str = "",
    **metadata: Any,
) -> None:
    """Adds a line to the job's log."""
    connection.execute(
        "INSERT INTO _tern.event (job, change, level, event_type, message, old_state, new_state, metadata)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (job, change, level, event_type, message, old, new, json.dumps(metadata)),
    )


def enter(connection: Connection, job: Job, state: State, message: str, **columns: Any) -> None:
    """Moves a job to a state, says so in the log, and lets go of its tables when it is settled."""
    sets = ["state = %(state)s", "revision = revision + 1", *(f"{name} = %({name})s" for name in columns)]
    if state.is_settled:
        sets += ["completed_at = clock_timestamp()", "control = NULL"]
    if state.is_begun:
        # Whichever of them comes first: whoever follows the job tells by it that it is still this one.
        sets.append("started_at = coalesce(started_at, clock_timestamp())")
    connection.execute(
        f"UPDATE _tern.job SET {', '.join(sets)} WHERE id = %(id)s",
        {**columns, "state": state.value, "id": job.id},
    )
    if state.is_settled:
        connection.execute("UPDATE _tern.tbl SET active = false WHERE job = %s", (job.id,))
    level = "error" if state is State.FAILED else "info"
    tell(connection, job.id, "state_changed", message, level=level, old=job.state.value, new=state.value)


# A retried build starts its counters anew; what was shown is not taken back.
_NEVER_FALLING = frozenset({"percent", "rows_done", "rows_total"})


def show(connection: Connection, job: str, change: int, **columns: Any) -> bool:
    """Writes what a change shows, if that differs from what it showed; counters never fall."""
    columns = {name: columns[name] for name in sorted(columns)}
    sets = [
        f"{name} = greatest({name}, %({name})s)" if name in _NEVER_FALLING else f"{name} = %({name})s"
        for name in columns
    ]
    differs = " OR ".join(
        f"{name} < %({name})s" if name in _NEVER_FALLING else f"{name} <> %({name})s" for name in columns
    )
    written = connection.execute(
        f"UPDATE _tern.change SET {', '.join(sets)} WHERE job = %(job)s AND n = %(n)s AND ({differs})",
        {**columns, "job": job, "n": change},
    ).rowcount
    if written:
        touch(connection, job)
    return bool(written)


def start_step(connection: Connection, job: str, step: KeptStep) -> None:
    """Notes that a step is about to be tried, so that a crash finds out what may have been left behind."""
    connection.execute(
        "UPDATE _tern.step SET status = 'started', attempts = attempts + 1 WHERE job = %s AND n = %s",
        (job, step.n),
    )


def finish_step(connection: Connection, job: str, step: KeptStep, *, status: str = "done") -> None:
    """Notes that a step is done (or undone); in the step's own transaction where it has one."""
    connection.execute(
        "UPDATE _tern.step SET status = %s, finished_at = clock_timestamp() WHERE job = %s AND n = %s",
        (status, job, step.n),
    )


def finish_change(connection: Connection, job: str, change: int) -> None:
    """Shows a change as completed once all its steps are done."""
    connection.execute(
        "UPDATE _tern.change SET status = 'completed', detail = '', percent = 100, eta_seconds = 0,"
        "       rows_done = rows_total"
        " WHERE job = %(job)s AND n = %(n)s AND NOT EXISTS ("
        "       SELECT FROM _tern.step WHERE job = %(job)s AND change = %(n)s AND status <> 'done')",
        {"job": job, "n": change},
    )
    touch(connection, job)


def adoptable(connection: Connection, lock_class: int, *, limit: int) -> list[Row]:
    """Jobs that want a runner and have none: nobody holds their advisory lock."""
    return rows(
        connection,
        "SELECT id, num FROM _tern.job"
        " WHERE (state IN ('pending', 'running', 'waiting_for_cutover', 'cutting_over')"
        "        OR (state = 'stopped' AND control = 'cancel'))"
        "   AND NOT EXISTS (SELECT FROM pg_locks"
        "         WHERE locktype = 'advisory' AND classid = %s::bigint::oid AND objid = num::bigint::oid"
        "           AND objsubid = 2"
        "           AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
        " ORDER BY num LIMIT %s",
        (lock_class, limit),
    )


def unfinished(kept: Sequence[KeptStep]) -> list[KeptStep]:
    """The steps that are still to be done."""
    return [each for each in kept if each.status in {"pending", "started"}]
