"""Between messages and domain words. Here, and nowhere above, the habits of the public contract are known: states
by number, zero for "not said", `accepted = false` inside an OK answer, ids that may be empty.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from types import MappingProxyType
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from tern.domain.control import VOLUMES
from tern.domain.dispatch import TARGET_BUSY
from tern.domain.identity import RemoteId, is_scope
from tern.domain.model import (
    Action,
    Claim,
    Deployment,
    Forbidden,
    NeverStarted,
    OperationScope,
    PlannedChange,
    RemoteCall,
    Resolution,
    Started,
    Unsupported,
)
from tern.domain.outcome import ANOTHER_DATABASE, Ok, Outcome, Refused, Unknown
from tern.domain.review import changes_digest, operation_digest, sent_options
from tern.domain.samples import Sample
from tern.ports import ChangePreview, Cursor, LogLine
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.guard import usable_remote_id
from tern.wire.looking import sample
from tern.wire.outcomes import About, known_reason, tidy
from tern.wire.transport import Answer

_REVISION_MAX = 2**64 - 1

_CHANGE_TYPES: Final = MappingProxyType(
    {
        Action.CREATE: tern_v1.CHANGE_TYPE_CREATE,
        Action.ALTER: tern_v1.CHANGE_TYPE_ALTER,
        Action.DROP: tern_v1.CHANGE_TYPE_DROP,
        Action.OTHER: tern_v1.CHANGE_TYPE_OTHER,
    }
)

_ACTIONS: Final = MappingProxyType({number: action for action, number in _CHANGE_TYPES.items()})


AcceptanceT = TypeVar(
    "AcceptanceT",
    bound=tern_v1.StopResponse
    | tern_v1.StartResponse
    | tern_v1.CutoverResponse
    | tern_v1.CancelResponse
    | tern_v1.RevertResponse
    | tern_v1.SkipRevertResponse
    | tern_v1.VolumeResponse,
)
"""The answer to a control call."""


def apply_request(scope: OperationScope, claim: Claim) -> tern_v1.ApplyRequest:
    """The operation's own share: its changes, its target, its key, and nothing of a sibling's (D14)."""
    return tern_v1.ApplyRequest(
        plan_id=scope.plan_id,
        options=dict(sent_options(scope.policy, allow_unsafe=scope.allow_unsafe)),
        database=scope.database,
        type=scope.database_type,
        ddl_changes=[
            tern_v1.TableChange(
                table_name=item.change.table_name,
                ddl=item.change.ddl,
                change_type=_CHANGE_TYPES[item.change.action],
                namespace=item.change.namespace,
                is_unsafe=item.change.is_unsafe,
                unsafe_reason=item.change.unsafe_reason,
            )
            for item in scope.changes
        ],
        environment=scope.environment,
        target=scope.deployment.target,
        caller=scope.caller,
        idempotency_key=claim.key,
    )


def is_illegible(answer: Message) -> bool:
    """Something was said, and none of it in this contract: it would read like "not accepted", and was never that."""
    return not answer.ListFields() and len(UnknownFieldSet(answer)) > 0


def sent_digest(request: tern_v1.ApplyRequest) -> str:
    """What the very message amounts to that is about to go out (review.py)."""
    return operation_digest(
        environment=request.environment,
        database=request.database,
        database_type=request.type,
        target=request.target,
        options=dict(request.options),
        changes=changes_digest(
            (change.namespace, change.table_name, change.ddl, _ACTIONS[change.change_type].value)
            for change in request.ddl_changes
        ),
    )


def read_apply(about: About, answer: tern_v1.ApplyResponse) -> Outcome[RemoteId]:
    """The id that the engine gave to the work."""
    if not answer.accepted and answer.HasField("conflict"):
        return Refused(_busy_words(answer), TARGET_BUSY, "OK")
    if not answer.accepted:
        return about.refused("NOT_ACCEPTED", answer.error_message or "the engine gives no reason", "OK")
    if not answer.apply_id.strip():
        return about.refused("EMPTY_REMOTE_ID", "the engine accepted it, but gave it no id", "OK")
    if not usable_remote_id(answer.apply_id):
        # The work may well have begun, so this is no refusal; and such an id can't be stored.
        return about.unknown("REMOTE_ID_MALFORMED", "the engine gave it an id that can't be stored", "OK")
    if about.is_public_id(answer.apply_id):
        # Once stored it would stay for ever, and no call may carry it: nobody could stop the work (G2, G5).
        return about.unknown("REMOTE_ID_IS_PUBLIC_ID", "the engine gave it the apply's public id", "OK")
    return Ok(RemoteId(answer.apply_id))


def read_resolve(about: About, answer: engine_v1.ResolveResponse, *, forbid: bool) -> Outcome[Resolution]:
    """What became of a key; an answer that answers nothing, or two things at once, is none."""
    if answer.apply_id and answer.forbidden:
        return about.unknown(
            "RESOLVE_CONTRADICTORY", "the key is said to be dead and to have started work", "OK"
        )
    if answer.apply_id:
        if not usable_remote_id(answer.apply_id):
            return about.unknown("REMOTE_ID_MALFORMED", "the engine names an id that can't be stored", "OK")
        if about.is_public_id(answer.apply_id):
            return about.unknown("REMOTE_ID_IS_PUBLIC_ID", "the engine names the apply's public id", "OK")
        return Ok(Started(RemoteId(answer.apply_id)))
    if answer.forbidden:
        return Ok(Forbidden())
    # An engine that neither found the key nor forbade it as it was asked to can't settle it, now or later.
    return Ok(Unsupported()) if forbid else Ok(NeverStarted())


def read_acceptance(about: About, answer: AcceptanceT) -> Outcome[None]:
    """Whether a control was taken."""
    if answer.accepted:
        return Ok(None)
    return about.refused("NOT_ACCEPTED", answer.error_message or "the engine gives no reason", "OK")


def read_volume(about: About, answer: tern_v1.VolumeResponse, asked: int) -> Outcome[int]:
    """The volume that holds now. An engine that took the wish and names none, or one that there isn't, took ours."""
    match read_acceptance(about, answer):
        case Ok():
            return Ok(answer.new_volume if answer.new_volume in VOLUMES else asked)
        case Refused() | Unknown() as failed:
            return failed


def read_progress(
    about: About, call: RemoteCall, answer: tern_v1.ProgressResponse, identity: str = ""
) -> Outcome[Sample]:
    """One look at the job that was asked about, or nothing: a stranger's progress is nobody's."""
    if answer.apply_id != call.remote_id:
        said = tidy(answer.apply_id, 80) or "no job at all"
        return about.unknown("STRANGER", f"the answer is about {said}", "OK")
    if _is_of_another(call, answer.apply_operation_id):
        return about.unknown("STRANGER", f"the answer is for {tidy(answer.apply_operation_id, 80)}", "OK")
    return Ok(sample(call.remote_id, answer, identity=identity))


def read_entry(
    about: About, cursor: Cursor, entry: engine_v1.ProgressEntry, identity: str = ""
) -> Outcome[Sample]:
    """One entry of a batch that was matched to its cursor by id; the identity is the whole answer's."""
    remote_id = cursor.call.remote_id
    match entry.WhichOneof("result"):
        case "progress":
            if entry.progress.apply_id not in {"", remote_id}:
                said = tidy(entry.progress.apply_id, 80)
                return about.unknown("STRANGER", f"the answer is about {said}", "OK")
            if _is_of_another(cursor.call, entry.progress.apply_operation_id):
                said = tidy(entry.progress.apply_operation_id, 80)
                return about.unknown("STRANGER", f"the answer is for {said}", "OK")
            return Ok(sample(remote_id, entry.progress, entry.revision, identity))
        case "error":
            reason = known_reason(entry.error.reason)
            coded = about.coded(code_name(entry.error.code), reason, entry.error.message)
            return replace(coded, identity=identity)
        case _:
            return about.unknown("EMPTY_ENTRY", "the engine mentions it without a word", "OK")


def batch_request(environment: str, cursors: Sequence[Cursor]) -> engine_v1.BatchProgressRequest:
    """The question about many jobs at once."""
    return engine_v1.BatchProgressRequest(
        environment=environment,
        cursors=[
            engine_v1.ProgressCursor(
                apply_id=cursor.call.remote_id,
                revision=max(0, min(cursor.revision, _REVISION_MAX)),
                operation=str(cursor.call.name),
            )
            for cursor in cursors
        ],
    )


def preview_request(deployment: Deployment, changes: Sequence[PlannedChange]) -> engine_v1.PreviewRequest:
    """The question what changes would do."""
    return engine_v1.PreviewRequest(
        database=deployment.database,
        environment=deployment.environment,
        target=deployment.target,
        changes=[
            engine_v1.PreviewChange(namespace=change.namespace, table=change.table_name, ddl=change.ddl)
            for change in changes
        ],
    )


def read_preview(change: engine_v1.ChangePreview) -> ChangePreview:
    """What one change would do. A warning without its reason stays a warning."""
    return ChangePreview(
        namespace=tidy(change.namespace),
        table_name=tidy(change.table),
        change_class=_class_word(int(change.change_class)),
        recipe=tidy(change.recipe),
        locks=tuple(tidy(f"{lock.mode} on {lock.relation}") for lock in change.locks),
        unsafe_reason=_reason(change.unsafe_reason, given=change.is_unsafe),
        refused_reason=_reason(change.refused_reason, given=change.refused),
        estimated_rows=max(0, change.estimated_rows),
        estimated_s=_seconds(change.estimated_seconds),
        after_cutover_s=_seconds(change.seconds_after_cutover),
    )


def _seconds(said: float) -> float:
    return max(0.0, said) if isfinite(said) else 0.0


def read_logs(answer: tern_v1.LogsResponse, limit: int) -> tuple[LogLine, ...]:
    """The newest lines, oldest first, whatever order they came in."""
    lines = sorted(answer.logs, key=lambda line: line.id)[-limit:]
    return tuple(
        LogLine(tidy(line.created_at), tidy(line.level), tidy(line.event_type), tidy(line.message))
        for line in lines
    )


_CODE_NAMES: Final = {int(code.value[0]): code.name for code in grpc.StatusCode}


def code_name(number: int) -> str:
    """The name of a google.rpc.Code; a number that it does not have means nothing and so refuses nothing."""
    return _CODE_NAMES.get(number, f"CODE_{number}")


def _is_of_another(call: RemoteCall, operation: str) -> bool:
    """The answer names an operation of a Tern's, and it is not the one that was asked about (G2). What other engines
    call their operations is theirs, and was never compared with anything here.
    """
    return is_scope(operation) and operation != str(call.name)


def _busy_words(answer: tern_v1.ApplyResponse) -> str:
    """Who holds the target: the engine's own words, and the holder where they leave it out."""
    said, holder = tidy(answer.error_message), tidy(answer.conflict.holder_external_id, 200)
    if holder and holder not in said:
        what = f"table {tidy(answer.conflict.table, 200)}" if answer.conflict.table else "it"
        said = "; ".join(each for each in (f"{what} is held by {holder}", said) if each)
    return f"its target is taken, says its engine: {said or 'other work is under way there'}"


def _reason(words: str, *, given: bool) -> str:
    if not given:
        return ""
    return tidy(words) or "the engine gives no reason"


def _class_word(number: int) -> str:
    if number not in engine_v1.ChangeClass.values():
        return f"class {number}"
    name = engine_v1.ChangeClass.Name(engine_v1.ChangeClass.ValueType(number))
    return name.removeprefix("CHANGE_CLASS_").lower()


def accepted(about: About, found: Outcome[AcceptanceT]) -> Outcome[None]:
    """What came of a control."""
    match found:
        case Ok(answer):
            return read_acceptance(about, answer)
        case Refused() | Unknown() as failed:
            return about.explained(failed)


def resolved(
    about: About, found: Outcome[Answer[engine_v1.ResolveResponse]], *, forbid: bool, works_at: str
) -> Outcome[Resolution]:
    """What came of the question about a key. works_at: the database that its engine was found at; one that names
    another has never seen the key, whatever it says of it.
    """
    said = found.value.identity if isinstance(found, Ok) else found.identity
    if said and works_at and said != works_at:
        words = f"the engine there works at another database: it names {said}, not {works_at}"
        return replace(about.refused(ANOTHER_DATABASE, words, "FAILED_PRECONDITION"), identity=said)
    match found:
        case Ok(answer):
            return read_resolve(about, answer.message, forbid=forbid)
        case Refused(code="UNIMPLEMENTED"):
            return Ok(Unsupported())
        case Refused() | Unknown() as failed:
            return failed
