"""One attempt at one step: the transactions and statements themselves, and nothing about when to try again."""

import threading
from collections.abc import Callable

import psycopg

from tern.engine import job as books
from tern.engine.job import Job, KeptStep
from tern.engine.locks import lock_statements
from tern.engine.names import Name, quote
from tern.engine.recipes.model import LockMode, Step
from tern.engine.session import Connection, row, rows, set_local

# A lock that stops nobody may be waited for; the statement is ended by us, not by a clock.
PATIENT_LOCK = "30min"


def run_direct(
    connection: Connection, job: Job, kept: KeptStep, step: Step, *, budget_ms: int, hold_ms: int
) -> None:
    """Executes a short step and notes it as done, both or neither."""
    with books.fenced(connection, job.id, job.epoch):
        set_local(connection, lock_timeout=budget_ms, statement_timeout=budget_ms)
        order = _oids(connection, step)
        _lend_session(connection, job, step)
        if len(order) > 1:
            # lock_timeout counts per lock, the budget holds for all of them: hence one statement with its own limit.
            for statement in lock_statements(step.locks, order):
                connection.execute(statement)
        set_local(connection, statement_timeout=hold_ms + (budget_ms if len(order) <= 1 else 0))
        connection.execute(step.sql)
        _take_back_session(connection)
        _note_done(connection, job, kept, step)


def run_validate(connection: Connection, job: Job, kept: KeptStep, step: Step) -> None:
    """Executes a step that reads every row but stops nobody, and notes it as done, both or neither."""
    with books.fenced(connection, job.id, job.epoch):
        _lend_session(connection, job, step)
        set_local(connection, lock_timeout=PATIENT_LOCK, statement_timeout=0)
        connection.execute(step.sql)
        set_local(connection, statement_timeout="10s", lock_timeout="3s")
        _take_back_session(connection)
        _note_done(connection, job, kept, step)


def run_concurrently(connection: Connection, job: Job, step: Step) -> None:
    """Executes a statement that refuses to run in a transaction. Whether it worked is asked from the catalogue."""
    owner = _owner(connection, step.owned_by)
    settings = {"search_path": _path(step), "lock_timeout": PATIENT_LOCK, "statement_timeout": "0"}
    for name, setting in (settings | {"TimeZone": job.time_zone}).items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, setting))
    if owner is not None:
        connection.execute(f"SET ROLE {quote(owner)}")
    connection.execute(step.sql.encode())


class LongStatement(threading.Thread):
    """A statement that may take hours, in a thread of its own so that the runner can watch and end it."""

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._run = run
        self._finished = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        """Runs the statement and keeps its error for the runner."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - carried over to the runner's thread
            self.error = error
        finally:
            self._finished.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so many seconds."""
        return self._finished.wait(seconds)

    def result(self) -> None:
        """Raises what the statement raised."""
        self.join()
        if self.error is not None:
            raise self.error


def lock_of(step: Step) -> LockMode:
    """The strongest lock that a step takes."""
    return max((lock.mode for lock in step.locks), default=LockMode.ACCESS_SHARE)


def _note_done(connection: Connection, job: Job, kept: KeptStep, step: Step) -> None:
    undone = step is not kept.step
    books.finish_step(connection, job.id, kept, status="undone" if undone else "done")
    if not undone:
        books.finish_change(connection, job.id, kept.change)


def _lend_session(connection: Connection, job: Job, step: Step) -> None:
    """Lets the statement find the declared namespace, and run as the owner of its table.

    As the owner, because expressions of defaults and checks are code of whoever may write the schema, and must not
    run with the engine's rights.
    """
    owner = _owner(connection, step.owned_by)
    set_local(connection, search_path=_path(step), TimeZone=job.time_zone)
    if owner is not None:
        connection.execute(f"SET LOCAL ROLE {quote(owner)}")


def _take_back_session(connection: Connection) -> None:
    connection.execute("RESET ROLE")
    set_local(connection, search_path="pg_catalog, pg_temp")


def _path(step: Step) -> str:
    """pg_catalog comes first implicitly; pg_temp is named so that it comes last."""
    return f"{quote(step.namespace)}, pg_temp"


def _owner(connection: Connection, relation: Name | None) -> str | None:
    """The role to run as, or None if that is us already (or the relation is not there)."""
    if relation is None:
        return None
    found = row(
        connection,
        "SELECT pg_get_userbyid(relowner) AS owner FROM pg_class"
        " WHERE oid = to_regclass(%s)::oid AND pg_get_userbyid(relowner) <> current_user",
        (relation.sql(),),
    )
    return None if found is None else str(found["owner"])


def _oids(connection: Connection, step: Step) -> dict[Name, int]:
    """The tables among the relations that a step locks, with their oids; LOCK TABLE takes nothing else."""
    found = rows(
        connection,
        "SELECT w.n AS n, c.oid::bigint AS oid FROM unnest(%s::text[]) WITH ORDINALITY AS w(name, n)"
        "  JOIN pg_class AS c ON c.oid = to_regclass(w.name)::oid AND c.relkind IN ('r', 'p')",
        ([lock.relation.sql() for lock in step.locks],),
    )
    return {step.locks[each["n"] - 1].relation: each["oid"] for each in found}


def lost(error: psycopg.Error, connection: Connection) -> bool:
    """Whether the connection is gone, so that nobody knows whether the last statement took effect."""
    return connection.closed or (error.sqlstate is None and isinstance(error, psycopg.OperationalError))
