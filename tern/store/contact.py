"""Who is heard, and who drained what, of all deployments at once: for whoever lists them. Raise StorageUnavailable."""

from collections.abc import Mapping

from tern.domain.contact import Contact, Drain
from tern.store.database import Database
from tern.store.reading import snapshot
from tern.store.sql import text

_CONTACTS = text(
    "SELECT deployment, max(looks) AS looks, max(unanswered) AS unanswered, max(for_s) AS for_s FROM ("
    # A port that refuses costs nobody a thread, so it is no silence (domain/silence.py): nobody answers there either.
    "   SELECT o.deployment, greatest(o.poll_failures, u.tries) AS looks, 0 AS unanswered,"
    "     extract(epoch FROM tern_clock() - coalesce(o.unheard_since, o.sampled_at))::float AS for_s"
    "   FROM applies a JOIN apply_operations o ON o.apply_id = a.id CROSS JOIN LATERAL (SELECT"
    "     CASE WHEN o.sampled_look > o.unheard_look THEN 0 ELSE o.unheard_tries END AS tries) u"
    "   WHERE a.state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped') AND o.completed_at IS NULL"
    "     AND greatest(o.poll_failures, u.tries) > 0"
    "   UNION ALL SELECT c.deployment, c.silent_looks, 0,"
    "     extract(epoch FROM tern_clock() - c.last_seen_at)::float FROM outstanding_calls c"
    "     JOIN deployments d ON d.name = c.deployment AND d.address = coalesce(nullif(c.proven_address, ''), c.address)"
    "     WHERE c.settled_at IS NULL AND c.silent_looks > 0"
    "   UNION ALL SELECT s.deployment, 0, s.in_a_row, extract(epoch FROM tern_clock() - s.since)::float"
    "     FROM deployment_silences s) heard"
    " GROUP BY deployment ORDER BY deployment"
)
_DRAINS = text(
    "SELECT name, drained_by, drained_reason, extract(epoch FROM tern_clock() - drained_at)::float AS age_s"
    " FROM deployments WHERE drained ORDER BY name"
)


def contacts(database: Database) -> Mapping[str, Contact]:
    """Of each deployment of whose engine the last call had no usable answer. What is outstanding at another address
    says nothing about the engine that is there now.
    """
    with snapshot(database) as tx:
        return {
            row.deployment: Contact(row.deployment, row.looks, row.unanswered, row.for_s)
            for row in tx.execute(_CONTACTS)
        }


def drains(database: Database) -> Mapping[str, Drain]:
    """Of each that is drained."""
    with snapshot(database) as tx:
        return {
            row.name: Drain(row.name, row.drained_by, row.drained_reason, row.age_s)
            for row in tx.execute(_DRAINS)
        }
