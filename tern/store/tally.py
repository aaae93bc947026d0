"""Counting an apply's operations, in one statement and without reading them: the database keeps the counts.

What a count can't say is looked up where there is any of it: first positions by their index, wishes that are open.
"""

from tern.domain.states import State
from tern.domain.tally import Group, Tally
from tern.store.sql import Connection, Result, Row, TextClause, text

_OF_GROUP = "o.apply_id = c.apply_id AND o.state = c.state AND o.wave = c.wave"
_COUNTED = (
    "SELECT c.wave, c.state, c.n, c.admitted,"
    f" (SELECT min(o.position) FROM apply_operations o WHERE {_OF_GROUP}) AS first,"
    " CASE WHEN c.state = 'pending' AND c.admitted < c.n THEN"
    "   (SELECT o.position FROM apply_operations o WHERE o.apply_id = c.apply_id AND o.state = 'pending'"
    "    AND o.wave = c.wave AND o.next_attempt_at IS NULL ORDER BY o.position LIMIT 1) END AS first_outside,"
    " (SELECT count(*) FROM wished w WHERE w.state = c.state AND w.wave = c.wave) AS wished,"
    # Only a multi apply counts these: in a single one there is nobody that could wait for it.
    f" CASE WHEN c.state = 'stopped' THEN (SELECT count(*) FROM apply_operations o WHERE {_OF_GROUP}"
    "   AND o.engine_resume_context IS NOT NULL) ELSE 0 END AS resumable,"
    f" CASE WHEN c.state = 'failed' THEN (SELECT count(*) FROM apply_operations o, released r WHERE {_OF_GROUP}"
    "   AND coalesce(o.ended_after_request, 0) < r.id) ELSE 0 END AS seen,"
    # An ending that lies ahead of a clock that was set back is one of now.
    " (SELECT greatest(0, extract(epoch FROM (SELECT tern_clock()) - o.completed_at))::float FROM apply_operations o"
    f"   WHERE {_OF_GROUP} AND o.completed_at IS NOT NULL ORDER BY o.completed_at DESC LIMIT 1) AS ended_s_ago,"
    " (SELECT failures_released FROM released) AS released"
    " FROM operation_counts c WHERE c.apply_id = :apply AND c.n > 0"
)
_COUNTING = (
    "WITH released AS MATERIALIZED (SELECT id, failures_released FROM control_requests"
    "   WHERE apply_id = :apply AND verb = 'release' ORDER BY id DESC LIMIT 1),"
    " wished AS MATERIALIZED (SELECT DISTINCT o.id, o.state, o.wave FROM control_deliveries d"
    "   JOIN apply_operations o ON o.id = d.operation_id"
    # One that waits for its turn, or for what a person says, moves nothing by itself; but over an open wish nothing is
    # ever settled.
    "   WHERE d.apply_id = :apply AND d.state IN ('pending', 'sent')"
    "   AND (d.next_attempt_at IS NOT NULL OR o.completed_at IS NOT NULL OR o.state = 'stopped'))"
    f" {_COUNTED}"
)


def tally_of(apply: str) -> TextClause:
    """The statement that counts, where `apply` is SQL for the apply's key."""
    return text(_COUNTING.replace(":apply", apply))


TALLY = tally_of(":apply")


def tally(tx: Connection, apply_pk: int) -> Tally:
    """The apply's operations by wave and state. Counted before the apply's lock it may be wrong at once."""
    return tally_in(tx.execute(TALLY, {"apply": apply_pk}))


def tally_in(counted: Result[Row]) -> Tally:
    """What such a statement has found."""
    rows = counted.all()
    return Tally(
        tuple(
            Group(
                wave=row.wave,
                state=State(row.state),
                count=row.n,
                first=row.first,
                admitted=row.admitted,
                first_outside=row.first_outside,
                wished=row.wished,
                resumable=row.resumable,
                seen=row.seen,
                ended_s_ago=row.ended_s_ago,
            )
            for row in rows
        ),
        next((row.released for row in rows), None),
    )
