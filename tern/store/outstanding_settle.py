"""What is outstanding is settled, and whoever waited for its target is woken (G13, G15). The caller has locked what is
concerned: applies in order, operations, lines.
"""

from collections.abc import Iterable, Sequence

from tern.domain.identity import ApplyId
from tern.domain.timing import OUTSTANDING_LOOK_MOST_S
from tern.store.event import Happening, append
from tern.store.sql import Connection, Row, text

_SETTLE = text(
    "UPDATE outstanding_calls SET settled_at = n.now, settled_by = :who, settled_as = :as, settled_reason = :reason,"
    " next_look_at = CASE WHEN :is_watched THEN n.now + make_interval(secs => :pause_s) END"
    " FROM (SELECT tern_clock() AS now) n WHERE id = ANY(:ids) AND settled_at IS NULL"
)
_CONCERNED = text(
    "SELECT DISTINCT w.apply_id FROM outstanding_calls c"
    " CROSS JOIN LATERAL tern_targets(c.environment, c.database, c.deployment) n"
    " JOIN apply_operations w ON w.deployment = n.deployment AND w.completed_at IS NULL WHERE c.id = ANY(:ids)"
)
_WAKE_APPLIES = text("UPDATE applies SET next_advance_at = tern_clock() WHERE id = ANY(:applies)")
_WAITING = (
    "(SELECT n.deployment FROM outstanding_calls c"
    " CROSS JOIN LATERAL tern_targets(c.environment, c.database, c.deployment) n WHERE c.id = ANY(:ids))"
)
_WAKE = (
    text(
        "UPDATE control_deliveries d SET next_attempt_at = tern_clock() FROM apply_operations o"
        f" WHERE o.id = d.operation_id AND o.deployment = ANY (ARRAY{_WAITING}) AND d.verb = 'start'"
        " AND d.state = 'pending'"
    ),
    text(
        "UPDATE apply_operations SET next_attempt_at = tern_clock()"
        f" WHERE deployment = ANY (ARRAY{_WAITING}) AND state = 'failed_retryable' AND claim_token IS NULL"
        " AND next_attempt_at IS NULL"
    ),
)
"""What waited for the target: starts, and dispatches that wait for an answer that nobody could give."""


def concerned_by(tx: Connection, call_ids: Sequence[int]) -> Sequence[int]:
    """The applies that wait, or may, for the targets of these lines."""
    return tx.execute(_CONCERNED, {"ids": list(call_ids)}).scalars().all()


def lock_applies(tx: Connection, applies: Iterable[int]) -> None:
    """In their order."""
    tx.execute(
        text("SELECT 1 FROM applies WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE"),
        {"ids": sorted(applies)},
    )


def settle(
    tx: Connection, lines: Sequence[Row], *, as_: str, who: str, reason: str = "", is_watched: bool = False
) -> None:
    """Nothing of these lines, which the caller has locked, can act any more; each with its event."""
    tx.execute(
        _SETTLE,
        {
            "who": who,
            "as": as_,
            "reason": reason,
            "is_watched": is_watched,
            "pause_s": OUTSTANDING_LOOK_MOST_S / 2,
            "ids": [line.id for line in lines],
        },
    )
    for line in lines:
        what = f"remote id {line.remote_id}" if line.remote_id else f"key {line.dispatch_key}"
        words = f"the {what} is not outstanding any more ({as_})" + (f": {reason}" if reason else "")
        tell(tx, line, "outstanding_settled", who, words)


def wake(tx: Connection, call_ids: Sequence[int], applies: Sequence[int]) -> tuple[ApplyId, ...]:
    """Who waited for the target may go: these applies, whose locks the caller holds, look again. Returns their ids."""
    given = {"ids": list(call_ids)}
    if not applies:
        return ()
    tx.execute(_WAKE_APPLIES, {"applies": list(applies)})
    for statement in _WAKE:
        tx.execute(statement, given)
    named = tx.execute(
        text("SELECT apply_identifier FROM applies WHERE id = ANY(:ids) ORDER BY id"), {"ids": list(applies)}
    )
    return tuple(ApplyId(name) for name in named.scalars())


def tell(tx: Connection, line: Row, event: str, who: str, words: str, call_id: int | None = None) -> None:
    """One event in the record of the operation that a line belongs to."""
    detail = {"outstanding": call_id or line.id, "remote_id": line.remote_id, "key": line.dispatch_key}
    append(tx, Happening(line.apply_id, event, who, line.operation_id, words, detail=detail))
