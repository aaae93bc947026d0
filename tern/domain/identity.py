"""Ids as small types, and the one place that knows where an operation's remote id lives (G1, G2, G5)."""

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from tern.domain.errors import ScopeRefused

ApplyId = NewType("ApplyId", str)
"""Public id of an apply, `apl-…`."""

PlanId = NewType("PlanId", str)
"""Public id of a plan, `pln-…`."""

RemoteId = NewType("RemoteId", str)
"""The engine's own id for an operation's work. Never empty."""

DispatchKey = NewType("DispatchKey", str)
"""The idempotency key of one generation of one operation."""

_SCOPE = re.compile(r"(apl-[0-9a-z]+)/([A-Za-z0-9][A-Za-z0-9._-]{0,62})")
APPLY_ID = re.compile(r"apl-[0-9a-z]+")
DEPLOYMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class ScopeName:
    """`apl-…/DEPLOYMENT`: the name of one operation, in messages, logs and at the engine."""

    apply_id: ApplyId
    deployment: str

    def __str__(self) -> str:
        return f"{self.apply_id}/{self.deployment}"

    @classmethod
    def parse(cls, text: str) -> "ScopeName":
        """Reads `apl-…/DEPLOYMENT`; raises ScopeRefused for anything else, the empty deployment included."""
        match = _SCOPE.fullmatch(text)
        if match is None:
            message = f"{text!r} is not a scope; a scope is written apl-…/DEPLOYMENT"
            raise ScopeRefused(message, reason="SCOPE_MALFORMED")
        return cls(ApplyId(match[1]), match[2])


def is_scope(text: str) -> bool:
    """Whether it names an operation."""
    return _SCOPE.fullmatch(text) is not None


class RemoteIdHome(StrEnum):
    """The column that holds a remote id. Which one is decided by the count of operations alone (G1)."""

    APPLY = "applies.external_id"
    OPERATION = "apply_operations.engine_resume_context"


@dataclass(frozen=True, slots=True)
class RemoteIdentity:
    """Where the remote id of one operation lives and which it is.

    Raises ScopeRefused (REMOTE_ID_MISPLACED) when an id stands where it must not: using it could address a
    sibling, and the database's own triggers should have made it impossible.
    """

    operation_count: int
    external_id: str | None
    engine_resume_context: str | None

    def __post_init__(self) -> None:
        if self.operation_count < 1:
            message = f"an apply with {self.operation_count} operations has no remote identity"
            raise ScopeRefused(message, reason="REMOTE_ID_MISPLACED")
        misplaced = self.external_id if self.home is RemoteIdHome.OPERATION else self.engine_resume_context
        if misplaced is not None:
            message = (
                f"a remote id stands outside {self.home} in an apply of {self.operation_count} operations"
            )
            raise ScopeRefused(message, reason="REMOTE_ID_MISPLACED")

    @property
    def home(self) -> RemoteIdHome:
        """The column that may hold the id."""
        return home_of_remote_id(self.operation_count)

    @property
    def remote_id(self) -> RemoteId | None:
        """The id, or None as long as the engine has not given one."""
        stored = self.external_id if self.home is RemoteIdHome.APPLY else self.engine_resume_context
        return RemoteId(stored) if stored else None


def home_of_remote_id(operation_count: int) -> RemoteIdHome:
    """The column for an apply of so many operations; raises nothing."""
    return RemoteIdHome.APPLY if operation_count == 1 else RemoteIdHome.OPERATION


def dispatch_key(scope: ScopeName, generation: int) -> DispatchKey:
    """The key under which an engine deduplicates this operation's Apply (G4).

    A function of the public apply id, the deployment and the generation alone, so that every worker, crash and
    re-claim computes the same one.
    """
    digest = hashlib.sha256(f"{scope}#{generation}".encode()).hexdigest()
    return DispatchKey(f"tern-{digest[:40]}")
