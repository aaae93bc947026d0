"""Requests between messages and what the door takes. What a caller sends is judged where every request is
(tern/doors/request.py); here it only changes its shape.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tern.domain.effect import Effect
from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId
from tern.domain.selection import Selection
from tern.domain.statement import StatementAnswer
from tern.domain.subject import Subject
from tern.doors.request import EnqueueRequest, read_answered, read_asked
from tern.doors.request import read_statement_answer as read_said
from tern.ports import Answered, Asked
from tern.wire.control import writing
from tern.wire.control.words import (
    ACTIONS,
    COPIES,
    CUTOVERS,
    FINDINGS,
    ON_FAILURE,
    OPERATION_STATES,
    VERBS,
)
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tern.wire.generated.tern.control.v1 import policy_pb2

_EFFECTS: Mapping[control_v1.Effect.ValueType, Effect] = {
    control_v1.EFFECT_DONE: Effect.DONE,
    control_v1.EFFECT_NOT_DONE: Effect.NOT_DONE,
}


def read_enqueue(said: control_v1.EnqueueRequest, caller: str) -> EnqueueRequest:
    """A rollout in the caller's name; raises UsageError."""
    return EnqueueRequest.read(
        {
            "plan": said.plan_id,
            "ddl": said.ddl,
            "changes": [_entry(each) for each in said.changes.entries],
            "database_type": said.changes.database_type or None,
            "environment": said.environment,
            "database": said.database,
            "deployments": tuple(said.targets.deployments),
            "labels": dict(said.targets.labels),
            "everywhere": said.targets.all,
            "excepted": tuple(said.targets.excepted),
            "first": tuple(said.targets.first),
            "policy": read_policy(said.policy) if said.HasField("policy") else None,
            "caller": caller,
            "reason": said.reason,
            "key": said.idempotency_key,
            "allow_unsafe": said.allow_unsafe,
            "previews": not said.skip_preview,
            "accept_drift": said.accept_drift,
            "digest": said.digest,
        }
    )


def read_control(said: control_v1.ControlRequest, caller: str) -> Asked:
    """A wish in the caller's name; raises UsageError, ScopeRefused."""
    return read_asked(
        {
            **_operations(said, caller),
            "verb": VERBS.said(said.verb),
            "volume": said.volume if said.HasField("volume") else None,
            "although_cancel_refused": said.although_cancel_refused,
            "although_foreign": said.although_foreign,
            "outstanding": said.outstanding,
        }
    )


def read_resolve(said: control_v1.ResolveRequest, caller: str) -> Answered:
    """An answer in the caller's name; raises UsageError, ScopeRefused."""
    found = FINDINGS.said(said.finding)
    ids = {"remote_id": said.remote_id, "taken_from": said.taken_from}
    gone = {"engine_is_gone": said.engine_is_gone}
    return read_answered({**_operations(said, caller), "found": found, **ids, **gone})


def read_statement_answer(said: control_v1.ResolveRequest, caller: str) -> StatementAnswer:
    """A word about single statements in the caller's name; raises UsageError, ScopeRefused."""
    known = {"finding": said.finding, "remote_id": said.remote_id, "taken_from": said.taken_from}
    if beside := [name for name, value in known.items() if value]:
        what = f"statements are spoken of alone, without {', '.join(beside)}"
        raise UsageError(what)
    if said.HasField("selection") or said.HasField("expect"):
        what = "statements are those of one operation, which the subject names"
        raise UsageError(what)
    return read_said(
        {
            "subject": said.subject,
            "statements": tuple(
                f"{each.number}={(_EFFECTS.get(each.effect) or Effect.UNKNOWN).value}"
                for each in said.statements
            ),
            "caller": caller,
            "reason": said.reason,
            "dry_run": said.dry_run,
        }
    )


def statement_message(answer: StatementAnswer) -> control_v1.ResolveRequest:
    """A word about single statements as it travels; the caller is whom the token names."""
    numbers = {effect: number for number, effect in _EFFECTS.items()}
    return control_v1.ResolveRequest(
        subject=str(answer.name),
        reason=answer.reason,
        dry_run=answer.dry_run,
        statements=[
            control_v1.StatementFinding(number=number, effect=numbers[effect])
            for number, effect in answer.effects.items()
        ],
    )


def _operations(
    said: control_v1.ControlRequest | control_v1.ResolveRequest, caller: str
) -> Mapping[str, object]:
    return {
        "subject": said.subject,
        **selectors(said.selection),
        "caller": caller,
        "reason": said.reason,
        "dry_run": said.dry_run,
        "expected": said.expect if said.HasField("expect") else None,
    }


def selectors(selection: control_v1.Selection) -> Mapping[str, object]:
    """Which operations are meant, as every request says it."""
    return {
        "deployments": tuple(selection.deployments),
        "labels": dict(selection.labels),
        "states": tuple(OPERATION_STATES.said(state) or "nothing" for state in selection.states),
        "wave": selection.wave if selection.HasField("wave") else None,
        "everywhere": selection.all,
        "excepted": tuple(selection.excepted),
    }


def enqueue_message(request: EnqueueRequest) -> control_v1.EnqueueRequest:
    """A rollout as it travels; the caller is whom the token names."""
    message = control_v1.EnqueueRequest(
        idempotency_key=request.key,
        reason=request.reason,
        environment=request.environment,
        database=request.database,
        targets=control_v1.Targets(
            deployments=request.deployments,
            labels=dict(request.labels),
            all=request.everywhere,
            excepted=request.excepted,
            first=request.first,
        ),
        policy=None if request.policy is None else writing.policy(request.policy),
        allow_unsafe=request.allow_unsafe,
        skip_preview=not request.previews,
        accept_drift=request.accept_drift,
        digest=request.digest,
    )
    if request.plan:
        message.plan_id = request.plan
    elif request.ddl:
        message.ddl = request.ddl
    else:
        message.changes.CopyFrom(
            control_v1.Changes(
                database_type=request.database_type,
                entries=[
                    control_v1.NewTableChange(
                        namespace=each.namespace,
                        table=each.table_name,
                        ddl=each.ddl,
                        action=ACTIONS.number(each.action),
                        unsafe_reason=each.unsafe_reason,
                    )
                    for each in request.spelled_out()
                ],
            )
        )
    return message


def control_message(asked: Asked) -> control_v1.ControlRequest:
    """A wish as it travels; the caller is whom the token names."""
    return control_v1.ControlRequest(
        verb=VERBS.number(asked.verb),
        subject=asked.apply_id,
        selection=selection_message(asked.selection),
        reason=asked.reason,
        dry_run=asked.dry_run,
        expect=asked.expected,
        volume=asked.volume,
        although_cancel_refused=asked.although_cancel_refused,
        although_foreign=asked.although_foreign,
        outstanding=asked.outstanding,
    )


def resolve_message(answered: Answered) -> control_v1.ResolveRequest:
    """An answer as it travels; the caller is whom the token names."""
    return control_v1.ResolveRequest(
        subject=answered.apply_id,
        selection=selection_message(answered.selection),
        finding=FINDINGS.number(answered.found),
        remote_id=answered.remote_id or "",
        taken_from="" if answered.taken_from is None else str(answered.taken_from),
        reason=answered.reason,
        dry_run=answered.dry_run,
        expect=answered.expected,
        engine_is_gone=answered.engine_is_gone,
    )


def selection_message(selection: Selection) -> control_v1.Selection:
    """Which operations, as it travels."""
    return control_v1.Selection(
        deployments=selection.deployments,
        labels=dict(selection.labels),
        states=[OPERATION_STATES.number(state) for state in sorted(selection.states)],
        wave=selection.wave,
        all=selection.everywhere,
        excepted=sorted(selection.excepted),
    )


def read_moment(said: Timestamp) -> datetime:
    """A moment; raises UsageError for one beyond all calendars."""
    try:
        return said.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        what = "that is no moment"
        raise UsageError(what) from None


def verify_message(apply_id: ApplyId | None, since: datetime | None) -> control_v1.VerifyRecordsRequest:
    """A verification as it travels."""
    return control_v1.VerifyRecordsRequest(
        apply_id=apply_id or "", since=None if since is None else writing.moment(since)
    )


def subject_text(subject: Subject) -> str:
    """`apl-…`, or `apl-…/DEPLOYMENT`."""
    return str(subject.scope or subject.apply_id)


def _entry(said: control_v1.NewTableChange) -> Mapping[str, object]:
    return {
        "namespace": said.namespace,
        "table": said.table,
        "ddl": said.ddl,
        "action": ACTIONS.said(said.action),
        "unsafe_reason": said.unsafe_reason,
    }


def read_policy(said: policy_pb2.Policy) -> Mapping[str, object]:
    """What was said of it; the rest has the defaults of every door."""
    policy: dict[str, object] = {
        "copy": COPIES.said(said.copy),
        "on_failure": ON_FAILURE.said(said.on_failure),
        "cutover": CUTOVERS.said(said.cutover),
        "max_parallel": said.max_parallel if said.HasField("max_parallel") else None,
        "max_failures": said.max_failures if said.HasField("max_failures") else None,
        "strict": said.strict,
        "enable_revert": said.enable_revert,
        "waves": [
            {
                "labels": dict(wave.labels),
                "deployments": list(wave.deployments),
                "max_parallel": wave.max_parallel if wave.HasField("max_parallel") else None,
                "max_failures": wave.max_failures if wave.HasField("max_failures") else None,
                "bake_s": wave.bake_seconds,
            }
            for wave in said.waves
        ],
    }
    return {name: value for name, value in policy.items() if value is not None}
