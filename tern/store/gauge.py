"""What is true of the whole database now, for metrics and for `tern doctor`: one statement over partial indexes.

Its cost follows what is under way, never what is over: it reads live applies, due work, open wishes and held claims.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tern.domain.crowd import AHEAD_MOST, AHEAD_S
from tern.domain.timing import LOST_CONTACT_AFTER
from tern.store.database import Database
from tern.store.notify import BUSY
from tern.store.reading import snapshot
from tern.store.silence import PAUSED, PAUSED_UNTIL
from tern.store.sql import Connection, text
from tern.store.step import NOW

SWEEPS = ("reconcile", "progress")

_FRONT = (
    # What of an apply is due for its drivers, from its front; a silent engine's dispatches are held back on purpose.
    f"SELECT o.first_rung_at, o.next_attempt_at, {PAUSED_UNTIL} AS paused_until"
    " FROM apply_operations o WHERE o.apply_id = b.apply_id"
    f" AND o.claim_token IS NULL AND o.next_attempt_at <= {NOW} AND NOT {PAUSED}"
    f" ORDER BY o.next_attempt_at, o.id LIMIT {AHEAD_MOST}"
)
_TOLD_SINCE = (
    # Since its front was notified; where nothing is, since somebody should have. A pause that was before is left out.
    "SELECT coalesce(min(greatest(w.first_rung_at, w.paused_until))"
    f"   FILTER (WHERE w.first_rung_at BETWEEN w.next_attempt_at AND {NOW}),"
    " greatest(min(greatest(w.next_attempt_at, w.paused_until)),"
    "   (SELECT max(r.rung_at) FROM apply_operations r WHERE r.apply_id = b.apply_id"
    f"   AND r.next_attempt_at IS NOT NULL AND r.rung_at <= {NOW}))) AS since FROM ({_FRONT}) w"
)
_UNTAKEN_SINCE = (
    # As domain/crowd.py has it of one operation. Who was taken up last is looked for only where it may matter.
    f"SELECT greatest(t.since, CASE WHEN t.since <= {NOW} - make_interval(secs => {AHEAD_S}) THEN"
    " (SELECT max(c.claim_began_at) FROM apply_operations c WHERE c.apply_id = b.apply_id"
    f"  AND c.claim_began_at <= {NOW}) END) AS since FROM ({_TOLD_SINCE}) t"
)
GAUGES = text(
    f"{BUSY}, live AS MATERIALIZED (SELECT id, state FROM applies"
    "   WHERE state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped')),"
    " open AS MATERIALIZED (SELECT verb, created_at FROM control_deliveries WHERE state IN ('pending', 'sent'))"
    " SELECT 'applies' AS what, state AS label, count(*)::float AS value FROM live GROUP BY state"
    " UNION ALL SELECT 'operations', o.state, count(*) FROM live"
    "   CROSS JOIN LATERAL (SELECT state FROM apply_operations WHERE apply_id = live.id) o GROUP BY o.state"
    " UNION ALL SELECT 'out_of_contact', '', count(*) FROM apply_operations"
    f"   WHERE poll_failures >= {LOST_CONTACT_AFTER} AND next_poll_at IS NOT NULL"
    " UNION ALL SELECT 'due', 'dispatch', extract(epoch FROM (SELECT tern_clock()) - min(u.since))"
    f"   FROM busy b CROSS JOIN LATERAL ({_UNTAKEN_SINCE}) u WHERE b.apply_id IS NOT NULL"
    " UNION ALL (SELECT 'due', 'control', extract(epoch FROM (SELECT tern_clock()) - next_attempt_at)"
    "   FROM control_deliveries d WHERE state IN ('pending', 'sent') AND next_attempt_at IS NOT NULL"
    # What waits for another request of its operation, such as a start for a stop's answer, waits for nobody's hand.
    "   AND NOT EXISTS (SELECT FROM control_deliveries x WHERE x.operation_id = d.operation_id AND x.id <> d.id"
    "     AND x.state IN ('pending', 'sent') AND x.next_attempt_at > d.next_attempt_at)"
    "   ORDER BY next_attempt_at LIMIT 1)"
    " UNION ALL (SELECT 'due', 'poll', extract(epoch FROM (SELECT tern_clock()) - next_poll_at)"
    "   FROM apply_operations WHERE next_poll_at IS NOT NULL ORDER BY next_poll_at LIMIT 1)"
    " UNION ALL SELECT 'open_requests', verb, count(*) FROM open GROUP BY verb"
    " UNION ALL SELECT 'oldest_request', verb, extract(epoch FROM (SELECT tern_clock()) - min(created_at))"
    "   FROM open GROUP BY verb"
    " UNION ALL SELECT 'claims', CASE WHEN claim_expires_at > (SELECT tern_clock()) THEN 'held' ELSE 'expired' END,"
    "   count(*) FROM apply_operations WHERE claim_token IS NOT NULL GROUP BY 2"
    " UNION ALL SELECT 'oldest_expired_claim', '', extract(epoch FROM (SELECT tern_clock()) - min(claim_expires_at))"
    "   FROM apply_operations WHERE claim_token IS NOT NULL AND claim_expires_at <= (SELECT tern_clock())"
    " UNION ALL SELECT 'outstanding', why, count(*) FROM outstanding_calls WHERE settled_at IS NULL GROUP BY why"
    " UNION ALL SELECT 'sweep', name, extract(epoch FROM (SELECT tern_clock()) - finished_at) FROM sweep_leases"
    f"   WHERE name IN ({', '.join(repr(name) for name in SWEEPS)}) AND finished_at IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class Gauges:
    """One look. Ages and waits in seconds; what is not there has no entry.

    operations: of applies that are under way, by state. oldest_due_s: by how much the oldest work of a kind is
    overdue, 0 where none is. A dispatch that waits for its turn among those of its apply is not.
    """

    applies: Mapping[str, int]
    operations: Mapping[str, int]
    out_of_contact: int
    oldest_due_s: Mapping[str, float]
    open_requests: Mapping[str, int]
    oldest_request_s: Mapping[str, float]
    claims: Mapping[str, int]
    oldest_expired_claim_s: float
    sweep_age_s: Mapping[str, float]
    outstanding: Mapping[str, int] = field(default_factory=dict)
    """What was sent and may still act although no operation follows it, by why."""


def read_gauges(engine: Database) -> Gauges:
    """Raises StorageUnavailable."""
    with snapshot(engine) as tx:
        found = _table(tx)
    due = found.get("due", {})
    return Gauges(
        applies=_counts(found.get("applies", {})),
        operations=_counts(found.get("operations", {})),
        out_of_contact=int(found.get("out_of_contact", {}).get("", 0)),
        oldest_due_s={work: max(0.0, due.get(work, 0.0)) for work in ("dispatch", "control", "poll")},
        open_requests=_counts(found.get("open_requests", {})),
        oldest_request_s=found.get("oldest_request", {}),
        claims={"held": 0, "expired": 0, **_counts(found.get("claims", {}))},
        oldest_expired_claim_s=found.get("oldest_expired_claim", {}).get("", 0.0),
        sweep_age_s={name: found.get("sweep", {}).get(name, float("inf")) for name in SWEEPS},
        outstanding=_counts(found.get("outstanding", {})),
    )


def _table(tx: Connection) -> Mapping[str, Mapping[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for row in tx.execute(GAUGES):
        if row.value is not None:
            found.setdefault(row.what, {})[row.label] = float(row.value)
    return found


def _counts(found: Mapping[str, float]) -> Mapping[str, int]:
    return {label: int(value) for label, value in found.items()}
