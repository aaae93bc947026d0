"""The gates before a claim: who has the operation's row, and what speaks against dispatching it now (G9, G12, G13).

Everything here is read in statements after the apply's lock was taken, except for what merely turns an echo away.
"""

from dataclasses import dataclass, replace

from tern.domain.holds import Hold, HoldKind, OperationFacts, holds
from tern.domain.identity import ScopeName
from tern.domain.model import OperationScope
from tern.domain.scope import refuse
from tern.domain.states import State
from tern.domain.tally import Tally
from tern.domain.timing import due_in_s, longest_dispatch_wait_s
from tern.ports import NotClaimed
from tern.store.carried import IS_TOLD_OTHERWISE
from tern.store.halt import STOP_IN_FORCE
from tern.store.notify import has_room, room_of
from tern.store.outstanding_hold import OUTSTANDING_AT, outstanding_from
from tern.store.projection import STUCK, project_parent
from tern.store.reservation import BLOCKED_BY, MISSES_TARGET, holding_in, take
from tern.store.scope import SCOPE_COLUMNS, SCOPE_ROWS
from tern.store.silence import PAUSE
from tern.store.sql import Connection, Row, text
from tern.store.step import CLAIMED_FOR_S
from tern.store.tally import tally_in, tally_of

_LOCK_OPERATION = text(
    "SELECT o.*, a.operation_count, a.external_id, a.apply_identifier, a.environment, a.database,"
    " extract(epoch FROM o.next_attempt_at - tern_clock())::float AS wait_s,"
    f" {CLAIMED_FOR_S} AS claimed_for_s, {STOP_IN_FORCE} AS stop_in_force"
    # One claimer; NO KEY, so that an operator's delivery can still be inserted beside it.
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.id = :id"
    " FOR NO KEY UPDATE OF o SKIP LOCKED"
)
_IS_ECHO = (
    "a.apply_identifier = :apply AND o.deployment = :deployment AND o.next_attempt_at IS NULL"
    " AND o.state <> 'pending'"
)
_APPLY_OF = (
    "(SELECT a.id FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    f" WHERE o.id = :id AND NOT ({_IS_ECHO}))"
)
_LOCK_APPLY = text(f"SELECT id FROM applies WHERE id = {_APPLY_OF} FOR NO KEY UPDATE")
_TALLY = tally_of(_APPLY_OF)
_ROOM = room_of(_APPLY_OF)
_EXISTS = text("SELECT 1 FROM apply_operations WHERE id = :id")
# All that a claim looks at, in one statement that begins after the apply's lock. A driver without that lock (G3) may
# commit between the statement's beginning and the row's lock: then the newest row is what is looked at.
_CLAIMABLE = text(
    # Named one by one: half of a row's columns would be read for nothing, at every claim.
    "SELECT o.id, o.apply_id, o.deployment, o.position, o.wave, o.target, o.change_digest, o.state, o.attempt, o.fence,"
    " o.engine_resume_context, o.dispatch_generation, o.dispatch_key, o.repeat_is_safe, o.error_reason,"
    " o.claim_token, o.claim_owner,"
    f" o.next_attempt_at, o.engine_number, {SCOPE_COLUMNS}, a.state AS apply_state,"
    " extract(epoch FROM o.next_attempt_at - tern_clock())::float AS wait_s,"
    f" {CLAIMED_FOR_S} AS claimed_for_s,"
    f" {STOP_IN_FORCE} AS stop_in_force, {PAUSE},"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent'))"
    "   AS has_wishes,"
    f" {BLOCKED_BY} AS blocked_by, {MISSES_TARGET} AS misses_target, {OUTSTANDING_AT} AS outstanding,"
    f" {IS_TOLD_OTHERWISE} AS is_told_otherwise FROM {SCOPE_ROWS} WHERE o.id = :id AND NOT ({_IS_ECHO})"
    " FOR NO KEY UPDATE OF o SKIP LOCKED"
)

_AHEAD = text(
    "SELECT count(*) FILTER (WHERE NOT stuck) AS ahead,"
    " (array_agg(deployment ORDER BY position) FILTER (WHERE stuck))[1] AS stuck_ahead FROM ("
    f" SELECT o.deployment, o.position, {STUCK} AS stuck FROM apply_operations o"
    " JOIN applies a ON a.id = o.apply_id WHERE o.apply_id = :id"
    " AND o.wave = :wave AND o.state = 'pending' AND o.next_attempt_at IS NULL AND o.position < :position) x"
)

_LETS_OTHERS_GO = {
    HoldKind.DRAINED,
    HoldKind.RESERVATION,
    HoldKind.SAME_TARGET,
    HoldKind.OUTSTANDING,
    HoldKind.FAILURES,
    HoldKind.STRICT,
    HoldKind.WAVE,
    HoldKind.BAKE,
    HoldKind.ORDER,
    HoldKind.SLOTS,
}
"""Holds of which a projection knows when they are gone; whoever opens a deployment again asks for one."""


@dataclass(frozen=True, slots=True)
class Claimable:
    """What a claim looks at: the operation's row, locked, and what its apply's operations come to."""

    row: Row
    tally: Tally
    notifies: bool
    """So many others of the apply have been taken up that the next may be notified."""


def lock_for_claim(tx: Connection, operation_id: int, name: ScopeName) -> Claimable | NotClaimed:
    """Locks apply and operation in order, and reads all that a claim looks at. Raises ScopeRefused.

    A bell for something that is long done, as most bells are, is seen without a lock, so that echoes queue for none.
    """
    given = {"id": operation_id, "apply": name.apply_id, "deployment": name.deployment}
    with tx.together():
        locked = tx.execute(_LOCK_APPLY, given)
        found = tx.execute(_CLAIMABLE, given)
        counted = tx.execute(_TALLY, given)
        room = tx.execute(_ROOM, given)
    if locked.one_or_none() is None:
        if tx.execute(_EXISTS, {"id": operation_id}).one_or_none() is None:
            raise refuse("OPERATION_UNKNOWN", name, f"there is no operation {operation_id}")
        return NotClaimed("it is driven or settled already")
    row = found.one_or_none()
    if row is None:
        return NotClaimed("another driver is just claiming it")
    return Claimable(row, tally_in(counted), has_room(room.one()))


def lock_operation(tx: Connection, operation_id: int) -> Row | None:
    """The operation's row for a claimer; None when another transaction has it or there is none."""
    return tx.execute(_LOCK_OPERATION, {"id": operation_id}).one_or_none()


def claim_runs_for_s(row: Row) -> float:
    """Seconds that somebody's claim still runs."""
    return 0.0 if row.claim_token is None else max(0.0, float(row.claimed_for_s))


def gather_holds(
    tx: Connection, found: Claimable, scope_policy: OperationScope, lease_s: float
) -> tuple[Hold, ...]:
    """Every reason against dispatching this operation now."""
    row = found.row
    # Who is let in has its place; only of one that a stray bell is about it matters who would come before it.
    is_outside = State(row.state) is State.PENDING and row.next_attempt_at is None
    ahead, stuck_ahead = _those_ahead(tx, row) if is_outside else (0, "")
    facts = OperationFacts(
        state=State(row.state),
        tally=found.tally,
        position=row.position,
        wave=row.wave,
        is_admitted=row.next_attempt_at is not None,
        ahead=ahead,
        stuck_ahead=stuck_ahead,
        stop_in_force=row.stop_in_force,
        wait_s=(
            # A pending one waits where its earlier key was forbidden a moment ago.
            due_in_s(row.wait_s, longest_dispatch_wait_s(lease_s))
            if State(row.state) in {State.FAILED_RETRYABLE, State.PENDING}
            else 0.0
        ),
        claimed_for_s=claim_runs_for_s(row),
        drained=row.drained,
        unanswered=row.unanswered,
        pauses_s=row.pauses_s,
        deployment=row.deployment,
        blocked_by=holding_in(row.blocked_by),
        outstanding=None if row.outstanding is None else outstanding_from(row.outstanding),
    )
    held = holds(scope_policy.policy, facts)
    if held or not row.misses_target:
        return held
    # It was given back, or is known under one more name by now. Only where nothing else holds the claim: whoever waits
    # for something else keeps nobody from a target.
    return holds(scope_policy.policy, replace(facts, blocked_by=take(tx, [row.id]).get(row.id)))


def _those_ahead(tx: Connection, row: Row) -> tuple[int, str]:
    """How many of its wave would be let in before it, and the first that is held for a reason of its own."""
    given = {
        "id": row.apply_id,
        "wave": row.wave,
        "position": row.position,
    }
    found = tx.execute(_AHEAD, given).one()
    return found.ahead, found.stuck_ahead or ""


def step_back(tx: Connection, row: Row, kinds: set[HoldKind], who: str) -> None:
    """An admitted operation that may not go after all would stand before others at the head of the queue (CL4)."""
    if State(row.state) is not State.PENDING or row.next_attempt_at is None:
        return
    given = {"apply": row.apply_id, "id": row.id}
    if kinds & _LETS_OTHERS_GO:
        # The projection admits it again in the very transaction that changes what holds it, and somebody else now: its
        # slot is free. A spent budget holds all that are left, so they step back together.
        which = "apply_id = :apply AND state = 'pending'" if HoldKind.FAILURES in kinds else "id = :id"
        tx.execute(text(f"UPDATE apply_operations SET next_attempt_at = NULL WHERE {which}"), given)
        project_parent(tx, row.apply_id, who)
