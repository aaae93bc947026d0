"""Moving operations, and computing their parent in the same transaction (G14); the twin of tern/store/projection.py."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tern.domain.control import Delivery, Verb, fulfilment
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.opening import Opening, opening, opens_in_s
from tern.domain.projection import project
from tern.domain.states import ApplyState, Event, State, advance
from tern.ports import Due, DueControl
from tests.simulation.memory.database import Database
from tests.simulation.memory.rows import ApplyRow, DeliveryRow, EventRow, OperationRow
from tests.simulation.memory.tally import cut_over_next, is_stuck, tally

FREE: Mapping[str, Any] = {"claim_token": None, "claim_owner": None, "claim_expires_at": None}
"""No claim."""

THROUGH = frozenset({"completed", "failed", "cancelled", "reverted", "skipped"})
"""What a table change never leaves again."""


def tell(
    db: Database,
    apply_pk: int,
    event: str,
    who: str,
    operation_id: int | None = None,
    why: str = "",
    before: str = "",
    after: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """One line of the record (G15)."""
    number = db.next_id("apply_events")
    db.insert(
        EventRow(
            number,
            apply_pk,
            operation_id,
            db.now,
            event,
            who,
            why,
            str(before),
            str(after),
            dict(detail or {}),
        )
    )
    db.event_xids[number] = db.transactions


def move(
    db: Database,
    operation: OperationRow,
    event: Event,
    who: str,
    why: str = "",
    detail: Mapping[str, object] | None = None,
    **values: Any,
) -> State:
    """Takes an operation along one arrow, with its event and what follows from it. Raises IllegalTransition."""
    before = State(operation.state)
    after = advance(before, event)
    times: dict[str, Any] = {
        "completed_at": db.now if after.is_finished else None,
        "state_changed_at": db.now,
    }
    if after is State.RUNNING and operation.started_at is None:
        times["started_at"] = db.now
    db.write(operation, state=after.value, **times, **values)
    if after is not before or why:
        tell(db, operation.apply_id, event.value, who, operation.id, why, before, after, detail)
    if after.is_settled:
        settle_table_changes(db, [operation.id], after)
    close_fulfilled(db, operation.apply_id, {operation.id: after})
    return after


def settle_table_changes(db: Database, operation_ids: Iterable[int], state: State) -> None:
    """What an operation's settling makes of its unsettled statements."""
    for operation_id in operation_ids:
        for row in db.changes_of[operation_id]:
            if row.state in THROUGH:
                continue
            done: dict[str, Any] = {}
            if state is State.COMPLETED:
                copied = row.rows_total if row.rows_total is not None else row.rows_copied
                done = {"percent": 100, "rows_copied": copied}
            db.write(row, state=state.value, eta_seconds=None, **done)


def close_fulfilled(db: Database, apply_pk: int, states: Mapping[int, State]) -> None:
    """Closes the open wishes that these operations' states fulfil or outrun, each for itself (G8)."""
    rows = sorted(
        (row for key in states for row in db.deliveries_of[key] if row.is_open), key=lambda row: row.id
    )
    closing = [
        (row, fate)
        for row in rows
        if (fate := fulfilment(Verb(row.verb), states[row.operation_id])) is not None
    ]
    before = {row.id: row.state for row, _ in closing}
    for row, fate in closing:
        close_delivery(db, row, fate)
    for row, fate in closing:
        caller = db.requests[row.request_id].caller
        tell(db, apply_pk, f"{row.verb}_{fate.value}", caller, row.operation_id, "", before[row.id], fate)
    if any(fate is Delivery.ACKNOWLEDGED and row.verb in {"stop", "cancel"} for row, fate in closing):
        moot_overtaken(db, apply_pk, list(states))


def moot_overtaken(db: Database, apply_pk: int, operation_ids: Sequence[int]) -> None:
    """A start or retry that a later stop has overtaken is never driven again (G9)."""
    overtaken = [
        start
        for key in operation_ids
        for verb in ("start", "retry")
        if (start := db.open_delivery(key, verb)) is not None
        and any(
            row.verb in {"stop", "cancel"} and row.id > start.id and row.state in {"acknowledged", "too_late"}
            for row in db.deliveries_of[key]
        )
    ]
    words = "a later stop overtook it"
    for start in sorted(overtaken, key=lambda row: row.id):
        before = start.state
        close_delivery(db, start, Delivery.MOOT, words)
        caller = db.requests[start.request_id].caller
        tell(db, apply_pk, f"{start.verb}_moot", caller, start.operation_id, words, before, "moot")


def close_delivery(db: Database, row: DeliveryRow, fate: Delivery, words: str = "") -> None:
    """The fate of one wish."""
    if row.is_open:
        said = words or row.engine_words
        db.write(row, state=fate.value, closed_at=db.now, next_attempt_at=None, engine_words=said)


def project_parent(
    db: Database, apply_pk: int, who: str, *, rings: bool = False
) -> tuple[Due | DueControl, ...]:
    """Computes and writes the apply's state with all that belongs to it, and admits what may start."""
    apply = db.applies[apply_pk]
    policy = db.policy(apply_pk)
    counted = tally(db, apply_pk)
    projection = project(policy, counted)
    if projection.skips_pending:
        _skip_never_started(db, apply_pk, who)
    if projection.state.value != apply.state:
        _write_state(db, apply, projection.state, who)
    if projection.state.is_settled:
        for held in [row for row in db.reservations.values() if row.apply_id == apply_pk]:
            db.delete(held)
        _come_back(db, apply, None)
        return ()
    turn = cut_over_next(db, apply_pk, policy, counted)
    times = [each for each in (turn, opens_in_s(policy, counted)) if isinstance(each, float)]
    _come_back(db, apply, min(times, default=None))
    cutovers = (turn,) if isinstance(turn, DueControl) else ()
    opened = opening(policy, counted)
    return cutovers if opened is None else (*cutovers, *_admit(db, apply, opened, rings=rings))


def _come_back(db: Database, apply: ApplyRow, in_s: float | None) -> None:
    """When something clears by itself; None for nothing."""
    if in_s is not None or apply.next_advance_at is not None:
        db.write(apply, next_advance_at=None if in_s is None else db.now + in_s)


def _write_state(db: Database, apply: ApplyRow, state: ApplyState, who: str) -> None:
    message = ""
    if state in {ApplyState.FAILED, ApplyState.RUNNING_DEGRADED, ApplyState.PAUSED}:
        failed = [row for row in db.operations_of[apply.id] if row.state == "failed"]
        if failed:
            first = min(failed, key=lambda row: row.position)
            message = f"{first.deployment}: {first.error_message}"
    before = apply.state
    db.write(
        apply,
        state=state.value,
        error_message=message,
        revision=apply.revision + 1,
        state_changed_at=db.now,
        verdict_effects_done_at=None,
        completed_at=db.now if state.is_finished else None,
    )
    tell(
        db, apply.id, "verdict" if state.is_settled else "projected", who, None, message, before, state.value
    )


def _skip_never_started(db: Database, apply_pk: int, who: str) -> None:
    skipped = [row for row in db.operations_of[apply_pk] if row.state == "pending"]
    for row in skipped:
        db.write(row, state="skipped", state_changed_at=db.now, completed_at=db.now, next_attempt_at=None)
    ids = sorted(row.id for row in skipped)
    settle_table_changes(db, ids, State.SKIPPED)
    why = "the rollout is halted and it never started"
    for key in ids:
        tell(db, apply_pk, Event.SKIP.value, who, key, why, "pending", "skipped")
    close_fulfilled(db, apply_pk, dict.fromkeys(ids, State.SKIPPED))


def _admit(db: Database, apply: ApplyRow, opened: Opening, *, rings: bool) -> tuple[Due, ...]:
    """Makes the next operations of the order due. Which may really go is decided again when they are claimed."""
    outside = [
        row
        for row in sorted(db.operations_of[apply.id], key=lambda row: row.position)
        if row.wave == opened.wave and row.state == "pending" and row.next_attempt_at is None
    ]
    if opened.in_order:
        # Nobody goes before one that is held.
        outside = list(itertools.takewhile(lambda row: not is_stuck(db, row), outside[: opened.room]))
    else:
        outside = [row for row in outside if not is_stuck(db, row)][: opened.room]
    for row in outside:
        db.write(row, next_attempt_at=db.now, rung_at=db.now if rings else row.rung_at)
    identifier = ApplyId(apply.apply_identifier)
    return tuple(Due(row.id, ScopeName(identifier, row.deployment)) for row in outside)
