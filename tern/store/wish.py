"""Accepting an operator's wish: request and deliveries, committed before anything else happens (G8, G15).

Nothing here waits for a lock that a driver may hold: rows are only read and inserted, so that a frozen worker can
never keep an operator from stopping (ST11).
"""

from collections.abc import Sequence
from dataclasses import replace

from tern.domain.admission import AdmissionFacts, admit
from tern.domain.command import control_command
from tern.domain.control import CALLS_ONLY, Receipt, ReceiptLine, Verb
from tern.domain.doubt import Doubt
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import ScopeName
from tern.domain.policy import Copy, Policy
from tern.domain.selection import Member, Selection, refuse_unexpected
from tern.domain.states import State
from tern.domain.tally import UNPASSED
from tern.ports import Asked, DueControl, WishReceipt
from tern.store.carried import CARRIED_ON_BY, IS_ALL_DONE, IS_ASKED_TO_END, IS_PARTLY_DONE
from tern.store.halt import NO_CALL_IS_OUT, STOP_IN_FORCE
from tern.store.outstanding_cancel import accept_outstanding_cancel
from tern.store.receipt import outcomes
from tern.store.release import accept_release
from tern.store.reservation import BLOCKED_BY, holding_in
from tern.store.scope import REMOTE_ID
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

MOST_NAMED = 20
_OPEN = "FROM control_deliveries v WHERE v.operation_id = o.id AND v.state IN ('pending', 'sent')"
_OVERTAKEN_BY = {
    Verb.STOP: [Verb.START, Verb.RETRY],
    Verb.CANCEL: [Verb.START, Verb.RETRY],
    Verb.START: [Verb.STOP, Verb.CANCEL],
    Verb.RETRY: [Verb.STOP, Verb.CANCEL],
}
"""Of a verb and one of these the last word counts, so that the same verb may be asked for once more after it."""
_CANDIDATES = text(
    f"SELECT o.id, o.deployment, o.state, o.attempt, o.wave, coalesce(n.labels, '{{}}') AS labels,"
    f" {REMOTE_ID} AS remote_id, o.doubt, {STOP_IN_FORCE} AS stop_in_force,"
    " o.dispatch_key IS NULL OR o.dispatch_key_is_dead AS has_no_live_key,"
    " coalesce(n.drained, false) AS drained, own.request_id AS open_request, q.volume AS open_volume,"
    " own.although_foreign AS open_although,"
    f" (SELECT array_agg(v.verb) {_OPEN}) AS open_verbs,"
    f" (SELECT max(v.id) {_OPEN} AND v.id > own.id AND v.verb = ANY(CAST(:overtaking AS text[]))) AS overtaker,"
    f" coalesce((SELECT bool_and(v.refusals > 0 AND {NO_CALL_IS_OUT.format('v')}) {_OPEN} AND v.verb = 'cancel'),"
    "   false) AS cancel_was_refused,"
    f" CASE WHEN :verb IN ('start', 'retry') THEN {BLOCKED_BY} END AS blocked_by,"
    f" CASE WHEN :verb IN ('start', 'retry', 'stop', 'cancel', 'skip') THEN {CARRIED_ON_BY} END AS carried_on_by,"
    f" CASE WHEN :verb IN ('retry', 'skip') THEN {IS_PARTLY_DONE} ELSE false END AS is_partly_done,"
    f" CASE WHEN :verb IN ('retry', 'skip') THEN {IS_ALL_DONE} ELSE false END AS is_all_done,"
    f" CASE WHEN :verb IN ('retry', 'skip') THEN {IS_ASKED_TO_END} ELSE false END AS is_asked_to_end"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id LEFT JOIN deployments n ON n.name = o.deployment"
    f" LEFT JOIN LATERAL (SELECT v.id, v.request_id, v.although_foreign {_OPEN} AND v.verb = :verb"
    "   ORDER BY v.id DESC LIMIT 1) own ON true"
    " LEFT JOIN control_requests q ON q.id = own.request_id"
    " WHERE a.id = :apply ORDER BY o.position"
)
_INSERT_REQUEST = text(
    "INSERT INTO control_requests (apply_id, verb, volume, caller, reason, outcomes)"
    " VALUES (:apply, :verb, :volume, :caller, :reason, CAST(:outcomes AS jsonb)) RETURNING id"
)


class WishSteps(Steps):
    """The accepting half of ports.ControlStore."""

    def accept_wish(self, asked: Asked) -> WishReceipt:
        """See ports.ControlStore.

        Raises NotFound for an apply or a deployment that is not there, Refused for a selection of another size than
        expected, and for a verb that needs a choice among several operations (G7).
        """
        verb = asked.verb
        with transaction(self.engine) as tx:
            apply = tx.execute(
                text("SELECT id, policy FROM applies WHERE apply_identifier = :id"),
                {"id": asked.apply_id},
            ).one_or_none()
            if apply is None:
                message = f"there is no apply {asked.apply_id}"
                raise NotFound(message, next_step="`tern ls` lists them.")
            if verb is Verb.RELEASE:
                return accept_release(tx, asked, apply.id)
            if asked.outstanding:
                return accept_outstanding_cancel(tx, asked, apply.id)
            overtaking = [each.value for each in _OVERTAKEN_BY.get(verb, ())]
            given = {"verb": verb.value, "overtaking": overtaking, "apply": apply.id}
            candidates = tx.execute(_CANDIDATES, given).all()
            rows = _selected(asked, candidates, apply)
            answers = _answers(asked, rows, candidates, apply)
            lines = tuple(line for _, line in answers)
            again = control_command(asked, "--dry-run")
            refuse_unexpected(asked.expected, lines, again)
            if asked.dry_run:
                return WishReceipt(None, lines)
            request_id = tx.execute(
                _INSERT_REQUEST,
                {
                    "apply": apply.id,
                    "verb": verb.value,
                    "volume": asked.volume,
                    "caller": asked.caller,
                    "reason": asked.reason,
                    "outcomes": outcomes(lines),
                },
            ).scalar_one()
            accepted = [row for row, line in answers if line.outcome is Receipt.ACCEPTED]
            inserted = _insert_deliveries(tx, request_id, apply.id, asked, accepted)
            if asked.although_foreign:
                inserted |= _let_go(tx, asked, [row.id for row in accepted if row.id not in inserted])
            told = tuple(_overtaken(verb, line, row.id in inserted) for row, line in answers)
            # Others may have been faster by an instant; what is counted is what stands written.
            refuse_unexpected(asked.expected, told, again)
            return WishReceipt(
                request_id if inserted else None,
                told,
                tuple(
                    DueControl(row.id, ScopeName(asked.apply_id, row.deployment), verb)
                    for row in rows
                    if row.id in inserted and _may_need_a_call(verb, row)
                ),
            )


def _insert_deliveries(
    tx: Connection, request_id: int, apply_pk: int, asked: Asked, accepted: Sequence[Row]
) -> frozenset[int]:
    if not accepted:
        return frozenset()
    rows = tx.execute(
        text(
            "INSERT INTO control_deliveries"
            " (request_id, apply_id, operation_id, verb, overrides_cancel, although_foreign, overrules)"
            " SELECT :request, :apply, a.id, :verb, :overrides, :although, a.overrules"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:overrules AS bigint[])) AS a(id, overrules) ORDER BY a.id"
            " ON CONFLICT DO NOTHING RETURNING operation_id"
        ),
        {
            "request": request_id,
            "apply": apply_pk,
            "verb": asked.verb.value,
            "overrides": asked.although_cancel_refused,
            "although": asked.although_foreign,
            "ids": [row.id for row in accepted],
            "overrules": [row.overtaker or 0 for row in accepted],
        },
    )
    return frozenset(row.operation_id for row in rows)


def _let_go(tx: Connection, asked: Asked, operation_ids: Sequence[int]) -> frozenset[int]:
    """The same wish, held until now because its id is in doubt, goes out as it is named. One that a driver has just now
    is not waited for (ST11).
    """
    rows = tx.execute(
        text(
            "UPDATE control_deliveries d SET although_foreign = :although, next_attempt_at = tern_clock()"
            " FROM (SELECT c.id FROM control_deliveries c JOIN apply_operations o ON o.id = c.operation_id"
            f"   JOIN applies a ON a.id = o.apply_id WHERE o.id = ANY(:ids) AND {REMOTE_ID} = :although"
            "   AND o.doubt = 'foreign' AND c.verb = :verb AND c.state IN ('pending', 'sent')"
            "   ORDER BY c.id FOR UPDATE OF c SKIP LOCKED) held"
            " WHERE d.id = held.id RETURNING d.operation_id"
        ),
        {"although": asked.although_foreign, "verb": asked.verb.value, "ids": list(operation_ids)},
    )
    return frozenset(row.operation_id for row in rows)


def _of(asked: Asked, *names: str) -> Asked:
    """The same, said of these operations; of all that it is not said of by name to be left out, where none is named."""
    kept = frozenset[str]() if names else asked.selection.excepted
    return replace(asked, selection=Selection(names, everywhere=not names, excepted=kept))


def _selected(asked: Asked, rows: Sequence[Row], apply: Row) -> Sequence[Row]:
    """The operations meant, in rollout order, among the rows as they are in this very transaction."""
    if asked.verb.needs_selection and len(rows) > 1 and not asked.selection.is_explicit:
        names = ", ".join(f"{row.deployment} ({row.state})" for row in rows[:MOST_NAMED])
        message = f"{asked.verb} of {asked.apply_id} was refused: it has {len(rows)} operations"
        raise Refused(
            message,
            why=(f"the operations are {names}", f"a {asked.verb} needs an explicit choice of operations"),
            unchanged="Nothing was sent to any engine and nothing was written.",
            next_step=_choice(asked, rows, apply),
            reason="SELECTION_MISSING",
        )
    if asked.selection.is_made:
        members = [Member(row.deployment, State(row.state), row.labels, row.wave) for row in rows]
        chosen = set(asked.selection.choose(asked.apply_id, members))
        rows = [row for row in rows if row.deployment in chosen]
    return rows


def _choice(asked: Asked, rows: Sequence[Row], apply: Row) -> str:
    """The first operation of which the verb would be taken now, as a command; of the others it would be refused."""
    taken = (row for row, line in _answers(asked, rows, rows, apply) if line.outcome is Receipt.ACCEPTED)
    if (row := next(taken, None)) is None:
        where = f"tern explain {asked.apply_id}"
        return f"None of them takes a {asked.verb} now; where each of them stands: {where}"
    one, everyone = control_command(_of(asked, row.deployment)), control_command(_of(asked))
    return f"Choose one: {one}; or all of them: {everyone}"


def _answers(
    asked: Asked,
    rows: Sequence[Row],
    candidates: Sequence[Row],
    apply: Row,
) -> list[tuple[Row, ReceiptLine]]:
    """Each selected operation's answer, in rollout order."""
    if asked.verb is not Verb.CUTOVER or Policy.from_json(apply.policy).copy is not Copy.BARRIER:
        return [(row, _answer(asked, row)) for row in rows]
    chosen = {row.id for row in rows}
    answers: list[tuple[Row, ReceiptLine]] = []
    ahead: list[str] = []
    for row in candidates:
        goes = row.open_request is not None or row.state == State.CUTTING_OVER
        if row.id in chosen:
            line = _answer(asked, row, comes_before=_named(ahead))
            answers.append((row, line))
            goes = goes or line.outcome is Receipt.ACCEPTED
        # What is cut over by this wish, or by an open one, is waited for; anything else has to be through.
        if not goes and State(row.state) in UNPASSED:
            ahead.append(f"{row.deployment} ({row.state})")
    return answers


def _named(operations: Sequence[str]) -> str:
    named = ", ".join(operations[:MOST_NAMED])
    more = len(operations) - MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named


def _answer(asked: Asked, row: Row, *, comes_before: str = "") -> ReceiptLine:
    holder = holding_in(row.blocked_by)
    facts = AdmissionFacts(
        state=State(row.state),
        has_remote_id=row.remote_id is not None,
        remote_id=row.remote_id or "",
        doubt=Doubt(row.doubt),
        although_foreign=asked.although_foreign,
        open_although=row.open_although or "",
        deployment=row.deployment,
        was_never_dispatched=_was_never_dispatched(row),
        never_sent=row.attempt == 0,
        drained=row.drained,
        stop_in_force=row.stop_in_force,
        cancel_was_refused=row.cancel_was_refused,
        although_cancel_refused=asked.although_cancel_refused,
        open_request=row.open_request,
        is_overtaken=row.overtaker is not None,
        open_volume=row.open_volume,
        open_verbs=frozenset(map(Verb, row.open_verbs or ())),
        target_holder=None if holder is None else holder.words,
        carried_on_by=row.carried_on_by,
        is_partly_done=row.is_partly_done,
        is_all_done=row.is_all_done,
        is_asked_to_end=row.is_asked_to_end,
        comes_before=comes_before,
        scope=str(ScopeName(asked.apply_id, row.deployment)),
    )
    return admit(asked.verb, facts, asked.volume)


def _was_never_dispatched(row: Row) -> bool:
    return row.remote_id is None and bool(row.has_no_live_key)


def _may_need_a_call(verb: Verb, row: Row) -> bool:
    """The others are carried out for the whole apply at once (store/uncalled.py), and need no bell each."""
    if verb in {Verb.RETRY, Verb.SKIP}:
        return False
    return verb in CALLS_ONLY or not _was_never_dispatched(row)


def _overtaken(verb: Verb, line: ReceiptLine, was_inserted: bool) -> ReceiptLine:  # noqa: FBT001 - one line's fact
    """Two wishes at the same instant: the one that lost the race is answered like a later one."""
    if line.outcome is not Receipt.ACCEPTED or was_inserted:
        return line
    if verb is Verb.VOLUME:
        return ReceiptLine(line.deployment, Receipt.REFUSED, "another volume was asked for just now")
    return ReceiptLine(line.deployment, Receipt.ALREADY, f"a {verb} is on its way, asked for just now")


def take_up_wishes(tx: Connection, operation_id: int) -> None:
    """What waited for an answer about this operation can be driven now."""
    tx.execute(
        text(
            "UPDATE control_deliveries SET next_attempt_at = tern_clock()"
            " WHERE operation_id = :id AND state IN ('pending', 'sent')"
        ),
        {"id": operation_id},
    )


def wish_stop_again(tx: Connection, row: Row, why: str) -> None:
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
            "outcomes": outcomes([ReceiptLine(row.deployment, Receipt.ACCEPTED, why)]),
        },
    )
