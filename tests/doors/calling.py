"""How a stock gRPC client calls: a generated stub, a header, and what a call ended with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from tern.wire.generated.tern.control.v1 import control_service_pb2_grpc as control_v1_grpc
from tern.wire.generated.tern.v1 import tern_pb2_grpc as tern_v1_grpc

ACT = "act-0123456789abcdef0123"
READ = "read-0123456789abcdef012"
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Stubs:
    """ControlService and the public contract behind one channel."""

    control: control_v1_grpc.ControlServiceStub
    tern: tern_v1_grpc.TernStub


class Ended(NamedTuple):
    """How a refused call ended."""

    code: grpc.StatusCode
    reason: str
    message: str
    why: tuple[str, ...]


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call."""
    return (("authorization", f"Bearer {token}"),)


def call(method: Callable[..., Any], request: Any, token: str = ACT) -> Any:
    """The answer."""
    return method(request, timeout=DEADLINE_S, metadata=bearer(token))


def refused(method: Callable[..., Any], request: Any, token: str = ACT) -> Ended:
    """How the call ended; fails where it was answered."""
    try:
        answer = method(request, timeout=DEADLINE_S, metadata=bearer(token) if token else ())
        if hasattr(answer, "__next__"):
            answer = list(answer)
    except grpc.RpcError as error:
        return ended(error)
    message = f"answered: {answer}"
    raise AssertionError(message)


def ended(error: grpc.RpcError) -> Ended:
    """Code, reason and causes, as any client can read them."""
    failed = cast("grpc.Call", error)
    status = rpc_status.from_call(failed)
    reason, why = "", ()
    for detail in status.details if status is not None else ():
        info, causes = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
        if detail.Unpack(info):
            assert info.domain == "tern"
            reason = info.reason
        elif detail.Unpack(causes):
            why = tuple(each.description for each in causes.violations)
    return Ended(failed.code(), reason, failed.details() or "", why)
