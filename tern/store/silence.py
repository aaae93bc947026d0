"""Durable memory of engines that leave calls without an answer: one for all workers. Each method is one statement."""

from tern.domain.silence import LONGEST_PAUSE_S, CallKind, Silence, pause_s
from tern.store.session import single
from tern.store.sql import Row, text
from tern.store.step import Steps

_PAUSES = ", ".join(str(pause_s(count)) for count in range(1, 16))
_COLUMNS = (
    "s.deployment, s.kind, s.in_a_row, extract(epoch FROM tern_clock() - s.since)::float AS since_s,"
    # No pause is longer than this: one that seems to be was written under a clock that was set back since.
    f" CASE WHEN s.retry_at > tern_clock() + make_interval(secs => {LONGEST_PAUSE_S}) THEN 0"
    "   ELSE extract(epoch FROM s.retry_at - tern_clock())::float END AS retry_in_s"
)
_RECORD = text(
    # Nothing hangs on it that a crash of PostgreSQL may not take back, so nobody waits for the disk.
    "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true)),"
    " pauses AS (SELECT CAST(:kind AS text) AS kind, d.name FROM deployments d, quick WHERE d.name = :deployment)"
    " INSERT INTO deployment_silences AS s (deployment, kind, in_a_row) SELECT p.name, p.kind, 1 FROM pauses p"
    " ON CONFLICT (deployment, kind) DO UPDATE SET in_a_row = s.in_a_row + 1, last_at = tern_clock(),"
    f" retry_at = tern_clock() + make_interval(secs => (ARRAY[{_PAUSES}])[least(s.in_a_row + 1, 15)])"
    f" RETURNING {_COLUMNS}"
)
_FORGET = text("DELETE FROM deployment_silences WHERE deployment = :deployment AND kind = :kind")
_ALL = text(f"SELECT {_COLUMNS} FROM deployment_silences s ORDER BY s.deployment, s.kind")
PAUSED = (
    "EXISTS (SELECT 1 FROM deployment_silences s WHERE s.deployment = o.deployment AND s.kind = 'dispatch'"
    " AND s.retry_at > (SELECT tern_clock())"
    f" AND s.retry_at <= (SELECT tern_clock()) + make_interval(secs => {LONGEST_PAUSE_S}))"
)
"""The engine of operation o left so many dispatches without an answer that the next one waits."""

_OF_DISPATCHES = "FROM deployment_silences s WHERE s.deployment = o.deployment AND s.kind = 'dispatch'"
PAUSED_UNTIL = f"(SELECT s.retry_at {_OF_DISPATCHES} AND s.retry_at <= (SELECT tern_clock()))"
"""Since when the engine of operation o may be tried again after a pause; NULL where there was none, or it goes on."""

PAUSE = (
    f"coalesce((SELECT s.in_a_row {_OF_DISPATCHES}), 0) AS unanswered,"
    f" CASE WHEN {PAUSED} THEN (SELECT extract(epoch FROM s.retry_at - tern_clock())::float {_OF_DISPATCHES})"
    " ELSE 0 END AS pauses_s"
)
"""Of operation o: how many, and for how long the next one still waits."""


class SilenceSteps(Steps):
    """The part of many.ManyStore that remembers who is silent."""

    def record_silence(self, deployment: str, kind: CallKind) -> Silence | None:
        """See many.ManyStore."""
        with single(self.engine) as tx:
            row = tx.execute(_RECORD, {"deployment": deployment, "kind": kind.value}).one_or_none()
            return None if row is None else _silence(row)

    def record_answer(self, deployment: str, kind: CallKind) -> None:
        """See many.ManyStore."""
        with single(self.engine) as tx:
            tx.execute(_FORGET, {"deployment": deployment, "kind": kind.value})

    def silences(self) -> tuple[Silence, ...]:
        """See many.ManyStore."""
        with single(self.engine) as tx:
            return tuple(_silence(row) for row in tx.execute(_ALL))


def _silence(row: Row) -> Silence:
    return Silence(row.deployment, CallKind(row.kind), row.in_a_row, row.retry_in_s, row.since_s)
