"""Durable steps that take a dispatch back: nothing was sent under its key, or the key is dead (G8, G9).

Each method is one transaction.
"""

from tern.domain.dispatch import TARGET_BUSY
from tern.domain.model import Claim
from tern.domain.states import Event
from tern.ports import Fenced
from tern.store.halt import STOP_IN_FORCE
from tern.store.outstanding_hold import IS_OUTSTANDING
from tern.store.projection import move, project_parent
from tern.store.session import transaction
from tern.store.sql import text
from tern.store.step import ANSWERED, HEARD, Steps, hold, stored_id

_WHY = text(
    # Whoever asked for what is in force: a stop that came after the cancel is another person's.
    "SELECT o.verb, (SELECT r.caller FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id"
    "   WHERE d.operation_id = o.id AND d.verb = o.verb ORDER BY d.id DESC LIMIT 1) AS caller,"
    " coalesce((SELECT n.drained FROM deployments n WHERE n.name = o.deployment), false) AS drained,"
    " o.is_outstanding FROM (SELECT o.id, o.deployment,"
    f" {STOP_IN_FORCE} AS verb, {IS_OUTSTANDING} AS is_outstanding"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.id = :id) o"
)
_UNCLAIMED = "claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL, next_attempt_at = NULL"
_AGAIN_LATER = text(
    # It keeps its place among those that were let in, and the try counts like any other that the engine answered; one
    # that found the target taken does not.
    "UPDATE apply_operations SET next_attempt_at = tern_clock() + make_interval(secs => :delay_s),"
    " answered_attempts = answered_attempts + CAST(:counts AS integer), error_message = :message,"
    " error_reason = :reason WHERE id = :id"
)
_KEY_IS_DEAD = text("UPDATE apply_operations SET dispatch_key_is_dead = true WHERE id = :id")


class WithdrawSteps(Steps):
    """The part of ports.DispatchStore that takes back."""

    def withdraw_intent(self, claim: Claim) -> Fenced:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            wish = tx.execute(_WHY, {"id": claim.operation_id}).one()
            match wish.verb:
                case None:
                    # What came before the call may be over by now; it goes back to its place in the order.
                    event, who = Event.REQUEUE, self.owner
                    by = "its deployment was drained" if wish.drained else "taken back"
                    if wish.is_outstanding:
                        by = "something outstanding was found at its target"
                case "cancel":
                    event, who, by = Event.WITHDRAW_CANCELLED, wish.caller, f"cancel by {wish.caller}"
                case verb:
                    event, who, by = Event.WITHDRAW_STOPPED, wish.caller, f"{verb} by {wish.caller}"
            move(
                tx,
                operation_id=held.operation_id,
                apply_pk=held.apply_pk,
                state=held.state,
                event=event,
                who=who,
                why=f"{by} before anything was sent to {held.deployment}",
                detail={"deployment": held.deployment, "operation": held.operation_id},
                assignments=f"{_UNCLAIMED}, dispatch_key = NULL, dispatch_intent_at = NULL, rung_at = NULL, {ANSWERED}",
            )
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def record_key_dead(self, claim: Claim, message: str, *, delay_s: float | None = None) -> Fenced:
        """See ports.DispatchStore."""
        return self._begin_anew(claim, message, delay_s, "UNANSWERED")

    def record_busy(self, claim: Claim, message: str, *, delay_s: float) -> Fenced:
        """See ports.DispatchStore."""
        return self._begin_anew(claim, message, delay_s, TARGET_BUSY)

    def _begin_anew(self, claim: Claim, message: str, delay_s: float | None, reason: str) -> Fenced:
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            if stored_id(held) is not None:
                # Somebody has found its work meanwhile, whatever the engine says of the key (G3).
                return Fenced.CONFLICT
            tx.execute(_KEY_IS_DEAD, {"id": held.operation_id})
            move(
                tx,
                operation_id=held.operation_id,
                apply_pk=held.apply_pk,
                state=held.state,
                event=Event.REQUEUE,
                who=self.owner,
                why=message,
                assignments=(
                    f"{_UNCLAIMED}, dispatch_generation = dispatch_generation + 1, dispatch_key_is_dead = false,"
                    " dispatch_key = NULL, dispatch_intent_at = NULL, rung_at = NULL, next_poll_at = NULL,"
                    f" error_message = '', error_reason = '', {ANSWERED}, {HEARD}"
                ),
            )
            if delay_s is not None:
                counts = int(reason != TARGET_BUSY)
                given = {"delay_s": delay_s, "message": message, "reason": reason, "counts": counts}
                tx.execute(_AGAIN_LATER, {**given, "id": held.operation_id})
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE
