"""Whether an operation is carried on elsewhere, or partly done: then it is never made live again, whoever asked for
that and when.
"""

from collections.abc import Sequence
from typing import Final

from tern.store.sql import Connection, text

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

CARRIED_ON_STATE: Final = (
    f"(CASE WHEN {_IS_CHAINED} THEN ("
    "SELECT f.state FROM apply_operations f WHERE f.id = tern_carried_on_by(o.id)"
    " AND EXISTS (SELECT FROM table_changes c WHERE c.operation_id = f.id AND c.state <> 'completed')) END)"
)
"""Where that one is, as long as something is left of it; NULL where nothing is."""

IS_PARTLY_DONE: Final = (
    "(o.state = 'failed' AND EXISTS (SELECT FROM table_changes c"
    " WHERE c.operation_id = o.id AND c.state = 'completed'))"
)
"""A retry of operation o would run again what is in: it sends all of its statements."""

CHAINED: Final = (
    "(SELECT s.apply_identifier FROM applies s WHERE s.id = a.carries_on) AS source,"
    " (SELECT array_agg(f.apply_identifier ORDER BY f.id) FROM applies f WHERE f.carries_on = a.id) AS follow_ups"
)
"""Which apply's rest apply a does, and which applies do its own; NULL for none."""

_CARRIED = text(
    f"SELECT o.id, {CARRIED_ON_BY} AS by FROM apply_operations o WHERE o.id = ANY(:ids) AND {_IS_CHAINED}"
)
_PARTLY_DONE = text(f"SELECT o.id FROM apply_operations o WHERE o.id = ANY(:ids) AND {IS_PARTLY_DONE}")


def kept_from_running_again(tx: Connection, operation_ids: Sequence[int]) -> dict[int, str]:
    """Why those of these operations that must not be made live again must not. Asked under the lock of their apply, in
    a statement of its own: whoever accepts a follow-up, or says what is done, holds that lock too.
    """
    given = {"ids": list(operation_ids)}
    words = "some of its statements are done, and all of them would run"
    kept = {row.id: words for row in tx.execute(_PARTLY_DONE, given)}
    carried = [row for row in tx.execute(_CARRIED, given) if row.by is not None]
    return kept | {row.id: f"it is carried on by {row.by}" for row in carried}
