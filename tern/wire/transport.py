"""How a request reaches an engine. There are three ways (over a channel, inside this process, not at all), and
nothing above this module knows which one is taken.

A transport returns the answer or raises: NotSent when the request provably never left us, CallFailed for all else.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from tern.domain.silence import CALLS_AT_ONCE
from tern.metrics import RPC_SECONDS
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1

RequestT = TypeVar("RequestT", bound=Message)
AnswerT = TypeVar("AnswerT", bound=Message)
Metadata = Sequence[tuple[str, str]]

OPERATION_KEY = "tern-operation"
FENCE_KEY = "tern-fence"
IDENTITY_KEY = "tern-engine"
_IDENTITY: Final = re.compile(r"[0-9]{1,20}/[0-9]{1,10}")


def read_identity(trailing: Iterable[tuple[str, str | bytes]]) -> str:
    """The server and database that an answer names, SYSTEM-IDENTIFIER/DATABASE-OID; '' for none.

    Only what has this shape counts: it is stored and shown, and an engine may send what it likes. One that names two
    names none.
    """
    named = {value for key, value in trailing if key == IDENTITY_KEY}
    only = named.pop() if len(named) == 1 else ""
    return only if isinstance(only, str) and _IDENTITY.fullmatch(only) else ""


class NotSent(Exception):  # noqa: N818 - reads as the fact that it is
    """Nothing was sent, so nothing happened; `reason` is a stable word and the message holds no secret."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class CallFailed(Exception):  # noqa: N818
    """The call ended without an answer. `code` is the name of a gRPC status, whatever the transport; `identity` the
    database that the engine named all the same.
    """

    def __init__(self, code: str, message: str, reason: str = "", identity: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason
        self.identity = identity


def closing() -> CallFailed:
    """This process ends. Nothing was sent, but a refusal would fail an operation for good that another worker
    can drive, so it is a call that got lost.
    """
    return CallFailed("CANCELLED", "this process is closing its connections", "CLOSING")


@dataclass(frozen=True, slots=True)
class Method(Generic[RequestT, AnswerT]):
    """One RPC: its path on the wire and the type of its answer."""

    path: str
    request: type[RequestT]
    answer: type[AnswerT]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Answer(Generic[AnswerT]):
    """What an engine answered, and the database that it named beside it ('' for none)."""

    message: AnswerT
    identity: str = ""


Done = Callable[[Answer[AnswerT] | NotSent | CallFailed], None]
"""Takes what came of a call that nobody waits for."""


class Transport(Protocol):
    """One way to one engine."""

    def call(
        self, method: Method[RequestT, AnswerT], request: RequestT, *, timeout_s: float, metadata: Metadata
    ) -> Answer[AnswerT]:
        """The answer; raises NotSent or CallFailed."""

    def call_later(
        self,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        *,
        timeout_s: float,
        metadata: Metadata,
        done: Done[AnswerT],
    ) -> None:
        """Sends, and waits for nothing: `done` is given the answer or what call() raises, once, on any thread."""


class Listener(Protocol):
    """Hears of each call that somebody waits for."""

    def begun(self, deployment: str) -> None:
        """This thread waits for an answer from now on."""

    def ended(self, deployment: str, method: str, code: str, seconds: float) -> None:
        """It does so no longer; `code` is the name of the gRPC status, OK for an answer, NOT_SENT for no call."""


class NoTransport:
    """There is no way to this engine, and here is why: every call is refused, and siblings go on (S10)."""

    def __init__(self, reason: str, message: str) -> None:
        self._reason = reason
        self._message = message

    def call(
        self,
        method: Method[RequestT, AnswerT],  # noqa: ARG002
        request: RequestT,  # noqa: ARG002
        *,
        timeout_s: float,  # noqa: ARG002
        metadata: Metadata,  # noqa: ARG002
    ) -> Answer[AnswerT]:
        """Raises NotSent."""
        raise NotSent(self._reason, self._message)

    def call_later(
        self,
        method: Method[RequestT, AnswerT],  # noqa: ARG002
        request: RequestT,  # noqa: ARG002
        *,
        timeout_s: float,  # noqa: ARG002
        metadata: Metadata,  # noqa: ARG002
        done: Done[AnswerT],
    ) -> None:
        """See Transport."""
        done(NotSent(self._reason, self._message))


class TimedTransport:
    """Another transport, with each call measured by method and status, and told to whoever listens. Of those that
    somebody waits for only so many are under way at once.
    """

    def __init__(self, inner: Transport, deployment: str = "", listener: Listener | None = None) -> None:
        self._inner = inner
        self._deployment = deployment
        self._listener = listener
        self._free = threading.BoundedSemaphore(CALLS_AT_ONCE)

    def call(
        self, method: Method[RequestT, AnswerT], request: RequestT, *, timeout_s: float, metadata: Metadata
    ) -> Answer[AnswerT]:
        """See Transport."""
        begun, code = time.monotonic(), "OK"
        if self._listener is not None:
            self._listener.begun(self._deployment)
        try:
            return self._call_in_turn(method, request, timeout_s, metadata)
        except NotSent:
            code = "NOT_SENT"
            raise
        except CallFailed as failure:
            code = failure.code
            raise
        finally:
            seconds = time.monotonic() - begun
            RPC_SECONDS.observe(seconds, method.name, code)
            if self._listener is not None:
                self._listener.ended(self._deployment, method.name, code, seconds)

    def call_later(
        self,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        *,
        timeout_s: float,
        metadata: Metadata,
        done: Done[AnswerT],
    ) -> None:
        """See Transport."""
        begun = time.monotonic()

        def measured(found: "Answer[AnswerT] | NotSent | CallFailed") -> None:
            code = (
                found.code
                if isinstance(found, CallFailed)
                else "NOT_SENT"
                if isinstance(found, NotSent)
                else "OK"
            )
            RPC_SECONDS.observe(time.monotonic() - begun, method.name, code)
            done(found)

        self._inner.call_later(method, request, timeout_s=timeout_s, metadata=metadata, done=measured)

    def _call_in_turn(
        self, method: Method[RequestT, AnswerT], request: RequestT, timeout_s: float, metadata: Metadata
    ) -> Answer[AnswerT]:
        """A halt goes at once, whoever else waits. Of the others, whoever finds no place in time has sent nothing, but
        a refusal would be taken for the engine's own.
        """
        if method in HALTING:
            return self._inner.call(method, request, timeout_s=timeout_s, metadata=metadata)
        begun = time.monotonic()
        if not self._free.acquire(timeout=timeout_s):
            raise CallFailed("DEADLINE_EXCEEDED", f"{CALLS_AT_ONCE} earlier calls have not ended", "BUSY")
        try:
            left_s = max(0.001, timeout_s - (time.monotonic() - begun))
            return self._inner.call(method, request, timeout_s=left_s, metadata=metadata)
        finally:
            self._free.release()


_TERN = "/tern.v1.Tern/"
_ENGINE = "/tern.engine.v1.EngineService/"

APPLY = Method(f"{_TERN}Apply", tern_v1.ApplyRequest, tern_v1.ApplyResponse)
PROGRESS = Method(f"{_TERN}Progress", tern_v1.ProgressRequest, tern_v1.ProgressResponse)
LOGS = Method(f"{_TERN}Logs", tern_v1.LogsRequest, tern_v1.LogsResponse)
STOP = Method(f"{_TERN}Stop", tern_v1.StopRequest, tern_v1.StopResponse)
START = Method(f"{_TERN}Start", tern_v1.StartRequest, tern_v1.StartResponse)
CUTOVER = Method(f"{_TERN}Cutover", tern_v1.CutoverRequest, tern_v1.CutoverResponse)
CANCEL = Method(f"{_TERN}Cancel", tern_v1.CancelRequest, tern_v1.CancelResponse)
REVERT = Method(f"{_TERN}Revert", tern_v1.RevertRequest, tern_v1.RevertResponse)
SKIP_REVERT = Method(f"{_TERN}SkipRevert", tern_v1.SkipRevertRequest, tern_v1.SkipRevertResponse)
VOLUME = Method(f"{_TERN}Volume", tern_v1.VolumeRequest, tern_v1.VolumeResponse)
HEALTH = Method(f"{_TERN}Health", tern_v1.HealthRequest, tern_v1.HealthResponse)
RESOLVE = Method(f"{_ENGINE}Resolve", engine_v1.ResolveRequest, engine_v1.ResolveResponse)
BATCH_PROGRESS = Method(
    f"{_ENGINE}BatchProgress", engine_v1.BatchProgressRequest, engine_v1.BatchProgressResponse
)
PREVIEW = Method(f"{_ENGINE}Preview", engine_v1.PreviewRequest, engine_v1.PreviewResponse)

HALTING: frozenset[Method[Any, Any]] = frozenset({STOP, CANCEL})
"""Count in no cap."""
