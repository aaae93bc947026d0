"""The public contract tern.v1.Tern for Tern's own applies: clients that know engines can drive a rollout.

`apl-…/DEPLOYMENT` is one operation; `apl-…` is the one operation of a single apply, and of a multi apply nothing: the
call is refused with the number of operations, and nothing is sent (G7). A control is a durable wish like any other,
never a call to an engine from here. Progress tells what Tern knows: it is what every other door shows, and looking
must not cost an engine a call for everybody who looks; its age is in the metadata.

Another Tern says with every call which operation of its own it means (`tern-operation`). As at an engine, an Apply is
bound to that one, and a call for any other is refused: a caller's mistake must not reach a sibling's work. Fences
(`tern-fence`) are between Tern and an engine, and nobody's are taken here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from tern.domain.control import Receipt as Outcome
from tern.domain.control import ReceiptLine, Verb
from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.identity import APPLY_ID, ApplyId, ScopeName
from tern.domain.model import Action
from tern.domain.selection import Selection
from tern.doors.answers import Progress
from tern.doors.change import POSTGRES
from tern.doors.door import FrontDesk
from tern.doors.request import EnqueueRequest
from tern.ports import Asked
from tern.wire.control.adapter import Call, Rpc
from tern.wire.control.showing import log_of, progress_of
from tern.wire.control.tokens import Capability
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.numbering import WORDS, speaks_older_numbering
from tern.wire.options import Wrong, read_options

NAME: Final = tern_v1.DESCRIPTOR.services_by_name["Tern"].full_name
VERSION = version("tern")
USUAL_LOGS = 100
MOST_LOGS = 500

_CHANGE_TYPES: Final[Mapping[int, Action]] = {
    tern_v1.CHANGE_TYPE_OTHER: Action.OTHER,
    tern_v1.CHANGE_TYPE_CREATE: Action.CREATE,
    tern_v1.CHANGE_TYPE_ALTER: Action.ALTER,
    tern_v1.CHANGE_TYPE_DROP: Action.DROP,
}
_Asked = TypeVar(
    "_Asked",
    tern_v1.StopRequest,
    tern_v1.StartRequest,
    tern_v1.CutoverRequest,
    tern_v1.CancelRequest,
    tern_v1.RevertRequest,
    tern_v1.SkipRevertRequest,
    tern_v1.VolumeRequest,
)

_Counted = TypeVar("_Counted", tern_v1.StopResponse, tern_v1.StartResponse, tern_v1.CancelResponse)


class Facade:
    """The contract over one door."""

    def __init__(self, desk: FrontDesk) -> None:
        self._desk = desk

    def rpcs(self) -> Mapping[str, Rpc]:
        """Every RPC by its name in the contract."""
        read, act = Capability.READ, Capability.ACT
        offered = {
            "Apply": Rpc(act, self.apply, tern_v1.ApplyRequest),
            "Progress": Rpc(read, self.progress, tern_v1.ProgressRequest),
            "Logs": Rpc(read, self.logs, tern_v1.LogsRequest),
            "Stop": Rpc(act, self.stop, tern_v1.StopRequest),
            "Start": Rpc(act, self.start, tern_v1.StartRequest),
            "Cutover": Rpc(act, self.cutover, tern_v1.CutoverRequest),
            "Cancel": Rpc(act, self.cancel, tern_v1.CancelRequest),
            "Revert": Rpc(act, self.revert, tern_v1.RevertRequest),
            "SkipRevert": Rpc(act, self.skip_revert, tern_v1.SkipRevertRequest),
            "Volume": Rpc(act, self.volume, tern_v1.VolumeRequest),
            "Health": Rpc(read, self.health, tern_v1.HealthRequest),
        }
        others: Mapping[str, type[Message]] = {
            "PullSchema": tern_v1.PullSchemaRequest,
            "Plan": tern_v1.PlanRequest,
            "PlanDiff": tern_v1.PlanRequest,
        }
        return {
            **offered,
            **{name: Rpc(read, _not_offered(name), request) for name, request in others.items()},
        }

    def apply(self, request: tern_v1.ApplyRequest, call: Call) -> tern_v1.ApplyResponse:
        """A rollout to the one deployment that the target names."""
        options = read_options(request.options, target=request.target, refuse=_option, reverts=True)
        if request.target_shards or request.direct_execution.ByteSize():
            what = "target_shards and direct_execution are not offered"
            raise Refused(what, next_step="Leave them out.", reason="NOT_OFFERED")
        if not request.target:
            what = "the target is empty: it names one deployment"
            raise UsageError(what)
        known_as = _named(call)
        target = self._desk.deployment_of_target(request.environment, request.database, request.target)
        asked = EnqueueRequest.read(
            {
                **self._change(request),
                "database_type": request.type or POSTGRES,
                "environment": request.environment,
                "database": request.database,
                "deployments": (target,),
                "policy": {
                    "cutover": "manual" if options.defer_cutover else "auto",
                    "enable_revert": options.enable_revert,
                },
                "caller": call.caller,
                "reason": f"Apply over {NAME}{_behalf(request.caller)}",
                "key": request.idempotency_key,
                "allow_unsafe": options.allow_unsafe,
            }
        )
        enqueued = self._desk.enqueue(replace(asked, known_as=known_as))
        scope = ScopeName(enqueued.apply_id, enqueued.deployments[0])
        if not enqueued.is_new:
            self._check_operation(scope, call)
        return tern_v1.ApplyResponse(accepted=True, apply_id=enqueued.apply_id, apply_operation_id=str(scope))

    def _change(self, request: tern_v1.ApplyRequest) -> Mapping[str, object]:
        """What is to be applied. Clients of the contract send a plan's statements with its id, those on one table in
        any order: of a plan that is kept here, its own order holds. Of another one, whose id is its maker's own, the
        statements say all; but not in which order, where the plan's files travel with them.
        """
        changes = [_entry(each) for each in request.ddl_changes]
        if not changes:
            return {"plan": request.plan_id}
        kept = self._desk.kept_plan(request.plan_id) if request.plan_id else None
        if kept is not None:
            said = Counter(
                (str(each["namespace"] or "public"), each["table"], each["ddl"]) for each in changes
            )
            holds = Counter((each.namespace or "public", each.table_name, each.ddl) for each in kept.changes)
            if said != holds:
                what = f"the statements are not those of {request.plan_id}"
                raise Refused(
                    what, next_step="Plan again, or leave the plan's id out.", reason="PLAN_MISMATCH"
                )
            return {"plan": request.plan_id}
        unnamed = "public" if (request.type or POSTGRES) == POSTGRES else request.database
        tables = Counter((each["namespace"] or unnamed, each["table"]) for each in changes)
        if request.schema_files and max(tables.values()) > 1:
            what = "several statements on one table come with schema_files, and their order can't be told"
            why = (f"no plan {request.plan_id[:80]!a} is kept here, and the order that holds is a plan's",)
            step = "Send them without schema_files, in the order in which they are to be executed."
            raise Refused(what, why=why, next_step=step, reason="PLAN_UNKNOWN")
        return {"changes": changes}

    def progress(self, request: tern_v1.ProgressRequest, call: Call) -> tern_v1.ProgressResponse:
        """How far an operation is, as far as Tern knows."""
        _refuse_older_numbering(request)
        name = self._scope(request.apply_id, "progress", call)
        self._check_named(name, request.apply_operation_id)
        known = self._desk.progress(name)
        _check_environment(known, request.environment)
        answer = progress_of(request.apply_id, known)
        # Echoed, so that whoever asked about one operation sees that the answer is about that one.
        answer.apply_operation_id = request.apply_operation_id
        return answer

    def logs(self, request: tern_v1.LogsRequest, call: Call) -> tern_v1.LogsResponse:
        """The newest lines of an operation's record."""
        if request.limit < 0:
            what = "limit is negative"
            raise UsageError(what)
        known = self._desk.progress(self._scope(request.apply_id, "logs", call))
        _check_environment(known, request.environment)
        events = self._desk.newest_events(
            ScopeName.parse(known.scope), min(request.limit or USUAL_LOGS, MOST_LOGS)
        )
        return tern_v1.LogsResponse(apply_id=request.apply_id, logs=[log_of(each) for each in events])

    def stop(self, request: tern_v1.StopRequest, call: Call) -> tern_v1.StopResponse:
        """Halts, resumably."""
        return _counted(tern_v1.StopResponse, "stopped_count", self._ask(Verb.STOP, request, call))

    def start(self, request: tern_v1.StartRequest, call: Call) -> tern_v1.StartResponse:
        """Resumes what was stopped."""
        return _counted(tern_v1.StartResponse, "started_count", self._ask(Verb.START, request, call))

    def cutover(self, request: tern_v1.CutoverRequest, call: Call) -> tern_v1.CutoverResponse:
        """Lets the application see the change."""
        _refuse_older_numbering(request)
        if request.apply_operation_id:
            self._check_named(self._scope(request.apply_id, "cutover", call), request.apply_operation_id)
        line = self._ask(Verb.CUTOVER, request, call)
        return tern_v1.CutoverResponse(accepted=_is_taken(line), error_message=_words(line))

    def cancel(self, request: tern_v1.CancelRequest, call: Call) -> tern_v1.CancelResponse:
        """Ends it for good."""
        return _counted(tern_v1.CancelResponse, "cancelled_count", self._ask(Verb.CANCEL, request, call))

    def revert(self, request: tern_v1.RevertRequest, call: Call) -> tern_v1.RevertResponse:
        """Takes the change back, in its revert window."""
        line = self._ask(Verb.REVERT, request, call)
        return tern_v1.RevertResponse(accepted=_is_taken(line), error_message=_words(line))

    def skip_revert(self, request: tern_v1.SkipRevertRequest, call: Call) -> tern_v1.SkipRevertResponse:
        """Closes the revert window early."""
        line = self._ask(Verb.SKIP_REVERT, request, call)
        return tern_v1.SkipRevertResponse(accepted=_is_taken(line), error_message=_words(line))

    def volume(self, request: tern_v1.VolumeRequest, call: Call) -> tern_v1.VolumeResponse:
        """How hard the engine may work."""
        _refuse_older_numbering(request)
        before = self._desk.progress(self._scope(request.apply_id, Verb.VOLUME.value, call))
        line = self._ask(Verb.VOLUME, request, call, request.volume)
        return tern_v1.VolumeResponse(
            accepted=_is_taken(line),
            error_message=_words(line),
            previous_volume=before.volume or 0,
            new_volume=request.volume,
        )

    def health(self, _request: tern_v1.HealthRequest, _call: Call) -> tern_v1.HealthResponse:
        """`ok` while the database answers."""
        self._desk.check_health()
        return tern_v1.HealthResponse(status="ok", version=VERSION)

    def _ask(self, verb: Verb, request: _Asked, call: Call, volume: int | None = None) -> ReceiptLine:
        _refuse_older_numbering(request)
        name = self._scope(request.apply_id, verb.value, call)
        if request.environment:
            _check_environment(self._desk.progress(name), request.environment)
        reason = f"{verb.value} over {NAME}{_behalf(getattr(request, 'caller', ''))}"
        receipt = self._desk.ask(
            Asked(verb, name.apply_id, Selection((name.deployment,)), call.caller, reason, volume=volume)
        )
        return receipt.lines[0]

    def _scope(self, apply_id: str, verb: str, call: Call) -> ScopeName:
        """The one operation that is meant; raises UsageError, NotFound, ScopeRefused, Refused for another's call."""
        name = self._named_by(apply_id, verb)
        self._check_operation(name, call)
        return name

    def _check_operation(self, name: ScopeName, call: Call) -> None:
        """A call that says which operation it is about says this one, or what it was called at its Apply."""
        if call.operations <= {str(name)}:
            return
        bound = self._desk.known_as(name)
        if call.operations != {bound}:
            said = " and ".join(sorted(each[:200] for each in call.operations))
            what = f"the call is for {said}, not {name}"
            why = (f"{name} was asked for as {bound}",) if bound else ()
            unchanged = "Nothing was sent to any engine and nothing was written."
            raise Refused(what, why=why, unchanged=unchanged, reason="OPERATION_MISMATCH")

    def _check_named(self, name: ScopeName, operation: str) -> None:
        """apply_operation_id says which operation is meant; what its Apply was answered with is this one's."""
        if operation not in {"", str(name), self._desk.known_as(name)}:
            what = f"the call is for {operation[:200]}, not {name}"
            unchanged = "Nothing was sent to any engine and nothing was written."
            raise Refused(what, unchanged=unchanged, reason="OPERATION_MISMATCH")

    def _named_by(self, apply_id: str, verb: str) -> ScopeName:
        if not apply_id:
            what = "apply_id is empty, and an empty one could mean any"
            raise UsageError(what)
        if "/" in apply_id:
            return ScopeName.parse(apply_id)
        if APPLY_ID.fullmatch(apply_id) is None:
            what = f"there is no apply {apply_id[:80]!a} here"
            raise NotFound(what)
        return self._desk.only_operation(ApplyId(apply_id), verb)


def _option(wrong: Wrong) -> Exception:
    return UsageError(wrong.words) if wrong.is_offered else Refused(wrong.words, reason="NOT_OFFERED")


def _behalf(caller: str) -> str:
    return f", on behalf of {caller[:200]}" if caller else ""


def _refuse_older_numbering(request: Message) -> None:
    named: str = getattr(request, "apply_id", "")
    if speaks_older_numbering(request, names_something=named.startswith("apl-")):
        raise UsageError(WORDS, reason="OLDER_NUMBERING")


def _named(call: Call) -> str:
    """What an Apply is bound to: at most one operation; raises UsageError, ScopeRefused."""
    if len(call.operations) > 1:
        what = "an Apply is for one operation, and the call names several"
        raise UsageError(what)
    (named,) = call.operations or ("",)
    return str(ScopeName.parse(named)) if named else ""


def _not_offered(method: str) -> Any:
    def refuse(_request: Message, _call: Call) -> Message:
        what = f"{method} is not offered for an apply of Tern's"
        raise Refused(what, reason="NOT_OFFERED")

    return refuse


def _entry(change: tern_v1.TableChange) -> Mapping[str, object]:
    unsafe = change.unsafe_reason or "its sender calls it unsafe"
    return {
        "namespace": change.namespace,
        "table": change.table_name,
        "ddl": change.ddl,
        "action": _CHANGE_TYPES.get(change.change_type, Action.OTHER).value,
        "unsafe_reason": unsafe if change.is_unsafe else "",
    }


def _check_environment(known: Progress, environment: str) -> None:
    if environment and environment != known.environment:
        what = f"{known.scope} is in environment {known.environment}, not {environment}"
        raise Refused(what, reason="TARGET_MISMATCH")


def _is_taken(line: ReceiptLine) -> bool:
    return line.outcome in {Outcome.ACCEPTED, Outcome.ALREADY}


def _words(line: ReceiptLine) -> str:
    return "" if _is_taken(line) else line.reason


def _counted(answer: type[_Counted], field: str, line: ReceiptLine) -> _Counted:
    """An answer that counts operations, of which there is one: met, or left as it is."""
    met = line.outcome is Outcome.ACCEPTED
    counts: dict[str, Any] = {field: int(met), "skipped_count": int(not met)}
    return answer(accepted=_is_taken(line), error_message=_words(line), **counts)
