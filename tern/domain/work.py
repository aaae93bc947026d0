"""What store, flows and engines hand each other: claims, wishes, polls, and what became of them. No behaviour."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tern.domain.control import ReceiptLine, Step, Verb
from tern.domain.dispatch import Approach
from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId, DispatchKey, PlanId, ScopeName
from tern.domain.model import Claim, Deployment, OperationScope, RemoteCall
from tern.domain.outcome import Outcome
from tern.domain.policy import Policy
from tern.domain.samples import Sample
from tern.domain.selection import Selection


@dataclass(frozen=True, slots=True)
class DispatchClaimed:
    """The operation is ours to drive, its intent is committed."""

    claim: Claim
    scope: OperationScope
    approach: Approach


@dataclass(frozen=True, slots=True)
class NotClaimed:
    """Nothing to do here now: held, taken, not due, settled. An echo, not an error."""

    why: str


class Fenced(StrEnum):
    """What a write under a claim came to."""

    DONE = "done"
    LOST = "lost"
    """The claim is no longer ours: 0 rows were changed, stop."""
    CONFLICT = "conflict"
    """Another remote id is already there; it stays (G5)."""


@dataclass(frozen=True, slots=True)
class DeliveryClaimed:
    """A wish on one operation is ours to bring forward. `key` is set where a dispatch must be resolved first."""

    claim: Claim
    scope: OperationScope
    verb: Verb
    delivery_id: int
    step: Step
    key: DispatchKey | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class DeliverySettled:
    """The wish needed no call; it stands settled with its operation."""

    scope: ScopeName
    outcome: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """One operation to look at: the call that asks, and the revision last seen."""

    operation_id: int
    call: RemoteCall
    revision: int


@dataclass(frozen=True, slots=True)
class Looked:
    """The answer about one cursor. A cursor without one is unchanged."""

    cursor: Cursor
    outcome: Outcome[Sample]


@dataclass(frozen=True, slots=True)
class Poll:
    """One deployment's batch under a poll lease."""

    deployment: Deployment
    owner: str
    cursors: tuple[Cursor, ...]
    has_retryable: bool


@dataclass(frozen=True, slots=True)
class Due:
    """An operation that a bell should be rung for."""

    operation_id: int
    scope: ScopeName


@dataclass(frozen=True, slots=True)
class DueControl:
    """A wish that a bell should be rung for."""

    operation_id: int
    scope: ScopeName
    verb: Verb


@dataclass(frozen=True, slots=True)
class DueWork:
    """Everything that the reconciling sweep found to be due."""

    dispatches: tuple[Due, ...] = ()
    controls: tuple[DueControl, ...] = ()
    applies: tuple[ApplyId, ...] = ()


@dataclass(frozen=True, slots=True)
class NewApply:
    """An accepted-to-be rollout. `deployments` is in rollout order."""

    plan_id: PlanId
    environment: str
    deployments: tuple[str, ...]
    policy: Policy
    caller: str
    reason: str
    idempotency_key: str
    allow_unsafe: bool = False

    @classmethod
    def from_message(
        cls,
        plan: str,
        environment: str,
        deployments: object,
        policy: object,
        caller: str,
        reason: str,
        key: str,
        *,
        allow_unsafe: object,
    ) -> "NewApply":
        """From what another service sent; raises UsageError for anything that can't be read.

        Nothing is guessed from a value of another type: the text "false" is no consent, and a text is no list.
        """
        texts = {"plan": plan, "environment": environment, "caller": caller, "reason": reason, "key": key}
        why = [f"{name} is no text" for name, value in texts.items() if not _is_text(value)]
        names = tuple(deployments) if isinstance(deployments, list | tuple) else ()
        if not isinstance(deployments, list | tuple) or not all(_is_text(name) for name in names):
            why.append("deployments is no list of names")
        if not isinstance(allow_unsafe, bool):
            why.append("allow_unsafe is neither true nor false")
        default = Policy().as_json()
        chosen = dict(policy) if isinstance(policy, Mapping) else {}
        if not isinstance(policy, Mapping):
            why.append("policy is no object")
        else:
            why += [f"policy has no {name!a}" for name in policy if name not in default]
        if why:
            raise UsageError("the message can't be read", why=tuple(why))
        try:
            frozen = Policy.from_json({**default, **chosen})
        except ValueError as error:
            raise UsageError("the rollout policy can't be read", why=(str(error),)) from None
        return cls(PlanId(plan), environment, names, frozen, caller, reason, key, allow_unsafe is True)


@dataclass(frozen=True, slots=True)
class AcceptedApply:
    """The rollout exists. is_new is False where the same key had made it before (ID1)."""

    apply_id: ApplyId
    is_new: bool
    first: tuple[Due, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asks of some operations of one apply. `deployments` None means all."""

    verb: Verb
    apply_id: ApplyId
    deployments: tuple[str, ...] | None
    caller: str
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A wish as a door took it in, before anybody looked at the apply. expected: how many operations the asker
    thinks that the selection has, None for any number.
    """

    verb: Verb
    apply_id: ApplyId
    selection: Selection
    caller: str
    reason: str
    dry_run: bool = False
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class WishReceipt:
    """One line per operation; request_id is None when nothing was accepted."""

    request_id: int | None
    lines: tuple[ReceiptLine, ...]
    due: tuple[DueControl, ...] = ()


class Resolved(StrEnum):
    """What a person who looked found out about an uncertain operation."""

    NOT_STARTED = "not-started"
    ENDED = "ended"
    REMOTE_ID = "remote-id"
    REPEAT_APPLY = "repeat-apply"


@dataclass(frozen=True, slots=True)
class ChangePreview:
    """What one change would do at one target."""

    namespace: str
    table_name: str
    change_class: str
    recipe: str
    locks: tuple[str, ...]
    unsafe_reason: str
    refused_reason: str
    estimated_rows: int
    estimated_s: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an engine's own log."""

    at: str
    level: str
    event: str
    message: str


def _is_text(value: object) -> bool:
    """A text that PostgreSQL can hold: JSON can spell a NUL and half a surrogate pair."""
    return isinstance(value, str) and re.search("[\x00\ud800-\udfff]", value) is None
