"""Wishes that need no call, carried out for many operations of an apply at once (G8).

What was never dispatched is known here alone: it is stopped, cancelled or skipped, and put back in line by start and
retry, in a few statements however many there are. What is held by a driver, or needs an answer first, is left to
the drivers of single wishes (delivery.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tern.domain.control import Verb
from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId
from tern.domain.states import Event, State, advance
from tern.store.carried import kept_from_running_again
from tern.store.event import Happening, append_all
from tern.store.halt import SUPERSEDED
from tern.store.projection import close_fulfilled, project_parent
from tern.store.reservation import take
from tern.store.scope import REMOTE_ID
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.statement import reopen_table_changes, settle_table_changes
from tern.store.step import HEARD, TRIED_AGAIN, Steps, lock_apply

WITHDRAWS = {
    Verb.STOP: Event.WITHDRAW_STOPPED,
    Verb.CANCEL: Event.WITHDRAW_CANCELLED,
    Verb.SKIP: Event.SKIP,
}
"""What each verb makes of an operation that was never dispatched."""

_WITHDRAWN = text(
    "WITH wished AS MATERIALIZED ("
    "  SELECT DISTINCT ON (d.operation_id) d.operation_id, d.verb, r.caller, r.reason"
    "  FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id"
    "  WHERE d.apply_id = :id AND d.state = 'pending' AND d.verb IN ('stop', 'cancel', 'skip')"
    f"  AND NOT {SUPERSEDED}"
    "  ORDER BY d.operation_id, d.verb = 'cancel' DESC, d.verb = 'skip' DESC)"
    " SELECT o.id, o.deployment, o.state, w.verb, w.caller, w.reason"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id JOIN wished w ON w.operation_id = o.id"
    " WHERE (o.state = 'pending' OR o.state = 'stopped' AND w.verb <> 'stop')"
    f" AND (o.dispatch_key IS NULL OR o.dispatch_key_is_dead) AND {REMOTE_ID} IS NULL AND o.claim_token IS NULL"
    " ORDER BY o.id LIMIT :most FOR NO KEY UPDATE OF o SKIP LOCKED"
)
_WITHDRAW = text(
    "UPDATE apply_operations o SET state = w.state, state_changed_at = tern_clock(), next_attempt_at = NULL,"
    " next_poll_at = NULL, completed_at = CASE WHEN w.state <> 'stopped' THEN tern_clock() END"
    " FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[])) AS w(id, state) WHERE o.id = w.id"
)
_REVIVABLE = text(
    "WITH open AS MATERIALIZED ("
    "  SELECT d.operation_id, max(d.id) FILTER (WHERE d.verb IN ('start', 'retry') AND d.state = 'pending') AS wish,"
    "  bool_or(d.verb IN ('stop', 'cancel', 'skip')) AS is_held_back FROM control_deliveries d"
    "  WHERE d.apply_id = :id AND d.state IN ('pending', 'sent') GROUP BY d.operation_id)"
    " SELECT o.id, o.deployment, o.state, d.verb, r.caller, r.reason"
    " FROM open w JOIN control_deliveries d ON d.id = w.wish JOIN control_requests r ON r.id = d.request_id"
    " JOIN apply_operations o ON o.id = w.operation_id JOIN applies a ON a.id = o.apply_id"
    " WHERE NOT w.is_held_back AND o.claim_token IS NULL"
    # A start waits until its deployment is open again.
    " AND (d.verb = 'start' AND o.state = 'stopped'"
    "     AND NOT coalesce((SELECT n.drained FROM deployments n WHERE n.name = o.deployment), false)"
    "   OR d.verb = 'retry' AND o.state = 'failed')"
    f" AND {REMOTE_ID} IS NULL ORDER BY o.id LIMIT :most FOR NO KEY UPDATE OF o SKIP LOCKED"
)
_BACK_IN_LINE = text(
    "UPDATE apply_operations o SET state = CASE WHEN n.may_act THEN 'failed_retryable' ELSE 'pending' END,"
    " state_changed_at = n.now, completed_at = NULL,"
    # A tombstoned key can never be used again: the next dispatch is of the next generation.
    " dispatch_generation = dispatch_generation + CAST(dispatch_key_is_dead AS integer),"
    # One whose only sender heard the refusal started nothing: the same key again, as if for the first time. Of one
    # that a person called ended nobody knows what it started: it is no pending one, of which nothing was sent, and its
    # key is settled first (G4).
    " dispatch_key = CASE WHEN n.may_act THEN dispatch_key END,"
    " dispatch_intent_at = CASE WHEN n.may_act THEN n.now END,"
    " next_attempt_at = CASE WHEN n.may_act THEN n.now END,"
    f" error_reason = CASE WHEN n.may_act THEN '{TRIED_AGAIN}' ELSE '' END,"
    " error_message = CASE WHEN n.may_act THEN 'tried again; what its earlier dispatch started is asked first'"
    "   ELSE '' END,"
    # Whether its engine is gone is counted anew: what was heard, or not, before is no word about this try.
    f" dispatch_key_is_dead = false, rung_at = NULL, answered_attempts = 0, {HEARD}"
    " FROM (SELECT k.id, tern_clock() AS now, k.error_reason IN ('ENDED', 'ENGINE_GONE')"
    "   AND k.dispatch_key IS NOT NULL AND NOT k.dispatch_key_is_dead AS may_act"
    "   FROM apply_operations k WHERE k.id = ANY(:ids)) n WHERE o.id = n.id RETURNING o.id, o.state"
)


@dataclass(frozen=True, slots=True)
class Revival:
    """An operation that goes back to its place in the order, and by whose wish."""

    operation_id: int
    state: State
    verb: Verb
    caller: str
    reason: str

    def event(self, after: State) -> Event:
        """The arrow that it takes."""
        if after is State.FAILED_RETRYABLE:
            return Event.REPEAT
        return Event.RETRY if self.verb is Verb.RETRY else Event.REQUEUE


class UncalledSteps(Steps):
    """The callless half of ports.ControlStore."""

    def settle_uncalled(self, apply_id: ApplyId, most: int) -> int:
        """See ports.ControlStore."""
        with transaction(self.engine) as tx:
            apply_pk = tx.execute(
                text("SELECT id FROM applies WHERE apply_identifier = :id"), {"id": apply_id}
            ).scalar_one_or_none()
            if apply_pk is None:
                message = f"there is no apply {apply_id}"
                raise NotFound(message)
            lock_apply(tx, apply_pk)
            settled = _withdraw(tx, apply_pk, most)
            if settled < most:
                settled += _revive(tx, apply_pk, most - settled)
            if settled:
                project_parent(tx, apply_pk, self.owner)
            return settled


def _withdraw(tx: Connection, apply_pk: int, most: int) -> int:
    rows = tx.execute(_WITHDRAWN, {"id": apply_pk, "most": most}).all()
    withdraw(
        tx,
        apply_pk,
        [
            Withdrawal(
                row.id,
                row.deployment,
                State(row.state),
                WITHDRAWS[Verb(row.verb)],
                row.caller,
                f"{row.verb} by {row.caller}; nothing runs on {row.deployment}: {row.reason}",
            )
            for row in rows
        ],
    )
    return len(rows)


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An operation of which nothing was ever sent is settled, by whose wish, and why."""

    operation_id: int
    deployment: str
    state: State
    event: Event
    caller: str
    why: str


def withdraw(tx: Connection, apply_pk: int, withdrawals: Sequence[Withdrawal]) -> None:
    """Settles operations whose rows the caller has locked, and has seen to be without id, live key and driver."""
    after = {each.operation_id: advance(each.state, each.event) for each in withdrawals}
    if not after:
        return
    tx.execute(_WITHDRAW, {"ids": list(after), "states": [state.value for state in after.values()]})
    for state in sorted(set(after.values())):
        of_state = [key for key, other in after.items() if other is state]
        settle_table_changes(tx, of_state, state, nothing_began=True)
    append_all(
        tx,
        [
            Happening(
                apply_pk,
                each.event.value,
                each.caller,
                each.operation_id,
                each.why,
                each.state.value,
                after[each.operation_id].value,
                {"deployment": each.deployment, "operation": each.operation_id},
            )
            for each in withdrawals
        ],
    )
    close_fulfilled(tx, apply_pk, after)


def _revive(tx: Connection, apply_pk: int, most: int) -> int:
    rows = tx.execute(_REVIVABLE, {"id": apply_pk, "most": most}).all()
    if not rows:
        return 0
    kept = kept_from_running_again(tx, [row.id for row in rows])
    blocked = take(tx, [row.id for row in rows if row.id not in kept])
    # A target that another apply has taken meanwhile is left to the driver of that wish, who names the holder; and so
    # is what a follow-up carries on, or what is partly done.
    revivals = [
        Revival(row.id, State(row.state), Verb(row.verb), row.caller, row.reason)
        for row in rows
        if row.id not in blocked and row.id not in kept
    ]
    put_back_in_line(tx, apply_pk, revivals)
    return len(revivals)


def put_back_in_line(tx: Connection, apply_pk: int, revivals: Sequence[Revival]) -> None:
    """Stopped or failed operations that hold their targets again wait for their turn, or until their earlier key is
    settled (SA2); the caller has locked their rows, and none of them has a remote id (D18).
    """
    if not revivals:
        return
    ids = [revival.operation_id for revival in revivals]
    states = {row.id: State(row.state) for row in tx.execute(_BACK_IN_LINE, {"ids": ids})}
    events = {each.operation_id: each.event(states[each.operation_id]) for each in revivals}
    after = {each.operation_id: advance(each.state, events[each.operation_id]) for each in revivals}
    reopen_table_changes(tx, ids)
    append_all(
        tx,
        [
            Happening(
                apply_pk,
                events[revival.operation_id].value,
                revival.caller,
                revival.operation_id,
                revival.reason,
                revival.state.value,
                after[revival.operation_id].value,
            )
            for revival in revivals
        ],
    )
    close_fulfilled(tx, apply_pk, after)
