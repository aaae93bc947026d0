"""Durable steps of a dispatch: claim with intent, and the state after it (G3, G4, G6). A method is one transaction."""

from psycopg import IntegrityError

from tern.domain.dispatch import Approach, approach
from tern.domain.errors import ScopeRefused
from tern.domain.holds import HoldKind
from tern.domain.identity import DispatchKey, ScopeName, dispatch_key
from tern.domain.model import Claim, OperationScope
from tern.domain.projection import is_left_alone_by_claim
from tern.domain.scope import POISON, validate
from tern.domain.states import ApplyState, Event, State, origins
from tern.ports import DispatchClaimed, Fenced, NotClaimed
from tern.store.carried import refuse_told_otherwise
from tern.store.event import INTO_EVENTS, SAID, tell_later
from tern.store.gate import claim_runs_for_s, gather_holds, lock_for_claim, step_back
from tern.store.halt import STOP_IN_FORCE
from tern.store.notify import due_in, notify
from tern.store.outstanding_hold import IS_OUTSTANDING, begins_nothing
from tern.store.projection import move, project_parent
from tern.store.scope import REMOTE_ID, found_in
from tern.store.session import single, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import (
    ANSWERED,
    APPLY_IS_ANSWERED,
    HEARD,
    LOOK_BY_KEY,
    SENDS_APPLY,
    TRIED_AGAIN,
    HeldOperation,
    heard,
    hold,
    new_token,
    stored_id,
    unanswered_reason,
)
from tern.store.withdraw import WithdrawSteps

_CLAIMABLE = (State.PENDING, State.RUNNING, State.FAILED_RETRYABLE)

_BEGINS_NOTHING = {HoldKind.DRAINED, HoldKind.OUTSTANDING}

_LAST_LOOK = text(
    f"SELECT {STOP_IN_FORCE} AS stop_in_force,"
    " :is_new_work AND (coalesce((SELECT n.drained FROM deployments n WHERE n.name = o.deployment), false)"
    f"   OR {IS_OUTSTANDING}) AS begins_nothing"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    # While it is in doubt whose work its id is, nothing is begun with it.
    " WHERE o.id = :id AND o.claim_token = :token AND o.claim_expires_at > tern_clock() AND o.doubt = ''"
)
_FOLLOWED = (
    "claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL, next_attempt_at = NULL,"
    " next_poll_at = tern_clock(), progress_revision = 0, answered_attempts = 0,"
    " error_message = '', error_reason = '', poll_failures = 0, poll_error = ''"
    f", {APPLY_IS_ANSWERED}"
)
# A running operation stays running and nobody's wish waits for it: nothing follows for its apply, so nobody waits for
# the apply's lock either.
_FOLLOW = text(
    f"WITH followed AS (UPDATE apply_operations o SET {_FOLLOWED}, state_changed_at = tern_clock()"
    f"   FROM applies a WHERE o.id = :id AND o.claim_token = :token AND o.state = 'running' AND a.id = o.apply_id"
    f"   AND {REMOTE_ID} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM control_deliveries d"
    "     WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent'))"
    f"   RETURNING o.id, o.apply_id, {REMOTE_ID} AS remote_id)"
    f" {INTO_EVENTS} SELECT apply_id, id, '{Event.ADOPT.value}', :who, 'followed as ' || remote_id,"
    f" 'running', 'running', '{{}}'::json FROM followed {SAID}"
)
_GIVE_BACK = text(
    "UPDATE apply_operations SET claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL,"
    f" next_attempt_at = NULL, {APPLY_IS_ANSWERED},"
    " next_poll_at = CASE WHEN completed_at IS NULL THEN tern_clock() END WHERE id = :id"
)
_NOT_DUE = text(
    "UPDATE apply_operations SET next_attempt_at = NULL,"
    " next_poll_at = least(next_poll_at, tern_clock() + make_interval(secs => :slow_s)) WHERE id = :id"
)


class DispatchSteps(WithdrawSteps):
    """ports.DispatchStore on PostgreSQL."""

    def claim_dispatch(self, operation_id: int, name: ScopeName) -> DispatchClaimed | NotClaimed:
        """See ports.DispatchStore."""
        try:
            return self._claim(operation_id, name)
        except IntegrityError as error:
            if not begins_nothing(error):
                raise
            # Found since the claim looked, by somebody who holds no lock of this apply.
            return NotClaimed("outstanding: something was just found at its target")

    def _claim(self, operation_id: int, name: ScopeName) -> DispatchClaimed | NotClaimed:
        with transaction(self.engine) as tx:
            found = lock_for_claim(tx, operation_id, name)
            if isinstance(found, NotClaimed):
                return found
            row = found.row
            try:
                scope = validate(name, operation_id, found_in(row))
                refuse_told_otherwise(name, row)
            except ScopeRefused as poison:
                if poison.reason not in POISON:
                    raise
                return self._settle_poisoned(tx, row, poison)
            if State(row.state) not in _CLAIMABLE:
                return NotClaimed(f"it is {row.state}")
            if row.state == State.RUNNING and row.next_attempt_at is None:
                return NotClaimed("it is followed by its remote id")
            held = gather_holds(tx, found, scope, self.lease_s)
            if _is_unanswered(row):
                # What became of the key can be asked there, and nothing new begins by it.
                held = tuple(reason for reason in held if reason.kind not in _BEGINS_NOTHING)
            if scope.remote_id is None and held:
                step_back(tx, row, {reason.kind for reason in held}, self.owner)
                return NotClaimed("; ".join(f"{reason.kind}: {reason.detail}" for reason in held))
            if claim_runs_for_s(row) > 0:
                return NotClaimed("another driver works on it")
            return self._claim_operation(tx, row, scope, notifies=found.notifies)

    def _claim_operation(
        self, tx: Connection, row: Row, scope: OperationScope, *, notifies: bool
    ) -> DispatchClaimed | NotClaimed:
        is_held = scope.deployment.drained or row.outstanding is not None
        how = approach(
            has_remote_id=scope.remote_id is not None,
            has_earlier_intent=row.dispatch_key is not None,
            may_be_repeated=scope.deployment.idempotent_dispatch or row.repeat_is_safe,
            # What was asked before is no word about a database that its engine was found at only since.
            is_same_engine=row.engine_number in {None, scope.deployment.engine_number}
            and not scope.deployment.names_another_database,
            offers_resolve=bool(scope.deployment.capabilities.resolve),
            begins_nothing=is_held,
            is_tried_again=row.error_reason == TRIED_AGAIN,
        )
        if how is Approach.WAIT:
            self._wait(tx, row, scope)
            return NotClaimed("nothing begins there now, and an earlier dispatch is unanswered")
        if how is Approach.ASK_PERSON:
            self._hold_unknowable(tx, row)
            return NotClaimed("an earlier dispatch is unanswered, and this is another engine")
        key = (
            DispatchKey(row.dispatch_key)
            if row.dispatch_key
            else dispatch_key(scope.name, row.dispatch_generation)
        )
        claim = Claim(
            operation_id=row.id,
            token=new_token(),
            fence=row.fence + 1,
            attempt=row.attempt + 1,
            generation=row.dispatch_generation,
            key=key,
            is_first_sender=row.dispatch_key is None and scope.remote_id is None,
        )
        # Everybody who claims for this apply waits for its lock: it is given back with the last words.
        tx.hasten()
        move(
            tx,
            operation_id=row.id,
            apply_pk=row.apply_id,
            state=State(row.state),
            event=Event.CLAIM,
            who=self.owner,
            why=_overtaken(row),
            assignments=(
                "claim_token = :token, claim_owner = :owner, fence = :fence, attempt = :attempt,"
                " claim_began_at = n.now, claim_expires_at = n.now + make_interval(secs => :lease_s),"
                " next_attempt_at = n.now + make_interval(secs => :lease_s), repeat_is_safe = false"
                + (
                    ", dispatch_key = :key, dispatch_intent_at = coalesce(dispatch_intent_at, n.now)"
                    if scope.remote_id is None
                    else ""
                )
                # Before the call: whoever dies between call and answer leaves that it may have come through.
                + (f", {SENDS_APPLY}" if how is Approach.SEND else "")
            ),
            values={
                "token": claim.token,
                "owner": self.owner,
                "fence": claim.fence,
                "attempt": claim.attempt,
                "lease_s": self.lease_s,
                **({"key": key} if scope.remote_id is None else {}),
            },
            # One that comes between is closed by the next step, which looks again.
            may_have_wishes=row.has_wishes,
        )
        if not is_left_alone_by_claim(ApplyState(row.apply_state)):
            project_parent(tx, row.apply_id, self.owner)
        # In the same transaction: nobody else counts meanwhile what of this apply is on its way.
        following = due_in(notify(tx, [row.apply_id])) if notifies else ()
        return DispatchClaimed(claim, scope, how, is_held, following)

    def _settle_poisoned(self, tx: Connection, row: Row, poison: ScopeRefused) -> NotClaimed:
        """A row that can never run is settled, so that it can't stand in front of the healthy ones (G7)."""
        state = State(row.state)
        if state in _CLAIMABLE and claim_runs_for_s(row) <= 0:
            held = HeldOperation(row.id, row.apply_id, state, row.deployment, row)
            known = bool(row.dispatch_key or row.engine_resume_context or stored_id(held))
            words = "; ".join(poison.why) or poison.what
            self._leave(
                tx,
                held,
                Event.LOSE_TRACK if known else Event.REFUSE,
                words,
                poison.reason,
            )
        return NotClaimed(str(poison))

    def _hold_unknowable(self, tx: Connection, row: Row) -> None:
        words = (
            "an earlier dispatch was never answered, and it went to another engine than its deployment has now:"
            " nobody here can tell whether the change runs"
        )
        held = HeldOperation(row.id, row.apply_id, State(row.state), row.deployment, row)
        self._leave(tx, held, Event.LOSE_TRACK, words, "UNANSWERED")

    def _wait(self, tx: Connection, row: Row, scope: OperationScope) -> None:
        """Whoever opens the deployment again, or settles what is outstanding there, makes it due."""
        if row.state == State.RUNNING.value:
            held = HeldOperation(row.id, row.apply_id, State(row.state), row.deployment, row)
            is_closed = scope.deployment.drained
            why = "its deployment is drained" if is_closed else "something is outstanding there"
            words = f"an earlier dispatch was never answered, and {why}"
            self._leave(tx, held, Event.ANSWER_LOST, words, unanswered_reason(row))
            return
        tx.execute(_NOT_DUE, {"id": row.id, "slow_s": self.pace.slow_s})

    def _leave(
        self,
        tx: Connection,
        held: HeldOperation,
        event: Event,
        message: str,
        reason: str,
        extra: str = "",
        *,
        is_answered: bool = False,
        **values: object,
    ) -> None:
        """Ends the claim with an arrow and a reason, and computes the parent. is_answered: nothing that was sent for it
        may act any more without being known of.
        """
        move(
            tx,
            operation_id=held.operation_id,
            apply_pk=held.apply_pk,
            state=held.state,
            event=event,
            who=self.owner,
            why=message,
            assignments=(
                "claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL, error_message = :message,"
                " error_reason = :reason, next_attempt_at = CASE WHEN CAST(:delay_s AS float) IS NULL THEN NULL"
                " ELSE tern_clock() + make_interval(secs => :delay_s) END"
                # An uncertain operation with an id is looked at, slowly: a definite sample brings it back.
                ", next_poll_at = CASE WHEN :looks THEN tern_clock() ELSE coalesce("
                f"CASE WHEN NOT :is_answered THEN {LOOK_BY_KEY} END,"
                # One without an id is only asked whether its engine is there at all.
                " CASE WHEN :is_left AND dispatch_key IS NOT NULL"
                "  THEN tern_clock() + make_interval(secs => :slow_s) END) END"
                + (f", {ANSWERED}" if is_answered else "")
                + (f", {extra}" if extra else "")
            ),
            values={
                "message": message,
                "reason": reason,
                "delay_s": None,
                "looks": event is Event.LOSE_TRACK and stored_id(held) is not None,
                "is_answered": is_answered,
                "is_left": event is Event.LOSE_TRACK and not is_answered,
                "slow_s": self.pace.slow_s,
                **values,
            },
        )
        project_parent(tx, held.apply_pk, self.owner)

    def may_go_forward(self, claim: Claim, *, is_new_work: bool = False) -> bool:
        """See ports.DispatchStore."""
        given = {"id": claim.operation_id, "token": claim.token, "is_new_work": is_new_work}
        with single(self.engine) as tx:
            row = tx.execute(_LAST_LOOK, given).one_or_none()
            return row is not None and row.stop_in_force is None and not row.begins_nothing

    def record_dispatched(self, claim: Claim) -> Fenced:
        """See ports.DispatchStore."""
        with single(self.engine) as tx:
            given = {"id": claim.operation_id, "token": claim.token, "who": self.owner}
            followed = tx.execute(_FOLLOW, given)
            tell_later(tx, followed)
            if followed.rowcount:
                return Fenced.DONE
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            if stored_id(held) is None:
                # The state below depends on the id; without it nothing follows (G3).
                return Fenced.LOST
            if held.state not in origins(Event.ADOPT):
                # A look between id and state has moved it on already: only the claim is given back.
                tx.execute(_GIVE_BACK, {"id": held.operation_id})
                return Fenced.DONE
            move(
                tx,
                operation_id=held.operation_id,
                apply_pk=held.apply_pk,
                state=held.state,
                event=Event.ADOPT,
                who=self.owner,
                why=f"followed as {stored_id(held)}",
                assignments=_FOLLOWED,
            )
            # A wish that waited for this answer can be driven now.
            tx.execute(
                text(
                    "UPDATE control_deliveries SET next_attempt_at = tern_clock()"
                    " WHERE operation_id = :id AND state IN ('pending', 'sent')"
                ),
                {"id": held.operation_id},
            )
            project_parent(tx, held.apply_pk, self.owner)
            return Fenced.DONE

    def record_refused(self, claim: Claim, message: str, reason: str, *, key_is_dead: bool) -> Fenced:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            extra = f"dispatch_key_is_dead = :dead, {HEARD}"
            self._leave(tx, held, Event.REFUSE, message, reason, extra, is_answered=True, dead=key_is_dead)
            return Fenced.DONE

    def record_unanswered(
        self,
        claim: Claim,
        message: str,
        *,
        delay_s: float,
        engine_answers: bool,
        is_heard: bool | None = None,
    ) -> Fenced:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            extra = "answered_attempts = answered_attempts + CAST(:counts AS integer)"
            if said := heard(is_heard):
                extra += f", {said}"
            self._leave(
                tx,
                held,
                Event.ANSWER_LOST,
                message,
                unanswered_reason(held.row),
                extra,
                counts=int(engine_answers),
                delay_s=delay_s,
            )
            return Fenced.DONE

    def record_uncertain(self, claim: Claim, message: str, *, key_is_dead: bool = False) -> Fenced:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            extra = f"dispatch_key_is_dead = true, {HEARD}" if key_is_dead else ""
            self._leave(tx, held, Event.LOSE_TRACK, message, "UNANSWERED", extra, is_answered=key_is_dead)
            return Fenced.DONE

    def dispatch_budget(self, claim: Claim) -> tuple[int, float]:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            row = tx.execute(
                text(
                    "SELECT answered_attempts,"
                    " greatest(0, extract(epoch FROM tern_clock() - dispatch_intent_at))::float AS age_s"
                    " FROM apply_operations WHERE id = :id"
                ),
                {"id": claim.operation_id},
            ).one()
            return row.answered_attempts, row.age_s


def _overtaken(row: Row) -> str:
    """Whose claim is over that it had as well. A claim that changes no state would be told of by nothing but these
    words; they cost an event only where a driver was lost.
    """
    return f"{row.claim_owner or 'nobody'} had it before" if State(row.state) is State.RUNNING else ""


def _is_unanswered(row: Row) -> bool:
    return row.dispatch_key is not None and State(row.state) in {State.RUNNING, State.FAILED_RETRYABLE}
