"""Counting an apply's operations, in one statement however many there are."""

from tern.domain.states import State
from tern.domain.tally import Group, Tally
from tern.store.sql import Connection, text

_COUNT = text(
    "SELECT o.wave, o.state, count(*) AS n, min(o.position) AS first,"
    " count(*) FILTER (WHERE o.state = 'pending' AND o.next_attempt_at IS NOT NULL) AS admitted,"
    " min(o.position) FILTER (WHERE o.state = 'pending' AND o.next_attempt_at IS NULL) AS first_outside,"
    " count(w.operation_id) AS wished,"
    # Only a multi apply counts these: in a single one there is nobody that could wait for it.
    " count(*) FILTER (WHERE o.state = 'stopped' AND o.engine_resume_context IS NOT NULL) AS resumable,"
    " count(*) FILTER (WHERE o.state = 'failed' AND o.completed_at <= r.created_at) AS seen,"
    " extract(epoch FROM (SELECT tern_clock()) - max(o.completed_at))::float AS ended_s_ago,"
    " max(r.failures_released) AS released"
    " FROM apply_operations o"
    " LEFT JOIN (SELECT failures_released, created_at FROM control_requests"
    "   WHERE apply_id = :apply AND verb = 'release' ORDER BY id DESC LIMIT 1) r ON true"
    " LEFT JOIN (SELECT DISTINCT operation_id FROM control_deliveries"
    # One that waits for its turn, or for what a person says, moves nothing by itself.
    "   WHERE apply_id = :apply AND state IN ('pending', 'sent') AND next_attempt_at IS NOT NULL) w"
    "   ON w.operation_id = o.id"
    " WHERE o.apply_id = :apply GROUP BY o.wave, o.state"
)


def tally(tx: Connection, apply_pk: int) -> Tally:
    """The apply's operations by wave and state. Counted before the apply's lock it may be wrong at once."""
    rows = tx.execute(_COUNT, {"apply": apply_pk}).all()
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
