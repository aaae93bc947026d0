"""How an operation of Tern's own reads in the public engine contract."""

from collections.abc import Mapping
from typing import Any, Final

from tern.domain.model import Action
from tern.domain.states import State
from tern.doors.answers import Event, Progress, TableChange
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.per_table import per_table

_STATES: Final[Mapping[State, Any]] = {
    State.PENDING: tern_v1.STATE_PENDING,
    State.RUNNING: tern_v1.STATE_RUNNING,
    State.WAITING_FOR_CUTOVER: tern_v1.STATE_WAITING_FOR_CUTOVER,
    State.CUTTING_OVER: tern_v1.STATE_CUTTING_OVER,
    State.REVERT_WINDOW: tern_v1.STATE_REVERT_WINDOW,
    State.REVERTING: tern_v1.STATE_REVERTING,
    State.RESUMING: tern_v1.STATE_RECOVERING,
    State.FAILED_RETRYABLE: tern_v1.STATE_FAILED_RETRYABLE,
    # It may run, and it may not: the contract has no word for that, and this one claims no end.
    State.UNCERTAIN: tern_v1.STATE_RECOVERING,
    State.COMPLETED: tern_v1.STATE_COMPLETED,
    State.FAILED: tern_v1.STATE_FAILED,
    State.CANCELLED: tern_v1.STATE_CANCELLED,
    State.REVERTED: tern_v1.STATE_REVERTED,
    State.SKIPPED: tern_v1.STATE_CANCELLED,
    State.STOPPED: tern_v1.STATE_STOPPED,
}
_TYPE_NUMBERS: Final[Mapping[Action, Any]] = {
    Action.CREATE: tern_v1.CHANGE_TYPE_CREATE,
    Action.ALTER: tern_v1.CHANGE_TYPE_ALTER,
    Action.DROP: tern_v1.CHANGE_TYPE_DROP,
    Action.OTHER: tern_v1.CHANGE_TYPE_OTHER,
}


def progress_of(asked_for: str, known: Progress) -> tern_v1.ProgressResponse:
    """One operation, as far as Tern knows, with an entry for each table."""
    words = [known.summary]
    if known.state is State.UNCERTAIN:
        words.append("uncertain: nobody here can tell whether the engine did it")
    if known.lost_contact:
        words.append("lost contact: its engine does not answer")
    metadata = {"operation": known.scope, "state": known.state.value}
    if known.remote_id:
        metadata["remote_id"] = known.remote_id
    if known.sampled_age_s is not None:
        metadata["sampled_age_s"] = f"{known.sampled_age_s:.1f}"
    return tern_v1.ProgressResponse(
        apply_id=asked_for,
        state=_STATES[known.state],
        engine=tern_v1.ENGINE_POSTGRES,
        summary="; ".join(word for word in words if word),
        error_message=known.error,
        tables=per_table((_table(each) for each in known.tables), known.scope),
        started_at=known.started_at.isoformat() if known.started_at else "",
        completed_at=known.completed_at.isoformat() if known.completed_at else "",
        volume=known.volume or 0,
        metadata=metadata,
    )


def _table(table: TableChange) -> tern_v1.TableProgress:
    return tern_v1.TableProgress(
        namespace=table.namespace,
        table_name=table.table,
        ddl=table.ddl,
        status=table.state,
        rows_copied=table.rows_copied or 0,
        rows_total=table.rows_total or 0,
        percent_complete=table.percent,
        eta_seconds=table.eta_s or 0,
        progress_detail=table.detail,
        change_type=_TYPE_NUMBERS[table.action],
    )


def log_of(event: Event) -> tern_v1.ApplyLog:
    """One line of the record."""
    return tern_v1.ApplyLog(
        id=event.event_id,
        level="info",
        event_type=event.event,
        source=event.who,
        message=event.why,
        old_state=event.before,
        new_state=event.after,
        created_at=event.at.isoformat(),
    )
