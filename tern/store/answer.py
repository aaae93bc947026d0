"""Durable steps of a wish after its call: what the engine's answer, or its absence, made of it (G8, G10).

Also what settles a wish without a call, for delivery.py. Each method is one transaction.
"""

from functools import partial

from tern.domain.control import ACTS_LATE, Delivery, Verb
from tern.domain.model import Claim
from tern.domain.states import Event, State
from tern.domain.timing import RESEND_S, PollPace
from tern.metrics import CONTROL_SECONDS
from tern.ports import Fenced
from tern.store.event import Happening, append
from tern.store.projection import close_deliveries, move, project_parent
from tern.store.session import after_commit, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import ANSWERED, LOOK_BY_KEY, HeldOperation, Steps, heard, hold
from tern.store.uncalled import WITHDRAWS

RELEASE = "claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"


class AnswerSteps(Steps):
    """The answering half of ports.ControlStore."""

    def settle_undispatched(self, claim: Claim, delivery_id: int) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            tx.execute(
                text("UPDATE apply_operations SET dispatch_key_is_dead = true WHERE id = :id"),
                {"id": held.operation_id},
            )
            settle_locally(tx, held, Verb(wish.verb), wish)
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def record_sent(self, claim: Claim, delivery_id: int) -> Fenced:
        """See ports.ControlStore."""
        return self._after_call(
            claim,
            delivery_id,
            "state = 'sent', sent_at = coalesce(sent_at, tern_clock()), called_at = tern_clock(), engine_words = '',"
            " next_attempt_at = tern_clock() + make_interval(secs => :delay_s)",
            delay_s=RESEND_S,
            event="sent",
            is_answered=True,
            is_heard=True,
        )

    def record_volume(self, claim: Claim, delivery_id: int, volume: int) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            tx.execute(
                text("UPDATE apply_operations SET volume = :volume WHERE id = :id"),
                {"volume": volume, "id": held.operation_id},
            )
            tx.execute(
                text("UPDATE control_deliveries SET sent_at = tern_clock() WHERE id = :id"),
                {"id": delivery_id},
            )
            close_wish(tx, held, wish, Verb.VOLUME, Delivery.ACKNOWLEDGED, f"the volume is {volume}")
            release(tx, held, is_heard=True)
            return Fenced.DONE

    def record_undelivered(
        self,
        claim: Claim,
        delivery_id: int,
        message: str,
        *,
        delay_s: float,
        was_sent: bool = True,
        is_heard: bool | None = None,
    ) -> Fenced:
        """See ports.ControlStore."""
        return self._after_call(
            claim,
            delivery_id,
            # The call may have had its effect after all: only a sample taken after this instant counts.
            ("called_at = tern_clock(), " if was_sent else "attempts = attempts - 1, ")
            + "engine_words = :words,"
            " next_attempt_at = tern_clock() + make_interval(secs => :delay_s)",
            delay_s=delay_s,
            event="unanswered",
            is_answered=not was_sent,
            is_heard=is_heard,
            words=message,
        )

    def _after_call(
        self,
        claim: Claim,
        delivery_id: int,
        assignments: str,
        *,
        delay_s: float,
        event: str,
        is_answered: bool,
        is_heard: bool | None,
        words: str = "",
    ) -> Fenced:
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            tx.execute(
                text(
                    f"UPDATE control_deliveries SET {assignments}"
                    " WHERE id = :id AND state IN ('pending', 'sent')"
                ),
                {"id": delivery_id, "delay_s": delay_s, "words": words},
            )
            release(
                tx,
                held,
                is_start=wish.verb == Verb.START.value and event == "sent",
                is_answered=is_answered and wish.verb in ACTS_LATE and not claim.follows_unanswered,
                is_heard=is_heard,
            )
            if event == "sent":
                after_commit(tx, partial(CONTROL_SECONDS.observe, wish.age_s, wish.verb, event))
            tell_once(tx, held, wish, event, words)
            return Fenced.DONE

    def record_delivery_refused(
        self, claim: Claim, delivery_id: int, message: str, *, delay_s: float
    ) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            verb = Verb(wish.verb)
            if verb.is_halting:
                # A person wants it stopped until they say otherwise, whatever the engine says: it covers, and is
                # repeated.
                tx.execute(
                    text(
                        "UPDATE control_deliveries SET refusals = refusals + 1, refused_attempt = attempts,"
                        " engine_words = :words, next_attempt_at = tern_clock() + make_interval(secs => :delay_s)"
                        " WHERE id = :id AND state IN ('pending', 'sent')"
                    ),
                    {"words": message, "delay_s": delay_s, "id": delivery_id},
                )
                release(tx, held, is_heard=True)
                tell_once(tx, held, wish, "refused", message)
            else:
                tx.execute(
                    text("UPDATE control_deliveries SET refused_attempt = attempts WHERE id = :id"),
                    {"id": delivery_id},
                )
                close_wish(tx, held, wish, verb, Delivery.FAILED, message)
                is_answered = verb in ACTS_LATE and not claim.follows_unanswered
                release(tx, held, is_answered=is_answered, is_heard=True)
                if verb is Verb.START and held.state is State.RESUMING:
                    move(
                        tx,
                        operation_id=held.operation_id,
                        apply_pk=held.apply_pk,
                        state=held.state,
                        event=Event.RESUME_REFUSED,
                        who=self.owner,
                        why=message,
                        assignments="error_message = :message",
                        values={"message": message},
                    )
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def hold_uncertain(self, claim: Claim, delivery_id: int, message: str) -> Fenced:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = locked_wish(tx, delivery_id)
            append(
                tx,
                Happening(held.apply_pk, f"{wish.verb}_unresolved", wish.caller, held.operation_id, message),
            )
            # Its engine was asked about a key, and no call of the wish has left.
            tx.execute(
                text("UPDATE control_deliveries SET refused_attempt = attempts WHERE id = :id"),
                {"id": delivery_id},
            )
            ask_person(tx, held, Verb(wish.verb), delivery_id, self.owner)
            return Fenced.DONE


def tell_once(tx: Connection, held: HeldOperation, wish: Row, event: str, words: str) -> None:
    """What came of one try. The same words are told once, not every few seconds of an outage."""
    if not words or words != wish.engine_words:
        why = words or wish.reason
        append(tx, Happening(held.apply_pk, f"{wish.verb}_{event}", wish.caller, held.operation_id, why))


def close_wish(
    tx: Connection,
    held: HeldOperation,
    wish: Row,
    verb: Verb,
    fate: Delivery,
    words: str,
) -> None:
    """Writes the fate of one wish, whose row the caller has locked, with its event."""
    close_deliveries(tx, {wish.id: fate}, words)
    append(
        tx,
        Happening(
            held.apply_pk, f"{verb}_{fate.value}", wish.caller, held.operation_id, words, wish.state, fate
        ),
    )


def settle_locally(tx: Connection, held: HeldOperation, verb: Verb, wish: Row) -> None:
    """Nothing was ever sent, or its key is dead: the operation and its statements are settled here (ST1)."""
    move(
        tx,
        operation_id=held.operation_id,
        apply_pk=held.apply_pk,
        state=held.state,
        event=WITHDRAWS[verb],
        who=wish.caller,
        why=f"{verb} by {wish.caller}; nothing runs on {held.deployment}: {wish.reason}",
        detail={"deployment": held.deployment, "operation": held.operation_id},
        assignments=f"{RELEASE}, next_attempt_at = NULL, next_poll_at = NULL, {ANSWERED}",
    )


def ask_person(tx: Connection, held: HeldOperation, verb: Verb, delivery_id: int, owner: str) -> None:
    """The wish stays open; only a person can say what became of the dispatch (G10)."""
    if held.state is not State.UNCERTAIN:
        move(
            tx,
            operation_id=held.operation_id,
            apply_pk=held.apply_pk,
            state=held.state,
            event=Event.LOSE_TRACK,
            who=owner,
            why=f"a {verb} waits, but an earlier dispatch is unanswered and this engine can't resolve it",
            assignments=(
                f"{RELEASE}, next_attempt_at = NULL, error_reason = 'UNANSWERED',"
                # Later on only whether its engine is there at all is asked.
                f" next_poll_at = coalesce({LOOK_BY_KEY}, tern_clock() + make_interval(secs => {PollPace().slow_s})),"
                " error_message = 'an earlier dispatch is unanswered and this engine offers no Resolve'"
            ),
        )
    else:
        # The person whose word is waited for must not wait for a claim under which nothing is done any more.
        tx.execute(text(f"UPDATE apply_operations SET {RELEASE} WHERE id = :id"), {"id": held.operation_id})
    postpone(tx, delivery_id, None)
    project_parent(tx, held.apply_pk, owner)


def postpone(tx: Connection, delivery_id: int, delay_s: float | None, words: str = "") -> None:
    """The wish stays open and is due again after the delay; None: when something else makes it due. `words` say what
    it waits for.
    """
    tx.execute(
        text(
            "UPDATE control_deliveries SET next_attempt_at ="
            " CASE WHEN CAST(:delay_s AS float) IS NOT NULL"
            " THEN tern_clock() + make_interval(secs => :delay_s) END,"
            " engine_words = CASE WHEN :words = '' THEN engine_words ELSE :words END WHERE id = :id"
        ),
        {"delay_s": delay_s, "id": delivery_id, "words": words},
    )


def locked_wish(tx: Connection, delivery_id: int) -> Row:
    """One wish, under its lock."""
    return tx.execute(
        text(
            "SELECT d.id, d.verb, d.state, d.attempts, d.refusals, d.refused_attempt, d.looks, d.engine_words,"
            " r.caller, r.reason,"
            " greatest(0, extract(epoch FROM tern_clock() - d.created_at))::float AS age_s FROM control_deliveries d"
            " JOIN control_requests r ON r.id = d.request_id WHERE d.id = :id FOR UPDATE OF d"
        ),
        {"id": delivery_id},
    ).one()


def release(
    tx: Connection,
    held: HeldOperation,
    *,
    is_start: bool = False,
    is_answered: bool = False,
    is_heard: bool | None = None,
) -> None:
    """Gives the claim back and asks for a look at once: the effect is what counts. is_answered: nothing that was sent
    for it is without an answer any more. is_heard: whether anything was heard of its engine, None if it was not asked.
    """
    said = heard(is_heard)
    tx.execute(
        text(
            f"UPDATE apply_operations SET {RELEASE}, next_poll_at = tern_clock(), runs_though_stopped = false,"
            + (f" {ANSWERED}," if is_answered else "")
            + (f" {said}," if said else "")
            + " start_sent_at = CASE WHEN :is_start THEN tern_clock() ELSE start_sent_at END WHERE id = :id"
        ),
        {"is_start": is_start, "id": held.operation_id},
    )
