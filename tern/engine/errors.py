"""What the engine refuses, and how: a gRPC status, a stable reason and words for a person."""

from enum import StrEnum

import grpc


class Reason(StrEnum):
    """The stable words that travel in ErrorInfo, in logs and on command lines."""

    INVALID_REQUEST = "INVALID_REQUEST"
    APPLY_NOT_FOUND = "APPLY_NOT_FOUND"
    KEY_FORBIDDEN = "KEY_FORBIDDEN"
    KEY_REUSED = "KEY_REUSED"
    OPERATION_MISMATCH = "OPERATION_MISMATCH"
    STALE_DRIVER = "STALE_DRIVER"
    TARGET_MISMATCH = "TARGET_MISMATCH"
    TYPE_MISMATCH = "TYPE_MISMATCH"
    PLAN_UNKNOWN = "PLAN_UNKNOWN"
    OLDER_NUMBERING = "OLDER_NUMBERING"
    TABLE_MISMATCH = "TABLE_MISMATCH"
    DDL_INVALID = "DDL_INVALID"
    STATEMENT_REFUSED = "STATEMENT_REFUSED"
    REWRITE_REFUSED = "REWRITE_REFUSED"
    UNSAFE_CHANGE = "UNSAFE_CHANGE"
    NOT_PREVIEWED = "NOT_PREVIEWED"
    NOT_OFFERED = "NOT_OFFERED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    TOKENS_UNREADABLE = "TOKENS_UNREADABLE"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    TRANSACTION_POOLER = "TRANSACTION_POOLER"
    STATE_VERSION = "STATE_VERSION"
    INTERNAL = "INTERNAL"


class EngineError(Exception):
    """A call that the engine refuses or can't answer; nothing was changed by it."""

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = str(reason)
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def invalid(message: str) -> EngineError:
    """The request can't be read as it stands."""
    return EngineError(grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_REQUEST, message)


def precondition(reason: Reason, message: str) -> EngineError:
    """The request is well-formed, and something about us or about the job forbids it."""
    return EngineError(grpc.StatusCode.FAILED_PRECONDITION, reason, message)


def unknown_apply(apply_id: str) -> EngineError:
    """No job here bears that id."""
    return EngineError(
        grpc.StatusCode.NOT_FOUND, Reason.APPLY_NOT_FOUND, f"there is no apply {apply_id!r} here"
    )


def unavailable(message: str, reason: Reason = Reason.DATABASE_UNAVAILABLE) -> EngineError:
    """The database can't be worked on; the same call may work later, and nothing follows for any change."""
    return EngineError(grpc.StatusCode.UNAVAILABLE, reason, message)
