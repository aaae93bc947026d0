"""The mapped tables; those that evidence is kept in stand in evidence_tables.py. What each column means stands in
comments.py, what each constraint and index is for in the migration that makes it.

Mapped for typed columns and for Alembic's comparison; no object of these ever leaves the store or is loaded by a unit.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, DateTime, Double, Identity, LargeBinary, Numeric, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Table(DeclarativeBase):
    """Python types to PostgreSQL types, the same in every table."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        Decimal: Numeric(20),
        bytes: LargeBinary,
    }


def _identity() -> Mapped[int]:
    return mapped_column(BigInteger, Identity(always=True), primary_key=True)


def _reference() -> Mapped[int]:
    return mapped_column(BigInteger)


class DeploymentRow(Table):
    """A named place that a change must go."""

    __tablename__ = "deployments"
    name: Mapped[str] = mapped_column(primary_key=True)
    environment: Mapped[str]
    database: Mapped[str]
    address: Mapped[str]
    target: Mapped[str]
    labels: Mapped[dict[str, Any]]
    position: Mapped[int]
    credentials: Mapped[dict[str, Any]]
    capabilities: Mapped[dict[str, Any]]
    idempotent_dispatch: Mapped[bool]
    drained: Mapped[bool]
    deduplicates: Mapped[bool]
    engine_number: Mapped[int | None] = mapped_column(BigInteger)
    engine_identity: Mapped[str]
    probed_at: Mapped[datetime | None]
    probe_is_old: Mapped[bool]
    drained_by: Mapped[str]
    drained_reason: Mapped[str]
    drained_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class PlanRow(Table):
    """A reviewed change, append-only."""

    __tablename__ = "plans"
    id: Mapped[int] = _identity()
    plan_identifier: Mapped[str]
    environment: Mapped[str]
    database: Mapped[str]
    database_type: Mapped[str]
    targets: Mapped[list[Any]]
    policy: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    digest: Mapped[str]
    caller: Mapped[str]
    created_at: Mapped[datetime]


class PlanChangeRow(Table):
    """One statement of a plan."""

    __tablename__ = "plan_changes"
    plan_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    namespace: Mapped[str]
    table_name: Mapped[str]
    ddl: Mapped[str]
    action: Mapped[str]
    unsafe_reason: Mapped[str]


class ApplyRow(Table):
    """One rollout. Its state is written by the projection alone."""

    __tablename__ = "applies"
    id: Mapped[int] = _identity()
    apply_identifier: Mapped[str]
    plan_id: Mapped[int] = _reference()
    environment: Mapped[str]
    database: Mapped[str]
    state: Mapped[str]
    external_id: Mapped[str | None]
    operation_count: Mapped[int]
    options: Mapped[dict[str, Any]]
    policy: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str]
    request_digest: Mapped[str]
    caller: Mapped[str]
    reason: Mapped[str]
    error_message: Mapped[str]
    revision: Mapped[int] = mapped_column(BigInteger)
    verdict_effects_done_at: Mapped[datetime | None]
    next_advance_at: Mapped[datetime | None]
    advance_began_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    state_changed_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    carries_on: Mapped[int | None] = mapped_column(BigInteger)


class OperationRow(Table):
    """An apply's share on one deployment: what is claimed, dispatched, controlled and polled."""

    __tablename__ = "apply_operations"
    id: Mapped[int] = _identity()
    apply_id: Mapped[int] = _reference()
    deployment: Mapped[str]
    position: Mapped[int]
    wave: Mapped[int]
    target: Mapped[str]
    change_digest: Mapped[str]
    state: Mapped[str]
    engine_resume_context: Mapped[str | None]
    engine_resume_metadata: Mapped[dict[str, Any]]
    attempt: Mapped[int]
    answered_attempts: Mapped[int]
    dispatch_generation: Mapped[int]
    dispatch_key: Mapped[str | None]
    dispatch_intent_at: Mapped[datetime | None]
    dispatch_key_is_dead: Mapped[bool]
    repeat_is_safe: Mapped[bool]
    runs_though_stopped: Mapped[bool]
    fence: Mapped[int] = mapped_column(BigInteger)
    claim_token: Mapped[str | None]
    claim_owner: Mapped[str | None]
    claim_began_at: Mapped[datetime | None]
    claim_expires_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    rung_at: Mapped[datetime | None]
    first_rung_at: Mapped[datetime | None]
    next_poll_at: Mapped[datetime | None]
    progress_revision: Mapped[Decimal]
    looks: Mapped[int] = mapped_column(BigInteger)
    sampled_at: Mapped[datetime | None]
    sampled_look: Mapped[int] = mapped_column(BigInteger)
    sampled_attempt: Mapped[int | None]
    poll_failures: Mapped[int]
    poll_error: Mapped[str]
    start_sent_at: Mapped[datetime | None]
    volume: Mapped[int | None]
    engine_number: Mapped[int | None] = mapped_column(BigInteger)
    dispatched_to: Mapped[str]
    unanswered_call: Mapped[str]
    unanswered_since: Mapped[datetime | None]
    unheard_since: Mapped[datetime | None]
    unheard_tries: Mapped[int]
    unheard_look: Mapped[int] = mapped_column(BigInteger)
    remote_identity: Mapped[str]
    remote_started_at: Mapped[str]
    doubt: Mapped[str]
    same_work_at: Mapped[datetime | None]
    summary: Mapped[str]
    error_reason: Mapped[str]
    error_message: Mapped[str]
    started_at: Mapped[datetime | None]
    state_changed_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    ended_after_request: Mapped[int | None] = mapped_column(BigInteger)
    carries_on: Mapped[int | None] = mapped_column(BigInteger)


class CountRow(Table):
    """How many operations of an apply are in one state, in one wave, and how many of these are let in; by a trigger."""

    __tablename__ = "operation_counts"
    apply_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    wave: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int] = mapped_column(BigInteger)
    admitted: Mapped[int] = mapped_column(BigInteger)


class RequestRow(Table):
    """An operator's wish, append-only; `outcomes` is the receipt that was given."""

    __tablename__ = "control_requests"
    id: Mapped[int] = _identity()
    apply_id: Mapped[int] = _reference()
    verb: Mapped[str]
    failures_released: Mapped[int | None]
    volume: Mapped[int | None]
    caller: Mapped[str]
    reason: Mapped[str]
    outcomes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    hash: Mapped[bytes]


class DeliveryRow(Table):
    """A wish's fate on one operation."""

    __tablename__ = "control_deliveries"
    id: Mapped[int] = _identity()
    request_id: Mapped[int] = _reference()
    apply_id: Mapped[int] = _reference()
    operation_id: Mapped[int] = _reference()
    verb: Mapped[str]
    state: Mapped[str]
    attempts: Mapped[int]
    refusals: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    called_at: Mapped[datetime | None]
    called_look: Mapped[int | None] = mapped_column(BigInteger)
    called_fence: Mapped[int | None] = mapped_column(BigInteger)
    sent_at: Mapped[datetime | None]
    engine_words: Mapped[str]
    refused_attempt: Mapped[int]
    looks: Mapped[int]
    overrides_cancel: Mapped[bool]
    overrules: Mapped[int] = mapped_column(BigInteger)
    although_foreign: Mapped[str]
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class PreviewRow(Table):
    """What an engine said that a plan's changes would do, append-only; apply_id is NULL for a reviewer's look."""

    __tablename__ = "previews"
    id: Mapped[int] = _identity()
    plan_id: Mapped[int] = _reference()
    apply_id: Mapped[int | None] = mapped_column(BigInteger)
    deployment: Mapped[str]
    outcome: Mapped[str]
    words: Mapped[str]
    changes: Mapped[list[Any]]
    drift: Mapped[list[Any]]
    caller: Mapped[str]
    taken_at: Mapped[datetime]


class ReservationRow(Table):
    """Which operation of which apply holds a target (G13)."""

    __tablename__ = "target_reservations"
    environment: Mapped[str] = mapped_column(primary_key=True)
    database: Mapped[str] = mapped_column(primary_key=True)
    deployment: Mapped[str] = mapped_column(primary_key=True)
    apply_id: Mapped[int] = _reference()
    operation_id: Mapped[int | None] = mapped_column(BigInteger)
    held_since: Mapped[datetime | None]
    held_for_s: Mapped[float | None] = mapped_column(Double)
    taken_at: Mapped[datetime]


class RefusalRow(Table):
    """A message that asked for a rollout and was refused; its sender looks here, by its key."""

    __tablename__ = "enqueue_refusals"
    id: Mapped[int] = _identity()
    idempotency_key: Mapped[str]
    caller: Mapped[str]
    reason: Mapped[str]
    what: Mapped[str]
    why: Mapped[list[Any]]
    next_step: Mapped[str]
    at: Mapped[datetime]


class EventRow(Table):
    """What happened, append-only and hash-chained by the database: one chain an operation, one for the apply's own."""

    __tablename__ = "apply_events"
    id: Mapped[int] = _identity()
    apply_id: Mapped[int] = mapped_column(BigInteger)
    operation_id: Mapped[int | None] = mapped_column(BigInteger)
    number: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime]
    event: Mapped[str]
    who: Mapped[str]
    why: Mapped[str]
    before: Mapped[str]
    after: Mapped[str]
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    previous_hash: Mapped[bytes]
    hash: Mapped[bytes]


class ChainRow(Table):
    """The end of one chain of events; operation 0 is the apply itself."""

    __tablename__ = "event_chains"
    apply_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    operation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    length: Mapped[int] = mapped_column(BigInteger)
    previous: Mapped[bytes]
    head: Mapped[bytes]


class CanaryRow(Table):
    """The last worker that answered from a queue."""

    __tablename__ = "worker_canaries"
    queue: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str]
    answered_by: Mapped[str]
    answered_at: Mapped[datetime]
    clock_ahead_s: Mapped[float | None]


class LeaseRow(Table):
    """Who sweeps or polls now, since when and until when, and when the last sweep was finished."""

    __tablename__ = "sweep_leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    token: Mapped[str]
    began_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    finished_by: Mapped[str]
