"""Messages as answers: what a client of ours makes of a ControlService's words."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from tern.domain.chain import Finding
from tern.domain.control import ReceiptLine
from tern.domain.identity import ApplyId
from tern.domain.policy import Policy, Wave
from tern.domain.states import State
from tern.doors.answers import (
    Apply,
    Blocker,
    Cause,
    Event,
    Hold,
    KeyFate,
    Operation,
    Outstanding,
    Reason,
    Receipt,
    Refusal,
    Summary,
    TableChange,
    Way,
    Wish,
)
from tern.doors.record import Verified
from tern.wire.control.words import (
    ACTIONS,
    APPLY_STATES,
    CLEARED_BY,
    COPIES,
    CUTOVERS,
    FATES,
    FAULTS,
    ON_FAILURE,
    OPERATION_STATES,
    OUTCOMES,
)
from tern.wire.generated.tern.control.v1 import apply_pb2, control_service_pb2, policy_pb2, record_pb2


def apply(said: apply_pb2.Apply, operations: Iterable[Operation] = ()) -> Apply:
    """One rollout with the operations that came beside it."""
    return Apply(
        apply_id=said.apply_id,
        plan_id=said.plan_id,
        state=APPLY_STATES.word(said.state),
        headline=said.headline,
        environment=said.environment,
        database=said.database,
        caller=said.caller,
        reason=said.reason,
        policy=policy(said.policy),
        created_at=moment(said.created_at),
        observed_at=moment(said.observed_at),
        operation_count=said.operation_count,
        counts=_counts(said.counts),
        percent=said.percent,
        error=said.error_message,
        exit_code=_whole(said, "exit_code"),
        blockers=tuple(
            Blocker(each.deployment, each.what, each.command, each.consequence) for each in said.blockers
        ),
        revision=said.revision,
        operations=tuple(operations),
        needs_you=tuple(_cause(each) for each in said.needs_you),
    )


def operation(said: apply_pb2.Operation) -> Operation:
    """One operation with everything below it."""
    return Operation(
        scope=said.scope,
        deployment=said.deployment,
        position=said.position,
        wave=said.wave,
        target=said.target,
        state=OPERATION_STATES.word(said.state),
        remote_id=said.remote_id or None,
        attempt=said.attempt,
        percent=said.percent,
        rows_copied=_whole(said, "rows_copied"),
        rows_total=_whole(said, "rows_total"),
        eta_s=_whole(said, "eta_seconds"),
        volume=_whole(said, "volume"),
        lost_contact=said.lost_contact,
        summary=said.summary,
        error=said.error_message,
        error_reason=said.error_reason,
        holds=tuple(_hold(each) for each in said.holds),
        wishes=tuple(_wish(each) for each in said.wishes),
        tables=tuple(_table(each) for each in said.table_changes),
        state_age_s=said.state_age_seconds,
        worked_s=_number(said, "worked_seconds"),
        sampled_age_s=_number(said, "sampled_age_seconds"),
        carries_on=said.carries_on,
        carried_on_by=said.carried_on_by,
        follow_ups=tuple(said.follow_ups),
        carried_on_state=OPERATION_STATES.word(said.carried_on_state) if said.carried_on_state else None,
        outstanding=tuple(_outstanding(each) for each in said.outstanding),
    )


def _cause(said: apply_pb2.Cause) -> Cause:
    return Cause(
        said.cause, said.kind, said.what, said.operation_count, tuple(said.deployments), _ways(said.ways)
    )


def _ways(said: Iterable[apply_pb2.Way]) -> tuple[Way, ...]:
    return tuple(Way(each.command, each.consequence) for each in said)


def _outstanding(said: apply_pb2.Outstanding) -> Outstanding:
    return Outstanding(
        said.outstanding_id,
        said.remote_id or None,
        said.address,
        said.what,
        said.last_seen,
        said.cancel_asked,
        said.is_own,
        said.in_doubt,
        _ways(said.ways),
        _number(said, "last_seen_age_seconds"),
    )


def summary(said: apply_pb2.ApplySummary) -> Summary:
    """One line of a list."""
    return Summary(
        apply_id=said.apply_id,
        environment=said.environment,
        database=said.database,
        state=APPLY_STATES.word(said.state),
        operation_count=said.operation_count,
        counts=_counts(said.counts),
        caller=said.caller,
        reason=said.reason,
        created_at=moment(said.created_at),
        carries_on=said.carries_on,
        follow_ups=tuple(said.follow_ups),
    )


def event(said: apply_pb2.Event) -> Event:
    """One line of a record."""
    return Event(
        event_id=said.event_id,
        at=moment(said.at),
        deployment=said.deployment,
        event=said.event,
        who=said.who,
        why=said.why,
        before=said.before,
        after=said.after,
    )


def reason(said: control_service_pb2.Reason) -> Reason:
    """One hold with all whom it holds."""
    return Reason(_hold(said.hold), said.operation_count, tuple(said.deployments))


def key_fate(said: control_service_pb2.GetEnqueuedResponse) -> KeyFate:
    """What became of a key."""
    return KeyFate(
        said.apply_id or None,
        tuple(
            Refusal(moment(each.at), each.caller, each.reason, each.what, tuple(each.why), each.next_step)
            for each in said.refusals
        ),
    )


def receipt(said: Iterable[control_service_pb2.OperationOutcome], request_id: int | None = None) -> Receipt:
    """One outcome per operation."""
    return Receipt(
        request_id,
        tuple(ReceiptLine(each.deployment, OUTCOMES.word(each.outcome), each.reason) for each in said),
    )


def verified(said: record_pb2.VerifiedRecord, before: Verified | None = None) -> Verified:
    """One record; after what came of it before."""
    findings = tuple(
        (
            each.chain,
            Finding(FAULTS.word(each.fault), each.detail, _whole(each, "event_id"), _whole(each, "number")),
        )
        for each in said.findings
    )
    return Verified(
        apply_id=ApplyId(said.apply_id),
        chains=said.chains,
        events=said.events,
        requests=said.requests,
        findings=(*(before.findings if before else ()), *findings),
        seal=said.seal,
    )


def policy(said: policy_pb2.Policy) -> Policy:
    """A whole policy."""
    return Policy(
        copy=COPIES.word(said.copy),
        on_failure=ON_FAILURE.word(said.on_failure),
        cutover=CUTOVERS.word(said.cutover),
        max_parallel=_whole(said, "max_parallel"),
        max_failures=said.max_failures,
        strict=said.strict,
        enable_revert=said.enable_revert,
        waves=tuple(
            Wave(
                labels=dict(wave.labels),
                deployments=tuple(wave.deployments),
                max_parallel=_whole(wave, "max_parallel"),
                max_failures=_whole(wave, "max_failures"),
                bake_s=wave.bake_seconds,
            )
            for wave in said.waves
        ),
    )


def moment(said: Timestamp) -> datetime:
    """A moment with its zone."""
    return said.ToDatetime(tzinfo=UTC)


def _counts(said: Iterable[apply_pb2.StateCount]) -> Mapping[State, int]:
    return {OPERATION_STATES.word(each.state): each.count for each in said}


def _hold(said: apply_pb2.Hold) -> Hold:
    return Hold(said.kind, said.detail, CLEARED_BY.word(said.cleared_by), _number(said, "until_seconds"))


def _wish(said: apply_pb2.Wish) -> Wish:
    return Wish(
        request_id=said.request_id,
        verb=said.verb,
        fate=FATES.word(said.fate),
        caller=said.caller,
        reason=said.reason,
        attempts=said.attempts,
        engine_words=said.engine_words,
        age_s=said.age_seconds,
    )


def _table(said: apply_pb2.TableChange) -> TableChange:
    return TableChange(
        namespace=said.namespace,
        table=said.table,
        ddl=said.ddl,
        action=ACTIONS.word(said.action),
        unsafe_reason=said.unsafe_reason,
        state=said.state,
        percent=said.percent,
        rows_copied=_whole(said, "rows_copied"),
        rows_total=_whole(said, "rows_total"),
        eta_s=_whole(said, "eta_seconds"),
        detail=said.detail,
        error=said.error_message,
        settled_by=said.settled_by,
        number=said.number,
    )


def _whole(said: Message, field: str) -> int | None:
    return int(getattr(said, field)) if said.HasField(field) else None


def _number(said: Message, field: str) -> float | None:
    return float(getattr(said, field)) if said.HasField(field) else None
