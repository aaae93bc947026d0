"""The rows of Tern's tables, column by column as in tern/store/tables.py; times are seconds of the virtual clock.

What the database's CHECKs and triggers refuse, `check` refuses here: a row that PostgreSQL would not hold is a bug
in whoever wrote it.
"""

from dataclasses import dataclass, field
from typing import Any

_FINISHED = ("completed", "failed", "cancelled", "reverted", "skipped")
_FINISHED_APPLY = ("completed", "failed", "cancelled", "reverted")


class Row:
    """What every row can do; `TABLE` names it in the audit, `WATCHED` are the columns whose change is audited."""

    TABLE = ""
    WATCHED: tuple[str, ...] | None = ()

    def check(self, old: dict[str, Any]) -> None:
        """Raises AssertionError for what the database would refuse. `old` is empty for an insert."""


@dataclass
class DeploymentRow(Row):
    """A named place that a change must go."""

    TABLE = "deployments"
    name: str
    environment: str
    database: str
    address: str
    target: str
    labels: dict[str, str]
    position: int
    credentials: dict[str, Any]
    capabilities: dict[str, Any]
    idempotent_dispatch: bool
    drained: bool
    created_at: float


@dataclass
class PlanRow(Row):
    """A reviewed change."""

    TABLE = "plans"
    id: int
    plan_identifier: str
    environment: str
    database: str
    database_type: str
    digest: str
    caller: str
    created_at: float
    targets: list[Any] = field(default_factory=list)
    policy: dict[str, Any] | None = None


@dataclass
class ApplyRow(Row):
    """One rollout."""

    TABLE = "applies"
    WATCHED = None
    id: int
    apply_identifier: str
    plan_id: int
    environment: str
    database: str
    operation_count: int
    options: dict[str, Any]
    policy: dict[str, Any]
    idempotency_key: str
    request_digest: str
    caller: str
    reason: str
    created_at: float
    state_changed_at: float
    state: str = "pending"
    external_id: str | None = None
    error_message: str = ""
    revision: int = 0
    verdict_effects_done_at: float | None = None
    next_advance_at: float | None = None
    completed_at: float | None = None

    def check(self, old: dict[str, Any]) -> None:
        """See Row."""
        assert self.external_id is None or self.operation_count == 1, "an id on a multi apply"
        assert self.external_id != "", "an empty id"
        if old:
            assert old["external_id"] in {None, self.external_id}, "the remote id is final"
        assert (self.completed_at is not None) == (self.state in _FINISHED_APPLY), (
            "finished ones are completed"
        )


@dataclass
class OperationRow(Row):
    """An apply's share on one deployment."""

    TABLE = "apply_operations"
    WATCHED = (
        "state",
        "claim_token",
        "claim_owner",
        "claim_expires_at",
        "dispatch_key",
        "dispatch_generation",
        "dispatch_key_is_dead",
        "engine_resume_context",
        "fence",
        "next_attempt_at",
    )
    id: int
    apply_id: int
    deployment: str
    position: int
    target: str
    state_changed_at: float
    wave: int = 0
    change_digest: str = ""
    state: str = "pending"
    engine_resume_context: str | None = None
    engine_resume_metadata: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    answered_attempts: int = 0
    dispatch_generation: int = 1
    dispatch_key: str | None = None
    dispatch_intent_at: float | None = None
    dispatch_key_is_dead: bool = False
    repeat_is_safe: bool = False
    runs_though_stopped: bool = False
    fence: int = 0
    claim_token: str | None = None
    claim_owner: str | None = None
    claim_expires_at: float | None = None
    next_attempt_at: float | None = None
    rung_at: float | None = None
    next_poll_at: float | None = None
    progress_revision: int = 0
    sampled_at: float | None = None
    sampled_attempt: int | None = None
    poll_failures: int = 0
    poll_error: str = ""
    start_sent_at: float | None = None
    volume: int | None = None
    summary: str = ""
    error_reason: str = ""
    error_message: str = ""
    started_at: float | None = None
    completed_at: float | None = None

    def check(self, old: dict[str, Any]) -> None:
        """See Row."""
        assert self.engine_resume_context != "", "an empty id"
        if old:
            assert old["engine_resume_context"] in {None, self.engine_resume_context}, (
                "the remote id is final"
            )
            assert self.fence >= old["fence"], "the fence only rises"
            assert self.dispatch_generation >= old["dispatch_generation"], "the generation only rises"
        assert (self.completed_at is not None) == (self.state in _FINISHED), "finished ones are completed"
        assert (self.claim_token is None) == (self.claim_expires_at is None) == (self.claim_owner is None), (
            "claims are whole"
        )
        assert (self.dispatch_key is None) == (self.dispatch_intent_at is None), "intents are whole"


@dataclass
class TableChangeRow(Row):
    """One statement inside one operation."""

    TABLE = "table_changes"
    id: int
    operation_id: int
    apply_id: int
    ordinal: int
    namespace: str
    table_name: str
    ddl: str
    action: str
    unsafe_reason: str = ""
    state: str = "pending"
    rows_copied: int | None = None
    rows_total: int | None = None
    percent: int = 0
    eta_seconds: int | None = None
    checksum_rows_checked: int | None = None
    checksum_rows_total: int | None = None
    detail: str = ""
    error: str = ""


@dataclass
class RequestRow(Row):
    """An operator's wish."""

    TABLE = "control_requests"
    id: int
    apply_id: int
    verb: str
    caller: str
    reason: str
    outcomes: list[Any]
    created_at: float
    failures_released: int | None = None
    volume: int | None = None


@dataclass
class DeliveryRow(Row):
    """A wish's fate on one operation."""

    TABLE = "control_deliveries"
    WATCHED = None
    id: int
    request_id: int
    apply_id: int
    operation_id: int
    verb: str
    next_attempt_at: float | None
    created_at: float
    state: str = "pending"
    attempts: int = 0
    refusals: int = 0
    called_at: float | None = None
    sent_at: float | None = None
    engine_words: str = ""
    closed_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Still to be worked on."""
        return self.state in {"pending", "sent"}

    def check(self, old: dict[str, Any]) -> None:
        """See Row."""
        assert (self.closed_at is None) == self.is_open, "closed ones are dated"
        assert self.is_open or self.next_attempt_at is None, "closed ones are not due"
        assert self.state != "sent" or self.sent_at is not None, "sent ones are dated"


@dataclass
class ReservationRow(Row):
    """Which live apply holds a target."""

    TABLE = "target_reservations"
    environment: str
    database: str
    deployment: str
    apply_id: int
    taken_at: float


@dataclass
class EventRow(Row):
    """What happened. The chain of hashes is the database's own and is not played here."""

    TABLE = "apply_events"
    id: int
    apply_id: int
    operation_id: int | None
    at: float
    event: str
    who: str
    why: str
    before: str
    after: str
    detail: dict[str, Any]


@dataclass
class LeaseRow(Row):
    """Who sweeps or polls now."""

    TABLE = "sweep_leases"
    name: str
    owner: str
    token: str
    expires_at: float
    finished_at: float | None = None
    finished_by: str = ""
