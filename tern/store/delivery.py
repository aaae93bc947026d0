"""Durable steps of bringing a wish forward on one operation (G8, G9). Each method is one transaction."""

from collections.abc import Sequence

from tern.domain.control import CONTRARY, Delivery, DriveFacts, Step, Verb, next_step, unmet
from tern.domain.doubt import Doubt, held_words
from tern.domain.errors import ScopeRefused
from tern.domain.identity import DispatchKey, ScopeName
from tern.domain.model import Claim, OperationScope
from tern.domain.scope import POISON, refuse
from tern.domain.states import State
from tern.domain.timing import SAME_TARGET_AGAIN_S
from tern.ports import DeliveryClaimed, DeliverySettled, NotClaimed
from tern.store.answer import ask_person, close_wish, postpone, settle_locally
from tern.store.barrier import in_order
from tern.store.event import Happening, append
from tern.store.gate import claim_runs_for_s, lock_operation
from tern.store.outstanding_hold import IS_OUTSTANDING
from tern.store.projection import close_deliveries, moot_overtaken, moot_superseded, project_parent
from tern.store.reservation import blocked_by
from tern.store.scope import load_scope
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.start import retake
from tern.store.step import HeldOperation, Steps, lock_apply_of, new_token
from tern.store.uncalled import Revival, put_back_in_line

_OPEN_WISHES = text(
    "SELECT d.id, d.verb, d.state, d.attempts, d.refusals, d.refused_attempt, d.overrides_cancel, d.although_foreign,"
    f" r.caller, r.reason, r.volume, d.verb = 'start' AND {IS_OUTSTANDING} AS is_outstanding,"
    " (d.next_attempt_at <= tern_clock() OR d.next_attempt_at > tern_clock() + make_interval(secs => :longest_s))"
    "   AS is_due, d.request_id,"
    # A call that was begun may act until its deadline: only what is seen after that speaks about its effect (CU3).
    # That the look came after the call its number says; how long after is a span between two stamps, each of which
    # counts as now where it lies ahead. A clock that is set back can make that span only shorter.
    " o.sampled_attempt = o.attempt AND (d.called_at IS NULL OR o.sampled_look > d.called_look"
    "   AND least(o.sampled_at, tern_clock()) - least(d.called_at, tern_clock())"
    "     > make_interval(secs => :deadline_s)) AS is_fresh"
    " FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id"
    " JOIN apply_operations o ON o.id = d.operation_id JOIN applies a ON a.id = o.apply_id"
    " WHERE d.operation_id = :id AND d.state IN ('pending', 'sent') ORDER BY d.id FOR UPDATE OF d"
)
_TAKEN_BACK_S = 5.0


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
            given = {
                "id": operation_id,
                "deadline_s": self.deadline_s,
                "longest_s": self.longest_control_s,
            }
            rows = tx.execute(_OPEN_WISHES, given).all()
            wishes = _by_verb(rows)
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
            if outranking := _outranked_by(wish, rows):
                if verb.is_halting:
                    # Whoever took it back may wait for long; it is looked at again in case that came to nothing.
                    postpone(tx, wish.id, _TAKEN_BACK_S)
                return NotClaimed(f"a {outranking} comes first")
            held = HeldOperation(row.id, row.apply_id, State(row.state), row.deployment, row)
            return self._drive(tx, held, scope, verb, wish, rows)

    def _drive(
        self,
        tx: Connection,
        held: HeldOperation,
        scope: OperationScope,
        verb: Verb,
        wish: Row,
        rows: Sequence[Row],
    ) -> DeliveryClaimed | DeliverySettled | NotClaimed:
        facts = _facts(held, scope, verb, wish, rows)
        if verb is Verb.CUTOVER:
            facts = in_order(tx, held, scope.policy, wish, facts)
        step = next_step(verb, facts)
        if verb is Verb.CUTOVER and step is Step.SEND and (other := blocked_by(tx, held.operation_id)):
            # Its target was found to be another's too, which is older: that one's change comes first.
            postpone(tx, wish.id, SAME_TARGET_AGAIN_S)
            return NotClaimed(f"same_target: its target is, or may be, held by {other.words}")
        match step:
            case Step.SETTLE_LOCALLY:
                settle_locally(tx, held, verb, wish)
            case Step.REQUEUE:
                if (refused := self._requeue(tx, held, scope, verb, wish)) is not None:
                    return refused
            case Step.RESUME | Step.SEND | Step.RESOLVE:
                return self._claim_wish(tx, held, scope, verb, wish, step)
            case Step.ASK_PERSON:
                ask_person(tx, held, verb, wish.id, self.owner)
                return NotClaimed("an earlier dispatch is unanswered and this engine offers no Resolve")
            case Step.HOLD:
                # Whatever ends the doubt makes it due.
                words = held_words(facts.doubt, str(scope.name), scope.remote_id)
                postpone(tx, wish.id, None, words)
                project_parent(tx, held.apply_pk, self.owner)
                return NotClaimed(words)
            case Step.WAIT:
                postpone(tx, wish.id, 1.0)
                return NotClaimed("what it waits for has not been observed yet")
            case Step.WAIT_FOR_TURN:
                # The projection makes it due in the transaction that brings its turn.
                postpone(tx, wish.id, None)
                project_parent(tx, held.apply_pk, self.owner)
                return NotClaimed("its turn to cut over has not come")
            case Step.WAIT_FOR_UNDRAIN:
                # Whoever opens the deployment again makes it due.
                postpone(tx, wish.id, None)
                project_parent(tx, held.apply_pk, self.owner)
                return NotClaimed("its deployment is drained")
            case Step.WAIT_FOR_OUTSTANDING:
                # Whoever settles it makes it due.
                postpone(tx, wish.id, None)
                project_parent(tx, held.apply_pk, self.owner)
                return NotClaimed("something at its target is outstanding")
            case Step.ACKNOWLEDGE:
                close_wish(tx, held, wish, verb, Delivery.ACKNOWLEDGED, f"it is {held.state}")
                if verb is Verb.START:
                    moot_superseded(tx, held.apply_pk, [wish.id])
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
        if (words := retake(tx, held, verb, wish)) is not None:
            return DeliverySettled(scope.name, words)
        revival = Revival(held.operation_id, held.state, verb, wish.caller, wish.reason)
        put_back_in_line(tx, held.apply_pk, [revival])
        return None

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
            follows_unanswered=row.unanswered_since is not None,
        )
        tx.execute(
            text(
                # The cursor goes back to 0: what was seen before this control must be seen again after it.
                "UPDATE apply_operations SET claim_token = :token, claim_owner = :owner, fence = :fence,"
                " claim_began_at = n.now, claim_expires_at = n.now + make_interval(secs => :lease_s),"
                " progress_revision = 0,"
                # Before the call, as for an Apply: a crash leaves that it may act late.
                " unanswered_call = coalesce(CAST(:call AS text), unanswered_call),"
                " unanswered_since = CASE WHEN CAST(:call AS text) IS NULL THEN unanswered_since ELSE n.now END"
                " FROM (SELECT tern_clock() AS now) n WHERE id = :id"
            ),
            {
                "token": claim.token,
                "owner": self.owner,
                "fence": claim.fence,
                "lease_s": self.lease_s,
                # A start is looked for first: what is written down of its call is with `resuming`.
                "call": verb.value if step is Step.SEND and verb is Verb.CUTOVER else None,
                "id": held.operation_id,
            },
        )
        # A start is looked for first; its call is counted in the transaction that makes it `resuming`.
        looks_first = verb is Verb.START
        tx.execute(
            text(
                # Whoever dies after the call leaves at least the time from which it may have worked.
                "UPDATE control_deliveries SET next_attempt_at = tern_clock() + make_interval(secs => :lease_s)"
                + ("" if looks_first else ", attempts = attempts + 1, called_at = tern_clock()")
                + " WHERE id = :id"
            ),
            {"lease_s": self.lease_s, "id": wish.id},
        )
        project_parent(tx, held.apply_pk, self.owner)
        return DeliveryClaimed(
            claim,
            scope,
            verb,
            wish.id,
            step,
            claim.key or None,
            wish.attempts + 1,
            wish.volume,
            wish.caller,
        )


def _by_verb(rows: Sequence[Row]) -> dict[str, Row]:
    """The open wish of each verb that is driven: the newest, and of two stops around a start the one that still counts
    and whose answer the start waits for.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row.verb not in found or not _is_taken_back(row, rows) or _is_taken_back(found[row.verb], rows):
            found[row.verb] = row
    return found


def _is_taken_back(halt: Row, rows: Sequence[Row]) -> bool:
    """halt.SUPERSEDED, of an open wish among the open ones."""
    return any(
        Verb(halt.verb).is_halting
        and start.verb == Verb.START.value
        and start.id > halt.id
        and halt.attempts == halt.refused_attempt
        and (halt.verb == Verb.STOP.value or (start.overrides_cancel and halt.refusals > 0))
        for start in rows
    )


def _facts(
    held: HeldOperation,
    scope: OperationScope,
    verb: Verb,
    wish: Row,
    rows: Sequence[Row],
) -> DriveFacts:
    contrary = CONTRARY.get(verb)
    halts = any(
        Verb(other.verb).is_halting
        and other.id != wish.id
        and not (verb is Verb.START and _is_taken_back(other, rows))
        for other in rows
    )
    # What was acknowledged long ago covers too, but for a start, which is accepted over it.
    covers = verb is not Verb.START and held.row.stop_in_force in {"stop", "cancel"}
    return DriveFacts(
        state=held.state,
        has_remote_id=scope.remote_id is not None,
        has_intent=held.row.dispatch_key is not None,
        key_is_dead=held.row.dispatch_key_is_dead,
        may_be_resolved=held.row.engine_number in {None, scope.deployment.engine_number},
        delivery=Delivery(wish.state),
        runs_though_stopped=held.row.runs_though_stopped,
        stop_open=halts or covers,
        call_is_out=wish.attempts != wish.refused_attempt,
        drained=scope.deployment.drained,
        outstanding=bool(wish.is_outstanding),
        contrary_came_first=any(other.verb == contrary and other.id < wish.id for other in rows),
        is_fresh=bool(wish.is_fresh),
        doubt=Doubt(held.row.doubt),
        names_foreign=bool(wish.although_foreign) and wish.although_foreign == scope.remote_id,
    )


def _outranked_by(wish: Row, rows: Sequence[Row]) -> str | None:
    """An open wish that is driven first. What a start has taken back waits for what becomes of the start; a cancel that
    the engine refuses, again and again with growing pauses, keeps no stop waiting.
    """
    verb = Verb(wish.verb)
    if _is_taken_back(wish, rows):
        return Verb.START.value
    for other in rows:
        other_verb = Verb(other.verb)
        if other_verb.precedence >= verb.precedence:
            continue
        if verb is Verb.STOP and other.refusals:
            continue
        if verb is Verb.START and wish.id > other.id and _is_taken_back(other, rows):
            continue
        return other_verb.value
    return None
