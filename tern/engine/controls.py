"""Stop, Start, Cancel and Cutover: each is a wish in the job's row; the runner fulfils it."""

from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from tern.engine import job as books
from tern.engine import keys
from tern.engine.errors import EngineError, Reason, invalid, precondition, unknown_apply
from tern.engine.identity import EngineIdentity
from tern.engine.job import Job, State
from tern.engine.keys import CallContext
from tern.engine.session import Connection, row
from tern.wire.numbering import WORDS, speaks_older_numbering

ID_BEGINS = "job-"
"""Every job's id does."""


@dataclass(frozen=True)
class Answer:
    """Whether a wish was taken, the words if not, and how many changes it meets and misses."""

    accepted: bool
    words: str = ""
    met: int = 0
    skipped: int = 0


def find(
    connection: Connection,
    identity: EngineIdentity,
    apply_id: str,
    environment: str,
    context: CallContext,
    *,
    lock: bool = False,
) -> Job:
    """The job that a call is about, or the reason why the call may not be about it."""
    if not apply_id:
        message = "apply_id is empty"
        raise invalid(message)
    wrong = identity.mismatch(environment=environment)
    if wrong:
        raise precondition(Reason.TARGET_MISMATCH, wrong)
    job = books.load(connection, apply_id, lock=lock)
    if job is None:
        raise unknown_apply(apply_id)
    keys.check_operation(job.operation, context)
    return job


def refuse_older_numbering(request: Message) -> None:
    """A client of the earlier numbers is told so, before its fields are taken for what they are not."""
    named: str = getattr(request, "apply_id", "")
    if speaks_older_numbering(request, names_something=named.startswith(ID_BEGINS)):
        raise EngineError(grpc.StatusCode.INVALID_ARGUMENT, Reason.OLDER_NUMBERING, WORDS)


def check_scope(job: Job, operation: str) -> None:
    """Refuses a call for another operation than the job's own, where it names one."""
    if operation not in {"", job.operation or job.id}:
        message = f"this apply is that of {job.operation or job.id}, the call is for {operation}"
        raise precondition(Reason.OPERATION_MISMATCH, message)


def stop(connection: Connection, job: Job) -> Answer:
    """Asks the runner to stop; the job can be started again."""
    if job.state.is_settled or job.ending is not None or job.control == "cancel":
        return _too_late(job)
    if job.state is not State.STOPPED and job.control != "stop":
        _wish(connection, job, "stop", "Asked to stop.")
    return _counted(connection, job)


def start(connection: Connection, job: Job) -> Answer:
    """Withdraws a stop, or resumes a stopped job."""
    if job.state.is_settled or job.ending is not None or job.control == "cancel":
        return _too_late(job)
    if job.state is State.STOPPED:
        books.enter(connection, job, State.RUNNING, "Started again.", control=None)
    elif job.control == "stop":
        connection.execute(
            "UPDATE _tern.job SET control = NULL, revision = revision + 1 WHERE id = %s", (job.id,)
        )
        books.tell(connection, job.id, "start", "The stop was withdrawn before it took effect.")
    return _counted(connection, job)


def cancel(connection: Connection, job: Job) -> Answer:
    """Asks the runner to end the job for good."""
    if job.state is State.CANCELLED or job.ending == "cancelled" or job.control == "cancel":
        return _counted(connection, job)
    if job.state.is_settled or job.ending is not None:
        return _too_late(job)
    _wish(connection, job, "cancel", "Asked to cancel; finished changes stay, what is half done is removed.")
    return _counted(connection, job)


def cutover(connection: Connection, job: Job) -> Answer:
    """Lets a waiting job do what the application can notice."""
    if job.control is not None or job.ending is not None:
        return Answer(accepted=False, words=f"the apply was asked to {job.control or 'end'}")
    if job.state is State.CUTTING_OVER or (job.state is State.WAITING_FOR_CUTOVER and job.cutover_allowed):
        return Answer(accepted=True)
    if job.state is not State.WAITING_FOR_CUTOVER:
        return Answer(accepted=False, words=f"the apply is {job.state.words}, it does not wait for a cutover")
    # The state changes here and not in the runner: the next look from outside must not see it waiting still.
    books.enter(connection, job, State.CUTTING_OVER, "Cutover asked for.", cutover_allowed=True)
    return Answer(accepted=True)


def _wish(connection: Connection, job: Job, control: str, message: str) -> None:
    connection.execute(
        "UPDATE _tern.job SET control = %s, revision = revision + 1 WHERE id = %s", (control, job.id)
    )
    books.tell(connection, job.id, control, message)


def _too_late(job: Job) -> Answer:
    if job.state.is_settled:
        return Answer(accepted=False, words=f"the apply is {job.state.words} already")
    ending = job.ending or "cancelled"
    return Answer(accepted=False, words=f"the apply is being {ending}, its leftovers are being removed")


def _counted(connection: Connection, job: Job) -> Answer:
    counts = row(
        connection,
        "SELECT count(*) FILTER (WHERE status <> 'completed') AS met,"
        "       count(*) FILTER (WHERE status = 'completed') AS skipped FROM _tern.change WHERE job = %s",
        (job.id,),
    )
    return (
        Answer(accepted=True, met=counts["met"], skipped=counts["skipped"])
        if counts
        else Answer(accepted=True)
    )
