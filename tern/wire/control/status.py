"""Errors over gRPC: the one shape with its stable reason, from a TernError to google.rpc.Status and back.

ErrorInfo has the reason and, as metadata, what stayed unchanged and what to do next; each cause is a violation of a
PreconditionFailure. The message says the same in one line, as far as it fits, because many clients decode no details.
Trailers have a limit of a few kilobytes, past which a client would see another error instead, so
long texts are cut.
"""

from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from tern.domain.errors import (
    Misconfigured,
    NotAllowed,
    NotFound,
    Refused,
    ScopeRefused,
    TernError,
    TryAgain,
    Unreachable,
    UsageError,
    storage_unavailable,
)
from tern.ports import StorageUnavailable
from tern.wire.control.tokens import UNAUTHENTICATED

DOMAIN = "tern"
LONGEST_WHAT = 400
LONGEST_MESSAGE = 600
LONGEST_WHY = 1_600
LONGEST_LINE = 600

_KINDS: Mapping[str, type[TernError]] = {
    kind.__name__: kind
    for kind in (
        UsageError,
        NotFound,
        NotAllowed,
        Refused,
        ScopeRefused,
        Unreachable,
        TryAgain,
        Misconfigured,
    )
}
_CODES: Mapping[type[TernError], grpc.StatusCode] = {
    UsageError: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
    ScopeRefused: grpc.StatusCode.FAILED_PRECONDITION,
    Unreachable: grpc.StatusCode.UNAVAILABLE,
    TryAgain: grpc.StatusCode.UNAVAILABLE,
    Misconfigured: grpc.StatusCode.UNAVAILABLE,
}
_CODES_OF_REASONS: Mapping[str, grpc.StatusCode] = {
    UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    "TOO_MANY_WATCHERS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "SCOPE_MALFORMED": grpc.StatusCode.INVALID_ARGUMENT,
    "NOT_OFFERED": grpc.StatusCode.UNIMPLEMENTED,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}


def code_of(error: TernError) -> grpc.StatusCode:
    """The gRPC status code by the error's reason, else by its kind."""
    by_reason = _CODES_OF_REASONS.get(error.reason)
    if by_reason is not None:
        return by_reason
    kinds = (kind for kind in type(error).__mro__ if kind in _CODES)
    return _CODES.get(next(kinds, TernError), grpc.StatusCode.INTERNAL)


def as_told(error: Exception, mark: str) -> TernError:
    """The error as it is told to a caller; anything unexpected shows no more than a mark, to be found in our log."""
    match error:
        case TernError():
            return error
        case StorageUnavailable():
            # Its own words stay in our log.
            return storage_unavailable()
        case _:
            what = f"unexpected; see the log of `tern serve`, id {mark}"
            return Refused(what, unchanged="", reason="INTERNAL")


def status_of(error: TernError) -> grpc.Status:
    """The rich status that a call is ended with."""
    kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _KINDS), "")
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={
            "kind": kind,
            "unchanged": _short(error.unchanged, LONGEST_LINE),
            "next": _short(error.next_step, LONGEST_LINE),
        },
    )
    causes = error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(type=error.reason, description=line)
            for line in _causes(error.why)
        ]
    )
    status = status_pb2.Status(
        code=code_of(error).value[0],
        message=_short(_message(error), LONGEST_MESSAGE),
        details=[_packed(info), *([_packed(causes)] if error.why else [])],
    )
    made: grpc.Status = rpc_status.to_status(status)
    return made


def error_of(failed: grpc.Call) -> TernError:
    """The error that a call ended with, as the server raised it; UNAVAILABLE and the like where it never answered."""
    code = failed.code()
    message = failed.details() or ""
    info, why = _details(failed)
    if info is None:
        return _silent(code, message)
    kind = _KINDS.get(info.metadata.get("kind", ""), TernError)
    return kind(
        # Behind the reason stands what the details say as well.
        message.partition(f" ({info.reason})")[0],
        why=why,
        unchanged=info.metadata.get("unchanged", ""),
        next_step=info.metadata.get("next", ""),
        reason=info.reason,
    )


def _message(error: TernError) -> str:
    """The reason comes early, because what is long is cut."""
    causes = f": {'; '.join(error.why)}" if error.why else ""
    step = f". {error.next_step}" if error.next_step else ""
    return f"{_short(error.what, LONGEST_WHAT)} ({error.reason}){causes}{step}"


def _details(failed: grpc.Call) -> tuple[error_details_pb2.ErrorInfo | None, tuple[str, ...]]:
    info, why = None, ()
    try:
        status = rpc_status.from_call(failed)
    except ValueError:
        # Code and details contradict each other: something in between made this answer.
        status = None
    for detail in status.details if status is not None else ():
        found, causes = error_details_pb2.ErrorInfo(), error_details_pb2.PreconditionFailure()
        if detail.Is(found.DESCRIPTOR) and detail.Unpack(found) and found.domain == DOMAIN:
            info = found
        elif detail.Is(causes.DESCRIPTOR) and detail.Unpack(causes):
            why = tuple(each.description for each in causes.violations)
    return info, why


def _silent(code: grpc.StatusCode, message: str) -> TernError:
    """An end that is none of Tern's own words: the network, a proxy, our own deadline."""
    why = (f"{code.name}: {message}" if message else code.name,)
    unchanged = "It is not known whether it was done; look, or repeat with the same key."
    match code:
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return NotAllowed("the call was not let in", why=why)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return UsageError("the call can't be taken as it stands", why=why)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return TryAgain("the call is too much, for itself or at this moment", why=why)
        case grpc.StatusCode.UNIMPLEMENTED:
            return Refused("what listens there is no Tern of this version", why=why, reason="NOT_OFFERED")
        case _:
            return Unreachable("Tern's ControlService gave no answer", why=why, unchanged=unchanged)


def _causes(why: tuple[str, ...]) -> list[str]:
    """As many as fit, and how many did not."""
    lines: list[str] = []
    room = LONGEST_WHY
    for number, line in enumerate(why):
        short = _short(line, LONGEST_LINE)
        if len(short.encode()) > room:
            return [*lines, f"and {len(why) - number} more"]
        room -= len(short.encode())
        lines.append(short)
    return lines


def _short(words: str, longest: int) -> str:
    """At most so many bytes of UTF-8."""
    data = words.encode(errors="replace")
    if len(data) <= longest:
        return data.decode()
    return data[: longest - 3].decode(errors="ignore") + "…"


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.PreconditionFailure) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
