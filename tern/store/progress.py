"""Writing the progress of table changes, set-based and never backwards."""

import json
from collections.abc import Mapping, Sequence

from tern.domain.samples import TableSample
from tern.store.sql import Connection, text


def write_tables(tx: Connection, samples: Mapping[int, Sequence[TableSample | None]]) -> None:
    """Takes over what engines say of each of an operation's statements, in their order; what they left out keeps its
    old value (PO5).
    """
    lines = [
        {
            "operation": operation_id,
            "ordinal": ordinal,
            "state": table.status,
            "percent": table.percent,
            "copied": table.rows_copied,
            "total": table.rows_total,
            "eta": table.eta_s,
            "checked": table.checksum_rows_checked,
            "check_total": table.checksum_rows_total,
            "detail": table.detail[:500],
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
            # What is through stays through, whatever a later sample of another statement drags along (PO4).
            " state = CASE WHEN s.state = '' OR c.state IN ('completed', 'failed', 'cancelled', 'reverted', 'skipped')"
            "   THEN c.state ELSE s.state END,"
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
        {"ids": list(samples), "lines": json.dumps(lines)},
    )
