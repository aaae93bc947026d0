"""What store, flows and engines hand each other: claims, wishes, polls, and what became of them. No behaviour."""

from dataclasses import dataclass
from enum import StrEnum

from tern.domain.choice import Choice
from tern.domain.control import VOLUMES, ReceiptLine, Step, Verb
from tern.domain.dispatch import Approach
from tern.domain.drift import Foretold
from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId, DispatchKey, PlanId, RemoteId, ScopeName
from tern.domain.model import Claim, Deployment, OperationScope, RemoteCall
from tern.domain.outcome import Outcome
from tern.domain.policy import Policy
from tern.domain.samples import Sample
from tern.domain.selection import Selection
from tern.domain.states import ApplyState


@dataclass(frozen=True, slots=True)
class DispatchClaimed:
    """The operation is ours to drive, its intent is committed."""

    claim: Claim
    scope: OperationScope
    approach: Approach
    is_held: bool = False
    """Nothing may begin at its target: what was sent is settled there, and the next try is kept back."""
    following: tuple["Due", ...] = ()
    """The next of the same apply, marked as notified in the same transaction."""


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
    TAKEN = "taken"
    """The id is another operation's at that engine: nothing was stored, and of both only a person can tell (G2)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An id that could not be stored is written down. call_id is None where it is the operation's own already.

    may_be_adopted: the operation has no id and nothing was sent since, so that a look which knows it is enough.
    """

    call_id: int | None = None
    may_be_adopted: bool = False


@dataclass(frozen=True, slots=True)
class KeyLook:
    """An unanswered dispatch whose engine can be asked what became of its key. The claim is nobody's: it carries what
    the question needs, and writes nothing.
    """

    claim: Claim
    scope: OperationScope
    only_whether_there: bool = False
    """Nobody expects an answer about the key any more: only whether anybody answers there at all."""


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
    volume: int | None = None
    caller: str = ""


@dataclass(frozen=True, slots=True)
class DeliverySettled:
    """The wish needed no call; it stands settled with its operation."""

    scope: ScopeName
    outcome: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """One operation to look at: the call that asks, and the revision last seen. looks: how many looks had been written
    when this one began; None where that is not known.
    """

    operation_id: int
    call: RemoteCall
    revision: int
    looks: int | None = None

    def is_overtaken(self, looks: int) -> bool:
        """Another look was written since this one began: which of the two was answered later is not known, so the one
        that stands stays. looks: how many have been written by now.
        """
        return self.looks is not None and self.looks != looks


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
    unanswered: "tuple[Due, ...]" = ()
    """Dispatches without an answer and without an id, to be looked at by their keys."""
    outstanding: tuple[int, ...] = ()
    """What was sent there and may still act although no operation follows it."""


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
    digest: str = ""
    """What the asker was told that the plan is; empty where they don't say."""
    foretold: tuple[Foretold, ...] = ()
    """What the engines said that the change would do."""
    choice: Choice | None = None
    """How the deployments were chosen, where it was not by their names: a repeated request is compared by it."""
    known_as: str = ""
    """The operation that its asker calls it, where that is another Tern."""
    accept_drift: bool = False
    """It begins although the last change was left half done at a target."""


@dataclass(frozen=True, slots=True)
class AcceptedApply:
    """The rollout exists. is_new is False where the same key had made it before (ID1)."""

    apply_id: ApplyId
    is_new: bool
    first: tuple[Due, ...] = ()
    told: tuple[str, ...] = ()
    """What its asker should know, of what was found when it was accepted."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The answer to a request for a rollout. For one that was accepted before, deployments are what it has."""

    apply_id: ApplyId
    is_new: bool
    plan_id: PlanId
    environment: str
    database: str
    deployments: tuple[str, ...]
    policy: Policy
    idempotency_key: str
    caller: str
    reason: str
    warnings: tuple[str, ...] = ()
    """Where a target strays from the others or from its review, or was not asked."""
    state: ApplyState | None = None
    """Of one that was accepted before: where it is by now, as far as that was read."""

    @property
    def is_over(self) -> bool:
        """It was accepted before, and has its verdict: nobody has to follow it."""
        return self.state is not None and self.state.is_finished

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "apply_id": self.apply_id,
            "is_new": self.is_new,
            "plan_id": self.plan_id,
            "environment": self.environment,
            "database": self.database,
            "deployments": list(self.deployments),
            "operation_count": len(self.deployments),
            "policy": self.policy.as_json(),
            "idempotency_key": self.idempotency_key,
            "caller": self.caller,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """A wish as a door took it in, before anybody looked at the apply. Raises UsageError where it has no reason, or
    a volume that no engine has.

    expected: for how many operations the asker thinks that it is accepted, None for any number.
    volume: 1 to 11, of the verb volume alone. although_cancel_refused: of a start alone; it takes back a cancel too
    that the engine has refused. although_foreign: of stop and cancel alone; the id of a job that is to be halted
    although it is not the operation's own work.
    """

    verb: Verb
    apply_id: ApplyId
    selection: Selection
    caller: str
    reason: str
    dry_run: bool = False
    expected: int | None = None
    volume: int | None = None
    although_cancel_refused: bool = False
    although_foreign: str = ""
    outstanding: bool = False
    """Of a cancel alone: it is about what was sent and is followed no more, not about the operation."""

    def __post_init__(self) -> None:
        if self.outstanding and (self.verb is not Verb.CANCEL or self.although_foreign):
            what = "only a cancel ends what is outstanding, and by the id that is outstanding"
            raise UsageError(what)
        if self.although_foreign and not self.verb.is_halting:
            what = f"a {self.verb} is never sent to other work; only stop and cancel name an id all the same"
            raise UsageError(what)
        if self.although_cancel_refused and self.verb is not Verb.START:
            raise UsageError("only a start takes back a cancel that was refused")
        if not self.reason.strip():
            what = f"a {self.verb} needs a reason"
            raise UsageError(what, next_step="Say why; it stands in the record.")
        if (self.verb is Verb.VOLUME) != (self.volume is not None):
            what = "a volume is named by the verb volume, and by no other"
            raise UsageError(what)
        if self.volume is not None and self.volume not in VOLUMES:
            what = f"{self.volume} is no volume"
            raise UsageError(what, why=(f"it is one of {VOLUMES[0]} to {VOLUMES[-1]}",))


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
    COMPLETED = "completed"
    REMOTE_ID = "remote-id"
    REPEAT_APPLY = "repeat-apply"
    SAME_WORK = "same-work"


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an engine said of an id that a person named, and the operation's fence when it was asked."""

    sample: Sample
    fence: int


@dataclass(frozen=True, slots=True)
class Question:
    """Whom to ask about an id that a person named."""

    deployment: Deployment
    call: RemoteCall


@dataclass(frozen=True, slots=True)
class Answered:
    """A person's answer about uncertain operations, as a door took it in. Raises UsageError where it has no reason, or
    a remote id that does not belong to it, or is about nothing in particular.
    """

    apply_id: ApplyId
    selection: Selection
    found: Resolved
    remote_id: RemoteId | None
    caller: str
    reason: str
    dry_run: bool = False
    expected: int | None = None
    engine_is_gone: bool = False
    """Nobody can be asked any more: what was sent stays outstanding."""
    taken_from: ScopeName | None = None
    """The operation that the remote id was taken for until now."""

    def __post_init__(self) -> None:
        if (self.found is Resolved.REMOTE_ID) != bool(self.remote_id):
            what = "remote-id=R names the engine's id; the other answers have none"
            raise UsageError(what)
        if self.taken_from is not None and self.found is not Resolved.REMOTE_ID:
            what = "an id is taken from another operation by the answer remote-id=R alone"
            raise UsageError(what)
        if self.engine_is_gone and self.found in {
            Resolved.REMOTE_ID,
            Resolved.REPEAT_APPLY,
            Resolved.SAME_WORK,
        }:
            what = f"{self.found} does not go together with an engine that is gone: nobody there is followed or asked"
            step = "Say ended, completed or not-started."
            raise UsageError(what, next_step=step)
        if not self.reason.strip():
            what = "an answer needs a reason"
            raise UsageError(what, next_step="Say how you know; it stands in the record.")
        if not self.selection.is_explicit:
            what = f"{self.apply_id} is a whole apply, and this is about operations that somebody looked at"
            step = f"Name one: {self.apply_id}/DEPLOYMENT; or say --state uncertain."
            raise UsageError(what, next_step=step)


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
    after_cutover_s: float = 0.0
    """How much of it has to follow a cutover that is deferred."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of an engine's own log."""

    at: str
    level: str
    event: str
    message: str
