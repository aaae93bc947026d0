"""Writing the progress of table changes, set-based and never backwards."""

import json
from collections.abc import Mapping, Sequence

from tern.domain.effect import SETTLED_WORDS, taken_over
from tern.domain.samples import TableSample
from tern.domain.states import State
from tern.domain.text import within
from tern.store.sql import Connection, text

_STAYS = (
    # What is through stays through, whatever a later sample of another statement drags along (PO4); but an engine that
    # tried again by itself, or took a change back, has the last word.
    "(s.state = '' OR s.state = c.state OR c.state = 'reverted' OR c.state = 'completed' AND s.state <> 'reverted'"
    " OR c.state IN ('failed', 'cancelled', 'skipped') AND s.state <> 'completed')"
)


def write_tables(
    tx: Connection, samples: Mapping[int, Sequence[TableSample | None]], states: Mapping[int, State]
) -> None:
    """Takes over what engines say of each of an operation's statements, in their order; what they left out keeps its
    old value (PO5).

    states: where each operation is by the same look, which says what becomes of a statement that had not begun.
    """
    lines = [
        {
            "operation": operation_id,
            "ordinal": ordinal,
            "state": taken_over(
                table.status, states[operation_id], is_alone=sum(other is table for other in tables) == 1
            ),
            "percent": table.percent,
            "copied": table.rows_copied,
            "total": table.rows_total,
            "eta": table.eta_s,
            "checked": table.checksum_rows_checked,
            "check_total": table.checksum_rows_total,
            "detail": within(table.detail, 500),
        }
        for operation_id, tables in samples.items()
        for ordinal, table in enumerate(tables)
        if table is not None
    ]
    if not lines:
        return
    tx.execute(
        text(
            "UPDATE table_changes c SET"
            f" state = CASE WHEN {_STAYS} THEN c.state ELSE s.state END,"
            f" settled_by = CASE WHEN {_STAYS} OR NOT s.state = ANY(CAST(:settled AS text[])) THEN c.settled_by"
            "   ELSE 'engine' END,"
            " percent = greatest(c.percent, least(100, coalesce(s.percent, c.percent))),"
            " rows_copied = coalesce(s.copied, c.rows_copied), rows_total = coalesce(s.total, c.rows_total),"
            " eta_seconds = s.eta, checksum_rows_checked = coalesce(s.checked, c.checksum_rows_checked),"
            " checksum_rows_total = coalesce(s.check_total, c.checksum_rows_total), detail = s.detail"
            " FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS s(operation bigint, ordinal integer,"
            "   state text, percent integer, copied bigint, total bigint, eta bigint, checked bigint,"
            "   check_total bigint, detail text)"
            " WHERE c.operation_id = ANY(:ids) AND c.operation_id = s.operation AND c.ordinal = s.ordinal"
        ),
        # The ids beside the lines: a planner that must guess how many lines there are reads the whole table.
        {"ids": list(samples), "lines": json.dumps(lines), "settled": sorted(SETTLED_WORDS)},
    )
