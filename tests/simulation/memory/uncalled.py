"""Wishes that need no call, for many operations at once; the twin of tern/store/uncalled.py."""

from tern.domain.control import Verb
from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId
from tern.domain.states import Event, State, advance
from tern.store.uncalled import WITHDRAWS
from tests.simulation.memory.apply import take
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import close_fulfilled, project_parent, settle_table_changes, tell
from tests.simulation.memory.rows import DeliveryRow, OperationRow
from tests.simulation.memory.scope import Steps

_ORDER = ("cancel", "skip", "stop")


class UncalledSteps(Steps):
    """The callless half of ports.ControlStore in memory."""

    def settle_uncalled(self, apply_id: ApplyId, most: int) -> int:
        """See ports.ControlStore."""
        db = self.db
        with db.transaction():
            apply = db.apply_named(apply_id)
            if apply is None:
                message = f"there is no apply {apply_id}"
                raise NotFound(message)
            settled = _withdraw(db, apply.id, most)
            if settled < most:
                settled += _revive(db, apply.id, most - settled)
            if settled:
                project_parent(db, apply.id, self.owner)
            return settled


def _withdraw(db: Database, apply_pk: int, most: int) -> int:
    chosen = [
        (row, wish)
        for row in sorted(db.operations_of[apply_pk], key=lambda row: row.id)
        if (wish := _withdrawing(db, row)) is not None
    ][:most]
    after: dict[int, State] = {}
    for row, wish in chosen:
        request, before = db.requests[wish.request_id], State(row.state)
        event = WITHDRAWS[Verb(wish.verb)]
        state = after[row.id] = advance(before, event)
        db.write(
            row,
            state=state.value,
            state_changed_at=db.now,
            completed_at=None if state is State.STOPPED else db.now,
            next_attempt_at=None,
            next_poll_at=None,
        )
        settle_table_changes(db, [row.id], state)
        why = f"{wish.verb} by {request.caller}; nothing runs on {row.deployment}: {request.reason}"
        detail = {"deployment": row.deployment, "operation": row.id}
        tell(db, apply_pk, event.value, request.caller, row.id, why, before.value, state.value, detail)
    close_fulfilled(db, apply_pk, after)
    return len(after)


def _withdrawing(db: Database, row: OperationRow) -> DeliveryRow | None:
    """The wish that ends an operation which was never dispatched and which nobody is driving."""
    if row.claim_token is not None or db.remote_id(row) is not None:
        return None
    if row.dispatch_key is not None and not row.dispatch_key_is_dead:
        return None
    wishes = db.deliveries_of[row.id]
    started = max((one.id for one in wishes if one.verb == "start" and one.state != "failed"), default=0)
    found = [
        one
        for one in wishes
        if one.state == "pending" and one.verb in _ORDER and (one.verb != "stop" or one.id > started)
    ]
    wish = min(found, key=lambda one: _ORDER.index(one.verb), default=None)
    if wish is None or row.state == "pending":
        return wish
    return wish if row.state == "stopped" and wish.verb != "stop" else None


def _revive(db: Database, apply_pk: int, most: int) -> int:
    chosen = [
        (row, wish)
        for row in sorted(db.operations_of[apply_pk], key=lambda row: row.id)
        if (wish := _reviving(db, row)) is not None
    ][:most]
    apply = db.applies[apply_pk]
    revived = [
        (row, wish)
        for row, wish in chosen
        if take(db, apply_pk, apply.environment, apply.database, [row.deployment])
    ]
    for row, wish in revived:
        put_back_in_line(db, row, wish)
    close_fulfilled(db, apply_pk, {row.id: State.PENDING for row, _ in revived})
    return len(revived)


def _reviving(db: Database, row: OperationRow) -> DeliveryRow | None:
    if row.claim_token is not None or db.remote_id(row) is not None:
        return None
    verb = {"stopped": "start", "failed": "retry"}.get(row.state)
    wish = None if verb is None else db.open_delivery(row.id, verb)
    held_back = any(db.open_delivery(row.id, each) is not None for each in _ORDER)
    return None if wish is None or wish.state != "pending" or held_back else wish


def put_back_in_line(db: Database, row: OperationRow, wish: DeliveryRow) -> None:
    """A stopped or failed operation waits for its turn again; its wishes are closed by the caller."""
    request, before = db.requests[wish.request_id], State(row.state)
    event = Event.RETRY if wish.verb == "retry" else Event.REQUEUE
    keeps = row.error_reason == "ENDED" and not row.dispatch_key_is_dead and row.dispatch_key is not None
    db.write(
        row,
        state=advance(before, event).value,
        state_changed_at=db.now,
        completed_at=None,
        dispatch_generation=row.dispatch_generation + int(row.dispatch_key_is_dead),
        dispatch_key=row.dispatch_key if keeps else None,
        dispatch_intent_at=db.now if keeps else None,
        dispatch_key_is_dead=False,
        next_attempt_at=None,
        rung_at=None,
        answered_attempts=0,
        error_message="",
        error_reason="",
    )
    reopen_table_changes(db, row.id)
    tell(db, row.apply_id, event.value, request.caller, row.id, request.reason, before.value, "pending")


def reopen_table_changes(db: Database, operation_id: int) -> None:
    """What the operation's settling had settled is to be done again."""
    for row in db.changes_of[operation_id]:
        if row.state in {"stopped", "failed"}:
            db.write(row, state="pending", error="")
