"""The protocols that flows use to reach the world. One Store method is one transaction is one durable step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tern.bells import Bells, Chance
from tern.domain.control import Verb
from tern.domain.drift import Foretold
from tern.domain.enqueue import NewChange
from tern.domain.errors import TernError
from tern.domain.identity import ApplyId, DispatchKey, PlanId, RemoteId, ScopeName
from tern.domain.model import (
    Capabilities,
    Claim,
    Deployment,
    OperationScope,
    Plan,
    PlannedChange,
    RemoteCall,
    Resolution,
    ReviewedTarget,
    Unsupported,
)
from tern.domain.outcome import Outcome
from tern.domain.policy import Policy
from tern.domain.rest import Rest
from tern.domain.rest_asked import NewRest
from tern.domain.samples import Sample
from tern.domain.selection import Member
from tern.domain.timing import RPC_DEADLINE_S
from tern.domain.work import (
    AcceptedApply,
    Answered,
    Asked,
    ChangePreview,
    Cursor,
    DeliveryClaimed,
    DeliverySettled,
    DispatchClaimed,
    Due,
    DueControl,
    DueWork,
    Enqueued,
    Fenced,
    Kept,
    KeyLook,
    LogLine,
    Looked,
    NewApply,
    NotClaimed,
    Poll,
    Resolved,
    WishReceipt,
)
from tern.evidence import EvidenceStore
from tern.forward import ForwardStore
from tern.many import Halts, ManyStore, UnwaitedCalls
from tern.outstanding_port import OutstandingStore
from tern.plan_port import ForeseeingStore
from tern.register_port import DeploymentStore, KeyedEngine, RegisterStore


class StorageUnavailable(Exception):  # noqa: N818
    """PostgreSQL did not answer, or the answer to a COMMIT was lost: the step may have happened, nothing may be
    concluded. Whoever catches this ends the tick: the claim expires, and the rows say what is due.
    """


class DispatchStore(ForwardStore, Protocol):
    """Durable steps of a dispatch."""

    def claim_dispatch(self, operation_id: int, name: ScopeName) -> DispatchClaimed | NotClaimed:
        """Gates re-checked under the apply's lock; token, `running`, attempt and intent committed (§5.1).

        Raises ScopeRefused for a message whose ids don't fit the rows; a claimed row that can never run is settled.
        """

    def record_remote_id(self, claim: Claim, scope: OperationScope, remote_id: RemoteId) -> Fenced:
        """The engine's id, and nothing else (G3). One that is another operation's there is not stored; then both are
        uncertain, in the same transaction.
        """

    def record_dispatched(self, claim: Claim) -> Fenced:
        """The state that depends on the id; the claim is given back."""

    def record_refused(self, claim: Claim, message: str, reason: str, *, key_is_dead: bool) -> Fenced:
        """A definite no: failed, with the engine's words."""

    def record_unanswered(
        self,
        claim: Claim,
        message: str,
        *,
        delay_s: float,
        engine_answers: bool,
        is_heard: bool | None = None,
    ) -> Fenced:
        """No usable answer: failed_retryable, same key again after the delay. is_heard: whether anything was heard of
        the engine at all, None where it was not asked.
        """

    def record_uncertain(self, claim: Claim, message: str, *, key_is_dead: bool = False) -> Fenced:
        """Nobody here can know, or enough was tried: held for a person (G10)."""

    def dispatch_budget(self, claim: Claim) -> tuple[int, float]:
        """Attempts made while the engine answered, and the age of the intent in seconds."""


class ControlStore(Protocol):
    """Durable steps of an operator's wish."""

    def members(self, apply_id: ApplyId) -> tuple[Member, ...]:
        """The apply's operations as selectors see them, in rollout order; raises NotFound."""

    def accept_wish(self, asked: Asked) -> WishReceipt:
        """Selected among the rows as they are now, counted, answered; request and deliveries are inserted.

        Nothing is locked that a driver could hold (ST11), and there are as many statements for ten thousand
        operations as for one. With dry_run the same answer is computed and nothing is written. Raises NotFound,
        Refused.
        """

    def settle_uncalled(self, apply_id: ApplyId, most: int) -> int:
        """Wishes that need no call are carried out, for as many as `most` operations of the apply at once: what was
        never dispatched is stopped, cancelled, skipped or put back in line. Returns for how many; raises NotFound.
        """

    def claim_delivery(
        self, operation_id: int, name: ScopeName, verb: Verb
    ) -> DeliveryClaimed | DeliverySettled | NotClaimed:
        """The wish is ours, or was settled in the same transaction because no call is needed."""

    def settle_undispatched(self, claim: Claim, delivery_id: int) -> Fenced:
        """The key is dead at the engine: the operation and its table changes are settled by the wish."""

    def record_sent(self, claim: Claim, delivery_id: int) -> Fenced:
        """The engine took the call; the wish stays open until its effect is observed."""

    def record_volume(self, claim: Claim, delivery_id: int, volume: int) -> Fenced:
        """The engine works at this volume now: its answer is the effect, and the wish is acknowledged."""

    def record_undelivered(
        self,
        claim: Claim,
        delivery_id: int,
        message: str,
        *,
        delay_s: float,
        was_sent: bool = True,
        is_heard: bool | None = None,
    ) -> Fenced:
        """No usable answer: the wish stays open and is repeated. Where nothing was sent, no attempt is counted.
        is_heard: whether anything was heard of the engine, None where it was not asked.
        """

    def record_delivery_refused(
        self, claim: Claim, delivery_id: int, message: str, *, delay_s: float
    ) -> Fenced:
        """The engine said no: failed with its words; a refused stop or cancel stays open, covers, and is repeated."""

    def hold_uncertain(self, claim: Claim, delivery_id: int, message: str) -> Fenced:
        """The wish can't be driven without guessing; the operation is uncertain and the wish stays open."""


class PollStore(Protocol):
    """Durable steps of a poll."""

    def begin_poll(self, deployment: str) -> Poll | NotClaimed:
        """A lease on the deployment's polling and the operations that are due."""

    def record_looks(self, poll: Poll, looks: Sequence[Looked]) -> tuple[Due | DueControl, ...]:
        """What was seen, each row only if id and fence are still those asked for, no other look was written since, and
        the lease is still this poll's; returns what became due by it.
        """

    def expedite_retries(self, deployment: str) -> None:
        """The engine's Health answers again: waiting retries come due, spread by jitter."""

    def begin_look(self, operation_id: int, name: ScopeName) -> Poll | NotClaimed:
        """The cursor of one operation, for a look right after a call; no lease."""


class SweepStore(Protocol):
    """Durable steps of the sweeps."""

    def begin_sweep(self, name: str, owner: str) -> bool:
        """The named sweep is ours until it finishes or its lease runs out."""

    def finish_sweep(self, name: str, owner: str) -> None:
        """The sweep was done to its end, now."""

    def seconds_since_sweep(self, name: str) -> tuple[float, str]:
        """Age of the last finished sweep and who did it; infinite if there was none."""

    def due_work(self) -> DueWork:
        """Dispatches, wishes and applies that are due, by index."""

    def answer_canary(self, queue: str, token: str, who: str, clock_s: float | None = None) -> None:
        """Somebody reads this queue; `clock_s` is what his own clock says, and only told."""

    def due_deployments(self) -> tuple[str, ...]:
        """Deployments with an operation to poll or an engine to probe, by index."""

    def unheard_work(self, after_s: float) -> DueWork:
        """Dispatches and wishes that have been due for so long, however often they were rung for; no applies."""

    def unheard_deployments(self, after_s: float) -> tuple[str, ...]:
        """Deployments with an operation that should have been polled so long ago."""


class ApplyStore(Protocol):
    """Durable steps of a whole apply."""

    def save_plan(
        self,
        *,
        environment: str,
        database: str,
        database_type: str,
        changes: Sequence[PlannedChange],
        caller: str,
        targets: Sequence[ReviewedTarget] = (),
        policy: Policy | None = None,
    ) -> Plan:
        """The reviewed change, with where and how where the reviewer said so; the same content is the same plan."""

    def load_plan(self, plan_id: PlanId) -> Plan:
        """Raises NotFound."""

    def find_plan(self, change: NewChange) -> PlanId | None:
        """The plan with this content, if it was ever kept."""

    def record_previews(self, plan_id: PlanId, found: Sequence[Foretold], caller: str) -> None:
        """What engines told a reviewer; raises NotFound."""

    def reviewed_previews(self, plan_id: PlanId, deployments: Sequence[str]) -> Mapping[str, Foretold]:
        """What each of these engines told the last reviewer of the plan, by deployment."""

    def knows_key(self, idempotency_key: str) -> bool:
        """Whether an apply was made under this key."""

    def refuse_held(self, environment: str, database: str, deployments: Sequence[str]) -> None:
        """Raises Refused where another apply holds one of these targets, and says who and how far it is."""

    def record_refusal(self, key: str, caller: str, refusal: TernError) -> None:
        """What became of a message whose sender gets no answer; the oldest records give way to new ones."""

    def accept_apply(self, new: NewApply) -> AcceptedApply:
        """Apply, operations, table changes and reservations in one transaction; raises Refused, NotFound."""

    def rest(self, new: NewRest) -> Rest:
        """What is left of an apply over all that carries it on; writes nothing. Raises NotFound, Refused."""

    def accept_rest(self, new: NewRest) -> AcceptedApply:
        """The group of the rest that the digest names, as a new apply: computed again under the locks of all that could
        make it live, in the transaction that accepts it. Raises Refused with what has changed, NotFound.
        """

    def refuse_sent(self, new: NewRest) -> None:
        """Raises Refused, with the follow-up's name and who sent it, where the digest has been sent already."""

    def accepted_as(self, apply_id: ApplyId) -> Enqueued:
        """An apply that was accepted, as its asker is answered; raises NotFound."""

    def advance_apply(self, apply_id: ApplyId) -> tuple[Due | DueControl, ...]:
        """Settles undispatched operations under a stop, projects the parent, and returns what the policy makes due."""

    def claim_verdict_effects(self, apply_id: ApplyId) -> str | None:
        """The summary of a verdict whose effects nobody has driven yet; marks them done."""


class Store(
    DispatchStore,
    ControlStore,
    PollStore,
    SweepStore,
    ApplyStore,
    ForeseeingStore,
    DeploymentStore,
    ManyStore,
    EvidenceStore,
    OutstandingStore,
    RegisterStore,
    Protocol,
):
    """Everything that is durable."""


class Engine(UnwaitedCalls, KeyedEngine, Protocol):
    """One deployment's engine in domain words. No method raises for what a server or network does."""

    def apply(self, scope: OperationScope, claim: Claim) -> Outcome[RemoteId]:
        """Hands the change over under the claim's key."""

    def resolve(
        self, scope: OperationScope, claim: Claim, key: DispatchKey, *, forbid: bool
    ) -> Outcome[Resolution]:
        """What became of a key."""

    def progress(self, call: RemoteCall) -> Outcome[Sample]:
        """One look."""

    def batch_progress(self, cursors: Sequence[Cursor]) -> tuple[Looked, ...]:
        """Many looks; falls back to single ones where the engine has no batches."""

    def stop(self, call: RemoteCall) -> Outcome[None]:
        """Asks for a resumable halt."""

    def start(self, call: RemoteCall) -> Outcome[None]:
        """Asks to go on."""

    def cutover(self, call: RemoteCall) -> Outcome[None]:
        """Lets the application see the change."""

    def cancel(self, call: RemoteCall) -> Outcome[None]:
        """Asks for the permanent end."""

    def revert(self, call: RemoteCall) -> Outcome[None]:
        """Asks to undo a change that is in its revert window."""

    def skip_revert(self, call: RemoteCall) -> Outcome[None]:
        """Asks to close the revert window, so that the change stays."""

    def volume(self, call: RemoteCall, volume: int) -> Outcome[int]:
        """Asks to work at this volume, 1 to 11; the one that holds from now on."""

    def health(self) -> Outcome[str]:
        """Whether the engine answers at all."""

    def probe(self, *, previews: bool | None = None) -> Outcome[Capabilities]:
        """What the engine offers beside the public contract. previews: what is known of that part already."""

    def preview(
        self, deployment: Deployment, changes: Sequence[PlannedChange]
    ) -> Outcome[tuple[ChangePreview, ...] | Unsupported]:
        """What the changes would do; Unsupported where the engine can't say."""

    def logs(self, call: RemoteCall, limit: int) -> Outcome[tuple[LogLine, ...]]:
        """The newest lines, oldest first."""


class Engines(Protocol):
    """Finds the engine of a deployment."""

    def of(self, deployment: Deployment) -> Engine:
        """Its client; one whose every call is Refused with the reason where none can be made (S10)."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The parts that a process has."""

    store: Store
    engines: Engines
    bells: Bells
    chance: Chance
    halts: Halts | None = None
    deadline_s: float = RPC_DEADLINE_S
    """How long an engine may take for one answer."""


__all__ = [
    "AcceptedApply",
    "Answered",
    "Asked",
    "Bells",
    "Chance",
    "ChangePreview",
    "Cursor",
    "DeliveryClaimed",
    "DeliverySettled",
    "DispatchClaimed",
    "Due",
    "DueControl",
    "DueWork",
    "Engine",
    "Engines",
    "Enqueued",
    "Fenced",
    "Kept",
    "KeyLook",
    "LogLine",
    "Looked",
    "Member",
    "NewApply",
    "NewRest",
    "NotClaimed",
    "Poll",
    "Ports",
    "Resolved",
    "StorageUnavailable",
    "Store",
    "WishReceipt",
]
