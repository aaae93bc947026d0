"""What an engine's answer to a wish, or its absence, comes to; the twin of tern/store/answer.py and resolve.py."""

from typing import Any

from tern.domain.control import Delivery, Verb
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Claim
from tern.domain.states import Event
from tern.domain.timing import CONTROL_REFUSALS_MAX, RESEND_S
from tern.ports import Fenced, Resolved
from tern.store.uncalled import WITHDRAWS
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import FREE, close_delivery, move, project_parent, tell
from tests.simulation.memory.rows import DeliveryRow, OperationRow
from tests.simulation.memory.scope import Steps, hold, store_remote_id


class AnswerSteps(Steps):
    """The answering half of ports.ControlStore in memory."""

    def settle_undispatched(self, claim: Claim, delivery_id: int) -> Fenced:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            wish = db.deliveries[delivery_id]
            db.write(row, dispatch_key_is_dead=True)
            settle_locally(db, row, Verb(wish.verb), wish)
            project_parent(db, row.apply_id, self.owner)
            return Fenced.DONE

    def record_sent(self, claim: Claim, delivery_id: int) -> Fenced:
        """See ports.ControlStore."""
        now = self.db.now
        before = self.db.deliveries[delivery_id].sent_at
        taken = {"state": "sent", "sent_at": now if before is None else before}
        values = {**taken, "called_at": now, "engine_words": "", "next_attempt_at": now + RESEND_S}
        return self._after_call(claim, delivery_id, "sent", "", values)

    def record_volume(self, claim: Claim, delivery_id: int, volume: int) -> Fenced:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            wish = db.deliveries[delivery_id]
            db.write(row, volume=volume)
            db.write(wish, sent_at=db.now)
            close_wish(db, row, wish, Verb.VOLUME, Delivery.ACKNOWLEDGED, f"the volume is {volume}")
            release(db, row, is_start=False)
            return Fenced.DONE

    def record_undelivered(self, claim: Claim, delivery_id: int, message: str, *, delay_s: float) -> Fenced:
        """See ports.ControlStore."""
        now = self.db.now
        values = {"called_at": now, "engine_words": message, "next_attempt_at": now + delay_s}
        return self._after_call(claim, delivery_id, "unanswered", message, values)

    def _after_call(
        self, claim: Claim, delivery_id: int, event: str, words: str, values: dict[str, Any]
    ) -> Fenced:
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            wish = db.deliveries[delivery_id]
            is_news = not words or words != wish.engine_words
            if wish.is_open:
                db.write(wish, **values)
            release(db, row, is_start=wish.verb == "start" and event == "sent")
            request = db.requests[wish.request_id]
            what = f"{wish.verb}_{event}"
            if is_news:
                tell(db, row.apply_id, what, request.caller, row.id, words or request.reason)
            return Fenced.DONE

    def record_delivery_refused(
        self, claim: Claim, delivery_id: int, message: str, *, delay_s: float
    ) -> Fenced:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            wish = db.deliveries[delivery_id]
            verb = Verb(wish.verb)
            if verb.is_halting and wish.refusals + 1 < CONTROL_REFUSALS_MAX:
                if wish.is_open:
                    due = db.now + delay_s
                    db.write(wish, refusals=wish.refusals + 1, engine_words=message, next_attempt_at=due)
                release(db, row, is_start=False)
            else:
                close_wish(db, row, wish, verb, Delivery.FAILED, message)
                release(db, row, is_start=False)
                if verb is Verb.START and row.state == "resuming":
                    move(db, row, Event.RESUME_REFUSED, self.owner, message, error_message=message)
            project_parent(db, row.apply_id, self.owner)
            return Fenced.DONE

    def hold_uncertain(self, claim: Claim, delivery_id: int, message: str) -> Fenced:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            wish = db.deliveries[delivery_id]
            caller = db.requests[wish.request_id].caller
            tell(db, row.apply_id, f"{wish.verb}_unresolved", caller, row.id, message)
            ask_person(db, row, Verb(wish.verb), wish, self.owner)
            return Fenced.DONE

    def resolve_uncertain(
        self,
        name: ScopeName,
        found: Resolved,
        remote_id: RemoteId | None,
        caller: str,
        reason: str,
        *,
        dry_run: bool = False,
    ) -> None:
        """See ports.ControlStore."""
        assert not dry_run, "a dry run leaves nothing to look at"
        if not reason.strip():
            message = "an uncertain operation is resolved with a reason"
            raise Refused(message, reason="REASON_MISSING")
        db = self.db
        with db.transaction():
            apply = db.apply_named(name.apply_id)
            rows = [] if apply is None else db.operations_of[apply.id]
            row = next((one for one in rows if one.deployment == name.deployment), None)
            if row is None:
                message = f"there is no operation {name}"
                raise NotFound(message)
            if row.state != "uncertain":
                message = f"{name} is {row.state}, not uncertain"
                raise Refused(message, reason="NOT_UNCERTAIN")
            if db.remote_id(row) is not None and found is not Resolved.ENDED:
                message = f"{name} has a remote id, which is never replaced"
                raise Refused(message, reason="REMOTE_ID_STANDS")
            event, values = self._arrow(row, found, reason)
            if found is Resolved.REMOTE_ID:
                self._adopt(name, row, remote_id, caller, reason)
            overtaken = {"fence": row.fence + 1, "progress_revision": 0, **FREE}
            move(db, row, event, caller, f"resolved as {found}: {reason}", **values, **overtaken)
            for wish in db.deliveries_of[row.id]:
                if wish.is_open:
                    db.write(wish, next_attempt_at=db.now)
            project_parent(db, row.apply_id, caller)

    def _adopt(
        self, name: ScopeName, row: OperationRow, remote_id: RemoteId | None, caller: str, reason: str
    ) -> None:
        db = self.db
        if not remote_id:
            message = "an empty remote id is never stored"
            raise Refused(message, reason="REMOTE_ID_EMPTY")
        if str(remote_id) == str(name.apply_id):
            message = f"{remote_id} is Tern's own id, not the engine's"
            raise Refused(message, reason="REMOTE_ID_IS_PUBLIC_ID")
        if any(
            one.deployment == name.deployment and db.remote_id(one) == remote_id
            for one in db.operations.values()
        ):
            message = f"the remote id {remote_id} is taken"
            raise Refused(message, reason="REMOTE_ID_TAKEN")
        store_remote_id(db, row, remote_id)
        detail = {"remote_id": remote_id}
        tell(db, row.apply_id, "remote_id_stored", caller, row.id, reason, detail=detail)

    def _arrow(self, row: OperationRow, found: Resolved, reason: str) -> tuple[Event, dict[str, Any]]:
        now = self.db.now
        clean = {"error_message": "", "error_reason": ""}
        rest = {"next_attempt_at": None, "next_poll_at": None}
        match found:
            case Resolved.NOT_STARTED:
                unsent = {"dispatch_key": None, "dispatch_intent_at": None, "answered_attempts": 0}
                generation = row.dispatch_generation + 1
                return Event.REQUEUE, {**clean, **unsent, **rest, "dispatch_generation": generation}
            case Resolved.ENDED:
                return Event.END, {"error_message": reason, "error_reason": "ENDED", **rest}
            case Resolved.REMOTE_ID:
                return Event.ADOPT, {**clean, "next_attempt_at": None, "next_poll_at": now}
            case Resolved.REPEAT_APPLY:
                again = {"repeat_is_safe": True, "answered_attempts": 0, "dispatch_intent_at": now}
                return Event.REPEAT, {**clean, **again, "next_attempt_at": now}


def close_wish(
    db: Database, row: OperationRow, wish: DeliveryRow, verb: Verb, fate: Delivery, words: str
) -> None:
    """The fate of one wish, with its event."""
    before = wish.state
    close_delivery(db, wish, fate, words)
    caller = db.requests[wish.request_id].caller
    tell(db, row.apply_id, f"{verb}_{fate.value}", caller, row.id, words, before, fate)


def settle_locally(db: Database, row: OperationRow, verb: Verb, wish: DeliveryRow) -> None:
    """Nothing was ever sent, or its key is dead: the operation is settled here (ST1)."""
    request = db.requests[wish.request_id]
    move(
        db,
        row,
        WITHDRAWS[verb],
        request.caller,
        f"{verb} by {request.caller}; nothing runs on {row.deployment}: {request.reason}",
        {"deployment": row.deployment, "operation": row.id},
        **FREE,
        next_attempt_at=None,
        next_poll_at=None,
    )


def ask_person(db: Database, row: OperationRow, verb: Verb, wish: DeliveryRow, owner: str) -> None:
    """The wish stays open; only a person can say what became of the dispatch (G10)."""
    if row.state != "uncertain":
        move(
            db,
            row,
            Event.LOSE_TRACK,
            owner,
            f"a {verb} waits, but an earlier dispatch is unanswered and this engine can't resolve it",
            **FREE,
            next_attempt_at=None,
            error_reason="UNANSWERED",
            error_message="an earlier dispatch is unanswered and this engine offers no Resolve",
        )
    postpone(db, wish, None)
    project_parent(db, row.apply_id, owner)


def postpone(db: Database, wish: DeliveryRow, delay_s: float | None) -> None:
    """Due again after the delay; None: when something else makes it due."""
    db.write(wish, next_attempt_at=None if delay_s is None else db.now + delay_s)


def release(db: Database, row: OperationRow, *, is_start: bool) -> None:
    """Gives the claim back and asks for a look at once."""
    started = db.now if is_start else row.start_sent_at
    db.write(row, **FREE, next_poll_at=db.now, runs_though_stopped=False, start_sent_at=started)
