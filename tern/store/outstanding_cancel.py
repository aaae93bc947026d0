"""Somebody wants what is outstanding ended: written down with each line, and repeated by the looks at it until one
shows that it is over (G15).

Nothing is waited for that a driver could hold for long, as with every other wish.
"""

from collections.abc import Sequence

from tern.domain.command import control_command
from tern.domain.control import Receipt, ReceiptLine
from tern.domain.outstanding import Outstanding
from tern.domain.selection import Member, refuse_unexpected
from tern.domain.states import State
from tern.ports import Asked, WishReceipt
from tern.store.outstanding_hold import SELECTED, outstanding_in
from tern.store.receipt import outcomes
from tern.store.sql import Connection, Row, text

_OPERATIONS = text(
    "SELECT o.id, o.deployment, o.state, o.wave, coalesce(n.labels, '{}') AS labels FROM apply_operations o"
    " LEFT JOIN deployments n ON n.name = o.deployment WHERE o.apply_id = :apply ORDER BY o.position"
)
_LINES = text(
    f"SELECT c.operation_id, {SELECTED} FROM outstanding_calls c JOIN applies ca ON ca.id = c.apply_id"
    " WHERE c.apply_id = :apply AND c.settled_at IS NULL ORDER BY c.id"
)
_ASK = text(
    "UPDATE outstanding_calls SET cancel_asked_at = n.now, cancel_caller = :caller, cancel_reason = :reason,"
    " next_look_at = n.now FROM (SELECT tern_clock() AS now) n"
    " WHERE id = ANY(:ids) AND settled_at IS NULL AND cancel_asked_at IS NULL"
)
_INSERT_REQUEST = text(
    "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
    " VALUES (:apply, 'cancel', :caller, :reason, CAST(:outcomes AS jsonb)) RETURNING id"
)
_INSERT_DELIVERY = text(
    "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
    " VALUES (:request, :apply, :operation, 'cancel') ON CONFLICT DO NOTHING"
)
_TAKE_OVER = text(
    "UPDATE outstanding_calls c SET cancel_asked_at = n.now, cancel_caller = r.caller, cancel_reason = r.reason,"
    " next_look_at = n.now FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id,"
    " (SELECT tern_clock() AS now) n WHERE d.id = ANY(:ids) AND c.operation_id = d.operation_id"
    " AND c.why = 'given_up' AND c.settled_at IS NULL AND c.cancel_asked_at IS NULL"
)


def accept_outstanding_cancel(tx: Connection, asked: Asked, apply_pk: int) -> WishReceipt:
    """An answer for each selected operation; what is accepted is written to its lines, and is due at once. Raises
    Refused for another number than was expected.
    """
    rows = tx.execute(_OPERATIONS, {"apply": apply_pk}).all()
    if asked.selection.is_made:
        members = [Member(row.deployment, State(row.state), row.labels, row.wave) for row in rows]
        chosen = set(asked.selection.choose(asked.apply_id, members))
        rows = [row for row in rows if row.deployment in chosen]
    found: dict[int, list[Outstanding]] = {}
    for line in tx.execute(_LINES, {"apply": apply_pk}):
        found.setdefault(line.operation_id, []).append(outstanding_in(line))
    lines = tuple(_answer(row, found.get(row.id, [])) for row in rows)
    refuse_unexpected(asked.expected, lines, control_command(asked, "--dry-run"))
    accepted = [row.id for row, line in zip(rows, lines, strict=True) if line.outcome is Receipt.ACCEPTED]
    if asked.dry_run or not accepted:
        return WishReceipt(None, lines)
    given = {"apply": apply_pk, "caller": asked.caller, "reason": asked.reason}
    request_id = tx.execute(_INSERT_REQUEST, {**given, "outcomes": outcomes(lines)}).scalar_one()
    ids = [each.call_id for operation_id in accepted for each in found[operation_id] if each.is_own]
    ask_to_end(tx, ids, asked.caller, asked.reason)
    return WishReceipt(request_id, lines)


def ask_to_end(tx: Connection, call_ids: Sequence[int], caller: str, reason: str) -> None:
    """These lines are to be ended, from the next look on."""
    tx.execute(_ASK, {"caller": caller, "reason": reason, "ids": list(call_ids)})


def hand_over_cancel(tx: Connection, line: Row, why: str) -> None:
    """What is to be ended is followed by its operation from now on: whoever wanted it ended wants that, by a cancel of
    the operation. The caller has locked line and operation, and computes its apply.
    """
    if line.cancel_asked_at is None:
        return
    reason = f"{line.cancel_reason} ({why})"
    answer = ReceiptLine(line.deployment, Receipt.ACCEPTED, why)
    given = {"apply": line.apply_id, "caller": line.cancel_caller, "reason": reason}
    request_id = tx.execute(_INSERT_REQUEST, {**given, "outcomes": outcomes([answer])}).scalar_one()
    tx.execute(
        _INSERT_DELIVERY, {"request": request_id, "apply": line.apply_id, "operation": line.operation_id}
    )


def take_over_cancels(tx: Connection, delivery_ids: Sequence[int]) -> None:
    """Of cancels that came too late: of an operation that was given up in that very moment, what was sent is to be
    ended, as with one that was open before.
    """
    tx.execute(_TAKE_OVER, {"ids": list(delivery_ids)})


def _answer(row: Row, found: Sequence[Outstanding]) -> ReceiptLine:
    sent = [each for each in found if each.is_own]
    if not sent:
        words = "; ".join(each.words for each in found) or "nothing of it is outstanding"
        return ReceiptLine(row.deployment, Receipt.REFUSED, words)
    if all(each.cancel_asked for each in sent):
        return ReceiptLine(row.deployment, Receipt.ALREADY, "it is asked to end already")
    if held := [each for each in sent if each.in_doubt]:
        words = f"{held[0].words}; it goes out after: {' or '.join(command for command, _ in held[0].ways)}"
        return ReceiptLine(row.deployment, Receipt.ACCEPTED, words)
    named = ", ".join(each.remote_id or "its key, which is forbidden" for each in sent)
    return ReceiptLine(row.deployment, Receipt.ACCEPTED, f"it goes out to {named} at {sent[0].address}")
