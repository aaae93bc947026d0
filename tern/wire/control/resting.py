"""What is left of an apply, and carrying it on, between messages and plain values; a caller is judged elsewhere."""

from tern.domain.rest import LeftOut
from tern.domain.rest_asked import NewRest
from tern.doors.request import read_rest
from tern.doors.rest import RestGroup, RestOperation, RestShown, RestStatement
from tern.wire.control import asking, reading, writing
from tern.wire.control.words import OPERATION_STATES
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1


def read_carry_on(said: control_v1.CarryOnRequest, caller: str) -> NewRest:
    """A request in the caller's name; raises UsageError, ScopeRefused."""
    return read_rest(
        {
            "subject": said.subject,
            **asking.selectors(said.selection),
            "policy": asking.read_policy(said.policy) if said.HasField("policy") else None,
            "allow_unsafe": said.allow_unsafe,
            "previews": not said.skip_preview,
            "accept_drift": said.accept_drift,
            "digest": said.digest,
            "reason": said.reason,
            "key": said.idempotency_key,
            "caller": caller,
        }
    )


def carry_on_message(new: NewRest) -> control_v1.CarryOnRequest:
    """The same as it travels; the caller is whom the token names."""
    return control_v1.CarryOnRequest(
        subject=new.apply_id,
        selection=asking.selection_message(new.selection),
        policy=None if new.policy is None else writing.policy(new.policy),
        allow_unsafe=new.allow_unsafe,
        skip_preview=not new.previews,
        accept_drift=new.accept_drift,
        digest=new.digest,
        reason=new.reason,
        idempotency_key=new.idempotency_key,
    )


def rest_message(answer: RestShown) -> control_v1.CarryOnResponse:
    """What is left."""
    return control_v1.CarryOnResponse(
        apply_id=answer.apply_id,
        groups=[_group_message(each) for each in answer.groups],
        left_out=[
            control_v1.RestLeftOut(deployment=each.deployment, why=each.why, command=each.command)
            for each in answer.left_out
        ],
    )


def read_shown(said: control_v1.CarryOnResponse) -> RestShown:
    """The same, read."""
    return RestShown(
        said.apply_id,
        tuple(
            RestGroup(
                each.digest,
                tuple(
                    RestStatement(s.number, s.namespace, s.table, s.ddl, s.unsafe_reason)
                    for s in each.statements
                ),
                tuple(
                    RestOperation(
                        o.deployment, o.carries_on, OPERATION_STATES.word(o.state), o.becomes_cancelled
                    )
                    for o in each.deployments
                ),
                reading.policy(each.policy),
                tuple(each.consent),
                each.allow_unsafe,
            )
            for each in said.groups
        ),
        tuple(LeftOut(each.deployment, each.why, each.command) for each in said.left_out),
    )


def _group_message(group: RestGroup) -> control_v1.RestGroup:
    return control_v1.RestGroup(
        digest=group.digest,
        statements=[
            control_v1.RestStatement(
                number=each.number,
                namespace=each.namespace,
                table=each.table,
                ddl=each.ddl,
                unsafe_reason=each.unsafe_reason,
            )
            for each in group.statements
        ],
        deployments=[
            control_v1.RestOperation(
                deployment=each.deployment,
                carries_on=each.carries_on,
                state=OPERATION_STATES.number(each.state),
                becomes_cancelled=each.becomes_cancelled,
            )
            for each in group.deployments
        ],
        policy=writing.policy(group.policy),
        consent=group.consent,
        allow_unsafe=group.allow_unsafe,
    )
