"""The append-only record of what happened (G15), chained by the database: one chain an operation, one for the
apply's own events. The caller holds the lock of what the event is about: the operation's row, or the apply's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from tern.store.session import log_after_commit

_INSERT = text(
    "INSERT INTO apply_events (apply_id, operation_id, event, who, why, before, after, detail)"
    " SELECT apply_id, operation_id, event, who, why, before, after, detail"
    " FROM ROWS FROM (json_to_recordset(CAST(:lines AS json)) AS (apply_id bigint, operation_id bigint,"
    "   event text, who text, why text, before text, after text, detail json))"
    "   WITH ORDINALITY AS l(apply_id, operation_id, event, who, why, before, after, detail, number)"
    " ORDER BY number RETURNING event, who, why, before, after, detail ->> 'remote_id' AS remote_id,"
    " (SELECT a.apply_identifier FROM applies a WHERE a.id = apply_events.apply_id) AS apply,"
    " (SELECT o.deployment FROM apply_operations o WHERE o.id = apply_events.operation_id) AS deployment"
)


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the record."""

    apply_pk: int
    event: str
    who: str
    operation_id: int | None = None
    why: str = ""
    before: str = ""
    after: str = ""
    detail: Mapping[str, object] = field(default_factory=dict)


def append(tx: Connection, *happenings: Happening) -> None:
    """Writes them in order."""
    append_all(tx, happenings)


def append_all(tx: Connection, happenings: Sequence[Happening]) -> None:
    """Writes them in order, in one statement; the same lines are logged once they are committed."""
    if not happenings:
        return
    lines = [
        {
            "apply_id": happening.apply_pk,
            "operation_id": happening.operation_id,
            "event": happening.event,
            "who": happening.who,
            "why": happening.why,
            "before": happening.before,
            "after": happening.after,
            "detail": dict(happening.detail),
        }
        for happening in happenings
    ]
    for row in tx.execute(_INSERT, {"lines": json.dumps(lines)}).mappings():
        log_after_commit(tx, {key: value for key, value in row.items() if value})
