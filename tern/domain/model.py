"""The nouns as frozen dataclasses: plans, deployments, claims and what a dispatch hands to an engine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tern.domain.identity import ApplyId, DispatchKey, PlanId, RemoteId, ScopeName
from tern.domain.policy import Policy


class Action(StrEnum):
    """What a DDL statement does to its table."""

    CREATE = "create"
    ALTER = "alter"
    DROP = "drop"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """One DDL statement on one table. `unsafe_reason` is empty when it loses nothing."""

    namespace: str
    table_name: str
    ddl: str
    action: Action
    unsafe_reason: str = ""

    @property
    def is_unsafe(self) -> bool:
        """It needs explicit consent."""
        return bool(self.unsafe_reason)


@dataclass(frozen=True, slots=True)
class ReviewedTarget:
    """Where a change was reviewed for: a deployment with the engine and the target that it had then."""

    deployment: str
    address: str
    target: str

    def as_json(self) -> dict[str, str]:
        """One entry of plans.targets."""
        return {"deployment": self.deployment, "address": self.address, "target": self.target}


@dataclass(frozen=True, slots=True)
class Plan:
    """The reviewed change. Immutable; `digest` covers type, changes, targets and policy (review.py).

    targets: where it was reviewed for, in rollout order; empty where nobody chose. policy: how, as it was written
    down; None where nobody said.
    """

    plan_id: PlanId
    environment: str
    database: str
    database_type: str
    digest: str
    changes: tuple[PlannedChange, ...]
    targets: tuple[ReviewedTarget, ...] = ()
    policy: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a deployment's engine was found to offer beside the public contract; None means not asked yet.

    identity: the server and database that its answers name, SYSTEM-IDENTIFIER/DATABASE-OID; '' where they name none.
    """

    resolve: bool | None = None
    batch_progress: bool | None = None
    preview: bool | None = None
    identity: str = ""

    def as_json(self) -> dict[str, bool | str | None]:
        """What stands in deployments.capabilities."""
        return {
            "resolve": self.resolve,
            "batch_progress": self.batch_progress,
            "preview": self.preview,
            "identity": self.identity,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> "Capabilities":
        """Reads deployments.capabilities; what is missing was never asked."""
        known = {key: stored[key] for key in ("resolve", "batch_progress", "preview") if key in stored}
        identity = stored.get("identity")
        return cls(
            **{key: value for key, value in known.items() if isinstance(value, bool)},
            identity=identity if isinstance(identity, str) else "",
        )


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the secrets of a deployment are found: names of environment variables or files, never the secrets.

    Each is written `env:NAME` or `file:/path`, or is empty.
    """

    token: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    password: str = ""
    insecure_plaintext: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """A named place that a change must go."""

    name: str
    environment: str
    database: str
    address: str
    target: str
    labels: Mapping[str, str] = field(default_factory=dict)
    position: int = 0
    credentials: Credentials = field(default_factory=Credentials)
    capabilities: Capabilities = field(default_factory=Capabilities)
    idempotent_dispatch: bool = False
    """A person declared that an Apply which is repeated with its key runs once; what was found there stands above."""
    drained: bool = False
    engine_number: int | None = None
    """Which engine it has, however it is reached; None before it is kept."""
    probe_is_old: bool = False
    """Its engine did not answer when it was last asked what it offers."""
    engine_identity: str = ""
    """Which database its engine works at, as it was made known; what a probe found since stands in capabilities."""

    @property
    def names_another_database(self) -> bool:
        """Its engine was found to work at another database than the one that was made known."""
        return bool(self.engine_identity) and self.capabilities.identity not in {"", self.engine_identity}

    @property
    def knows_keys(self) -> bool:
        """Its engine offers Resolve, or is one of those that name their database, which all do, whatever was found at
        its address since.
        """
        return bool(self.capabilities.resolve) or bool(self.engine_identity)


@dataclass(frozen=True, slots=True)
class TableChange:
    """One statement as it stands in an operation."""

    table_change_id: int
    change: PlannedChange


@dataclass(frozen=True, slots=True)
class OperationScope:
    """One operation, loaded and validated as a whole (G7). Every later step takes this, never loose ids."""

    operation_id: int
    apply_pk: int
    name: ScopeName
    operation_count: int
    remote_id: RemoteId | None
    deployment: Deployment
    plan_id: PlanId
    environment: str
    database: str
    database_type: str
    changes: tuple[TableChange, ...]
    policy: Policy
    allow_unsafe: bool
    caller: str
    change_digest: str = ""
    """Of what may be sent (review.py); without one nothing may be."""

    @property
    def apply_id(self) -> ApplyId:
        """The public id of the apply."""
        return self.name.apply_id


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to drive one operation for a while; every write of the tick proves it (G12).

    fence: what the engine is shown; it rises with every claim and control.
    generation, key: of the intent that was committed with the claim (G4).
    is_first_sender: this claim wrote the intent, so nothing was ever sent under its key before.
    """

    operation_id: int
    token: str
    fence: int
    attempt: int = 0
    generation: int = 0
    key: DispatchKey = DispatchKey("")  # noqa: RUF009 - a NewType over str
    is_first_sender: bool = False
    follows_unanswered: bool = False
    """An earlier call has no answer yet and may still act: this one's answer says nothing about that."""


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """What every call about one remote job carries: its own id and nothing of a sibling's (G2)."""

    name: ScopeName
    remote_id: RemoteId
    environment: str
    fence: int
    caller: str = ""
    """Who asked for it, of a control that somebody asked for."""


@dataclass(frozen=True, slots=True)
class Started:
    """The key started this job."""

    remote_id: RemoteId


@dataclass(frozen=True, slots=True)
class Forbidden:
    """The key started nothing and never will."""


@dataclass(frozen=True, slots=True)
class NeverStarted:
    """The key has started nothing so far."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """The engine does not offer this."""


Resolution = Started | Forbidden | NeverStarted | Unsupported
