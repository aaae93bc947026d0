"""One deployment's engine in domain words: the port `Engine`, over any transport.

Nothing here raises for what an engine or a network does, and nothing is sent that guard.py refuses.
"""

import time
from collections.abc import Callable, Sequence

from tern.domain.control import Verb
from tern.domain.identity import DispatchKey, RemoteId
from tern.domain.model import (
    Capabilities,
    Claim,
    Deployment,
    OperationScope,
    PlannedChange,
    RemoteCall,
    Resolution,
    Unsupported,
)
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.samples import Sample
from tern.ports import ChangePreview, Cursor, LogLine, Looked
from tern.wire import translation
from tern.wire.asking import Asking
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.guard import check_call, check_dispatch, check_key, check_reviewed
from tern.wire.outcomes import About, tidy
from tern.wire.polling import Polling
from tern.wire.transport import (
    APPLY,
    BATCH_PROGRESS,
    CANCEL,
    CUTOVER,
    FENCE_KEY,
    HEALTH,
    LOGS,
    OPERATION_KEY,
    PREVIEW,
    PROGRESS,
    RESOLVE,
    REVERT,
    SKIP_REVERT,
    START,
    STOP,
    VOLUME,
    Answer,
    AnswerT,
    Metadata,
    Method,
    NotSent,
    RequestT,
    Transport,
)

DEADLINE_S = 10.0


class EngineClient(Asking):
    """The engine of one deployment."""

    def __init__(
        self,
        deployment: Deployment,
        transport: Transport,
        *,
        deadline_s: float = DEADLINE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(deployment, transport, deadline_s=deadline_s)
        self._polling = Polling(
            deployment.name, self._ask_batch, self._ask_progress, deadline_s, monotonic=monotonic
        )

    def apply(self, scope: OperationScope, claim: Claim) -> Outcome[RemoteId]:
        """Hands the change over under the claim's key."""
        about = self._about("Apply", scope)
        request = translation.apply_request(scope, claim)
        try:
            check_dispatch(scope, claim, self._deployment)
            check_reviewed(translation.sent_digest(request), scope)
        except NotSent as why:
            return about.not_sent(why)
        match self._ask(about, APPLY, request, metadata=_metadata(scope, claim.fence)):
            case Ok(answer):
                return translation.read_apply(about, answer)
            case Refused() | Unknown() as failed:
                return failed

    def resolve(
        self, scope: OperationScope, claim: Claim, key: DispatchKey, *, forbid: bool
    ) -> Outcome[Resolution]:
        """What became of a key."""
        about = self._about("Resolve", scope)
        try:
            check_key(scope, claim, key, self._deployment)
        except NotSent as why:
            return about.not_sent(why)
        request = engine_v1.ResolveRequest(idempotency_key=key, environment=scope.environment, forbid=forbid)
        found = self._ask_who(about, RESOLVE, request, metadata=_metadata(scope, claim.fence))
        works_at = self._deployment.engine_identity
        return translation.resolved(about, found, forbid=forbid, works_at=works_at)

    def resolve_later(
        self,
        scope: OperationScope,
        claim: Claim,
        key: DispatchKey,
        done: Callable[[Outcome[Resolution]], None],
    ) -> None:
        """resolve() that forbids, without waiting: `done` is given the answer."""
        about = self._about("Resolve", scope)
        try:
            check_key(scope, claim, key, self._deployment)
        except NotSent as why:
            done(about.not_sent(why))
            return
        request = engine_v1.ResolveRequest(idempotency_key=key, environment=scope.environment, forbid=True)

        works_at = self._deployment.engine_identity

        def read(found: Outcome[Answer[engine_v1.ResolveResponse]]) -> None:
            done(translation.resolved(about, found, forbid=True, works_at=works_at))

        self._ask_who_later(about, RESOLVE, request, _metadata(scope, claim.fence), read)

    def ask_key(self, key: DispatchKey, *, forbid: bool) -> Outcome[Resolution]:
        """Whether a key that is nobody's is forbidden there; with forbid, it is from now on. No operation is named."""
        about = self._about("Resolve")
        request = engine_v1.ResolveRequest(
            idempotency_key=key, environment=self._deployment.environment, forbid=forbid
        )
        match self._ask(about, RESOLVE, request):
            case Ok(answer):
                return translation.read_resolve(about, answer, forbid=forbid)
            case Refused(code="UNIMPLEMENTED"):
                return Ok(Unsupported())
            case Refused() | Unknown() as failed:
                return failed

    def progress(self, call: RemoteCall) -> Outcome[Sample]:
        """One look."""
        return self._ask_progress(call, self._deadline_s)

    def batch_progress(self, cursors: Sequence[Cursor]) -> tuple[Looked, ...]:
        """Many looks; falls back to single ones where the engine has no batches."""
        looked: list[Looked] = []
        askable: list[Cursor] = []
        for cursor in cursors:
            try:
                check_call(cursor.call, self._deployment)
            except NotSent as why:
                looked.append(Looked(cursor, self._about("Progress", cursor.call).not_sent(why)))
            else:
                askable.append(cursor)
        return (*looked, *self._polling.look(askable))

    def stop(self, call: RemoteCall) -> Outcome[None]:
        """Asks for a resumable halt."""
        return self._control(STOP, _stop_request(call), call)

    def halt_later(self, verb: Verb, call: RemoteCall, done: Callable[[Outcome[None]], None]) -> None:
        """Stop or cancel without waiting: `done` is given the answer."""
        if verb is Verb.CANCEL:
            self._control_later(CANCEL, _cancel_request(call), call, done)
        else:
            self._control_later(STOP, _stop_request(call), call, done)

    def start(self, call: RemoteCall) -> Outcome[None]:
        """Asks to go on."""
        return self._control(
            START,
            tern_v1.StartRequest(apply_id=call.remote_id, environment=call.environment, caller=call.caller),
            call,
        )

    def cutover(self, call: RemoteCall) -> Outcome[None]:
        """Lets the application see the change."""
        return self._control(
            CUTOVER,
            tern_v1.CutoverRequest(apply_id=call.remote_id, environment=call.environment, caller=call.caller),
            call,
        )

    def cancel(self, call: RemoteCall) -> Outcome[None]:
        """Asks for the permanent end."""
        return self._control(CANCEL, _cancel_request(call), call)

    def revert(self, call: RemoteCall) -> Outcome[None]:
        """Asks to undo a change that is in its revert window."""
        return self._control(
            REVERT, tern_v1.RevertRequest(apply_id=call.remote_id, environment=call.environment), call
        )

    def skip_revert(self, call: RemoteCall) -> Outcome[None]:
        """Asks to close the revert window, so that the change stays."""
        return self._control(
            SKIP_REVERT,
            tern_v1.SkipRevertRequest(apply_id=call.remote_id, environment=call.environment),
            call,
        )

    def volume(self, call: RemoteCall, volume: int) -> Outcome[int]:
        """Asks to work at this volume, 1 to 11; the one that holds from now on."""
        about = self._about("Volume", call)
        request = tern_v1.VolumeRequest(apply_id=call.remote_id, environment=call.environment, volume=volume)
        match self._ask_job(about, VOLUME, request, call):
            case Ok(answer):
                return translation.read_volume(about, answer, volume)
            case Refused() | Unknown() as failed:
                return about.explained(failed)

    def health(self) -> Outcome[str]:
        """Whether the engine answers at all."""
        match self._ask(self._about("Health"), HEALTH, tern_v1.HealthRequest()):
            case Ok(answer):
                return Ok(tidy(answer.status))
            case Refused() | Unknown() as failed:
                return failed

    def probe(self, *, previews: bool | None = None) -> Outcome[Capabilities]:
        """What the engine offers beside the public contract, found by asking for nothing, once for each part."""
        environment = self._deployment.environment
        found: list[bool] = []
        named: set[str] = set()
        for outcome in (
            self._offers(RESOLVE, engine_v1.ResolveRequest(environment=environment)),
            self._offers(BATCH_PROGRESS, engine_v1.BatchProgressRequest(environment=environment)),
            self._offers(PREVIEW, translation.preview_request(self._deployment, ()))
            if previews is None
            else Ok((previews, "")),
        ):
            if not isinstance(outcome, Ok):
                return outcome
            offers, identity = outcome.value
            found.append(offers)
            named.add(identity)
        named.discard("")
        if len(named) > 1:
            # Behind one address several engines answer in turn: what one of them offers says nothing of the next.
            words = f"its answers name different databases: {', '.join(sorted(named))}"
            return self._about("Probe").unknown("SEVERAL_ENGINES", words, "OK")
        resolve, batch_progress, preview = found
        self._polling.remember(offers_batches=batch_progress)
        return Ok(Capabilities(resolve, batch_progress, preview, named.pop() if named else ""))

    def preview(
        self, deployment: Deployment, changes: Sequence[PlannedChange]
    ) -> Outcome[tuple[ChangePreview, ...] | Unsupported]:
        """What the changes would do; Unsupported where the engine can't say."""
        about = self._about("Preview")
        if deployment.name != self._deployment.name:
            words = f"this is not the engine of deployment {deployment.name}"
            return about.not_sent(NotSent("DEPLOYMENT_MISMATCH", words))
        match self._ask(about, PREVIEW, translation.preview_request(deployment, changes)):
            case Ok(answer) if len(answer.changes) != len(changes):
                words = f"{len(changes)} changes were asked about, {len(answer.changes)} were answered"
                return about.unknown("PREVIEW_INCOMPLETE", words, "OK")
            case Ok(answer):
                return Ok(tuple(translation.read_preview(change) for change in answer.changes))
            case Refused(code="UNIMPLEMENTED"):
                return Ok(Unsupported())
            case Refused() | Unknown() as failed:
                return failed

    def logs(self, call: RemoteCall, limit: int) -> Outcome[tuple[LogLine, ...]]:
        """The newest lines, oldest first."""
        about = self._about("Logs", call)
        request = tern_v1.LogsRequest(
            apply_id=call.remote_id,
            target=self._deployment.target,
            database=self._deployment.database,
            environment=call.environment,
            limit=max(1, limit),
        )
        match self._ask_job(about, LOGS, request, call):
            case Ok(answer) if answer.apply_id != call.remote_id:
                return about.unknown("STRANGER", "the answer is about another job", "OK")
            case Ok(answer):
                return Ok(translation.read_logs(answer, max(1, limit)))
            case Refused() | Unknown() as failed:
                return failed

    def _ask_job(
        self,
        about: About,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        call: RemoteCall,
        timeout_s: float | None = None,
    ) -> Outcome[AnswerT]:
        try:
            check_call(call, self._deployment)
        except NotSent as why:
            return about.not_sent(why)
        return self._ask(about, method, request, metadata=_metadata(call, call.fence), timeout_s=timeout_s)

    def _control(
        self,
        method: Method[RequestT, translation.AcceptanceT],
        request: RequestT,
        call: RemoteCall,
    ) -> Outcome[None]:
        about = self._about(method.name, call)
        return translation.accepted(about, self._ask_job(about, method, request, call))

    def _control_later(
        self,
        method: Method[RequestT, translation.AcceptanceT],
        request: RequestT,
        call: RemoteCall,
        done: Callable[[Outcome[None]], None],
    ) -> None:
        about = self._about(method.name, call)
        try:
            check_call(call, self._deployment)
        except NotSent as why:
            done(about.not_sent(why))
            return

        def read(found: Outcome[translation.AcceptanceT]) -> None:
            done(translation.accepted(about, found))

        self._ask_later(about, method, request, _metadata(call, call.fence), read)

    def _ask_progress(self, call: RemoteCall, timeout_s: float) -> Outcome[Sample]:
        about = self._about("Progress", call)
        request = tern_v1.ProgressRequest(apply_id=call.remote_id, environment=call.environment)
        try:
            check_call(call, self._deployment)
        except NotSent as why:
            return about.not_sent(why)
        metadata = _metadata(call, call.fence)
        match self._ask_who(about, PROGRESS, request, metadata=metadata, timeout_s=timeout_s):
            case Ok(answer):
                return translation.read_progress(about, call, answer.message, answer.identity)
            case Refused() | Unknown() as failed:
                return failed

    def _ask_batch(
        self, environment: str, cursors: Sequence[Cursor], timeout_s: float
    ) -> Outcome[Answer[engine_v1.BatchProgressResponse]]:
        request = translation.batch_request(environment, cursors)
        return self._ask_who(self._about("BatchProgress"), BATCH_PROGRESS, request, timeout_s=timeout_s)


def _metadata(about: OperationScope | RemoteCall, fence: int) -> Metadata:
    return ((OPERATION_KEY, str(about.name)), (FENCE_KEY, str(fence)))


def _stop_request(call: RemoteCall) -> tern_v1.StopRequest:
    return tern_v1.StopRequest(apply_id=call.remote_id, environment=call.environment, caller=call.caller)


def _cancel_request(call: RemoteCall) -> tern_v1.CancelRequest:
    return tern_v1.CancelRequest(apply_id=call.remote_id, environment=call.environment, caller=call.caller)
