"""Engines that are gone: a person's word frees a target in our books, and what was sent stays outstanding (G10, G13).

Each method is one transaction.
"""

import math
from collections.abc import Mapping, Sequence

from tern.domain.answer import fitting_gone
from tern.domain.control import Delivery, Verb
from tern.domain.errors import Refused
from tern.domain.evidence import seconds_to_wait
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.outstanding import Outstanding, Silent, refuse_live, refuse_unless_gone
from tern.domain.states import Event, State
from tern.ports import Resolved
from tern.store.doubt import lock_operations
from tern.store.event import Happening, append, append_all
from tern.store.gate import claim_runs_for_s
from tern.store.outstanding import Sent, Why, open_outstanding, sent_of
from tern.store.outstanding_cancel import ask_to_end
from tern.store.outstanding_hold import BEFORE, SELECTED, outstanding_in
from tern.store.outstanding_settle import lock_applies, settle, wake
from tern.store.projection import close_deliveries, move, project_parent
from tern.store.scope import find_named
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.statement import believe_table_changes
from tern.store.step import Steps

_OPEN_WISHES = text(
    "SELECT d.id, d.verb, d.state, r.caller, r.reason FROM control_deliveries d"
    " JOIN control_requests r ON r.id = d.request_id"
    " WHERE d.operation_id = :id AND d.state IN ('pending', 'sent') ORDER BY d.id FOR UPDATE OF d"
)
_AT = text(
    f"SELECT {SELECTED} FROM outstanding_calls c JOIN applies ca ON ca.id = c.apply_id"
    " JOIN deployments d ON d.name = :deployment AND c.environment = d.environment AND c.database = d.database"
    " WHERE c.deployment = :deployment AND c.settled_at IS NULL ORDER BY c.id"
)
_CONCERNED = text(
    "SELECT w.apply_id FROM deployments d CROSS JOIN LATERAL tern_targets(d.environment, d.database, d.name) n"
    " JOIN apply_operations w ON w.deployment = n.deployment AND w.completed_at IS NULL WHERE d.name = :deployment"
    " UNION SELECT c.apply_id FROM outstanding_calls c WHERE c.id = ANY(:ids)"
)
_WAITING = text(
    "SELECT o.id, o.apply_id FROM deployments d"
    " CROSS JOIN LATERAL tern_targets(d.environment, d.database, d.name) n"
    " JOIN apply_operations o ON o.deployment = n.deployment AND o.completed_at IS NULL"
    " WHERE d.name = :deployment ORDER BY o.id"
)
_MAKE_DUE = text(
    "UPDATE outstanding_calls SET next_look_at = tern_clock() WHERE deployment = :deployment AND settled_at IS NULL"
)
_LINES = text(
    "SELECT c.* FROM outstanding_calls c WHERE c.id = ANY(:ids) AND c.deployment = :deployment"
    " AND c.settled_at IS NULL ORDER BY c.id FOR NO KEY UPDATE"
)


class GoneSteps(Steps):
    """The part of outstanding_port.OutstandingStore that takes a person's word."""

    def give_up(
        self, name: ScopeName, found: Resolved, caller: str, reason: str, *, dry_run: bool = False
    ) -> None:
        """See outstanding_port.OutstandingStore."""
        if not reason.strip():
            message = "that an engine is gone is said with a reason"
            raise Refused(message, next_step="Say how you know with --reason.", reason="REASON_MISSING")
        with transaction(self.engine) as tx:
            operation_id = find_named(tx, name)
            row = lock_operations(tx, [operation_id])[operation_id]
            sent = _checked(row, name, found, self.deadline_s)
            if dry_run:
                return
            call_id = open_outstanding(tx, sent, why=Why.GIVEN_UP, caller=caller, reason=reason)
            silent = Silent(row.unheard_tries, row.unheard_for_s or 0.0)
            words = f"its engine is gone ({silent.words}), says {caller}: {reason}"
            detail = {"outstanding": call_id, "remote_id": sent.remote_id, "key": sent.dispatch_key}
            append(tx, Happening(row.apply_id, "given_up", caller, row.id, words, detail=detail))
            _end_wishes(tx, row, words, call_id)
            state = State(row.state)
            if state is not State.UNCERTAIN:
                state = self._move(tx, row, state, Event.LOSE_TRACK, caller, words)
            if found is Resolved.COMPLETED:
                believe_table_changes(tx, row.id, caller)
            told = f"resolved as {found}, its engine is gone: {reason}"
            self._move(tx, row, state, _ENDS[found], caller, told, reason)
            project_parent(tx, row.apply_id, caller)

    def _move(
        self, tx: Connection, row: Row, state: State, event: Event, who: str, why: str, reason: str = ""
    ) -> State:
        return move(
            tx,
            operation_id=row.id,
            apply_pk=row.apply_id,
            state=state,
            event=event,
            who=who,
            why=why,
            # Whoever was just driving it has lost it, and its late calls carry an old fence.
            assignments=(
                "error_message = CASE WHEN :is_done THEN '' ELSE :reason END,"
                " error_reason = CASE WHEN :is_done THEN '' ELSE 'ENGINE_GONE' END,"
                " summary = CASE WHEN :is_done THEN :told ELSE summary END, doubt = '', fence = fence + 1,"
                " progress_revision = 0, next_attempt_at = NULL,"
                " next_poll_at = CASE WHEN unanswered_since IS NOT NULL THEN next_poll_at END,"
                " claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"
            ),
            values={
                "reason": reason or why,
                "is_done": event is Event.FINISH,
                "told": f"completed, says {who}: {reason}"[:500],
            },
            may_have_wishes=False,
        )

    def outstanding_at(self, deployment: str) -> tuple[Outstanding, ...]:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            return tuple(outstanding_in(row) for row in tx.execute(_AT, {"deployment": deployment}))

    def outstanding_before(self, deployments: Sequence[str]) -> Mapping[str, Outstanding]:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            rows = tx.execute(BEFORE, {"names": list(deployments)})
            return {row.name: outstanding_in(row) for row in rows}

    def make_outstanding_due(self, deployment: str) -> None:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            tx.execute(_MAKE_DUE, {"deployment": deployment})

    def settle_by_word(
        self, deployment: str, call_ids: Sequence[int], caller: str, reason: str
    ) -> tuple[ApplyId, ...]:
        """See outstanding_port.OutstandingStore."""
        given = {"deployment": deployment, "ids": list(call_ids)}
        with transaction(self.engine) as tx:
            applies = sorted(set(tx.execute(_CONCERNED, given).scalars()))
            lock_applies(tx, applies)
            waiting = tx.execute(_WAITING, given).all()
            own = tx.execute(
                text("SELECT DISTINCT operation_id FROM outstanding_calls WHERE id = ANY(:ids)"), given
            )
            lock_operations(tx, [*own.scalars(), *(row.id for row in waiting)])
            lines = tx.execute(_LINES, given).all()
            if not lines:
                return ()
            # Under their locks: a look may have found one of them at work since the person's own.
            said_of = set(call_ids)
            refuse_live(
                deployment, [outstanding_in(row) for row in tx.execute(_AT, given) if row.id in said_of]
            )
            settle(tx, lines, as_="said", who=caller, reason=reason, is_watched=True)
            # In the record of those who waited for it as well: it is by this word that they go.
            words = f"what was outstanding at {deployment} is settled by the word of {caller}: {reason}"
            owners = {line.operation_id for line in lines}
            append_all(
                tx,
                [
                    Happening(row.apply_id, "outstanding_settled", caller, row.id, words)
                    for row in waiting
                    if row.id not in owners
                ],
            )
            return wake(tx, [line.id for line in lines], applies)


_ENDS = {Resolved.ENDED: Event.END, Resolved.COMPLETED: Event.FINISH, Resolved.NOT_STARTED: Event.END}
"""What each word makes of it. Never pending: what was sent may still act."""


def _checked(row: Row, name: ScopeName, found: Resolved, deadline_s: float) -> Sent:
    """What is outstanding from now on; raises Refused where the word does not fit, or comes too early."""
    if found not in fitting_gone():
        message = f"{found} does not go together with --engine-is-gone"
        why = ("what nobody can ask is neither followed nor repeated",)
        step = f"Say one of {', '.join(fitting_gone())}."
        raise Refused(message, why=why, next_step=step, reason="ANSWER_UNFIT")
    sent = sent_of(row)
    if State(row.state).is_finished or sent is None:
        message = f"{name} is {row.state}"
        why = (
            ("nothing of it waits for its engine",)
            if State(row.state).is_finished
            else ("nothing of it was sent to its engine, so tern cancel or tern skip ends it here",)
        )
        raise Refused(message, why=why, unchanged="Nothing was written.", reason="NOTHING_SENT")
    was_heard = row.sampled_look > row.unheard_look
    tries = 0 if was_heard else row.unheard_tries
    refuse_unless_gone(name, Silent(tries, row.unheard_for_s or 0.0, row.poll_error or row.error_message))
    refuse_while_called(row, name, deadline_s)
    return sent


def refuse_while_called(row: Row, name: ScopeName, deadline_s: float) -> None:
    """What is just being called for may still be answered, and an answer is better than anybody's word."""
    wait_s = seconds_to_wait(
        claimed_for_s=claim_runs_for_s(row), unanswered_for_s=row.unanswered_for_s, deadline_s=deadline_s
    )
    if wait_s <= 0:
        return
    message = f"{name} can't be resolved yet"
    raise Refused(
        message,
        why=(f"a call for it may still be answered; in {math.ceil(wait_s)} s that is over",),
        unchanged="Nothing was written.",
        next_step=f"Say it again in {math.ceil(wait_s)} s.",
        reason="CALL_UNDER_WAY",
    )


def _end_wishes(tx: Connection, row: Row, words: str, call_id: int) -> None:
    """Nobody drives them any more, and whether a call of theirs had an effect nobody knows. Who wanted it cancelled
    wants what was sent ended, should its engine come back.
    """
    opened = tx.execute(_OPEN_WISHES, {"id": row.id}).all()
    told = f"given up, not carried out as far as anybody knows: {words}"
    cancels = [each for each in opened if each.verb == Verb.CANCEL.value]
    for each in cancels[-1:]:
        ask_to_end(tx, [call_id], each.caller, each.reason)
        told = f"{told}; what was sent is asked to end, should its engine come back"
    close_deliveries(tx, {each.id: Delivery.MOOT for each in opened}, told)
    append_all(
        tx,
        [
            Happening(row.apply_id, f"{each.verb}_moot", each.caller, row.id, told, each.state, "moot")
            for each in opened
        ],
    )
