"""Asking for the next cutover of a barrier: a wish of Tern's own, with the same deliveries as a person's."""

from dataclasses import replace

from tern.domain.barrier import (
    REASON,
    Refusals,
    asks_again_in_s,
    asks_by_itself,
    failed_since,
    is_its_turn,
    turn,
)
from tern.domain.control import DriveFacts, Receipt, ReceiptLine, Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.policy import Copy, Policy
from tern.domain.tally import Tally
from tern.ports import DueControl
from tern.store.halt import STOP_IN_FORCE
from tern.store.receipt import outcomes
from tern.store.sql import Connection, Row, text
from tern.store.step import HeldOperation
from tern.store.tally import tally as count

REFUSALS = (
    "(SELECT jsonb_build_object('count', count(*), 's_ago', greatest(0,"
    "   extract(epoch FROM tern_clock() - max(d.closed_at))),"
    " 'words', (array_agg(d.engine_words ORDER BY d.id DESC))[1]) FROM control_deliveries d"
    # Only what was asked of the engine counts.
    " WHERE d.operation_id = o.id AND d.verb = 'cutover' AND d.state = 'failed' AND d.attempts > 0"
    # A start begins anew: what was refused before it says nothing about what the engine refuses now.
    " AND d.id > coalesce((SELECT max(s.id) FROM control_deliveries s"
    "   WHERE s.operation_id = o.id AND s.verb = 'start' AND s.state = 'acknowledged'), 0))"
)
"""The cutovers of operation o that came to nothing, as an object that refusals() reads."""

_AT_TURN = text(
    f"SELECT o.id, o.deployment, {STOP_IN_FORCE} AS stop_in_force, {REFUSALS} AS refusals,"
    " (SELECT w.id FROM control_deliveries w WHERE w.operation_id = o.id AND w.verb = 'cutover'"
    "   AND w.state IN ('pending', 'sent')) AS wish"
    " FROM apply_operations o WHERE o.apply_id = :apply AND o.position = :position"
)
_FAILED_SINCE = text(
    # By the number of the request, not by the time: a clock may be set back in between.
    "SELECT EXISTS (SELECT 1 FROM apply_operations WHERE apply_id = :apply AND state = 'failed'"
    " AND ended_after_request >= :request)"
)
_WISH = text(
    "WITH request AS (INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
    " VALUES (:apply, 'cutover', 'tern', :reason, CAST(:outcomes AS jsonb)) RETURNING id)"
    " INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
    " SELECT id, :apply, :operation, 'cutover' FROM request ON CONFLICT DO NOTHING"
)

_WAKE = text(
    "UPDATE control_deliveries SET next_attempt_at = tern_clock() WHERE id = :wish AND next_attempt_at IS NULL"
    " AND state IN ('pending', 'sent')"
)


def refusals(stored: dict[str, object]) -> Refusals:
    """Reads what REFUSALS selects."""
    count, s_ago = int(str(stored["count"])), stored["s_ago"]
    return Refusals(count, float(str(s_ago)) if s_ago is not None else 0.0, str(stored["words"] or ""))


def cut_over_next(
    tx: Connection, apply_pk: int, apply_id: ApplyId, policy: Policy, tally: Tally
) -> DueControl | float | None:
    """The wish to cut over the operation whose turn it is: a person's that waited for its turn becomes due, or else
    Tern writes its own, unless the policy leaves it to a person or a stop covers it.

    The caller holds the apply's lock. Returns the wish that has become due, or in how many seconds a refused one is
    asked for again.
    """
    position = turn(policy, tally)
    if position is None:
        return None
    row = tx.execute(_AT_TURN, {"apply": apply_pk, "position": position}).one()
    if row.wish is not None:
        woken = tx.execute(_WAKE, {"wish": row.wish}).rowcount
    elif row.stop_in_force is not None or not asks_by_itself(policy, tally):
        return None
    else:
        in_s = asks_again_in_s(refusals(row.refusals))
        if in_s is None or in_s > 0:
            return in_s
        outcome = ReceiptLine(row.deployment, Receipt.ACCEPTED, REASON)
        given = {"apply": apply_pk, "operation": row.id, "reason": REASON, "outcomes": outcomes([outcome])}
        woken = tx.execute(_WISH, given).rowcount
    return DueControl(row.id, ScopeName(apply_id, row.deployment), Verb.CUTOVER) if woken else None


def in_order(tx: Connection, held: HeldOperation, policy: Policy, wish: Row, facts: DriveFacts) -> DriveFacts:
    """The same facts, with what a barrier says about the cutover: the caller holds the apply's lock."""
    if policy.copy is not Copy.BARRIER:
        return facts
    counted = count(tx, held.apply_pk)
    failed: bool = tx.execute(
        _FAILED_SINCE, {"apply": held.apply_pk, "request": wish.request_id}
    ).scalar_one()
    return replace(
        facts,
        out_of_turn=not is_its_turn(policy, counted, held.row.position),
        failed_since=failed_since(policy, counted, has_failed=failed),
    )
