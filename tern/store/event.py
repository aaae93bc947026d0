"""The append-only record of what happened (G15), chained by the database: one chain an operation, one for the
apply's own events. The caller holds the lock of what the event is about: the operation's row, or the apply's.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tern.domain.states import Event
from tern.metrics import TRANSITIONS, VERDICTS
from tern.store.scope import REMOTE_ID
from tern.store.session import after_commit
from tern.store.sql import Connection, Result, Row, text

INTO_EVENTS = "INSERT INTO apply_events AS e (apply_id, operation_id, event, who, why, before, after, detail)"
"""What follows is a SELECT of these columns, and SAID."""
SAID = (
    " RETURNING operation_id, event, who, why, before, after, detail ->> 'remote_id' AS new_id,"
    # A subquery and no join: a planner without statistics would read both tables for one row.
    f" (SELECT ARRAY[a.apply_identifier, o.deployment, {REMOTE_ID}] FROM applies a"
    "   LEFT JOIN apply_operations o ON o.id = e.operation_id WHERE a.id = e.apply_id) AS named"
)
_INSERT = text(
    f"{INTO_EVENTS} SELECT apply_id, operation_id, event, who, why, before, after, detail"
    " FROM ROWS FROM (json_to_recordset(CAST(:lines AS json)) AS (apply_id bigint, operation_id bigint,"
    "   event text, who text, why text, before text, after text, detail json))"
    "   WITH ORDINALITY AS l(apply_id, operation_id, event, who, why, before, after, detail, number)"
    f" ORDER BY number {SAID}"
)
_ARROWS = frozenset(event.value for event in Event)
_log = logging.getLogger("tern.event")


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
    tell_later(tx, tx.execute(_INSERT, {"lines": json.dumps(lines)}))


def tell_later(tx: Connection, said: Result[Row]) -> None:
    """Logs and counts what a statement that ends with SAID has written, once it is committed. Its answer is read no
    earlier: nobody waits for it.
    """
    after_commit(tx, partial(_tell, said))


def _tell(said: Result[Row]) -> None:
    for row in said.mappings().all():
        event, before, after = row["event"], row["before"], row["after"]
        if row["operation_id"] is not None:
            if event in _ARROWS and before != after:
                TRANSITIONS.add(before, after)
        elif event == "verdict":
            VERDICTS.add(after)
        apply, deployment, remote_id = row["named"]
        line = {
            "apply": apply,
            "deployment": deployment,
            "remote_id": row["new_id"] or remote_id,
            "who": row["who"],
            "why": row["why"],
            "before": before,
            "after": after,
        }
        _log.info(event, extra={"fields": {key: value for key, value in line.items() if value}})
