"""Durable steps of a dispatch; the twin of tern/store/dispatch.py."""

from typing import Any

from tern.domain.dispatch import Approach, approach
from tern.domain.errors import ScopeRefused
from tern.domain.identity import DispatchKey, RemoteId, ScopeName, dispatch_key
from tern.domain.model import Claim, OperationScope
from tern.domain.projection import is_left_alone_by_claim
from tern.domain.scope import POISON, refuse
from tern.domain.states import ApplyState, Event, State, origins
from tern.ports import DispatchClaimed, Fenced, NotClaimed
from tests.simulation.memory.parent import FREE, move, project_parent, tell
from tests.simulation.memory.rows import OperationRow
from tests.simulation.memory.scope import (
    Steps,
    claim_runs_for_s,
    gather_holds,
    hold,
    is_echo,
    load_scope,
    new_token,
    step_back,
    store_remote_id,
)

_CLAIMABLE = ("pending", "running", "failed_retryable")


class DispatchSteps(Steps):
    """ports.DispatchStore in memory."""

    def claim_dispatch(self, operation_id: int, name: ScopeName) -> DispatchClaimed | NotClaimed:
        """See ports.DispatchStore."""
        db = self.db
        with db.transaction():
            if is_echo(db, operation_id, name):
                return NotClaimed("it is driven or settled already")
            row = db.operations.get(operation_id)
            if row is None:
                raise refuse("OPERATION_UNKNOWN", name, f"there is no operation {operation_id}")
            try:
                scope = load_scope(db, operation_id, name)
            except ScopeRefused as poison:
                if poison.reason not in POISON:
                    raise
                return self._settle_poisoned(row, poison)
            if row.state not in _CLAIMABLE:
                return NotClaimed(f"it is {row.state}")
            if row.state == "running" and row.next_attempt_at is None:
                return NotClaimed("it is followed by its remote id")
            found = gather_holds(db, row, scope, self.lease_s)
            if scope.remote_id is None and found:
                step_back(db, row, {reason.kind for reason in found}, self.owner)
                return NotClaimed("; ".join(f"{reason.kind}: {reason.detail}" for reason in found))
            if claim_runs_for_s(db, row, self.lease_s) > 0:
                return NotClaimed("another driver works on it")
            return self._claim_operation(row, scope)

    def _claim_operation(self, row: OperationRow, scope: OperationScope) -> DispatchClaimed | NotClaimed:
        db = self.db
        how = approach(
            has_remote_id=scope.remote_id is not None,
            has_earlier_intent=row.dispatch_key is not None,
            idempotent_dispatch=scope.deployment.idempotent_dispatch or row.repeat_is_safe,
            offers_resolve=bool(scope.deployment.capabilities.resolve),
        )
        if how is Approach.ASK_PERSON:
            words = (
                "an earlier dispatch was never answered, this engine is not known to deduplicate and offers no"
                " Resolve: nobody here can tell whether the change runs"
            )
            self._leave(row, Event.LOSE_TRACK, words, "UNANSWERED")
            return NotClaimed("an earlier dispatch is unanswered and this engine does not deduplicate")
        key = DispatchKey(row.dispatch_key or dispatch_key(scope.name, row.dispatch_generation))
        claim = Claim(
            operation_id=row.id,
            token=new_token(db),
            fence=row.fence + 1,
            attempt=row.attempt + 1,
            generation=row.dispatch_generation,
            key=key,
            is_first_sender=row.dispatch_key is None and scope.remote_id is None,
        )
        intent: dict[str, Any] = {}
        if scope.remote_id is None:
            since = row.dispatch_intent_at if row.dispatch_intent_at is not None else db.now
            intent = {"dispatch_key": key, "dispatch_intent_at": since}
        move(
            db,
            row,
            Event.CLAIM,
            self.owner,
            claim_token=claim.token,
            claim_owner=self.owner,
            fence=claim.fence,
            attempt=claim.attempt,
            claim_expires_at=db.now + self.lease_s,
            next_attempt_at=db.now + self.lease_s,
            repeat_is_safe=False,
            **intent,
        )
        if not is_left_alone_by_claim(ApplyState(db.applies[row.apply_id].state)):
            project_parent(db, row.apply_id, self.owner)
        return DispatchClaimed(claim, scope, how)

    def _settle_poisoned(self, row: OperationRow, poison: ScopeRefused) -> NotClaimed:
        if row.state in _CLAIMABLE and claim_runs_for_s(self.db, row, self.lease_s) <= 0:
            known = bool(row.dispatch_key or row.engine_resume_context or self.db.remote_id(row))
            words = "; ".join(poison.why) or poison.what
            self._leave(row, Event.LOSE_TRACK if known else Event.REFUSE, words, poison.reason)
        return NotClaimed(str(poison))

    def _leave(
        self,
        row: OperationRow,
        event: Event,
        message: str,
        reason: str,
        delay_s: float | None = None,
        **values: Any,
    ) -> None:
        db = self.db
        looks = event is Event.LOSE_TRACK and db.remote_id(row) is not None
        move(
            db,
            row,
            event,
            self.owner,
            message,
            **FREE,
            error_message=message,
            error_reason=reason,
            next_attempt_at=None if delay_s is None else db.now + delay_s,
            next_poll_at=db.now if looks else None,
            **values,
        )
        project_parent(db, row.apply_id, self.owner)

    def may_go_forward(self, claim: Claim) -> bool:
        """See ports.DispatchStore."""
        with self.db.transaction():
            row = hold(self.db, claim)
            if row is None or row.claim_expires_at is None or row.claim_expires_at <= self.db.now:
                return False
            return self.db.stop_in_force(row.id) is None

    def withdraw_intent(self, claim: Claim) -> Fenced:
        """See ports.DispatchStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            verb = db.stop_in_force(row.id)
            if verb is None:
                return Fenced.LOST
            newest = max(
                (one for one in db.deliveries_of[row.id] if one.verb in {"stop", "cancel", "skip"}),
                key=lambda one: one.id,
            )
            caller = db.requests[newest.request_id].caller
            move(
                db,
                row,
                Event.WITHDRAW_CANCELLED if verb == "cancel" else Event.WITHDRAW_STOPPED,
                caller,
                f"{verb} by {caller} before anything was sent to {row.deployment}",
                {"deployment": row.deployment, "operation": row.id},
                **FREE,
                next_attempt_at=None,
                dispatch_key=None,
                dispatch_intent_at=None,
            )
            project_parent(db, row.apply_id, self.owner)
            return Fenced.DONE

    def record_remote_id(self, claim: Claim, scope: OperationScope, remote_id: RemoteId) -> Fenced:
        """See ports.DispatchStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            stored = db.remote_id(row)
            if stored is not None:
                if stored == remote_id:
                    return Fenced.DONE
                words = f"the engine answered {remote_id}, but {stored} stands and stays"
                tell(db, row.apply_id, "remote_id_conflict", self.owner, row.id, words)
                return Fenced.CONFLICT
            store_remote_id(db, row, remote_id)
            detail = {"remote_id": remote_id, "generation": claim.generation}
            tell(db, row.apply_id, "remote_id_stored", self.owner, row.id, detail=detail)
            return Fenced.DONE

    def record_dispatched(self, claim: Claim) -> Fenced:
        """See ports.DispatchStore."""
        db = self.db
        with db.transaction():
            row = hold(db, claim)
            if row is None:
                return Fenced.LOST
            stored = db.remote_id(row)
            if stored is None:
                return Fenced.LOST
            if State(row.state) not in origins(Event.ADOPT):
                looks = None if row.completed_at is not None else db.now
                db.write(row, **FREE, next_attempt_at=None, next_poll_at=looks)
                return Fenced.DONE
            before, wished = row.state, any(wish.is_open for wish in db.deliveries_of[row.id])
            move(
                db,
                row,
                Event.ADOPT,
                self.owner,
                f"followed as {stored}",
                **FREE,
                next_attempt_at=None,
                next_poll_at=db.now,
                progress_revision=0,
                answered_attempts=0,
                error_message="",
                error_reason="",
                poll_failures=0,
                poll_error="",
            )
            for wish in db.deliveries_of[row.id]:
                if wish.is_open:
                    db.write(wish, next_attempt_at=db.now)
            if before != "running" or wished:
                # What stays as it is changes nothing about the apply.
                project_parent(db, row.apply_id, self.owner)
            return Fenced.DONE

    def record_refused(self, claim: Claim, message: str, reason: str, *, key_is_dead: bool) -> Fenced:
        """See ports.DispatchStore."""
        with self.db.transaction():
            row = hold(self.db, claim)
            if row is None:
                return Fenced.LOST
            self._leave(row, Event.REFUSE, message, reason, dispatch_key_is_dead=key_is_dead)
            return Fenced.DONE

    def record_unanswered(
        self, claim: Claim, message: str, *, delay_s: float, engine_answers: bool
    ) -> Fenced:
        """See ports.DispatchStore."""
        with self.db.transaction():
            row = hold(self.db, claim)
            if row is None:
                return Fenced.LOST
            answered = row.answered_attempts + int(engine_answers)
            self._leave(row, Event.ANSWER_LOST, message, "UNANSWERED", delay_s, answered_attempts=answered)
            return Fenced.DONE

    def record_uncertain(self, claim: Claim, message: str) -> Fenced:
        """See ports.DispatchStore."""
        with self.db.transaction():
            row = hold(self.db, claim)
            if row is None:
                return Fenced.LOST
            self._leave(row, Event.LOSE_TRACK, message, "UNANSWERED")
            return Fenced.DONE

    def dispatch_budget(self, claim: Claim) -> tuple[int, float]:
        """See ports.DispatchStore."""
        with self.db.transaction():
            row = self.db.operations[claim.operation_id]
            age_s = 0.0 if row.dispatch_intent_at is None else self.db.now - row.dispatch_intent_at
            return row.answered_attempts, age_s
