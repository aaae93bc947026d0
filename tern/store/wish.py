"""Accepting an operator's wish: request and deliveries, committed before anything else happens (G8, G15).

Nothing here waits for a lock that a driver may hold: rows are only read and inserted, so that a frozen worker can
never keep an operator from stopping (ST11).
"""

import json
from collections.abc import Sequence

from sqlalchemy import Connection, Row, text

from tern.domain.control import AdmissionFacts, Receipt, ReceiptLine, Verb, admit
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ScopeName
from tern.domain.states import State
from tern.ports import DueControl, Wish, WishReceipt
from tern.store.halt import STOP_IN_FORCE
from tern.store.scope import REMOTE_ID
from tern.store.session import transaction
from tern.store.step import Steps

_CANDIDATES = text(
    f"SELECT o.id, o.deployment, o.state, o.apply_id, {REMOTE_ID} IS NOT NULL AS has_remote_id,"
    f" {STOP_IN_FORCE} AS stop_in_force, o.dispatch_key IS NOT NULL AS has_intent,"
    " EXISTS (SELECT 1 FROM control_deliveries v WHERE v.operation_id = o.id AND v.verb = :verb"
    "   AND v.state IN ('pending', 'sent')) AS same_verb_open,"
    " EXISTS (SELECT 1 FROM control_deliveries v WHERE v.operation_id = o.id AND v.verb = 'start'"
    "   AND v.state IN ('pending', 'sent')) AS start_open,"
    " (SELECT h.apply_identifier || ' (' || h.state || ')' FROM target_reservations t JOIN applies h"
    "   ON h.id = t.apply_id WHERE t.environment = a.environment AND t.database = a.database"
    "   AND t.deployment = o.deployment AND t.apply_id <> a.id) AS target_holder"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE a.id = :apply ORDER BY o.position"
)


class WishSteps(Steps):
    """The accepting half of ports.ControlStore."""

    def accept_wish(self, wish: Wish, *, dry_run: bool = False) -> WishReceipt:
        """See ports.ControlStore. With dry_run the same answer is computed and nothing is written.

        Raises NotFound for an apply or a deployment that is not there, Refused for a wish without a reason and for
        a forward verb on a multi apply that names no operations (G7).
        """
        with transaction(self.engine) as tx:
            apply = tx.execute(
                text("SELECT id, operation_count FROM applies WHERE apply_identifier = :id"),
                {"id": wish.apply_id},
            ).one_or_none()
            if apply is None:
                message = f"there is no apply {wish.apply_id}"
                raise NotFound(message, next_step="`tern ls` lists them.")
            rows = tx.execute(_CANDIDATES, {"verb": wish.verb.value, "apply": apply.id}).all()
            selected = _select(wish, rows)
            answers = [(row, _answer(wish.verb, row)) for row in selected]
            lines = tuple(line for _, line in answers)
            accepted = [row for row, line in answers if line.outcome is Receipt.ACCEPTED]
            if dry_run:
                return WishReceipt(None, lines)
            request_id = tx.execute(
                text(
                    "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
                    " VALUES (:apply, :verb, :caller, :reason, CAST(:outcomes AS jsonb)) RETURNING id"
                ),
                {
                    "apply": apply.id,
                    "verb": wish.verb.value,
                    "caller": wish.caller,
                    "reason": wish.reason,
                    "outcomes": json.dumps(
                        [
                            {"deployment": x.deployment, "outcome": x.outcome, "reason": x.reason}
                            for x in lines
                        ]
                    ),
                },
            ).scalar_one()
            inserted = _insert_deliveries(tx, request_id, apply.id, wish.verb, [row.id for row in accepted])
            return WishReceipt(
                request_id if inserted else None,
                # Two equal wishes at the same instant: the one that lost the race is answered like a later one.
                tuple(
                    ReceiptLine(line.deployment, Receipt.ALREADY, f"a {wish.verb} is already on its way")
                    if line.outcome is Receipt.ACCEPTED and row.id not in inserted
                    else line
                    for row, line in answers
                ),
                tuple(
                    DueControl(row.id, ScopeName(wish.apply_id, row.deployment), wish.verb)
                    for row in accepted
                    if row.id in inserted
                ),
            )


def _insert_deliveries(
    tx: Connection, request_id: int, apply_pk: int, verb: Verb, operation_ids: Sequence[int]
) -> frozenset[int]:
    if not operation_ids:
        return frozenset()
    rows = tx.execute(
        text(
            "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
            " SELECT :request, :apply, id, :verb FROM unnest(CAST(:ids AS bigint[])) AS id ORDER BY id"
            " ON CONFLICT DO NOTHING RETURNING operation_id"
        ),
        {"request": request_id, "apply": apply_pk, "verb": verb.value, "ids": list(operation_ids)},
    )
    return frozenset(row.operation_id for row in rows)


def _select(wish: Wish, rows: Sequence[Row[tuple[object, ...]]]) -> list[Row[tuple[object, ...]]]:
    if not wish.reason.strip():
        message = f"a {wish.verb} needs a reason"
        raise Refused(message, next_step="Say why with --reason.", reason="REASON_MISSING")
    if wish.deployments is None:
        if wish.verb.is_forward and len(rows) > 1:
            names = ", ".join(f"{row.deployment} ({row.state})" for row in rows[:20])
            message = f"{wish.verb} of {wish.apply_id} was refused: it has {len(rows)} operations"
            raise Refused(
                message,
                why=(f"the operations are {names}", "going forward needs an explicit choice of operations"),
                unchanged="Nothing was sent to any engine and nothing was written.",
                next_step=f"tern {wish.verb} {wish.apply_id}/{rows[0].deployment}, or --all.",
                reason="SELECTION_MISSING",
            )
        return list(rows)
    by_name = {row.deployment: row for row in rows}
    unknown = [name for name in wish.deployments if name not in by_name]
    if unknown:
        message = f"{wish.apply_id} has no operation on {', '.join(repr(name) for name in unknown)}"
        raise NotFound(
            message,
            why=(f"it has {', '.join(by_name)}",),
            next_step=f"`tern get {wish.apply_id}` shows them.",
        )
    return [by_name[name] for name in dict.fromkeys(wish.deployments)]


def _answer(verb: Verb, row: Row[tuple[object, ...]]) -> ReceiptLine:
    return admit(
        verb,
        AdmissionFacts(
            state=State(row.state),
            has_remote_id=row.has_remote_id,
            stop_in_force=row.stop_in_force,
            same_verb_open=row.same_verb_open,
            start_open=row.start_open,
            target_holder=row.target_holder,
            deployment=row.deployment,
        ),
    )


def wish_stop_again(tx: Connection, row: Row[tuple[object, ...]], why: str) -> None:
    """Somebody started the job behind our back, or a late Start did: it is stopped again, by a wish of our own that
    stands in the record (ST12). Its target may be another apply's by now.
    """
    tx.execute(
        text(
            "WITH request AS (INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
            " SELECT :apply, 'stop', 'tern', :why, CAST(:outcomes AS jsonb)"
            " WHERE NOT EXISTS (SELECT 1 FROM control_deliveries WHERE operation_id = :operation AND verb = 'stop'"
            "   AND state IN ('pending', 'sent')) RETURNING id)"
            " INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
            " SELECT id, :apply, :operation, 'stop' FROM request ON CONFLICT DO NOTHING"
        ),
        {
            "apply": row.apply_id,
            "operation": row.id,
            "why": why,
            "outcomes": json.dumps([{"deployment": row.deployment, "outcome": "accepted", "reason": why}]),
        },
    )
