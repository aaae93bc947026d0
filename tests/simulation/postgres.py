"""The real store behind the hub: PostgreSQL, with the run's clock for tern_clock() and no chance in it."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch

import psycopg

from tern.ports import DueWork, NotClaimed, Poll
from tern.store.database import Database
from tern.store.schema import migrate
from tern.store.sql import text
from tern.store.store import PostgresStore
from tern.store.sweep import _DUE_APPLIES
from tests.faults.history import History, Job, install_audit, read_history
from tests.simulation.backend import ApplyLook, OperationLook
from tests.simulation.clock import Clock
from tests.simulation.engines import SimEngine

_CLOCK = """
CREATE OR REPLACE FUNCTION tern_clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT to_timestamp(current_setting('tern.now')::float8) $$;
CREATE OR REPLACE FUNCTION public.random() RETURNS float8 LANGUAGE sql AS $$ SELECT 0.5::float8 $$;
"""
_LOOK = text(
    "SELECT a.id AS apply_pk, a.apply_identifier, a.state AS apply_state, a.operation_count, a.external_id,"
    " a.verdict_effects_done_at IS NOT NULL AS done, o.id, o.deployment, o.state, o.engine_resume_context,"
    " o.attempt, o.dispatch_key, extract(epoch FROM tern_clock() - o.state_changed_at)::float AS age_s,"
    " (SELECT count(*) FROM control_deliveries d WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent'))"
    "   AS open_wishes FROM apply_operations o JOIN applies a ON a.id = o.apply_id ORDER BY a.id, o.position"
)
_NEXT_DUE = text(
    "SELECT least((SELECT min(greatest(o.next_poll_at, b.expires_at)) FROM apply_operations o"
    "   LEFT JOIN sweep_leases b ON b.name = 'bell:' || o.deployment WHERE o.next_poll_at IS NOT NULL),"
    "  (SELECT min(greatest(coalesce(p.expires_at, tern_clock()), b.expires_at)) FROM apply_operations o"
    "   LEFT JOIN sweep_leases p ON p.name = 'probe:' || o.deployment"
    "   LEFT JOIN sweep_leases b ON b.name = 'bell:' || o.deployment"
    "   WHERE o.state = 'failed_retryable')) AS poll,"
    " least((SELECT min(CASE WHEN rung_at >= next_attempt_at THEN rung_at + greatest(interval '5 s',"
    "     least(interval '60 s', rung_at - next_attempt_at)) ELSE next_attempt_at END)"
    "   FROM apply_operations WHERE next_attempt_at IS NOT NULL),"
    "  (SELECT min(greatest(d.next_attempt_at, o.claim_expires_at)) FROM control_deliveries d"
    "   JOIN apply_operations o ON o.id = d.operation_id WHERE d.next_attempt_at IS NOT NULL),"
    "  (SELECT min(next_advance_at) FROM applies)) AS work"
)
_SETTLED = ("completed", "failed", "cancelled", "reverted", "stopped")


class _Numbered:
    """In place of the module `secrets`: ids that are the same in every run, and those of the store in memory."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers

    def token_hex(self, size: int) -> str:
        """The next one, in as many digits."""
        return f"{next(self._numbers):0{2 * size}x}"


class _Ordered(PostgresStore):
    """What PostgreSQL hands out in no particular order comes in the order of ids, so that two runs are alike."""

    def due_work(self) -> DueWork:
        """See ports.SweepStore."""
        due = super().due_work()
        return DueWork(
            tuple(sorted(due.dispatches, key=lambda one: one.operation_id)),
            tuple(sorted(due.controls, key=lambda one: (one.operation_id, one.verb))),
            tuple(sorted(due.applies)),
        )

    def due_deployments(self) -> tuple[str, ...]:
        """See ports.SweepStore."""
        return tuple(sorted(super().due_deployments()))

    def begin_poll(self, deployment: str) -> Poll | NotClaimed:
        """See ports.PollStore."""
        begun = super().begin_poll(deployment)
        if isinstance(begun, NotClaimed):
            return begun
        cursors = tuple(sorted(begun.cursors, key=lambda cursor: cursor.operation_id))
        return Poll(begun.deployment, begun.owner, cursors, begun.has_retryable)


class _Clocked(Database):
    """Every transaction begins with the run's clock, and without chance."""

    def __init__(self, url: str, now: Callable[[], float]) -> None:
        super().__init__(url, pool_size=1)
        self._now = now

    @contextmanager
    def _taken(self) -> Iterator[psycopg.Connection[Any]]:
        with super()._taken() as connection:
            connection.autocommit = True
            connection.execute(
                "SELECT set_config('tern.now', %s, false), set_config('search_path', 'public, pg_catalog', false)",
                (repr(self._now()),),
            )
            connection.autocommit = False
            yield connection


class PostgresBackend:
    """One database, emptied for every run. `clock` is the present run's."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self._database = _Clocked(url, lambda: self.clock.now)
        migrate(self._database)
        install_audit(self._database)
        with self._database.begin() as tx:
            tx.execute(text(_CLOCK))
            tables = tx.execute(
                text(
                    "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
                )
            ).scalars()
            self._tables = sorted(tables)
        union = " UNION ALL ".join(f"SELECT '{name}', to_jsonb(t) FROM {name} t" for name in self._tables)
        self._all_rows = text(union)

    @property
    def database(self) -> Database:
        """The pool."""
        return self._database

    def close(self) -> None:
        """Gives the connections back."""
        self._database.dispose()

    @contextmanager
    def fresh(self) -> Iterator["PostgresBackend"]:
        """Nothing has happened yet; ids begin at 1."""
        self.clock = Clock()
        with self._database.begin() as tx:
            tx.execute(text(f"TRUNCATE {', '.join(self._tables)} RESTART IDENTITY CASCADE"))
        identifiers, tokens = _Numbered(itertools.count(1)), _Numbered(itertools.count(1))
        with (
            patch("tern.store.plan.secrets", identifiers),
            patch("tern.store.step.secrets", tokens),
            patch("tern.store.event._log"),  # some hundred thousand lines
        ):
            yield self

    # What a run wants to know

    def store(self, owner: str) -> PostgresStore:
        """A worker's way in."""
        return _Ordered(self._database, owner)

    def instant(self) -> float:
        """The clock that the audit and the engines' ledgers share."""
        with self._database.begin() as tx:
            return float(tx.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def wrote(self) -> bool:
        """Not asked here: plans are made from runs in memory."""
        return False

    def next_due(self) -> tuple[float, float]:
        """See MemoryBackend."""
        with self._database.begin() as tx:
            row = tx.execute(_NEXT_DUE).one()
            wants_advance = tx.execute(_DUE_APPLIES, {"limit": 1}).first() is not None
        never = float("inf")
        poll = never if row.poll is None else row.poll.timestamp()
        work = never if row.work is None else row.work.timestamp()
        return poll, min(work, self.clock.now) if wants_advance else work

    def look(self) -> tuple[ApplyLook, ...]:
        """See MemoryBackend."""
        with self._database.begin() as tx:
            rows = tx.execute(_LOOK).all()
        found = []
        for _, group in itertools.groupby(rows, lambda row: row.apply_pk):
            own = list(group)
            operations = tuple(
                OperationLook(
                    row.id,
                    row.deployment,
                    row.state,
                    row.external_id if row.operation_count == 1 else row.engine_resume_context,
                    row.attempt,
                    row.dispatch_key,
                    row.age_s,
                    row.open_wishes,
                )
                for row in own
            )
            over = own[0].apply_state in _SETTLED and own[0].done and not any(row.open_wishes for row in own)
            found.append(ApplyLook(own[0].apply_identifier, own[0].apply_state, over, operations))
        return tuple(found)

    def history(
        self, engines: Iterable[SimEngine], jobs: Iterable[Job], acknowledged: Iterable[tuple[str, str]]
    ) -> History:
        """See MemoryBackend."""
        ledgers = [(engine.calls, engine.effects) for engine in engines]
        return read_history(self._database, ledgers, jobs, acknowledged=acknowledged)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """See MemoryBackend."""
        found: dict[str, list[dict[str, Any]]] = {table: [] for table in self._tables}
        with self._database.begin() as tx:
            for table, row in tx.execute(self._all_rows):
                found[table].append({key: _plain(key, value) for key, value in row.items()})
        return found


def _plain(key: str, value: Any) -> Any:
    is_time = isinstance(value, str) and (key == "at" or key.endswith("_at"))
    return round(datetime.fromisoformat(value).timestamp(), 6) if is_time else value
