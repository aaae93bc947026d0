"""Answers as messages."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tern.domain.chain import Finding
from tern.domain.policy import Policy
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
    Summary,
    TableChange,
    Way,
    Wish,
)
from tern.doors.record import Verified
from tern.ports import Enqueued
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


def apply(answer: Apply) -> apply_pb2.Apply:
    """Without its operations, which travel in pages."""
    return apply_pb2.Apply(
        apply_id=answer.apply_id,
        plan_id=answer.plan_id,
        state=APPLY_STATES.number(answer.state),
        headline=answer.headline,
        environment=answer.environment,
        database=answer.database,
        caller=answer.caller,
        reason=answer.reason,
        policy=policy(answer.policy),
        created_at=moment(answer.created_at),
        observed_at=moment(answer.observed_at),
        operation_count=answer.operation_count,
        counts=_counts(answer.counts),
        percent=answer.percent,
        error_message=answer.error,
        is_settled=answer.is_settled,
        exit_code=answer.exit_code,
        blockers=[_blocker(each) for each in answer.blockers],
        revision=answer.revision,
        needs_you=[_cause(each) for each in answer.needs_you],
    )


def operation(answer: Operation) -> apply_pb2.Operation:
    """One operation with everything below it."""
    return apply_pb2.Operation(
        scope=answer.scope,
        deployment=answer.deployment,
        position=answer.position,
        target=answer.target,
        state=OPERATION_STATES.number(answer.state),
        state_age_seconds=answer.state_age_s,
        remote_id=answer.remote_id or "",
        attempt=answer.attempt,
        percent=answer.percent,
        rows_copied=answer.rows_copied,
        rows_total=answer.rows_total,
        eta_seconds=answer.eta_s,
        worked_seconds=answer.worked_s,
        sampled_age_seconds=answer.sampled_age_s,
        lost_contact=answer.lost_contact,
        summary=answer.summary,
        error_message=answer.error,
        error_reason=answer.error_reason,
        holds=[_hold(each) for each in answer.holds],
        wishes=[_wish(each) for each in answer.wishes],
        table_changes=[_table(each) for each in answer.tables],
        wave=answer.wave,
        volume=answer.volume,
        carries_on=answer.carries_on,
        carried_on_by=answer.carried_on_by,
        follow_ups=answer.follow_ups,
        carried_on_state=apply_pb2.OPERATION_STATE_UNSPECIFIED
        if answer.carried_on_state is None
        else OPERATION_STATES.number(answer.carried_on_state),
        outstanding=[_outstanding(each) for each in answer.outstanding],
    )


def _cause(answer: Cause) -> apply_pb2.Cause:
    return apply_pb2.Cause(
        cause=answer.cause_id,
        kind=answer.kind,
        what=answer.what,
        operation_count=answer.operation_count,
        deployments=answer.deployments,
        ways=[_way(each) for each in answer.ways],
    )


def _way(answer: Way) -> apply_pb2.Way:
    return apply_pb2.Way(command=answer.command, consequence=answer.consequence)


def _outstanding(answer: Outstanding) -> apply_pb2.Outstanding:
    return apply_pb2.Outstanding(
        outstanding_id=answer.outstanding_id,
        remote_id=answer.remote_id or "",
        address=answer.address,
        what=answer.what,
        last_seen=answer.last_seen,
        last_seen_age_seconds=answer.last_seen_age_s,
        cancel_asked=answer.cancel_asked,
        is_own=answer.is_own,
        in_doubt=answer.in_doubt,
        ways=[_way(each) for each in answer.ways],
    )


def summary(answer: Summary) -> apply_pb2.ApplySummary:
    """One line of a list."""
    return apply_pb2.ApplySummary(
        apply_id=answer.apply_id,
        environment=answer.environment,
        database=answer.database,
        state=APPLY_STATES.number(answer.state),
        operation_count=answer.operation_count,
        counts=_counts(answer.counts),
        caller=answer.caller,
        reason=answer.reason,
        created_at=moment(answer.created_at),
        carries_on=answer.carries_on,
        follow_ups=answer.follow_ups,
    )


def event(answer: Event) -> apply_pb2.Event:
    """One line of a record."""
    return apply_pb2.Event(
        event_id=answer.event_id,
        at=moment(answer.at),
        deployment=answer.deployment,
        event=answer.event,
        who=answer.who,
        why=answer.why,
        before=answer.before,
        after=answer.after,
    )


def reason(answer: Reason) -> control_service_pb2.Reason:
    """One hold with all whom it holds."""
    return control_service_pb2.Reason(
        hold=_hold(answer.hold), operation_count=answer.operation_count, deployments=answer.deployments
    )


def enqueued(answer: Enqueued) -> control_service_pb2.EnqueueResponse:
    """An accepted rollout."""
    return control_service_pb2.EnqueueResponse(
        apply_id=answer.apply_id,
        is_new=answer.is_new,
        plan_id=answer.plan_id,
        environment=answer.environment,
        database=answer.database,
        deployments=answer.deployments,
        caller=answer.caller,
        policy=policy(answer.policy),
        warnings=answer.warnings,
    )


def key_fate(answer: KeyFate) -> control_service_pb2.GetEnqueuedResponse:
    """What became of a key."""
    return control_service_pb2.GetEnqueuedResponse(
        apply_id=answer.apply_id or "",
        refusals=[
            control_service_pb2.Refusal(
                at=moment(each.at),
                caller=each.caller,
                reason=each.reason,
                what=each.what,
                why=each.why,
                next_step=each.next_step,
            )
            for each in answer.refusals
        ],
    )


def receipt(answer: Receipt) -> control_service_pb2.ControlResponse:
    """One outcome per operation, and the request that stands in the record."""
    return control_service_pb2.ControlResponse(request_id=answer.request_id, outcomes=outcomes(answer))


def outcomes(answer: Receipt) -> list[control_service_pb2.OperationOutcome]:
    """One per operation."""
    return [
        control_service_pb2.OperationOutcome(
            deployment=line.deployment, outcome=OUTCOMES.number(line.outcome), reason=line.reason
        )
        for line in answer.lines
    ]


def verified(answer: Verified, findings: Iterable[tuple[str, Finding]]) -> record_pb2.VerifiedRecord:
    """One record, with some of what was found."""
    return record_pb2.VerifiedRecord(
        apply_id=answer.apply_id,
        chains=answer.chains,
        events=answer.events,
        requests=answer.requests,
        seal=answer.seal,
        findings=[
            record_pb2.RecordFinding(
                chain=chain,
                fault=FAULTS.number(each.fault),
                event_id=each.event_id,
                number=each.number,
                detail=each.detail,
            )
            for chain, each in findings
        ],
    )


def policy(answer: Policy) -> policy_pb2.Policy:
    """A whole policy: nothing of it is left to a default."""
    return policy_pb2.Policy(
        copy=COPIES.number(answer.copy),
        on_failure=ON_FAILURE.number(answer.on_failure),
        cutover=CUTOVERS.number(answer.cutover),
        max_parallel=answer.max_parallel,
        max_failures=answer.max_failures,
        strict=answer.strict,
        enable_revert=answer.enable_revert,
        waves=[
            policy_pb2.Wave(
                labels=dict(wave.labels),
                deployments=wave.deployments,
                max_parallel=wave.max_parallel,
                max_failures=wave.max_failures,
                bake_seconds=wave.bake_s,
            )
            for wave in answer.waves
        ],
    )


def moment(at: datetime) -> Timestamp:
    """A moment with its zone."""
    made = Timestamp()
    made.FromDatetime(at.astimezone(UTC))
    return made


def _counts(counts: Mapping[State, int]) -> list[apply_pb2.StateCount]:
    return [
        apply_pb2.StateCount(state=OPERATION_STATES.number(state), count=count)
        for state, count in counts.items()
    ]


def _blocker(answer: Blocker) -> apply_pb2.Blocker:
    return apply_pb2.Blocker(
        deployment=answer.deployment,
        what=answer.what,
        command=answer.command,
        consequence=answer.consequence,
    )


def _hold(answer: Hold) -> apply_pb2.Hold:
    return apply_pb2.Hold(
        kind=answer.kind,
        detail=answer.detail,
        cleared_by=CLEARED_BY.number(answer.cleared_by),
        until_seconds=answer.until_s,
    )


def _wish(answer: Wish) -> apply_pb2.Wish:
    return apply_pb2.Wish(
        request_id=answer.request_id,
        verb=answer.verb,
        fate=FATES.number(answer.fate),
        caller=answer.caller,
        reason=answer.reason,
        attempts=answer.attempts,
        engine_words=answer.engine_words,
        age_seconds=answer.age_s,
    )


def _table(answer: TableChange) -> apply_pb2.TableChange:
    return apply_pb2.TableChange(
        namespace=answer.namespace,
        table=answer.table,
        ddl=answer.ddl,
        action=ACTIONS.number(answer.action),
        unsafe_reason=answer.unsafe_reason,
        state=answer.state,
        percent=answer.percent,
        rows_copied=answer.rows_copied,
        rows_total=answer.rows_total,
        eta_seconds=answer.eta_s,
        detail=answer.detail,
        error_message=answer.error,
        settled_by=answer.settled_by,
        number=answer.number,
    )
