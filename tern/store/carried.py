"""Whether an operation is carried on elsewhere, or partly done, or what was sent for it is to be ended: then it is not
made live again, whoever asked for that and when.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tern.domain.effect import effect_of
from tern.domain.identity import ScopeName
from tern.domain.scope import refuse
from tern.domain.states import State
from tern.facts import CarriedOn
from tern.store.sql import Connection, Row, text

_IS_CHAINED = (
    "(o.carries_on IS NOT NULL OR EXISTS (SELECT FROM apply_operations f WHERE f.carries_on = o.id))"
)

CARRIED_ON_BY: Final = (
    # Most operations are in no chain, which one look into an index says.
    f"(CASE WHEN {_IS_CHAINED} THEN ("
    "SELECT fa.apply_identifier || '/' || f.deployment FROM apply_operations f JOIN applies fa ON fa.id = f.apply_id"
    " WHERE f.id = tern_carried_on_by(o.id)) END)"
)
"""The name of whoever of the same chain does, or has done, something of operation o; NULL for nobody."""

CARRIED_ON: Final = (
    # One object, so that the family is gone through once.
    f"(CASE WHEN {_IS_CHAINED} THEN ("
    "SELECT jsonb_build_object('by', fa.apply_identifier || '/' || f.deployment, 'state', f.state, 'words',"
    " (SELECT array_agg(c.state ORDER BY c.ordinal) FROM table_changes c WHERE c.operation_id = f.id))"
    " FROM apply_operations f JOIN applies fa ON fa.id = f.apply_id WHERE f.id = tern_carried_on_by(o.id)) END)"
)
"""That one with where it is, and what is known of each of its statements, as carried_on_from() reads it."""

IS_PARTLY_DONE: Final = (
    "(o.state = 'failed' AND EXISTS (SELECT FROM table_changes c"
    " WHERE c.operation_id = o.id AND c.state = 'completed'))"
)
"""A retry of operation o would run again what is in: it sends all of its statements."""

IS_ALL_DONE: Final = (
    f"({IS_PARTLY_DONE} AND NOT EXISTS (SELECT FROM table_changes c"
    " WHERE c.operation_id = o.id AND c.state <> 'completed'))"
)
"""Operation o has failed, and each of its statements is in all the same: nothing is left that anybody could do."""

IS_TOLD_OTHERWISE: Final = (
    # Of one that carries nothing on its own statements alone are read.
    "(o.dispatch_key IS NULL AND (EXISTS (SELECT FROM table_changes c WHERE c.operation_id = o.id"
    "   AND c.state = 'completed')"
    " OR o.carries_on IS NOT NULL AND EXISTS (SELECT FROM table_changes c CROSS JOIN LATERAL ("
    "   SELECT f.state FROM table_changes f WHERE f.id = c.origin_id UNION ALL"
    "   SELECT e.state FROM table_changes e WHERE e.origin_id = c.origin_id AND e.operation_id <> o.id) s"
    " WHERE c.operation_id = o.id AND s.state NOT IN ('pending', 'skipped', 'failed', 'cancelled', 'reverted'))))"
)
"""Something of what operation o is to do is in by now, or may be: an engine spoke late of what was sent before."""

IS_ASKED_TO_END: Final = (
    "(o.state = 'failed' AND EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = o.id"
    " AND c.settled_at IS NULL AND c.cancel_asked_at IS NOT NULL))"
)
"""What was sent for operation o may still act, and somebody wants it ended: a retry would be ended with it."""

CHAINED: Final = (
    "(SELECT s.apply_identifier FROM applies s WHERE s.id = a.carries_on) AS source,"
    " (SELECT array_agg(f.apply_identifier ORDER BY f.id) FROM applies f WHERE f.carries_on = a.id) AS follow_ups"
)
"""Which apply's rest apply a does, and which applies do its own; NULL for none."""


def carried_on_from(found: Mapping[str, Any] | None) -> CarriedOn | None:
    """From CARRIED_ON."""
    if found is None:
        return None
    effects = tuple(effect_of(word) for word in found["words"] or ())
    return CarriedOn(found["by"], State(found["state"]), effects)


def refuse_told_otherwise(name: ScopeName, row: Row) -> None:
    """Nothing is run of which was found meanwhile that it is in. Raises ScopeRefused."""
    if row.is_told_otherwise:
        rule = "REST_CHANGED"
        why = "a statement of it was found to be in by now, or nobody can tell any more whether it is:"
        raise refuse(rule, name, f"{why} tern apply --rest-of {name} shows what is left")


_CARRIED = text(
    f"SELECT o.id, {CARRIED_ON_BY} AS by FROM apply_operations o WHERE o.id = ANY(:ids) AND {_IS_CHAINED}"
)
_PARTLY_DONE = text(f"SELECT o.id FROM apply_operations o WHERE o.id = ANY(:ids) AND {IS_PARTLY_DONE}")
_DOUBTED = text("SELECT o.id FROM apply_operations o WHERE o.id = ANY(:ids) AND o.doubt = 'taken'")
_ASKED_TO_END = text(f"SELECT o.id FROM apply_operations o WHERE o.id = ANY(:ids) AND {IS_ASKED_TO_END}")


def kept_from_running_again(tx: Connection, operation_ids: Sequence[int]) -> dict[int, str]:
    """Why those of these operations that must not be made live again must not. Asked under the lock of their apply, in
    a statement of its own: whoever accepts a follow-up, or says what is done, holds that lock too.
    """
    given = {"ids": list(operation_ids)}
    words = "some of its statements are done, and all of them would run"
    kept = {row.id: words for row in tx.execute(_PARTLY_DONE, given)}
    kept |= {row.id: "a cancel of what was sent for it is open" for row in tx.execute(_ASKED_TO_END, given)}
    words = "its engine gave an id of what was sent for it to another operation as well"
    kept |= {row.id: words for row in tx.execute(_DOUBTED, given)}
    carried = [row for row in tx.execute(_CARRIED, given) if row.by is not None]
    return kept | {row.id: f"it is carried on by {row.by}" for row in carried}
