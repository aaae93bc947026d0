"""Idempotency keys, their tombstones, and fences: what makes a repeated or late call harmless."""

from dataclasses import dataclass

import grpc

from tern.engine.errors import EngineError, Reason, precondition
from tern.engine.session import Connection, row, value


@dataclass(frozen=True)
class CallContext:
    """What a call says about itself beside its request: the metadata tern-operation and tern-fence."""

    operation: str | None = None
    fence: int | None = None


@dataclass(frozen=True)
class KnownKey:
    """What became of a key."""

    job: str | None
    request_hash: bytes | None
    forbidden: bool


def raise_fence(connection: Connection, context: CallContext) -> None:
    """Notes the fence of a mutating call, and refuses the call if a higher one was seen before.

    The row stays locked until the caller's transaction ends: of two drivers one is judged after the other's effect.
    """
    if context.operation is None or context.fence is None:
        return
    highest = value(
        connection,
        "INSERT INTO _tern.fence AS seen (operation, fence) VALUES (%s, %s)"
        "    ON CONFLICT (operation) DO UPDATE SET fence = greatest(seen.fence, excluded.fence)"
        " RETURNING fence",
        (context.operation, context.fence),
    )
    if highest > context.fence:
        message = (
            f"fence {context.fence} for {context.operation} is older than {highest}, which was seen since"
        )
        raise precondition(Reason.STALE_DRIVER, message)


def check_operation(bound: str | None, context: CallContext) -> None:
    """Refuses a call for another operation than the one that the job was started for."""
    if context.operation is not None and context.operation != bound:
        message = f"this apply belongs to {bound or 'no operation'}, the call is for {context.operation}"
        raise precondition(Reason.OPERATION_MISMATCH, message)


def find_key(connection: Connection, key: str) -> KnownKey | None:
    """What is known of a key."""
    found = row(
        connection, "SELECT job, request_hash, forbidden FROM _tern.dispatch_key WHERE key = %s", (key,)
    )
    return None if found is None else KnownKey(found["job"], found["request_hash"], found["forbidden"])


def claim_key(connection: Connection, key: str, *, job: str | None, request_hash: bytes | None) -> KnownKey:
    """Binds a key to a job, or to no job for ever (`job` is None), unless it is bound already; returns what holds.

    The INSERT waits for a rival that holds the same key in an open transaction, and the second statement, with a
    snapshot of its own, sees what the rival committed. One statement for both would not.
    """
    connection.execute(
        "INSERT INTO _tern.dispatch_key (key, job, request_hash, forbidden) VALUES (%s, %s, %s, %s)"
        "    ON CONFLICT (key) DO NOTHING",
        (key, job, request_hash, job is None),
    )
    found = find_key(connection, key)
    if found is None:  # pragma: no cover - keys are never deleted
        message = f"the key {key} was neither kept nor found"
        raise RuntimeError(message)
    return found


def started_by(known: KnownKey, key: str, request_hash: bytes) -> str:
    """The job that an Apply with this key and this request started, or why there is none."""
    if known.job is None:
        message = f"the key {key} was forbidden: it will never start anything here"
        raise precondition(Reason.KEY_FORBIDDEN, message)
    if known.request_hash != request_hash:
        message = f"the key {key} started {known.job} with another request"
        raise EngineError(grpc.StatusCode.ALREADY_EXISTS, Reason.KEY_REUSED, message)
    return known.job
