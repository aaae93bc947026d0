"""Whether an operation is carried on elsewhere: then it is never made live again, whoever asked for that and when."""

from collections.abc import Sequence
from typing import Final

from tern.store.sql import Connection, text

CARRIED_ON_BY: Final = (
    # Most operations are carried on by nobody, which one look into an index says.
    "(CASE WHEN EXISTS (SELECT FROM apply_operations f WHERE f.carries_on = o.id) THEN ("
    "SELECT fa.apply_identifier || '/' || f.deployment FROM apply_operations f JOIN applies fa ON fa.id = f.apply_id"
    " WHERE f.id = tern_carried_on_by(o.id)) END)"
)
"""The name of the follow-up that carries operation o on; NULL for none."""

CHAINED: Final = (
    "(SELECT s.apply_identifier FROM applies s WHERE s.id = a.carries_on) AS source,"
    " (SELECT array_agg(f.apply_identifier ORDER BY f.id) FROM applies f WHERE f.carries_on = a.id) AS follow_ups"
)
"""Which apply's rest apply a does, and which applies do its own; NULL for none."""

_CARRIED = text(
    f"SELECT o.id, {CARRIED_ON_BY} AS by FROM apply_operations o WHERE o.id = ANY(:ids)"
    " AND EXISTS (SELECT FROM apply_operations f WHERE f.carries_on = o.id)"
)


def carried_on(tx: Connection, operation_ids: Sequence[int]) -> dict[int, str]:
    """Who carries these operations on, of those that are. Asked under the lock of their apply, in a statement of its
    own: whoever accepts a follow-up holds that lock too.
    """
    rows = tx.execute(_CARRIED, {"ids": list(operation_ids)})
    return {row.id: row.by for row in rows if row.by is not None}


def carried_words(name: str) -> str:
    """Why it is not made live again."""
    return f"it is carried on by {name}"
