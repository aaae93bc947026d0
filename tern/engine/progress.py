"""Progress in words for a person: of one job with an entry for each change, and for clients of the public contract with
one for each table.
"""

from collections.abc import Sequence
from datetime import datetime

from tern.engine.errors import Reason
from tern.engine.job import State
from tern.engine.names import Name
from tern.engine.session import Connection, Row, rows
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tern.wire.per_table import per_table

STATES: dict[State, contract.State.ValueType] = {
    State.PENDING: contract.STATE_PENDING,
    State.RUNNING: contract.STATE_RUNNING,
    State.WAITING_FOR_CUTOVER: contract.STATE_WAITING_FOR_CUTOVER,
    State.CUTTING_OVER: contract.STATE_CUTTING_OVER,
    State.STOPPED: contract.STATE_STOPPED,
    State.COMPLETED: contract.STATE_COMPLETED,
    State.FAILED: contract.STATE_FAILED,
    State.CANCELLED: contract.STATE_CANCELLED,
}
NOT_FOUND = 5
FAILED_PRECONDITION = 9


def of_jobs(connection: Connection, jobs: Sequence[str]) -> dict[str, contract.ProgressResponse]:
    """The progress of each job that exists.

    One statement and so one snapshot: a job's row of one moment with the changes of another would be a picture that
    never was, under a revision that stands for a different one.
    """
    found = rows(
        connection,
        "SELECT job.*, (SELECT coalesce(jsonb_agg(to_jsonb(change) || jsonb_build_object('has_done', EXISTS ("
        "                  SELECT FROM _tern.step WHERE step.job = job.id AND step.change = change.n"
        "                     AND step.status = 'done')) ORDER BY n), '[]') FROM _tern.change"
        "                WHERE change.job = job.id) AS changes"
        "  FROM _tern.job WHERE id = ANY(%s)",
        (list(jobs),),
    )
    return {each["id"]: _response(each, each["changes"]) for each in found}


def for_clients(seen: contract.ProgressResponse) -> contract.ProgressResponse:
    """The same for those who speak the public contract alone: one entry for each table."""
    merged = contract.ProgressResponse()
    merged.CopyFrom(seen)
    del merged.tables[:]
    merged.tables.extend(per_table(seen.tables, seen.apply_id))
    return merged


def batch(connection: Connection, cursors: Sequence[ours.ProgressCursor]) -> ours.BatchProgressResponse:
    """An entry for every cursor that is behind, wrong or unknown."""
    known = {
        each["id"]: each
        for each in rows(
            connection,
            "SELECT id, revision, operation FROM _tern.job WHERE id = ANY(%s)",
            ([cursor.apply_id for cursor in cursors],),
        )
    }
    answer = ours.BatchProgressResponse()
    behind: list[ours.ProgressCursor] = []
    for cursor in cursors:
        job = known.get(cursor.apply_id)
        if job is None:
            _fail(
                answer,
                cursor,
                NOT_FOUND,
                Reason.APPLY_NOT_FOUND,
                f"there is no apply {cursor.apply_id!r} here",
            )
        elif cursor.operation and cursor.operation != job["operation"]:
            words = f"this apply belongs to {job['operation'] or 'no operation'}, the cursor is for {cursor.operation}"
            _fail(answer, cursor, FAILED_PRECONDITION, Reason.OPERATION_MISMATCH, words)
        elif cursor.revision and cursor.revision == job["revision"]:
            continue
        else:
            behind.append(cursor)
    progress = of_jobs(connection, [cursor.apply_id for cursor in behind]) if behind else {}
    for cursor in behind:
        seen = progress[cursor.apply_id]
        # The revision of this picture, which may be a later one than that by which the cursor was found behind.
        answer.entries.add(apply_id=cursor.apply_id, revision=int(seen.metadata["revision"]), progress=seen)
    return answer


def logs(connection: Connection, job: str, limit: int) -> list[contract.ApplyLog]:
    """The newest lines of a job's log, the oldest of them first."""
    found = rows(
        connection,
        "SELECT * FROM (SELECT id, change, level, event_type, message, old_state, new_state,"
        "       metadata::text AS metadata, created_at"
        "  FROM _tern.event WHERE job = %s ORDER BY id DESC LIMIT %s) AS newest ORDER BY id",
        (job, limit),
    )
    return [
        contract.ApplyLog(
            id=each["id"],
            task_id=each["change"],
            level=each["level"],
            event_type=each["event_type"],
            source="engine",
            message=each["message"],
            old_state=each["old_state"],
            new_state=each["new_state"],
            metadata_json=each["metadata"].encode(),
            created_at=_time(each["created_at"]),
        )
        for each in found
    ]


def _fail(
    answer: ours.BatchProgressResponse, cursor: ours.ProgressCursor, code: int, reason: Reason, words: str
) -> None:
    error = ours.ProgressError(code=code, message=words, reason=reason)
    answer.entries.add(apply_id=cursor.apply_id, error=error)


def _response(job: Row, changes: list[Row]) -> contract.ProgressResponse:
    state = State(job["state"])
    return contract.ProgressResponse(
        apply_id=job["id"],
        state=STATES[state],
        engine=contract.ENGINE_POSTGRES,
        summary=_summary(job, state, changes),
        error_message=job["error"],
        tables=[_table(change, state) for change in changes],
        started_at=_time(job["started_at"]),
        completed_at=_time(job["completed_at"]),
        metadata={"revision": str(job["revision"]), "operation": job["operation"] or ""},
    )


def _table(change: Row, state: State) -> contract.TableProgress:
    return contract.TableProgress(
        task_id=str(change["n"]),
        namespace=change["namespace"],
        table_name=change["table_name"],
        ddl=change["ddl"],
        status=_status(change, state),
        rows_copied=change["rows_done"],
        rows_total=change["rows_total"],
        percent_complete=change["percent"],
        eta_seconds=0 if state.is_settled else change["eta_seconds"],
        is_instant=change["is_instant"],
        progress_detail=change["detail"],
        change_type=change["change_type"],
    )


def _status(change: Row, state: State) -> str:
    """What has become of a change by itself: the end of its job says nothing about those that had not begun, nor that
    one of which a part is done and stays was never there.
    """
    status = str(change["status"])
    if status in {"completed", "pending"}:
        return status
    if state in {State.FAILED, State.CANCELLED}:
        if change["has_done"]:
            return "unknown"
        return "failed" if status == "failed" else state.value
    if status == "failed":
        return status
    if state in {State.STOPPED, State.WAITING_FOR_CUTOVER}:
        return state.value
    return status


def _summary(job: Row, state: State, changes: list[Row]) -> str:
    if state.is_settled:
        return str(job["note"])
    completed = sum(change["status"] == "completed" for change in changes)
    said = f"{completed} of {len(changes)} changes completed"
    if job["ending"]:
        return f"Removing what is left over before it is {job['ending']}; {said}."
    if job["control"]:
        return f"Asked to {job['control']}; {said}."
    left = [change for change in changes if change["status"] != "completed"]
    # What takes long may have gone ahead of what waits for the cutover.
    current = next((change for change in left if change["status"] != "pending"), left[0] if left else None)
    if current is None or state is not State.RUNNING:
        return f"{state.words.capitalize()}; {said}."
    what = current["status"].replace("_", " ")
    detail = f" ({current['detail']})" if current["detail"] else ""
    return f"{Name(current['namespace'], current['table_name'])}: {what}{detail}; {said}."


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()
