"""Between gRPC's calls and plain methods: who calls, what they may do, and one shape for everything that goes wrong.

A method takes a request and the caller's name and returns an answer, or several for a stream; whatever it raises
becomes a status with its reason. No traceback leaves this process, and no call ends as UNKNOWN.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from tern.domain.errors import NotAllowed, TernError, UsageError
from tern.wire.control.status import as_told, status_of
from tern.wire.control.tokens import Capability, Gate
from tern.wire.transport import OPERATION_KEY

log = structlog.get_logger("tern.control")


@dataclass(frozen=True, slots=True)
class Call:
    """What a method knows of its call besides the request. operations: what the call says that it is about, in the
    metadata `tern-operation`; none for most callers.
    """

    caller: str
    is_wanted: Callable[[], bool]
    operations: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC: what a caller needs for it, and what answers it."""

    needs: Capability
    answer: Callable[[Any, Call], Any]
    request: type[Message]
    is_stream: bool = False


class Unreadable:
    """Stands for a request that is no message of its type; gRPC itself would call that INTERNAL."""


def service(name: str, rpcs: Mapping[str, Rpc], gate: Gate) -> grpc.GenericRpcHandler:
    """A service whose every RPC is behind the gate."""
    return grpc.method_handlers_generic_handler(
        name, {method: _handler(method, rpc, gate) for method, rpc in rpcs.items()}
    )


def authorization(metadata: Any) -> str:
    """The header of a call; empty where there is none or where there are two."""
    found = [value for key, value in metadata or () if key == "authorization"]
    value = found[0] if len(found) == 1 else ""
    return value if isinstance(value, str) else value.decode(errors="replace")


def _handler(method: str, rpc: Rpc, gate: Gate) -> Any:
    def read(data: bytes) -> Message | Unreadable:
        try:
            return rpc.request.FromString(data)
        except DecodeError:
            return Unreadable()

    def unary(request: Message | Unreadable, context: grpc.ServicerContext) -> Message:
        refusal: TernError
        try:
            call = _admit(rpc, gate, context)
            answer: Message = rpc.answer(_readable(request), call)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets the one shape and no more
            refusal = _told(method, error)
        else:
            return answer
        return context.abort_with_status(status_of(refusal))

    def stream(request: Message | Unreadable, context: grpc.ServicerContext) -> Iterator[Message]:
        refusal: TernError
        try:
            call = _admit(rpc, gate, context)
            yield from rpc.answer(_readable(request), call)
        except Exception as error:  # noqa: BLE001 - as above
            refusal = _told(method, error)
        else:
            return
        context.abort_with_status(status_of(refusal))

    kind = grpc.unary_stream_rpc_method_handler if rpc.is_stream else grpc.unary_unary_rpc_method_handler
    return kind(
        stream if rpc.is_stream else unary,
        request_deserializer=read,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


def _admit(rpc: Rpc, gate: Gate, context: grpc.ServicerContext) -> Call:
    metadata = context.invocation_metadata()
    caller = gate.caller(authorization(metadata))
    caller.check(rpc.needs)
    named = frozenset(str(value) for key, value in metadata or () if key == OPERATION_KEY and value)
    return Call(caller.name, context.is_active, named)


def _readable(request: Message | Unreadable) -> Message:
    if isinstance(request, Unreadable):
        what = "the request is no message of this method"
        raise UsageError(what, reason="REQUEST_UNREADABLE")
    return request


def _told(method: str, error: Exception) -> TernError:
    mark = secrets.token_hex(6)
    told = as_told(error, mark)
    if told.reason == "INTERNAL":
        log.error("control.call.failed", method=method, id=mark, exc_info=error)
    elif told is not error:
        log.warning("control.call.unanswered", method=method, why=str(error))
    elif isinstance(error, NotAllowed):
        log.warning("control.call.not_allowed", method=method, why=str(error))
    return told
