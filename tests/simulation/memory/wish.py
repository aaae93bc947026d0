"""Accepting an operator's wish; the twin of tern/store/wish.py."""

from tern.domain.control import AdmissionFacts, Receipt, ReceiptLine, Verb, admit
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.states import State
from tern.ports import DueControl, Member, Wish, WishReceipt
from tests.simulation.memory.database import Database
from tests.simulation.memory.rows import OperationRow
from tests.simulation.memory.scope import Steps
from tests.simulation.memory.tally import ask, deliver


class WishSteps(Steps):
    """The accepting half of ports.ControlStore in memory."""

    def members(self, apply_id: ApplyId) -> tuple[Member, ...]:
        """See ports.ControlStore."""
        db = self.db
        apply = db.apply_named(apply_id)
        if apply is None:
            message = f"there is no apply {apply_id}"
            raise NotFound(message)
        labels = {name: row.labels for name, row in db.deployments.items()}
        return tuple(
            Member(row.deployment, State(row.state), labels.get(row.deployment, {}))
            for row in sorted(db.operations_of[apply.id], key=lambda row: row.position)
        )

    def accept_wish(self, wish: Wish, *, dry_run: bool = False) -> WishReceipt:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            apply = db.apply_named(wish.apply_id)
            if apply is None:
                message = f"there is no apply {wish.apply_id}"
                raise NotFound(message)
            rows = sorted(db.operations_of[apply.id], key=lambda row: row.position)
            answers = [(row, _answer(db, wish.verb, row)) for row in _select(wish, rows)]
            lines = tuple(line for _, line in answers)
            if dry_run:
                return WishReceipt(None, lines)
            accepted = [row for row, line in answers if line.outcome is Receipt.ACCEPTED]
            outcomes = [
                {"deployment": x.deployment, "outcome": x.outcome.value, "reason": x.reason} for x in lines
            ]
            request_id = ask(db, apply.id, wish.verb, wish.caller, wish.reason, [*outcomes]).id
            for row in sorted(accepted, key=lambda row: row.id):
                deliver(db, request_id, row, wish.verb)
            return WishReceipt(
                request_id if accepted else None,
                lines,
                tuple(
                    DueControl(row.id, ScopeName(wish.apply_id, row.deployment), wish.verb)
                    for row in accepted
                ),
            )


def _select(wish: Wish, rows: list[OperationRow]) -> list[OperationRow]:
    if not wish.reason.strip():
        message = f"a {wish.verb} needs a reason"
        raise Refused(message, reason="REASON_MISSING")
    if wish.deployments is None:
        if wish.verb.is_forward and len(rows) > 1:
            message = f"{wish.verb} of {wish.apply_id} was refused: it has {len(rows)} operations"
            raise Refused(message, reason="SELECTION_MISSING")
        return rows
    by_name = {row.deployment: row for row in rows}
    unknown = [name for name in wish.deployments if name not in by_name]
    if unknown:
        message = f"{wish.apply_id} has no operation on {unknown}"
        raise NotFound(message)
    return [by_name[name] for name in dict.fromkeys(wish.deployments)]


def _answer(db: Database, verb: Verb, row: OperationRow) -> ReceiptLine:
    apply = db.applies[row.apply_id]
    holder = db.holder(apply.environment, apply.database, row.deployment)
    other = holder is not None and holder.id != apply.id
    return admit(
        verb,
        AdmissionFacts(
            state=State(row.state),
            has_remote_id=db.remote_id(row) is not None,
            stop_in_force=db.stop_in_force(row.id),
            same_verb_open=db.open_delivery(row.id, verb) is not None,
            start_open=db.open_delivery(row.id, "start") is not None,
            target_holder=f"{holder.apply_identifier} ({holder.state})" if holder and other else None,
            deployment=row.deployment,
        ),
    )


def wish_stop_again(db: Database, row: OperationRow, why: str) -> None:
    """Somebody started the job behind our back: it is stopped again, by a wish of our own (ST12)."""
    if db.open_delivery(row.id, "stop") is not None:
        return
    outcomes = [{"deployment": row.deployment, "outcome": "accepted", "reason": why}]
    deliver(db, ask(db, row.apply_id, Verb.STOP, "tern", why, [*outcomes]).id, row, Verb.STOP)
