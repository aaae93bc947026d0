"""Durable steps of a start whose operation has work at its engine: looked at first, resumed, or taken back (G9, S14).

Each method is one transaction. The look itself is the flow's; nothing here calls anybody.
"""

from psycopg import IntegrityError

from tern.domain.control import Delivery, Verb
from tern.domain.model import Claim
from tern.domain.states import Event, State
from tern.domain.timing import START_LOOKS_MAX
from tern.ports import Fenced
from tern.store.answer import RELEASE, close_wish, locked_wish, release, tell_once
from tern.store.carried import kept_from_running_again
from tern.store.outstanding_hold import begins_nothing
from tern.store.projection import move, project_parent
from tern.store.reservation import take
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.statement import reopen_table_changes
from tern.store.step import HeldOperation, Steps, hold

_TO_BE_SENT = text(
    # The claim lasts for the call that follows; whoever dies in it leaves the time from which it may have worked.
    "UPDATE control_deliveries SET attempts = attempts + 1, called_at = tern_clock(),"
    " next_attempt_at = tern_clock() + make_interval(secs => :lease_s) WHERE id = :id"
)
_RUNS_ALREADY = text(
    "UPDATE control_deliveries SET state = 'sent', sent_at = coalesce(sent_at, tern_clock()), engine_words = :words,"
    " next_attempt_at = tern_clock() + make_interval(secs => :delay_s) WHERE id = :id"
)
_LOOKED = text(
    # The longer it has been asked for in vain, the rarer: an engine that is away for hours is not hammered.
    "UPDATE control_deliveries SET looks = looks + CAST(:counts AS integer), engine_words = :words,"
    " next_attempt_at = tern_clock() + make_interval(secs => least(60, greatest(1,"
    "   extract(epoch FROM tern_clock() - created_at)::float / 10)))"
    " WHERE id = :id AND state IN ('pending', 'sent')"
)
_NOT_SENT_AFTER_ALL = text(
    "UPDATE control_deliveries SET attempts = attempts - 1, engine_words = :words, next_attempt_at = tern_clock()"
    " WHERE id = :id AND state IN ('pending', 'sent')"
)


class StartSteps(Steps):
    """The starting part of ports.ControlStore."""

    def resume(self, claim: Claim, delivery_id: int) -> Fenced:
        """See ports.ControlStore."""
        try:
            return self._resume(claim, delivery_id)
        except IntegrityError as error:
            if not begins_nothing(error):
                raise
            # Found since the claim looked, by somebody who holds no lock of this apply. The next claim sees it.
            return Fenced.LOST

    def _resume(self, claim: Claim, delivery_id: int) -> Fenced:
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            if not self._make_resuming(tx, held, locked_wish(tx, delivery_id)):
                return Fenced.LOST
            tx.execute(_TO_BE_SENT, {"lease_s": self.lease_s, "id": delivery_id})
            tx.execute(
                text(
                    # Before the call: whoever dies between call and answer leaves that it may act late.
                    "UPDATE apply_operations SET claim_began_at = n.now, unanswered_call = 'start',"
                    " unanswered_since = n.now,"
                    " claim_expires_at = n.now + make_interval(secs => :lease_s)"
                    " FROM (SELECT tern_clock() AS now) n WHERE id = :id"
                ),
                {"lease_s": self.lease_s, "id": held.operation_id},
            )
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def take_over(self, claim: Claim, delivery_id: int, words: str) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            if not self._make_resuming(tx, held, locked_wish(tx, delivery_id)):
                return Fenced.LOST
            tx.execute(_RUNS_ALREADY, {"words": words, "delay_s": self.lease_s, "id": delivery_id})
            release(tx, held, is_start=True)
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def record_look(
        self, claim: Claim, delivery_id: int, words: str, *, was_answered: bool, is_heard: bool = True
    ) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            seen_often = wish.looks + int(was_answered) >= START_LOOKS_MAX
            release(tx, held, is_start=False, is_heard=is_heard)
            if was_answered and seen_often and held.state is not State.RESUMING:
                why = f"{START_LOOKS_MAX} looks did not show it stopped, and nothing was sent: {words}"
                close_wish(tx, held, wish, Verb.START, Delivery.FAILED, why)
                project_parent(tx, held.apply_pk, self.owner)
                return Fenced.DONE
            tx.execute(_LOOKED, {"counts": was_answered, "words": words, "id": delivery_id})
            tell_once(tx, held, wish, "looked", words)
            if was_answered and seen_often:
                # A Start may have left: what it came to is not known, so the wish stays open over it (G10).
                why = f"{START_LOOKS_MAX} looks did not say what became of its Start: {words}"
                move(
                    tx,
                    operation_id=held.operation_id,
                    apply_pk=held.apply_pk,
                    state=held.state,
                    event=Event.LOSE_TRACK,
                    who=self.owner,
                    why=why,
                    assignments="error_reason = 'START_UNKNOWN', error_message = :message",
                    values={"message": why},
                )
                project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def withdraw_start(self, claim: Claim, delivery_id: int, words: str) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            tx.execute(_NOT_SENT_AFTER_ALL, {"words": words, "id": delivery_id})
            tell_once(tx, held, wish, "withdrawn", words)
            release(tx, held, is_answered=not claim.follows_unanswered)
            if held.state is State.RESUMING and wish.attempts - 1 == wish.refused_attempt:
                # An earlier Start that nobody answered may act yet: then it stays `resuming`, and is stopped there.
                move(
                    tx,
                    operation_id=held.operation_id,
                    apply_pk=held.apply_pk,
                    state=held.state,
                    event=Event.RESUME_WITHDRAWN,
                    who=self.owner,
                    why=words,
                    assignments=RELEASE,
                )
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def _make_resuming(self, tx: Connection, held: HeldOperation, wish: Row) -> bool:
        """The target again, and the state. False where another apply holds the target: the start has failed."""
        if not Delivery(wish.state).is_open:
            # A later stop has ended the start since it was claimed: nothing is sent (G9).
            release(tx, held, is_start=False)
            return False
        if held.state not in {State.STOPPED, State.RESUMING}:
            # A look of somebody else has moved it on.
            release(tx, held, is_start=False)
            return False
        if held.state is State.RESUMING:
            return True
        if retake(tx, held, Verb.START, wish) is not None:
            release(tx, held, is_start=False)
            project_parent(tx, held.apply_pk, self.owner)
            return False
        move(
            tx,
            operation_id=held.operation_id,
            apply_pk=held.apply_pk,
            state=held.state,
            event=Event.RESUME,
            who=wish.caller,
            why=wish.reason,
            assignments="start_sent_at = NULL, runs_though_stopped = false",
        )
        reopen_table_changes(tx, [held.operation_id])
        return True


def retake(tx: Connection, held: HeldOperation, verb: Verb, wish: Row) -> str | None:
    """Takes the target again in the transaction that makes the apply live. Another holder refuses, and ends the wish
    with the words that are returned (SA3, G13); so does whoever carries the operation on, and what is done of it.
    """
    if (words := kept_from_running_again(tx, [held.operation_id]).get(held.operation_id)) is not None:
        close_wish(tx, held, wish, verb, Delivery.FAILED, words)
        return words
    holder = take(tx, [held.operation_id]).get(held.operation_id)
    if holder is None:
        return None
    words = f"its target is held by {holder.words}"
    close_wish(tx, held, wish, verb, Delivery.FAILED, words)
    return words
