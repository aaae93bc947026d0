"""Counting an apply's operations, and what covers or holds one of them; the twin of tern/store/tally.py and halt.py."""

from tern.domain.barrier import REASON, Refusals, asks_again_in_s, asks_by_itself, turn
from tern.domain.control import Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.policy import Policy
from tern.domain.states import State
from tern.domain.tally import Standing, Tally
from tern.ports import DueControl
from tests.simulation.memory.database import Database
from tests.simulation.memory.rows import DeliveryRow, OperationRow, RequestRow


def tally(db: Database, apply_pk: int) -> Tally:
    """The apply's operations by wave and state."""
    release = db.newest_release(apply_pk)
    single = db.applies[apply_pk].operation_count == 1
    return Tally.of(
        (
            Standing(
                position=row.position,
                state=State(row.state),
                wave=row.wave,
                is_admitted=row.state == "pending" and row.next_attempt_at is not None,
                is_wished=db.is_wished(row.id),
                has_remote_id=not single and row.engine_resume_context is not None,
                was_seen=release is not None
                and row.completed_at is not None
                and row.completed_at <= release.created_at,
                ended_s_ago=None if row.completed_at is None else db.now - row.completed_at,
            )
            for row in db.operations_of[apply_pk]
        ),
        None if release is None else release.failures_released,
    )


def is_stuck(db: Database, row: OperationRow) -> bool:
    """A pending operation is held for a reason of its own, whatever the rollout's policy says."""
    apply = db.applies[row.apply_id]
    holder = db.holder(apply.environment, apply.database, row.deployment)
    return (
        db.stop_in_force(row.id) is not None
        or is_drained(db, row.deployment)
        or holder is None
        or holder.id != apply.id
    )


def is_drained(db: Database, deployment: str) -> bool:
    """A deployment that is not there holds nobody."""
    found = db.deployments.get(deployment)
    return found is not None and found.drained


def ask(
    db: Database,
    apply_pk: int,
    verb: Verb,
    caller: str,
    reason: str,
    outcomes: list[object],
    volume: int | None = None,
) -> RequestRow:
    """The request's row."""
    number = db.next_id("control_requests")
    row = RequestRow(number, apply_pk, verb.value, caller, reason, list(outcomes), db.now, volume=volume)
    db.insert(row)
    return row


def deliver(db: Database, request_id: int, row: OperationRow, verb: Verb) -> None:
    """One delivery's row."""
    number = db.next_id("control_deliveries")
    db.insert(DeliveryRow(number, request_id, row.apply_id, row.id, verb.value, db.now, db.now))


def refusals_of(db: Database, operation_id: int) -> Refusals:
    """The cutovers that came to nothing since the last start."""
    wishes = db.deliveries_of[operation_id]
    since = max((one.id for one in wishes if one.verb == "start" and one.state == "acknowledged"), default=0)
    failed = [
        one
        for one in wishes
        if one.verb == "cutover" and one.state == "failed" and one.attempts and one.id > since
    ]
    if not failed:
        return Refusals()
    last = max(one.closed_at or 0.0 for one in failed)
    return Refusals(len(failed), db.now - last, max(failed, key=lambda one: one.id).engine_words)


def cut_over_next(db: Database, apply_pk: int, policy: Policy, counted: Tally) -> DueControl | float | None:
    """The wish to cut over the operation whose turn it is; the twin of tern/store/barrier.py."""
    position = turn(policy, counted)
    if position is None:
        return None
    row = next(one for one in db.operations_of[apply_pk] if one.position == position)
    due = DueControl(
        row.id, ScopeName(ApplyId(db.applies[apply_pk].apply_identifier), row.deployment), Verb.CUTOVER
    )
    wish = db.open_delivery(row.id, "cutover")
    if wish is not None:
        if wish.next_attempt_at is not None:
            return None
        db.write(wish, next_attempt_at=db.now)
        return due
    if db.stop_in_force(row.id) is not None or not asks_by_itself(policy, counted):
        return None
    in_s = asks_again_in_s(refusals_of(db, row.id))
    if in_s is None or in_s > 0:
        return in_s
    outcome = {"deployment": row.deployment, "outcome": "accepted", "reason": REASON}
    request = ask(db, apply_pk, Verb.CUTOVER, "tern", REASON, [outcome])
    deliver(db, request.id, row, Verb.CUTOVER)
    return due
