"""Asking for the next cutover of a barrier: a wish of Tern's own, with the same deliveries as a person's."""

import json

from sqlalchemy import Connection, text

from tern.domain.barrier import REASON, Refusals, asks_again_in_s, turn
from tern.domain.policy import Policy
from tern.domain.tally import Tally
from tern.store.halt import STOP_IN_FORCE

REFUSALS = (
    "(SELECT jsonb_build_object('count', count(*), 's_ago', extract(epoch FROM tern_clock() - max(d.closed_at)),"
    " 'words', (array_agg(d.engine_words ORDER BY d.id DESC))[1]) FROM control_deliveries d"
    " WHERE d.operation_id = o.id AND d.verb = 'cutover' AND d.state = 'failed'"
    # A start begins anew: what was refused before it says nothing about what the engine refuses now.
    " AND d.id > coalesce((SELECT max(s.id) FROM control_deliveries s"
    "   WHERE s.operation_id = o.id AND s.verb = 'start' AND s.state = 'acknowledged'), 0))"
)
"""The cutovers of operation o that came to nothing, as an object that refusals() reads."""

_AT_TURN = text(
    f"SELECT o.id, o.deployment, {STOP_IN_FORCE} AS stop_in_force, {REFUSALS} AS refusals,"
    " EXISTS (SELECT 1 FROM control_deliveries w WHERE w.operation_id = o.id AND w.verb = 'cutover'"
    "   AND w.state IN ('pending', 'sent')) AS is_wished"
    " FROM apply_operations o WHERE o.apply_id = :apply AND o.position = :position"
)
_WISH = text(
    "WITH request AS (INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
    " VALUES (:apply, 'cutover', 'tern', :reason, CAST(:outcomes AS jsonb)) RETURNING id)"
    " INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
    " SELECT id, :apply, :operation, 'cutover' FROM request ON CONFLICT DO NOTHING"
)


def refusals(stored: dict[str, object]) -> Refusals:
    """Reads what REFUSALS selects."""
    count, s_ago = int(str(stored["count"])), stored["s_ago"]
    return Refusals(count, float(str(s_ago)) if s_ago is not None else 0.0, str(stored["words"] or ""))


def cut_over_next(tx: Connection, apply_pk: int, policy: Policy, tally: Tally) -> float | None:
    """Writes the wish to cut over the operation whose turn it is, unless it is asked for, or may not go.

    The caller holds the apply's lock. Returns in how many seconds a refused one is asked again, None for never.
    """
    position = turn(policy, tally)
    if position is None:
        return None
    row = tx.execute(_AT_TURN, {"apply": apply_pk, "position": position}).one()
    if row.stop_in_force is not None or row.is_wished:
        return None
    in_s = asks_again_in_s(refusals(row.refusals))
    if in_s is None or in_s > 0:
        return in_s
    outcome = {"deployment": row.deployment, "outcome": "accepted", "reason": REASON}
    given = {
        "apply": apply_pk,
        "operation": row.id,
        "reason": REASON,
        "outcomes": json.dumps([outcome]),
    }
    tx.execute(_WISH, given)
    return None
