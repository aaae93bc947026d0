"""Accepting an operator's wish; the twin of tern/store/wish.py."""

from tern.domain.admission import AdmissionFacts, admit
from tern.domain.control import CALLS_ONLY, CONTRARY, Receipt, ReceiptLine, Verb
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.policy import Copy
from tern.domain.states import State
from tern.domain.tally import UNPASSED
from tern.ports import Asked, DueControl, Member, WishReceipt
from tests.simulation.memory.database import Database
from tests.simulation.memory.release import accept_release
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
            Member(row.deployment, State(row.state), labels.get(row.deployment, {}), row.wave)
            for row in sorted(db.operations_of[apply.id], key=lambda row: row.position)
        )

    def accept_wish(self, asked: Asked) -> WishReceipt:
        """See ports.ControlStore."""
        db, verb = self.db, asked.verb
        with db.transaction():
            apply = db.apply_named(asked.apply_id)
            if apply is None:
                message = f"there is no apply {asked.apply_id}"
                raise NotFound(message)
            if verb is Verb.RELEASE:
                return accept_release(db, asked, apply)
            rows = sorted(db.operations_of[apply.id], key=lambda row: row.position)
            answers = _answers(db, asked, _selected(asked, rows, self), rows)
            lines = tuple(line for _, line in answers)
            if asked.dry_run:
                return WishReceipt(None, lines)
            accepted = [row for row, line in answers if line.outcome is Receipt.ACCEPTED]
            outcomes = [
                {"deployment": x.deployment, "outcome": x.outcome.value, "reason": x.reason} for x in lines
            ]
            request_id = ask(db, apply.id, verb, asked.caller, asked.reason, [*outcomes], asked.volume).id
            due = [
                DueControl(row.id, ScopeName(asked.apply_id, row.deployment), verb)
                for row in accepted
                if verb not in {Verb.RETRY, Verb.SKIP}
                and (verb in CALLS_ONLY or not _was_never_dispatched(db, row))
            ]
            for row in sorted(accepted, key=lambda row: row.id):
                deliver(db, request_id, row, verb)
            return WishReceipt(request_id if accepted else None, lines, tuple(due))


def _selected(asked: Asked, rows: list[OperationRow], store: WishSteps) -> list[OperationRow]:
    if asked.verb.needs_selection and len(rows) > 1 and not asked.selection.is_explicit:
        message = f"{asked.verb} of {asked.apply_id} was refused: it has {len(rows)} operations"
        raise Refused(message, reason="SELECTION_MISSING")
    if asked.selection.is_made:
        chosen = asked.selection.choose(asked.apply_id, store.members(asked.apply_id))
        rows = [row for row in rows if row.deployment in chosen]
    if asked.expected is not None and len(rows) != asked.expected:
        message = f"{len(rows)} operations selected, not {asked.expected}"
        raise Refused(message, reason="EXPECTATION_MISSED")
    return rows


def _was_never_dispatched(db: Database, row: OperationRow) -> bool:
    return db.remote_id(row) is None and (row.dispatch_key is None or row.dispatch_key_is_dead)


def _answers(
    db: Database, asked: Asked, chosen: list[OperationRow], rows: list[OperationRow]
) -> list[tuple[OperationRow, ReceiptLine]]:
    if asked.verb is not Verb.CUTOVER or not rows or db.policy(rows[0].apply_id).copy is not Copy.BARRIER:
        return [(row, _answer(db, asked, row)) for row in chosen]
    answers: list[tuple[OperationRow, ReceiptLine]] = []
    ahead: list[str] = []
    for row in rows:
        goes = db.open_delivery(row.id, "cutover") is not None or row.state == "cutting_over"
        if row in chosen:
            line = _answer(db, asked, row, ", ".join(ahead))
            answers.append((row, line))
            goes = goes or line.outcome is Receipt.ACCEPTED
        if not goes and State(row.state) in UNPASSED:
            ahead.append(f"{row.deployment} ({row.state})")
    return answers


def _answer(db: Database, asked: Asked, row: OperationRow, comes_before: str = "") -> ReceiptLine:
    apply = db.applies[row.apply_id]
    holder = db.holder(apply.environment, apply.database, row.deployment)
    other = holder is not None and holder.id != apply.id
    own = db.open_delivery(row.id, asked.verb)
    contrary = CONTRARY.get(asked.verb)
    facts = AdmissionFacts(
        state=State(row.state),
        has_remote_id=db.remote_id(row) is not None,
        deployment=row.deployment,
        was_never_dispatched=_was_never_dispatched(db, row),
        stop_in_force=db.stop_in_force(row.id),
        open_request=None if own is None else own.request_id,
        open_volume=None if own is None else db.requests[own.request_id].volume,
        revival_open=any(db.open_delivery(row.id, verb) is not None for verb in ("start", "retry")),
        contrary_open=contrary is not None and db.open_delivery(row.id, contrary) is not None,
        target_holder=f"{holder.apply_identifier} ({holder.state})" if holder and other else None,
        comes_before=comes_before,
        scope=str(ScopeName(asked.apply_id, row.deployment)),
    )
    return admit(asked.verb, facts, asked.volume)


def wish_stop_again(db: Database, row: OperationRow, why: str) -> None:
    """Somebody started the job behind our back: it is stopped again, by a wish of our own (ST12)."""
    if db.open_delivery(row.id, "stop") is not None:
        return
    outcomes = [{"deployment": row.deployment, "outcome": "accepted", "reason": why}]
    deliver(db, ask(db, row.apply_id, Verb.STOP, "tern", why, [*outcomes]).id, row, Verb.STOP)
