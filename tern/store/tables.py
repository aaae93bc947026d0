"""The mapped tables; those that evidence is kept in stand in evidence_tables.py. What each constraint and index is for
stands in the migration that makes it.

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
    """One rollout. Its state is written by the projection alone.

    next_advance_at: when something about it comes due by itself, as the end of a wave's bake; NULL for nothing.
    advance_began_at: when that wait began; one that began later than now is counted anew.
    carries_on: of a follow-up, the apply whose rest it does; NULL for none.
    """

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
    """An apply's share on one deployment: what is claimed, dispatched, controlled and polled.

    wave: which wave it goes with, counted from 1 as people do; 0 in a rollout without waves.
    next_attempt_at: when a dispatch is due; NULL for what is not admitted, or already followed by its id.
    rung_at: when the dispatch was last notified, so that a long queue isn't made longer by its own echo, and so that
    it can be counted how many of an apply are ahead; first_rung_at: when it was first, since it is due.
    next_poll_at: when the next look is due; NULL for what has no remote id or needs no look any more.
    claim_began_at: with claim_expires_at the length of the claim, which a clock that is set back leaves as it is.
    looks: how many looks have been written down, each under the fence that it was asked with.
    sampled_look, sampled_attempt: look and attempt whose sample was taken last; a stale one opens no gate.
    ended_after_request: the newest control request of its apply when it was finished, 0 for none.
    repeat_is_safe: a person allowed one more Apply with the same key; spent by the next claim.
    volume: what the engine said last about its pace, 1 to 11; NULL until it was asked to change it.
    runs_though_stopped: the last sample contradicts `stopped`, so Stop is sent again.
    engine_number: whom the change was handed to; it never follows the deployment. dispatched_to: where that engine is
    known to be; it follows what a key has proven, and no person's word.
    unanswered_call, unanswered_since: an Apply, Start or Cutover that was begun and has no answer; else '' and NULL.
    unheard_since, unheard_tries, unheard_look: a run of calls without a usable answer, and the look that it began with.
    remote_identity, remote_started_at: what the id's first sample said of its engine and its job.
    doubt: why only a person ends its uncertainty, `taken` or `foreign`; '' for none.
    carries_on: the operation whose rest it does; NULL for none.
    """

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
    """An operator's wish, append-only; `outcomes` is the receipt that was given.

    failures_released: of a release, how many failures stood when it was accepted; NULL for every other verb.
    volume: of the verb volume, 1 to 11; NULL for every other verb.
    """

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
    """A wish's fate on one operation.

    called_at: when it was last tried at the engine; only what is seen after its deadline speaks about its effect.
    called_look, called_fence: how many looks had been written down then, and the fence that the call carried.
    sent_at: when the engine took it. refused_attempt: the newest one refused. overrides_cancel: it takes back a refused
    cancel. although_foreign: other work's id, to be halted. looks: without `stopped`. overrules: what came in between.
    """

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
    """Which operation of which apply holds a target (G13).

    held_since, held_for_s: its operation is finished, and holds it for so long still because a call may act.
    """

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
    """The last worker that answered from a queue.

    clock_ahead_s: by how much its clock was ahead of the database's; NULL where it did not say.
    """

    __tablename__ = "worker_canaries"
    queue: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str]
    answered_by: Mapped[str]
    answered_at: Mapped[datetime]
    clock_ahead_s: Mapped[float | None]


class LeaseRow(Table):
    """Who sweeps or polls now, since when and until when, and when the last sweep was finished.

    The row "clock" is no lease: its began_at is the newest time at which a sweep found nothing ahead of now.
    """

    __tablename__ = "sweep_leases"
    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    token: Mapped[str]
    began_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    finished_by: Mapped[str]
