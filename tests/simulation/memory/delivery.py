"""Bringing a wish forward on one operation; the twin of tern/store/delivery.py."""

from dataclasses import dataclass, replace

from tern.domain.barrier import failed_since, is_its_turn
from tern.domain.control import CONTRARY, Delivery, DriveFacts, Step, Verb, next_step, unmet
from tern.domain.errors import ScopeRefused
from tern.domain.identity import DispatchKey, ScopeName
from tern.domain.model import Claim, OperationScope
from tern.domain.policy import Copy
from tern.domain.scope import POISON, refuse
from tern.domain.states import Event, State
from tern.domain.timing import RPC_DEADLINE_S
from tern.ports import DeliveryClaimed, DeliverySettled, NotClaimed
from tests.simulation.memory.answer import ask_person, close_wish, postpone, settle_locally
from tests.simulation.memory.apply import holder_in_words, take
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import (
    close_delivery,
    close_fulfilled,
    moot_overtaken,
    move,
    project_parent,
    tell,
)
from tests.simulation.memory.rows import DeliveryRow, OperationRow
from tests.simulation.memory.scope import Steps, claim_runs_for_s, load_scope, new_token
from tests.simulation.memory.tally import tally
from tests.simulation.memory.uncalled import put_back_in_line, reopen_table_changes


@dataclass
class _Driving:
    """One wish that is being driven, with the others that are open on the same operation."""

    row: OperationRow
    scope: OperationScope
    verb: Verb
    wish: DeliveryRow
    wishes: dict[str, DeliveryRow]


class DeliverySteps(Steps):
    """The driving half of ports.ControlStore in memory."""

    def claim_delivery(
        self, operation_id: int, name: ScopeName, verb: Verb
    ) -> DeliveryClaimed | DeliverySettled | NotClaimed:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            row = db.operations.get(operation_id)
            if row is None:
                raise refuse("OPERATION_UNKNOWN", name, f"there is no operation {operation_id}")
            wishes = {one.verb: one for one in db.deliveries_of[operation_id] if one.is_open}
            wish = wishes.get(verb.value)
            try:
                scope = load_scope(db, operation_id, name)
            except ScopeRefused as poison:
                if poison.reason not in POISON or wish is None:
                    raise
                words = str(poison)
                close_delivery(db, wish, Delivery.FAILED, words)
                caller = db.requests[wish.request_id].caller
                tell(db, row.apply_id, f"{verb}_failed", caller, operation_id, words)
                return DeliverySettled(name, words)
            if wish is None:
                return NotClaimed(f"no {verb} is open")
            if claim_runs_for_s(db, row, self.lease_s) > 0:
                return NotClaimed("another driver works on it")
            if wish.next_attempt_at is None or wish.next_attempt_at > db.now:
                return NotClaimed("not due yet")
            if outranking := _outranked_by(verb, wishes):
                return NotClaimed(f"a {outranking} comes first")
            return self._drive(_Driving(row, scope, verb, wish, wishes))

    def _drive(self, one: _Driving) -> DeliveryClaimed | DeliverySettled | NotClaimed:
        db, row = self.db, one.row
        facts = _facts(db, one)
        if one.verb is Verb.CUTOVER and one.scope.policy.copy is Copy.BARRIER:
            counted = tally(db, row.apply_id)
            facts = replace(
                facts,
                out_of_turn=not is_its_turn(one.scope.policy, counted, row.position),
                failed_since=failed_since(one.scope.policy, counted, db.now - one.wish.created_at),
            )
        step = next_step(one.verb, facts)
        match step:
            case Step.SETTLE_LOCALLY:
                settle_locally(db, row, one.verb, one.wish)
            case Step.REQUEUE:
                if (refused := self._requeue(one)) is not None:
                    return refused
            case Step.RESUME:
                if (refused := self._retake(one)) is not None:
                    return refused
                reason = db.requests[one.wish.request_id].reason
                caller = db.requests[one.wish.request_id].caller
                move(db, row, Event.RESUME, caller, reason, start_sent_at=None, runs_though_stopped=False)
                reopen_table_changes(db, row.id)
                return self._claim_wish(one, Step.SEND)
            case Step.SEND | Step.RESOLVE:
                return self._claim_wish(one, step)
            case Step.ASK_PERSON:
                ask_person(db, row, one.verb, one.wish, self.owner)
                return NotClaimed("an earlier dispatch is unanswered and this engine offers no Resolve")
            case Step.WAIT:
                postpone(db, one.wish, 1.0)
                return NotClaimed("what it waits for has not been observed yet")
            case Step.WAIT_FOR_TURN:
                postpone(db, one.wish, None)
                project_parent(db, row.apply_id, self.owner)
                return NotClaimed("its turn to cut over has not come")
            case Step.ACKNOWLEDGE:
                close_wish(db, row, one.wish, one.verb, Delivery.ACKNOWLEDGED, f"it is {row.state}")
                stop = one.wishes.get("stop")
                if one.verb is Verb.START and stop is not None and not stop.attempts:
                    close_delivery(db, stop, Delivery.MOOT, "superseded by a start before it was sent")
                moot_overtaken(db, row.apply_id, [row.id])
            case Step.TOO_LATE:
                close_wish(db, row, one.wish, one.verb, Delivery.TOO_LATE, f"it is {row.state}")
                moot_overtaken(db, row.apply_id, [row.id])
            case Step.FAIL:
                words = "; ".join(unmet(one.verb, facts))
                close_wish(db, row, one.wish, one.verb, Delivery.FAILED, words)
        project_parent(db, row.apply_id, self.owner)
        return DeliverySettled(one.scope.name, step.value)

    def _requeue(self, one: _Driving) -> DeliverySettled | None:
        if (refused := self._retake(one)) is not None:
            return refused
        put_back_in_line(self.db, one.row, one.wish)
        close_fulfilled(self.db, one.row.apply_id, {one.row.id: State.PENDING})
        return None

    def _retake(self, one: _Driving) -> DeliverySettled | None:
        db, scope = self.db, one.scope
        where = (scope.environment, scope.database, one.row.deployment)
        if take(db, one.row.apply_id, *where[:2], [one.row.deployment]):
            return None
        words = f"its target is held by {holder_in_words(db, *where)}"
        close_wish(db, one.row, one.wish, one.verb, Delivery.FAILED, words)
        return DeliverySettled(scope.name, words)

    def _claim_wish(self, one: _Driving, step: Step) -> DeliveryClaimed:
        db, row, wish = self.db, one.row, one.wish
        claim = Claim(
            operation_id=row.id,
            token=new_token(db),
            fence=row.fence + 1,
            attempt=row.attempt,
            generation=row.dispatch_generation,
            key=DispatchKey(row.dispatch_key or ""),
        )
        until = db.now + self.lease_s
        db.write(
            row,
            claim_token=claim.token,
            claim_owner=self.owner,
            fence=claim.fence,
            claim_expires_at=until,
            progress_revision=0,
        )
        db.write(wish, attempts=wish.attempts + 1, called_at=db.now, next_attempt_at=until)
        project_parent(db, row.apply_id, self.owner)
        volume = db.requests[wish.request_id].volume
        key = claim.key or None
        return DeliveryClaimed(claim, one.scope, one.verb, wish.id, step, key, wish.attempts, volume)


def _facts(db: Database, one: _Driving) -> DriveFacts:
    row, wish = one.row, one.wish
    halting = [
        other for verb, other in one.wishes.items() if verb in {"stop", "cancel"} and other is not wish
    ]
    since = row.started_at if wish.called_at is None else wish.called_at + RPC_DEADLINE_S
    contrary = one.wishes.get(CONTRARY.get(one.verb, ""))
    seen = row.sampled_attempt == row.attempt and row.sampled_at is not None and since is not None
    return DriveFacts(
        state=State(row.state),
        has_remote_id=one.scope.remote_id is not None,
        has_intent=row.dispatch_key is not None,
        key_is_dead=row.dispatch_key_is_dead,
        offers_resolve=bool(one.scope.deployment.capabilities.resolve),
        delivery=Delivery(wish.state),
        runs_though_stopped=row.runs_though_stopped,
        stop_open=bool(halting),
        stop_was_sent=any(other.state == "sent" or other.attempts for other in halting),
        contrary_came_first=contrary is not None and contrary.id < wish.id,
        is_fresh=seen and (row.sampled_at or 0.0) > (since or 0.0),
    )


def _outranked_by(verb: Verb, wishes: dict[str, DeliveryRow]) -> str | None:
    """An open wish that is driven first. A start asked for after a stop that has not left supersedes it; a cancel that
    the engine refuses keeps no stop waiting.
    """
    for name, other in wishes.items():
        if name == verb.value or Verb(name).precedence >= verb.precedence:
            continue
        if verb is Verb.STOP and other.refusals:
            continue
        supersedes = verb is Verb.START and name == "stop" and not other.attempts
        if not (supersedes and wishes["start"].id > other.id):
            return name
    stop, start = wishes.get("stop"), wishes.get("start")
    overtaken = verb is Verb.STOP and stop is not None and start is not None and not stop.attempts
    return "start" if overtaken and start is not None and stop is not None and start.id > stop.id else None
