"""The append-only record of what happened (G15). The database chains it; the caller holds the apply's lock."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

_INSERT = text(
    "INSERT INTO apply_events (apply_id, operation_id, event, who, why, before, after, detail)"
    " VALUES (:apply_id, :operation_id, :event, :who, :why, :before, :after, CAST(:detail AS jsonb))"
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
    """Writes them in order, in one round trip as far as the driver can."""
    if not happenings:
        return
    tx.execute(
        _INSERT,
        [
            {
                "apply_id": happening.apply_pk,
                "operation_id": happening.operation_id,
                "event": happening.event,
                "who": happening.who,
                "why": happening.why,
                "before": happening.before,
                "after": happening.after,
                "detail": json.dumps(dict(happening.detail)),
            }
            for happening in happenings
        ],
    )
