"""What stands behind the hub: PostgreSQL with the run's clock and without chance, and what a run asks of it."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import psycopg

from tern.domain.timing import LEASE_S, RPC_DEADLINE_S, longest_control_wait_s
from tern.ports import DueWork, NotClaimed, Poll
from tern.store.database import Database
from tern.store.schema import migrate
from tern.store.sql import Row, text
from tern.store.store import PostgresStore
from tern.store.sweep import _DUE_APPLIES
from tests.faults.history import Asked, Done, History, Job, install_audit, read_history
from tests.simulation.clock import Clock
from tests.simulation.database import SCHEMA, SimDatabase

_AUDIT_TIME = (
    "ALTER TABLE fault_audit ALTER at SET DEFAULT"
    " (current_setting('tern.now')::numeric - current_setting('tern.ahead')::numeric)::float8"
)
_LOOK = text(
    "SELECT a.id AS apply_pk, a.apply_identifier, a.state AS apply_state, a.operation_count, a.external_id,"
    " a.verdict_effects_done_at IS NOT NULL AS done, o.id, o.deployment, o.state, o.engine_resume_context,"
    " o.attempt, o.dispatch_key, (o.dispatch_key IS NOT NULL AND NOT o.dispatch_key_is_dead"
    "   OR coalesce(a.external_id, o.engine_resume_context) IS NOT NULL) AS was_sent, o.unheard_tries >= 10"
    "   AND o.unheard_since <= tern_clock() - interval '600 s' AS is_unheard,"
    " extract(epoch FROM o.state_changed_at)::float AS changed_at,"
    " (SELECT drained FROM deployments WHERE name = o.deployment) AS drained,"
    " (SELECT count(*) FROM control_deliveries d WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent'))"
    "   AS open_wishes FROM apply_operations o JOIN applies a ON a.id = o.apply_id ORDER BY a.id, o.position"
)
_NEXT_DUE = text(
    "SELECT extract(epoch FROM least((SELECT min(greatest(c.next_look_at, b.expires_at)) FROM outstanding_calls c"
    "   LEFT JOIN sweep_leases b ON b.name = 'bell:' || c.deployment WHERE c.next_look_at IS NOT NULL),"
    "  (SELECT min(greatest(o.next_poll_at, b.expires_at)) FROM apply_operations o"
    "   LEFT JOIN sweep_leases b ON b.name = 'bell:' || o.deployment WHERE o.next_poll_at IS NOT NULL),"
    "  (SELECT min(greatest(coalesce(p.expires_at, tern_clock()), b.expires_at)) FROM apply_operations o"
    "   LEFT JOIN sweep_leases p ON p.name = 'probe:' || o.deployment"
    "   LEFT JOIN sweep_leases b ON b.name = 'bell:' || o.deployment"
    "   WHERE o.state = 'failed_retryable')))::float AS poll,"
    " extract(epoch FROM least((SELECT min(CASE WHEN rung_at >= next_attempt_at"
    "     THEN rung_at + greatest(interval '5 s', least(interval '60 s', rung_at - next_attempt_at))"
    "     ELSE next_attempt_at END)"
    "   FROM apply_operations WHERE next_attempt_at IS NOT NULL),"
    "  (SELECT min(greatest(d.next_attempt_at, o.claim_expires_at)) FROM control_deliveries d"
    "   JOIN apply_operations o ON o.id = d.operation_id WHERE d.next_attempt_at IS NOT NULL),"
    "  (SELECT min(next_advance_at) FROM applies)))::float AS work"
)
_SITUATION = text(
    "SELECT concat_ws('|', (SELECT string_agg(concat_ws(',', state, next_advance_at IS NULL), ';' ORDER BY id)"
    "   FROM applies),"
    " (SELECT string_agg(concat_ws(',', o.state, coalesce(CASE a.operation_count WHEN 1 THEN a.external_id"
    "     ELSE o.engine_resume_context END, '') = '', o.claim_token IS NULL, o.next_attempt_at IS NULL,"
    "     o.dispatch_key IS NULL, o.dispatch_key_is_dead, o.dispatch_generation, least(o.attempt, 2),"
    "     o.poll_failures > 0, o.runs_though_stopped), ';' ORDER BY o.id)"
    "   FROM apply_operations o JOIN applies a ON a.id = o.apply_id),"
    " (SELECT string_agg(concat_ws(',', verb, state, attempts > 0), ';' ORDER BY id) FROM control_deliveries))"
)
_AUDIT_OUTSTANDING = (
    "CREATE TRIGGER fault_audit AFTER INSERT OR UPDATE OF settled_at ON outstanding_calls"
    " FOR EACH ROW EXECUTE FUNCTION fault_audit()"
)
_SETTLED = ("completed", "failed", "cancelled", "reverted", "stopped")
_GIVEN_UP = text(
    "SELECT DISTINCT a.apply_identifier || '/' || o.deployment FROM apply_events e"
    " JOIN apply_operations o ON o.id = e.operation_id JOIN applies a ON a.id = o.apply_id WHERE e.event = 'given_up'"
)
_CHAINS = text(
    "WITH RECURSIVE chain (id, first) AS (SELECT id, id FROM apply_operations WHERE carries_on IS NULL"
    "   UNION ALL SELECT o.id, c.first FROM chain c JOIN apply_operations o ON o.carries_on = c.id)"
    " SELECT a.apply_identifier || '/' || o.deployment AS scope, fa.apply_identifier || '/' || f.deployment AS first"
    " FROM chain c JOIN apply_operations o ON o.id = c.id JOIN applies a ON a.id = o.apply_id"
    " JOIN apply_operations f ON f.id = c.first JOIN applies fa ON fa.id = f.apply_id"
)
_VACUUM_EVERY = 50
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class OperationLook:
    """One operation as people see it."""

    id: int
    deployment: str
    state: str
    remote_id: str | None
    attempt: int
    key: str | None
    age_s: float
    """Since its state changed, whatever the database's clock says of that."""
    open_wishes: int
    is_drained: bool
    """Its deployment gets no new work."""
    was_sent: bool = False
    """It has an id, or a key that is not dead."""
    is_unheard: bool = False
    """Its engine has been silent for so long that a person may give it up."""


@dataclass(frozen=True, slots=True)
class ApplyLook:
    """One apply as people see it."""

    apply_id: str
    state: str
    is_over: bool
    """Settled, its effects driven, and no wish open."""
    operations: tuple[OperationLook, ...]

    def state_of(self, deployment: str) -> str:
        """Its operation's state there."""
        return next(one.state for one in self.operations if one.deployment == deployment)

    def has_id(self, deployment: str) -> bool:
        """Its operation has been followed there."""
        return any(one.remote_id for one in self.operations if one.deployment == deployment)


class _Numbered:
    """In place of the module `secrets`: ids that are the same in every run."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

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
        return replace(begun, cursors=cursors)


class Backend:
    """One database, emptied for every run."""

    def __init__(self, url: str) -> None:
        self._database = SimDatabase(url)
        self._rubber = psycopg.connect(self._database.url, autocommit=True)
        migrating = Database(url, pool_size=1)
        migrate(migrating)
        install_audit(migrating)
        migrating.dispose()
        # With this role no trigger and no foreign key has a say; to change it where statements are prepared would throw
        # their plans away, as a TRUNCATE would.
        self._rubber.execute("SET session_replication_role = replica")
        self._rubber.execute(SCHEMA.encode())
        self._rubber.execute(_AUDIT_TIME.encode())
        self._rubber.execute(_AUDIT_OUTSTANDING.encode())
        self._tables = self._make_rubber()
        self._runs = 0
        self._looked: tuple[int, list[Row], Row, bool] | None = None
        self._changed_at: dict[tuple[int, float], float] = {}

    def _make_rubber(self) -> str:
        """A function that empties all tables; their names."""
        tables = [
            name
            for (name,) in self._rubber.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
            )
        ]
        deletes = " ".join(f"DELETE FROM {name};" for name in sorted(tables))
        self._rubber.execute(
            f"CREATE FUNCTION wipe() RETURNS void LANGUAGE plpgsql AS $$ BEGIN {deletes}"
            " PERFORM setval(format('public.%I', sequencename), start_value, false) FROM pg_sequences"
            " WHERE schemaname = 'public' AND last_value IS NOT NULL; END $$".encode()
        )
        return ", ".join(tables)

    @property
    def clock(self) -> Clock:
        """The present run's."""
        return self._database.clock

    @property
    def database(self) -> Database:
        """Tern's way to its rows."""
        return self._database

    def close(self) -> None:
        """Gives the connections back."""
        self._database.dispose()
        self._rubber.close()

    @contextmanager
    def fresh(self, *, counts: bool = False) -> Iterator["Backend"]:
        """Nothing has happened yet; ids begin at 1. counts: whether `wrote` is asked."""
        self._database.settle()
        self._database.clock = Clock()
        self._database.counts = counts
        self._rubber.execute("SELECT wipe()")
        self._runs += 1
        if self._runs % _VACUUM_EVERY == 0:
            self._rubber.execute(f"VACUUM {self._tables}".encode())
        self._looked = None
        self._changed_at.clear()
        with (
            patch("tern.store.plan.secrets", _Numbered()),
            patch("tern.store.step.secrets", _Numbered()),
            patch("tern.store.event._log"),  # some hundred thousand lines
            patch("tern.store.clock._log"),
        ):
            try:
                yield self
            finally:
                self._database.settle()

    # What a run wants to know

    def store(self, owner: str) -> PostgresStore:
        """A worker's way in."""
        return _Ordered(self._database, owner)

    def instant(self) -> float:
        """The clock that the audit and the engines' ledgers share."""
        return self.clock.elapsed

    def wrote(self) -> bool:
        """Whether the last transaction changed anything."""
        return self._database.wrote

    def next_due(self) -> tuple[float, float]:
        """How much will have gone by when a sweep of the progress, and one of all the rest, would find something."""
        _, due, wants_advance = self._read()
        poll = _NEVER if due.poll is None else due.poll - self.clock.ahead_s
        work = _NEVER if due.work is None else due.work - self.clock.ahead_s
        return poll, min(work, self.clock.elapsed) if wants_advance else work

    def look(self) -> tuple[ApplyLook, ...]:
        """All applies, oldest first."""
        found = []
        for _, group in itertools.groupby(self._read()[0], lambda row: row.apply_pk):
            own = list(group)
            operations = tuple(
                OperationLook(
                    row.id,
                    row.deployment,
                    row.state,
                    row.external_id if row.operation_count == 1 else row.engine_resume_context,
                    row.attempt,
                    row.dispatch_key,
                    round(self.clock.elapsed - self._elapsed_at(row), 6),
                    row.open_wishes,
                    bool(row.drained),
                    row.was_sent,
                    row.is_unheard,
                )
                for row in own
            )
            over = own[0].apply_state in _SETTLED and own[0].done and not any(row.open_wishes for row in own)
            found.append(ApplyLook(own[0].apply_identifier, own[0].apply_state, over, operations))
        return tuple(found)

    def _elapsed_at(self, row: Row) -> float:
        """How much had gone by when its state changed; a clock that was set back since does not matter."""
        key = (row.id, row.changed_at)
        if key not in self._changed_at:
            self._changed_at[key] = min(row.changed_at - self.clock.ahead_s, self.clock.elapsed)
        return self._changed_at[key]

    def _read(self) -> tuple[list[Row], Row, bool]:
        """Everything that is looked at between ticks, read once after each change."""
        known = self._looked
        if known is None or known[0] != self._database.transactions:
            with self._database.begin() as tx:
                tx.hasten()
                with tx.together():
                    looks, due = tx.execute(_LOOK), tx.execute(_NEXT_DUE)
                    applies = tx.execute(
                        _DUE_APPLIES, {"longest_control_s": longest_control_wait_s(LEASE_S, RPC_DEADLINE_S)}
                    )
            known = (self._database.transactions, looks.all(), due.one(), applies.first() is not None)
            self._looked = known
        return known[1:]

    def given_up(self) -> frozenset[str]:
        """The operations of which a person has said that their engines are gone, or what became of them."""
        with self._database.begin() as tx:
            return frozenset(tx.execute(_GIVEN_UP).scalars())

    def chains(self) -> dict[str, str]:
        """Of each operation the one with which its chain of follow-ups begins."""
        with self.database.begin() as tx:
            return {row.scope: row.first for row in tx.execute(_CHAINS)}

    def situation(self) -> str:
        """What the rows look like, without times, numbers of tries and everything that only grows."""
        with self._database.begin() as tx:
            return str(tx.execute(_SITUATION).scalar_one())

    def history(
        self,
        ledgers: Iterable[tuple[list[Asked], list[Done]]],
        jobs: Iterable[Job],
        acknowledged: Iterable[tuple[str, str]],
    ) -> History:
        """All that happened, for the checkers."""
        self._database.counts = False
        return read_history(self._database, ledgers, jobs, acknowledged=acknowledged)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row, for whoever wants to see whether two runs are alike."""
        union = " UNION ALL ".join(
            f"SELECT '{name}', to_jsonb(t) FROM {name} t" for name in self._tables.split(", ")
        )
        found: dict[str, list[dict[str, Any]]] = {}
        with self._database.begin() as tx:
            for table, row in tx.execute(text(union)):
                found.setdefault(table, []).append(row)
        return found
