"""Targets at which the last change was left half done: a new one begins there only if its asker knows."""

from collections.abc import Collection, Sequence

from tern.domain.choice import shortened
from tern.domain.errors import Refused
from tern.domain.half_done import HalfDone
from tern.store.sql import Connection, text

_HALF_DONE = text(
    # Of each target, under whatever name, the operation that has left something there, or may have, and ended last: an
    # older rollout may have been tried again since.
    "SELECT w.name, l.scope, l.state, l.words FROM unnest(CAST(:names AS text[])) AS w(name) CROSS JOIN LATERAL ("
    "   SELECT o.id, o.state, a.apply_identifier || '/' || o.deployment AS scope, s.words"
    "   FROM (SELECT w.name AS name UNION SELECT t.name FROM tern_names_of_target(w.name) AS t (name)"
    "     WHERE EXISTS (SELECT FROM same_targets WHERE finding <> 'two')) n"
    "   CROSS JOIN LATERAL (SELECT * FROM apply_operations f WHERE f.deployment = n.name"
    "     AND f.completed_at IS NOT NULL AND EXISTS (SELECT FROM table_changes c WHERE c.operation_id = f.id"
    "       AND c.state NOT IN ('pending', 'skipped', 'failed', 'cancelled'))"
    "     ORDER BY f.completed_at DESC, f.id DESC LIMIT 1) o"
    "   JOIN applies a ON a.id = o.apply_id"
    "   CROSS JOIN LATERAL (SELECT array_agg(c.state ORDER BY c.ordinal) AS words FROM table_changes c"
    "     WHERE c.operation_id = o.id) s"
    "   ORDER BY o.completed_at DESC, o.id DESC LIMIT 1) l"
    " WHERE l.state IN ('failed', 'cancelled') AND NOT l.id = ANY(CAST(:known AS bigint[]))"
    " AND EXISTS (SELECT FROM unnest(l.words) AS word WHERE word <> 'completed')"
    " AND tern_carried_on_by(l.id) IS NULL ORDER BY w.name"
)


def half_done(
    tx: Connection, deployments: Sequence[str], known: Collection[int] = ()
) -> tuple[HalfDone, ...]:
    """Of these, the targets at which something was left half done, by other operations than those known."""
    rows = tx.execute(_HALF_DONE, {"names": list(deployments), "known": list(known)})
    return tuple(HalfDone(row.name, row.scope, row.state, tuple(row.words)) for row in rows)


def refuse_half_done(found: Sequence[HalfDone]) -> None:
    """Raises Refused with every target; nothing left half done passes."""
    if not found:
        return
    what = "the last change was left half done at a target"
    step = f"Carry it on: {found[0].command}. Or add --accept-drift: another change begins there."
    raise Refused(what, why=shortened([each.words for each in found]), next_step=step, reason="HALF_DONE")
