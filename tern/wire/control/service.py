"""tern.control.v1.ControlService: what other services may ask, as the door answers it. Pages, and nothing decided."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

from tern.domain.errors import NotFound, UsageError
from tern.domain.identity import ScopeName
from tern.domain.states import ApplyState
from tern.domain.subject import Subject
from tern.doors.answers import Apply, Operation
from tern.doors.door import Door
from tern.wire.control import asking, resting, writing
from tern.wire.control.adapter import Call, Rpc
from tern.wire.control.paging import Looks, number
from tern.wire.control.tokens import Capability
from tern.wire.control.words import APPLY_STATES
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1

NAME: Final = control_v1.DESCRIPTOR.services_by_name["ControlService"].full_name
LARGEST_PAGE = 500
Part = TypeVar("Part")


class ControlService:
    """The service over one door."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._looks = Looks(door.get)

    def rpcs(self) -> Mapping[str, Rpc]:
        """Every RPC by its name in the contract."""
        read, act = Capability.READ, Capability.ACT
        return {
            "Enqueue": Rpc(act, self.enqueue, control_v1.EnqueueRequest),
            "GetEnqueued": Rpc(read, self.get_enqueued, control_v1.GetEnqueuedRequest),
            "GetApply": Rpc(read, self.get_apply, control_v1.GetApplyRequest),
            "ListApplies": Rpc(read, self.list_applies, control_v1.ListAppliesRequest),
            "WatchApply": Rpc(read, self.watch_apply, control_v1.WatchApplyRequest, is_stream=True),
            "ExplainApply": Rpc(read, self.explain_apply, control_v1.ExplainApplyRequest),
            "ListEvents": Rpc(read, self.list_events, control_v1.ListEventsRequest),
            "VerifyRecords": Rpc(read, self.verify_records, control_v1.VerifyRecordsRequest, is_stream=True),
            "Control": Rpc(act, self.control, control_v1.ControlRequest),
            "Resolve": Rpc(act, self.resolve, control_v1.ResolveRequest),
            "CarryOn": Rpc(act, self.carry_on, control_v1.CarryOnRequest),
        }

    def enqueue(self, request: control_v1.EnqueueRequest, call: Call) -> control_v1.EnqueueResponse:
        """Takes a rollout in."""
        return writing.enqueued(self._door.enqueue(asking.read_enqueue(request, call.caller)))

    def get_enqueued(
        self, request: control_v1.GetEnqueuedRequest, _call: Call
    ) -> control_v1.GetEnqueuedResponse:
        """What became of a key."""
        return writing.key_fate(self._door.enqueued(request.idempotency_key))

    def get_apply(self, request: control_v1.GetApplyRequest, _call: Call) -> control_v1.GetApplyResponse:
        """One apply and a page of its operations."""
        subject = Subject.read(request.subject)
        size = _page_size(request.page_size, 200)
        if subject.scope:
            apply, next_page = self._door.get(subject.apply_id), ""
            page: tuple[Operation, ...] = (_operation(apply, subject.scope),)
        else:
            apply, start, next_page = self._looks.page(subject.apply_id, request.page_token, size)
            page = apply.operations[start : start + size]
        return control_v1.GetApplyResponse(
            apply=writing.apply(apply),
            operations=[writing.operation(each) for each in page],
            next_page_token=next_page,
        )

    def list_applies(
        self, request: control_v1.ListAppliesRequest, _call: Call
    ) -> control_v1.ListAppliesResponse:
        """A page of the newest applies."""
        size = _page_size(request.page_size, 50)
        found = self._door.applies(
            environment=request.environment,
            states=[_apply_state(number) for number in request.states],
            limit=size + 1,
            before=Subject.read_apply(request.page_token) if request.page_token else None,
        )
        page = found[:size]
        return control_v1.ListAppliesResponse(
            applies=[writing.summary(each) for each in page],
            next_page_token=page[-1].apply_id if len(found) > size else "",
        )

    def watch_apply(
        self, request: control_v1.WatchApplyRequest, call: Call
    ) -> Iterator[control_v1.WatchApplyResponse]:
        """What can be seen, as it changes; operations as far as they differ from the message before."""
        apply_id = Subject.read_apply(request.apply_id)
        if request.revision < 0:
            what = "the revision is negative"
            raise UsageError(what)
        sent: dict[str, Operation] = {}
        for apply in self._door.watch(
            apply_id,
            revision=request.revision,
            until_person=request.until_person,
            is_wanted=call.is_wanted,
        ):
            # Unchanged operations are the very same objects: see Watching.
            changed = [each for each in apply.operations if sent.get(each.deployment) is not each]
            sent = {each.deployment: each for each in apply.operations}
            yield from _messages(apply, changed)

    def explain_apply(
        self, request: control_v1.ExplainApplyRequest, _call: Call
    ) -> control_v1.ExplainApplyResponse:
        """All reasons why something does not move."""
        found = self._door.explain(Subject.read(request.subject))
        return control_v1.ExplainApplyResponse(
            apply=writing.apply(found.apply),
            reasons=[writing.reason(each) for each in found.reasons[:LARGEST_PAGE]],
        )

    def list_events(
        self, request: control_v1.ListEventsRequest, _call: Call
    ) -> control_v1.ListEventsResponse:
        """A page of the record."""
        size = _page_size(request.page_size, 100)
        found = self._door.events(
            Subject.read(request.subject), limit=size + 1, after=number(request.page_token)
        )
        page = found[:size]
        return control_v1.ListEventsResponse(
            events=[writing.event(each) for each in page],
            next_page_token=str(page[-1].event_id) if len(found) > size else "",
        )

    def verify_records(
        self, request: control_v1.VerifyRecordsRequest, call: Call
    ) -> Iterator[control_v1.VerifyRecordsResponse]:
        """Records computed again, each as soon as that is done."""
        for found in self._door.verify(
            Subject.read_apply(request.apply_id) if request.apply_id else None,
            since=asking.read_moment(request.since) if request.HasField("since") else None,
            is_wanted=call.is_wanted,
        ):
            for part, has_more in _parts(found.findings):
                yield control_v1.VerifyRecordsResponse(
                    record=writing.verified(found, part), has_more=has_more
                )

    def control(self, request: control_v1.ControlRequest, call: Call) -> control_v1.ControlResponse:
        """Takes a wish in."""
        return writing.receipt(self._door.ask(asking.read_control(request, call.caller)))

    def resolve(self, request: control_v1.ResolveRequest, call: Call) -> control_v1.ResolveResponse:
        """Takes a person's answer in."""
        if request.statements:
            receipt = self._door.settle_statements(asking.read_statement_answer(request, call.caller))
        else:
            receipt = self._door.resolve(asking.read_resolve(request, call.caller))
        return control_v1.ResolveResponse(outcomes=writing.outcomes(receipt))

    def carry_on(self, request: control_v1.CarryOnRequest, call: Call) -> control_v1.CarryOnResponse:
        """What is left of an apply; with a digest, one group of it is taken in."""
        new = resting.read_carry_on(request, call.caller)
        if not new.digest:
            return resting.rest_message(self._door.rest(new))
        return control_v1.CarryOnResponse(accepted=writing.enqueued(self._door.carry_on(new)))


def _messages(apply: Apply, changed: Sequence[Operation]) -> Iterator[control_v1.WatchApplyResponse]:
    for part, has_more in _parts(changed):
        yield control_v1.WatchApplyResponse(
            apply=writing.apply(apply),
            operations=[writing.operation(each) for each in part],
            has_more=has_more,
        )


def _parts(whole: Sequence[Part]) -> Iterator[tuple[Sequence[Part], bool]]:
    """What fits a message, one at least, and whether more follows."""
    for start in range(0, max(len(whole), 1), LARGEST_PAGE):
        yield whole[start : start + LARGEST_PAGE], start + LARGEST_PAGE < len(whole)


def _operation(apply: Apply, scope: ScopeName) -> Operation:
    for operation in apply.operations:
        if operation.deployment == scope.deployment:
            return operation
    what = f"{scope.apply_id} has no operation on {scope.deployment!r}"
    raise NotFound(what)


def _apply_state(number: int) -> ApplyState:
    said = APPLY_STATES.said(number)
    if said not in set(ApplyState):
        what = f"states has no {said or 'nothing'}"
        raise UsageError(what)
    return ApplyState(said)


def _page_size(asked: int, usual: int) -> int:
    if asked < 0:
        what = "page_size is negative"
        raise UsageError(what)
    return min(asked or usual, LARGEST_PAGE)
