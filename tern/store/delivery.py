"""Durable steps of bringing a wish forward on one operation (G8, G9). Each method is one transaction."""

from dataclasses import replace

from tern.domain.control import CONTRARY, Delivery, DriveFacts, Step, Verb, next_step, unmet
from tern.domain.errors import ScopeRefused
from tern.domain.identity import DispatchKey, ScopeName
from tern.domain.model import Claim, OperationScope
from tern.domain.scope import POISON, refuse
from tern.domain.states import Event, State
from tern.domain.timing import RPC_DEADLINE_S
from tern.ports import DeliveryClaimed, DeliverySettled, NotClaimed
from tern.store.answer import ask_person, close_wish, postpone, settle_locally
from tern.store.barrier import in_order
from tern.store.event import Happening, append
from tern.store.gate import claim_runs_for_s, lock_operation
from tern.store.projection import close_deliveries, moot_overtaken, move, project_parent
from tern.store.reservation import holder_of, take
from tern.store.scope import load_scope
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import HeldOperation, Steps, lock_apply_of, new_token
from tern.store.uncalled import Revival, put_back_in_line, reopen_table_changes

_OPEN_WISHES = text(
    "SELECT d.id, d.verb, d.state, d.attempts, d.refusals, r.caller, r.reason, r.volume,"
    " (d.next_attempt_at <= tern_clock() OR d.next_attempt_at > tern_clock() + make_interval(secs => :longest_s))"
    "   AS is_due, d.request_id,"
    # A call that was begun may act until its deadline: only what is seen after that speaks about its effect (CU3).
    # That the look came after the call its number says; how long after is a span between two stamps, each of which
    # counts as now where it lies ahead. A clock that is set back can make that span only shorter.
    " o.sampled_attempt = o.attempt AND (d.called_at IS NULL OR o.sampled_look > d.called_look"
    "   AND least(o.sampled_at, tern_clock()) - least(d.called_at, tern_clock())"
    "     > make_interval(secs => :deadline_s)) AS is_fresh"
    " FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id"
    " JOIN apply_operations o ON o.id = d.operation_id"
    " WHERE d.operation_id = :id AND d.state IN ('pending', 'sent') ORDER BY d.id FOR UPDATE OF d"
)


class DeliverySteps(Steps):
    """The driving half of ports.ControlStore."""

    def claim_delivery(
        self, operation_id: int, name: ScopeName, verb: Verb
    ) -> DeliveryClaimed | DeliverySettled | NotClaimed:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            apply_pk = lock_apply_of(tx, operation_id)
            if apply_pk is None:
                raise refuse("OPERATION_UNKNOWN", name, f"there is no operation {operation_id}")
            row = lock_operation(tx, operation_id)
            if row is None:
                return NotClaimed("another driver is just claiming it")
            wishes = {
                wish.verb: wish
                for wish in tx.execute(
                    _OPEN_WISHES,
                    {"id": operation_id, "deadline_s": RPC_DEADLINE_S, "longest_s": self.longest_control_s},
                )
            }
            try:
                scope = load_scope(tx, operation_id, name)
            except ScopeRefused as poison:
                if poison.reason not in POISON or verb not in wishes:
                    raise
                words = str(poison)
                close_deliveries(tx, {wishes[verb].id: Delivery.FAILED}, words)
                append(tx, Happening(apply_pk, f"{verb}_failed", wishes[verb].caller, operation_id, words))
                return DeliverySettled(name, str(poison))
            wish = wishes.get(verb)
            if wish is None:
                return NotClaimed(f"no {verb} is open")
            if claim_runs_for_s(row) > 0:
                return NotClaimed("another driver works on it")
            if not wish.is_due:
                return NotClaimed("not due yet")
            if outranking := _outranked_by(verb, wishes):
                return NotClaimed(f"a {outranking} comes first")
            held = HeldOperation(row.id, row.apply_id, State(row.state), row.deployment, row)
            return self._drive(tx, held, scope, verb, wish, wishes)

    def _drive(
        self,
        tx: Connection,
        held: HeldOperation,
        scope: OperationScope,
        verb: Verb,
        wish: Row,
        wishes: dict[str, Row],
    ) -> DeliveryClaimed | DeliverySettled | NotClaimed:
        facts = _facts(held, scope, verb, wish, wishes)
        if verb is Verb.CUTOVER:
            facts = in_order(tx, held, scope.policy, wish, facts)
        step = next_step(verb, facts)
        match step:
            case Step.SETTLE_LOCALLY:
                settle_locally(tx, held, verb, wish)
            case Step.REQUEUE:
                if (refused := self._requeue(tx, held, scope, verb, wish)) is not None:
                    return refused
            case Step.RESUME:
                return self._resume(tx, held, scope, wish)
            case Step.SEND | Step.RESOLVE:
                return self._claim_wish(tx, held, scope, verb, wish, step)
            case Step.ASK_PERSON:
                ask_person(tx, held, verb, wish.id, self.owner)
                return NotClaimed("an earlier dispatch is unanswered and this engine offers no Resolve")
            case Step.WAIT:
                postpone(tx, wish.id, 1.0)
                return NotClaimed("what it waits for has not been observed yet")
            case Step.WAIT_FOR_TURN:
                # The projection makes it due in the transaction that brings its turn.
                postpone(tx, wish.id, None)
                project_parent(tx, held.apply_pk, self.owner)
                return NotClaimed("its turn to cut over has not come")
            case Step.ACKNOWLEDGE:
                close_wish(tx, held, wish, verb, Delivery.ACKNOWLEDGED, f"it is {held.state}")
                _moot_unsent_stops(tx, verb, wishes)
                moot_overtaken(tx, held.apply_pk, [held.operation_id])
            case Step.TOO_LATE:
                close_wish(tx, held, wish, verb, Delivery.TOO_LATE, f"it is {held.state}")
                moot_overtaken(tx, held.apply_pk, [held.operation_id])
            case Step.FAIL:
                close_wish(tx, held, wish, verb, Delivery.FAILED, "; ".join(unmet(verb, facts)))
        project_parent(tx, held.apply_pk, self.owner)
        return DeliverySettled(scope.name, step.value)

    def _requeue(
        self,
        tx: Connection,
        held: HeldOperation,
        scope: OperationScope,
        verb: Verb,
        wish: Row,
    ) -> DeliverySettled | None:
        """What was never dispatched, or was refused, goes back to its place in the order (SA2)."""
        if (refused := self._retake(tx, held, scope, verb, wish)) is not None:
            return refused
        revival = Revival(held.operation_id, held.state, verb, wish.caller, wish.reason)
        put_back_in_line(tx, held.apply_pk, [revival])
        return None

    def _resume(
        self, tx: Connection, held: HeldOperation, scope: OperationScope, wish: Row
    ) -> DeliveryClaimed | DeliverySettled:
        if (refused := self._retake(tx, held, scope, Verb.START, wish)) is not None:
            return refused
        state = move(
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
        return self._claim_wish(tx, replace(held, state=state), scope, Verb.START, wish, Step.SEND)

    def _retake(
        self,
        tx: Connection,
        held: HeldOperation,
        scope: OperationScope,
        verb: Verb,
        wish: Row,
    ) -> DeliverySettled | None:
        """Takes the target again in the transaction that makes the apply live; another holder refuses (SA3, G13)."""
        taken = take(
            tx,
            apply_pk=held.apply_pk,
            environment=scope.environment,
            database=scope.database,
            deployments=[held.deployment],
        )
        if taken:
            return None
        holder = holder_of(tx, scope.environment, scope.database, held.deployment)
        words = f"its target is held by {holder}"
        close_wish(tx, held, wish, verb, Delivery.FAILED, words)
        return DeliverySettled(scope.name, words)

    def _claim_wish(
        self,
        tx: Connection,
        held: HeldOperation,
        scope: OperationScope,
        verb: Verb,
        wish: Row,
        step: Step,
    ) -> DeliveryClaimed:
        row = held.row
        claim = Claim(
            operation_id=held.operation_id,
            token=new_token(),
            fence=row.fence + 1,
            attempt=row.attempt,
            generation=row.dispatch_generation,
            key=DispatchKey(row.dispatch_key or ""),
        )
        tx.execute(
            text(
                # The cursor goes back to 0: what was seen before this control must be seen again after it.
                "UPDATE apply_operations SET claim_token = :token, claim_owner = :owner, fence = :fence,"
                " claim_began_at = n.now, claim_expires_at = n.now + make_interval(secs => :lease_s),"
                " progress_revision = 0 FROM (SELECT tern_clock() AS now) n WHERE id = :id"
            ),
            {
                "token": claim.token,
                "owner": self.owner,
                "fence": claim.fence,
                "lease_s": self.lease_s,
                "id": held.operation_id,
            },
        )
        tx.execute(
            text(
                # Whoever dies after the call leaves at least the time from which it may have worked.
                "UPDATE control_deliveries SET attempts = attempts + 1, called_at = tern_clock(),"
                " next_attempt_at = tern_clock() + make_interval(secs => :lease_s) WHERE id = :id"
            ),
            {"lease_s": self.lease_s, "id": wish.id},
        )
        project_parent(tx, held.apply_pk, self.owner)
        return DeliveryClaimed(
            claim, scope, verb, wish.id, step, claim.key or None, wish.attempts + 1, wish.volume
        )


def _facts(
    held: HeldOperation,
    scope: OperationScope,
    verb: Verb,
    wish: Row,
    wishes: dict[str, Row],
) -> DriveFacts:
    contrary = wishes.get(CONTRARY.get(verb, ""))
    halting = [other for verb, other in wishes.items() if verb in {"stop", "cancel"} and other.id != wish.id]
    return DriveFacts(
        state=held.state,
        has_remote_id=scope.remote_id is not None,
        has_intent=held.row.dispatch_key is not None,
        key_is_dead=held.row.dispatch_key_is_dead,
        offers_resolve=bool(scope.deployment.capabilities.resolve),
        delivery=Delivery(wish.state),
        runs_though_stopped=held.row.runs_though_stopped,
        stop_open=bool(halting),
        stop_was_sent=any(other.state == Delivery.SENT.value or other.attempts for other in halting),
        contrary_came_first=contrary is not None and contrary.id < wish.id,
        is_fresh=bool(wish.is_fresh),
    )


def _outranked_by(verb: Verb, wishes: dict[str, Row]) -> str | None:
    """An open wish that is driven first. A start asked for after a stop that has not left supersedes it; a cancel that
    the engine refuses, perhaps ten times with growing pauses, keeps no stop waiting.
    """
    for other in wishes.values():
        other_verb = Verb(other.verb)
        if other_verb.precedence >= verb.precedence or other_verb is verb:
            continue
        if verb is Verb.STOP and other.refusals:
            continue
        if (
            verb is Verb.START
            and other_verb is Verb.STOP
            and not other.attempts
            and wishes["start"].id > other.id
        ):
            continue
        return other_verb.value
    if verb is Verb.STOP and (start := wishes.get("start")) is not None and not wishes["stop"].attempts:
        return "start" if start.id > wishes["stop"].id else None
    return None


def _moot_unsent_stops(tx: Connection, verb: Verb, wishes: dict[str, Row]) -> None:
    stop = wishes.get("stop")
    if verb is Verb.START and stop is not None and not stop.attempts:
        close_deliveries(tx, {stop.id: Delivery.MOOT}, "superseded by a start before it was sent")
