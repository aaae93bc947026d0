"""The door over gRPC: a ControlService somewhere, asked with a token. Errors come back as the server raised them."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar, cast

import grpc

from tern.domain.errors import Misconfigured, TernError
from tern.domain.identity import ApplyId, PlanId
from tern.domain.model import Credentials
from tern.domain.statement import StatementAnswer
from tern.domain.states import ApplyState
from tern.domain.subject import Subject
from tern.doors.answers import Apply, Event, Explanation, KeyFate, Operation, Receipt, Summary
from tern.doors.record import Verified
from tern.doors.request import EnqueueRequest
from tern.doors.rest import RestShown
from tern.ports import Answered, Asked, Enqueued, NewRest
from tern.wire.channels import Channels
from tern.wire.control import asking, reading, resting
from tern.wire.control.status import error_of
from tern.wire.control.words import APPLY_STATES
from tern.wire.credentials import Endpoint, check_plaintext, parse_address, read_secrets
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tern.wire.generated.tern.control.v1 import control_service_pb2_grpc as control_v1_grpc
from tern.wire.transport import CallFailed, NotSent

DEADLINE_S = 15.0
ENQUEUE_DEADLINE_S = 120.0
"""Engines are asked what the change would do before a rollout is accepted."""
PAGE = 500

Answer = TypeVar("Answer")


class RemoteDesk:
    """Everything that Tern can be asked, elsewhere. Shared by all threads of a process.

    Raises Misconfigured for an address or a reference that can't be used; nothing was sent then.
    """

    def __init__(self, address: str, credentials: Credentials, *, deadline_s: float = DEADLINE_S) -> None:
        self._credentials = credentials
        self._deadline_s = deadline_s
        self._channels = Channels()
        self._endpoint: Endpoint = _sendable(lambda: parse_address(address))
        _sendable(lambda: check_plaintext(self._endpoint, credentials))

    def enqueue(self, request: EnqueueRequest) -> Enqueued:
        """See Door."""
        answer = self._call(
            lambda stub: stub.Enqueue, asking.enqueue_message(request), deadline_s=ENQUEUE_DEADLINE_S
        )
        return _enqueued(answer, request.key, request.reason)

    def rest(self, new: NewRest) -> RestShown:
        """See Door."""
        asked = resting.carry_on_message(replace(new, digest=""))
        return resting.read_shown(self._call(lambda stub: stub.CarryOn, asked))

    def carry_on(self, new: NewRest) -> Enqueued:
        """See Door."""
        asked = resting.carry_on_message(new)
        answer = self._call(lambda stub: stub.CarryOn, asked, deadline_s=ENQUEUE_DEADLINE_S)
        return _enqueued(answer.accepted, new.idempotency_key, new.reason)

    def enqueued(self, key: str) -> KeyFate:
        """See Door."""
        request = control_v1.GetEnqueuedRequest(idempotency_key=key)
        return reading.key_fate(self._call(lambda stub: stub.GetEnqueued, request))

    def ask(self, asked: Asked) -> Receipt:
        """See Door."""
        answer = self._call(lambda stub: stub.Control, asking.control_message(asked))
        return reading.receipt(answer.outcomes, answer.request_id if answer.HasField("request_id") else None)

    def resolve(self, answered: Answered) -> Receipt:
        """See Door."""
        answer = self._call(lambda stub: stub.Resolve, asking.resolve_message(answered))
        return reading.receipt(answer.outcomes)

    def settle_statements(self, answer: StatementAnswer) -> Receipt:
        """See Door."""
        found = self._call(lambda stub: stub.Resolve, asking.statement_message(answer))
        return reading.receipt(found.outcomes)

    def get(self, apply_id: ApplyId) -> Apply:
        """See Door."""
        operations: list[Operation] = []
        request = control_v1.GetApplyRequest(subject=apply_id, page_size=PAGE)
        while True:
            answer = self._call(lambda stub: stub.GetApply, request)
            operations += [reading.operation(each) for each in answer.operations]
            if not answer.next_page_token:
                return reading.apply(answer.apply, operations)
            request.page_token = answer.next_page_token

    def applies(
        self,
        *,
        environment: str = "",
        states: Sequence[ApplyState] = (),
        limit: int = 50,
        before: ApplyId | None = None,
    ) -> tuple[Summary, ...]:
        """See Door."""
        request = control_v1.ListAppliesRequest(
            environment=environment,
            states=[APPLY_STATES.number(state) for state in states],
            page_size=min(limit, PAGE),
            page_token=before or "",
        )
        found: list[Summary] = []
        while True:
            answer = self._call(lambda stub: stub.ListApplies, request)
            found += [reading.summary(each) for each in answer.applies]
            if not answer.next_page_token or len(found) >= limit:
                return tuple(found[:limit])
            request.page_token = answer.next_page_token

    def watch(
        self,
        apply_id: ApplyId,
        *,
        revision: int = 0,
        until_person: bool = False,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Apply, None, None]:
        """See Door."""
        request = control_v1.WatchApplyRequest(
            apply_id=apply_id, revision=revision, until_person=until_person
        )
        stub, metadata = self._stub()
        call = stub.WatchApply(request, metadata=metadata)
        known: dict[str, Operation] = {}
        try:
            for message in call:
                known.update((each.deployment, reading.operation(each)) for each in message.operations)
                if not message.has_more:
                    ordered = sorted(known.values(), key=lambda each: each.position)
                    yield reading.apply(message.apply, ordered)
                if not is_wanted():
                    return
        except grpc.RpcError as failed:
            raise _error(failed) from None
        finally:
            call.cancel()

    def explain(self, subject: Subject) -> Explanation:
        """See Door."""
        request = control_v1.ExplainApplyRequest(subject=asking.subject_text(subject))
        answer = self._call(lambda stub: stub.ExplainApply, request)
        return Explanation(
            reading.apply(answer.apply), tuple(reading.reason(each) for each in answer.reasons)
        )

    def events(self, subject: Subject, *, limit: int = 100, after: int = 0) -> tuple[Event, ...]:
        """See Door."""
        request = control_v1.ListEventsRequest(
            subject=asking.subject_text(subject),
            page_size=min(limit, PAGE),
            page_token=str(after) if after else "",
        )
        found: list[Event] = []
        while True:
            answer = self._call(lambda stub: stub.ListEvents, request)
            found += [reading.event(each) for each in answer.events]
            if not answer.next_page_token or len(found) >= limit:
                return tuple(found[:limit])
            request.page_token = answer.next_page_token

    def verify(
        self,
        apply_id: ApplyId | None,
        *,
        since: datetime | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Generator[Verified, None, None]:
        """See Door."""
        stub, metadata = self._stub()
        # Without a deadline, as a watch: how long it takes is for the record to say.
        call = stub.VerifyRecords(asking.verify_message(apply_id, since), metadata=metadata)
        found: Verified | None = None
        try:
            for message in call:
                found = reading.verified(message.record, found)
                if not message.has_more:
                    yield found
                    found = None
                if not is_wanted():
                    return
        except grpc.RpcError as failed:
            raise _error(failed) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """See Door."""
        self._channels.close()

    def _call(
        self,
        method: Callable[[control_v1_grpc.ControlServiceStub], Callable[..., Answer]],
        request: Any,
        *,
        deadline_s: float | None = None,
    ) -> Answer:
        stub, metadata = self._stub()
        try:
            return method(stub)(request, timeout=deadline_s or self._deadline_s, metadata=metadata)
        except grpc.RpcError as failed:
            raise _error(failed) from None

    def _stub(self) -> tuple[control_v1_grpc.ControlServiceStub, tuple[tuple[str, str], ...]]:
        """Secrets are read at use: a token or a certificate that is renewed counts from the next call on."""
        secrets = _sendable(lambda: read_secrets(self._credentials))
        link = _sendable(lambda: self._channels.link(self._endpoint, secrets))
        metadata = (("authorization", f"Bearer {secrets.token}"),) if secrets.token else ()
        return control_v1_grpc.ControlServiceStub(link.channel), metadata


def _error(failed: grpc.RpcError) -> TernError:
    # What gRPC raises from a call is both.
    return error_of(cast("grpc.Call", failed))


def _sendable(make: Callable[[], Answer]) -> Answer:
    try:
        return make()
    except NotSent as why:
        what = "Tern's ControlService can't be asked"
        raise Misconfigured(what, why=(why.message,), reason=why.reason) from None
    except CallFailed as closed:
        what = "this client is closed"
        raise Misconfigured(what, reason=closed.reason) from None


def _enqueued(answer: control_v1.EnqueueResponse, key: str, reason: str) -> Enqueued:
    return Enqueued(
        apply_id=ApplyId(answer.apply_id),
        is_new=answer.is_new,
        plan_id=PlanId(answer.plan_id),
        environment=answer.environment,
        database=answer.database,
        deployments=tuple(answer.deployments),
        policy=reading.policy(answer.policy),
        idempotency_key=key,
        caller=answer.caller,
        reason=reason,
        warnings=tuple(answer.warnings),
    )
