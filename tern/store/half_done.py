"""Targets at which the last change was left half done: a new one begins there only if its asker knows."""

from collections.abc import Collection, Sequence

from tern.domain.choice import shortened
from tern.domain.errors import Refused
from tern.domain.half_done import HalfDone
from tern.store.sql import Connection, text

_LAST = (
    "(SELECT f.id, f.apply_id, f.deployment, f.state, f.completed_at FROM apply_operations f WHERE {where}"
    "   AND f.completed_at IS NOT NULL AND EXISTS (SELECT FROM table_changes c WHERE c.operation_id = f.id"
    "     AND c.state NOT IN ('pending', 'skipped', 'failed', 'cancelled'))"
    "   ORDER BY f.completed_at DESC, f.id DESC LIMIT 1) f"
)
_HALF_DONE = text(
    # Of each target, under whatever name, the operation that has left something there, or may have, and ended last: an
    # older rollout may have been tried again since.
    "SELECT w.name, l.scope, l.state, l.words, l.is_registered"
    " FROM unnest(CAST(:names AS text[])) AS w(name) CROSS JOIN LATERAL ("
    "   SELECT o.id, o.state, a.apply_identifier || '/' || o.deployment AS scope, s.words,"
    "     EXISTS (SELECT FROM deployments r WHERE r.name = o.deployment) AS is_registered"
    "   FROM (SELECT f.* FROM (SELECT w.name AS name UNION SELECT t.name FROM tern_names_of_target(w.name) AS t (name)"
    "     WHERE EXISTS (SELECT FROM same_targets WHERE finding <> 'two')) n"
    f"    CROSS JOIN LATERAL {_LAST.format(where='f.deployment = n.name')}"
    # A name is forgotten with its deployment, and whom it was the same target as. The engine's number stays, and what
    # it calls the target, which tells one of its databases from another.
    "     UNION SELECT f.* FROM deployments d"
    f"    CROSS JOIN LATERAL {_LAST.format(where='f.engine_number = d.engine_number AND f.target = d.target')}"
    "     WHERE d.name = w.name) o"
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
    return tuple(
        HalfDone(row.name, row.scope, row.state, tuple(row.words), is_registered=row.is_registered)
        for row in rows
    )


def refuse_half_done(found: Sequence[HalfDone]) -> None:
    """Raises Refused with every target; nothing left half done passes."""
    if not found:
        return
    what = "the last change was left half done at a target"
    # One whose deployment is not in the register any more is not carried on under that name.
    commands = list(dict.fromkeys(each.command for each in found if each.is_registered))
    step = "Look at the target; then add --accept-drift: another change begins there."
    if commands:
        more = f"  (and {len(commands) - 1} more)" if len(commands) > 1 else ""
        step = f"Add --accept-drift, and another change begins there; or carry it on: {commands[0]}{more}"
    raise Refused(what, why=shortened([each.words for each in found]), next_step=step, reason="HALF_DONE")
