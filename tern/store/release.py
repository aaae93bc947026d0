"""Releasing a paused rollout: one pause, once. Accepting only inserts; advancing the apply takes it up (store/tally.py
reads the newest release).
"""

from dataclasses import replace

from tern.domain.admission import admit_release
from tern.domain.budget import failures_to_release
from tern.domain.command import control_command
from tern.domain.control import Receipt
from tern.domain.errors import Refused
from tern.domain.policy import Policy
from tern.domain.selection import Selection
from tern.domain.states import ApplyState
from tern.ports import Asked, WishReceipt
from tern.store.event import Happening, append_all
from tern.store.receipt import outcomes
from tern.store.sql import Connection, text
from tern.store.tally import tally

_INSERT = text(
    "INSERT INTO control_requests (apply_id, verb, failures_released, caller, reason, outcomes)"
    " VALUES (:apply, 'release', :failures, :caller, :reason, CAST(:outcomes AS jsonb)) RETURNING id"
)
_UNHEARD = text(
    "SELECT r.id, r.caller, r.reason, r.failures_released FROM control_requests r"
    " WHERE r.apply_id = :apply AND r.verb = 'release' AND NOT EXISTS (SELECT 1 FROM apply_events e"
    "   WHERE e.apply_id = r.apply_id AND e.operation_id IS NULL AND e.event = 'released'"
    "   AND CAST(e.detail ->> 'request' AS bigint) >= r.id)"
    " ORDER BY r.id"
)

NEWEST_HEARD = (
    "SELECT CAST(e.detail ->> 'request' AS bigint) AS heard, EXISTS (SELECT 1 FROM apply_events p"
    "   WHERE p.apply_id = a.id AND p.operation_id IS NULL AND p.number > e.number"
    "   AND p.event IN ('projected', 'verdict')) AS has_moved"
    " FROM apply_events e WHERE e.apply_id = a.id AND e.operation_id IS NULL AND e.event = 'released'"
    " AND r.id IS NOT NULL ORDER BY e.number DESC LIMIT 1"
)
"""Of apply a, whose newest release is r: the newest that was taken up, and whether the apply has moved on since."""


def accept_release(tx: Connection, asked: Asked, apply_pk: int) -> WishReceipt:
    """The answer for the apply as a whole. Only a release that opens something is written down: the newest one counts,
    and one that opened nothing would close what an earlier one has opened.

    Nothing is locked (ST11). A failure that is committed meanwhile is seen by nobody, and then this opens nothing.
    """
    if asked.selection.is_made or asked.expected is not None:
        message = "a release is about the whole apply"
        step = control_command(replace(asked, selection=Selection(), expected=None))
        raise Refused(message, next_step=step, reason="SELECTION_MEANINGLESS")
    row = tx.execute(text("SELECT state, policy FROM applies WHERE id = :id"), {"id": apply_pk}).one()
    counted = tally(tx, apply_pk)
    line = admit_release(ApplyState(row.state), Policy.from_json(row.policy), counted)
    if asked.dry_run or line.outcome is not Receipt.ACCEPTED:
        return WishReceipt(None, (line,))
    given = {
        "apply": apply_pk,
        "failures": failures_to_release(counted),
        "caller": asked.caller,
        "reason": asked.reason,
        "outcomes": outcomes([line]),
    }
    return WishReceipt(tx.execute(_INSERT, given).scalar_one(), (line,))


def hear_releases(tx: Connection, apply_pk: int) -> None:
    """Puts into the record that the rollout was released; the caller holds the apply's lock."""
    append_all(
        tx,
        [
            Happening(
                apply_pk,
                "released",
                row.caller,
                None,
                row.reason,
                detail={"request": row.id, "failures": row.failures_released},
            )
            for row in tx.execute(_UNHEARD, {"apply": apply_pk})
        ],
    )
