"""The mapped tables of what Tern knows about engines: who they are, which ids they gave, what may still act there,
who is silent, and what became of each statement.

What each column means stands in evidence_comments.py, what each constraint and index is for in the migration that
makes it.
"""

from datetime import datetime

from sqlalchemy import BigInteger, Identity
from sqlalchemy.orm import Mapped, mapped_column

from tern.store.evidence_comments import give_comments
from tern.store.tables import Table


class EngineRow(Table):
    """One engine, however many deployments it serves; a deployment with another engine gets another number."""

    __tablename__ = "engines"
    number: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    address: Mapped[str]
    environment: Mapped[str]
    created_at: Mapped[datetime]


class RemoteIdRow(Table):
    """Which operation an engine's id belongs to, as long as that operation may be called with it."""

    __tablename__ = "remote_ids"
    engine_number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    remote_id: Mapped[str] = mapped_column(primary_key=True)
    operation_id: Mapped[int] = mapped_column(BigInteger)
    stored_at: Mapped[datetime]


class OutstandingRow(Table):
    """What was sent and may still act although no operation follows it: a key or an id, and where it was sent."""

    __tablename__ = "outstanding_calls"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    apply_id: Mapped[int] = mapped_column(BigInteger)
    operation_id: Mapped[int] = mapped_column(BigInteger)
    environment: Mapped[str]
    database: Mapped[str]
    deployment: Mapped[str]
    dispatch_key: Mapped[str | None]
    remote_id: Mapped[str | None]
    generation: Mapped[int]
    fence: Mapped[int] = mapped_column(BigInteger)
    engine_number: Mapped[int | None] = mapped_column(BigInteger)
    address: Mapped[str]
    why: Mapped[str]
    caller: Mapped[str]
    reason: Mapped[str]
    opened_at: Mapped[datetime]
    next_look_at: Mapped[datetime | None]
    looks: Mapped[int]
    last_seen: Mapped[str]
    last_seen_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    settled_by: Mapped[str]
    settled_as: Mapped[str]
    settled_reason: Mapped[str]
    proven_address: Mapped[str]
    silent_looks: Mapped[int]
    cancel_asked_at: Mapped[datetime | None]
    cancel_caller: Mapped[str]
    cancel_reason: Mapped[str]
    cancel_calls: Mapped[int]
    cancel_words: Mapped[str]


class SilenceRow(Table):
    """Calls of one kind that an engine left without an answer, in a row; the first answer removes it."""

    __tablename__ = "deployment_silences"
    deployment: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    in_a_row: Mapped[int]
    since: Mapped[datetime]
    last_at: Mapped[datetime]
    retry_at: Mapped[datetime]


class SameTargetRow(Table):
    """What is known about two deployments whose engines name the same database: same, two, or suspected."""

    __tablename__ = "same_targets"
    one: Mapped[str] = mapped_column(primary_key=True)
    other: Mapped[str] = mapped_column(primary_key=True)
    finding: Mapped[str]
    identity: Mapped[str]
    found_at: Mapped[datetime]


class TableChangeRow(Table):
    """One statement inside one operation, with its progress."""

    __tablename__ = "table_changes"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    operation_id: Mapped[int] = mapped_column(BigInteger)
    apply_id: Mapped[int] = mapped_column(BigInteger)
    ordinal: Mapped[int]
    namespace: Mapped[str]
    table_name: Mapped[str]
    ddl: Mapped[str]
    action: Mapped[str]
    unsafe_reason: Mapped[str]
    state: Mapped[str]
    rows_copied: Mapped[int | None] = mapped_column(BigInteger)
    rows_total: Mapped[int | None] = mapped_column(BigInteger)
    percent: Mapped[int]
    eta_seconds: Mapped[int | None] = mapped_column(BigInteger)
    checksum_rows_checked: Mapped[int | None] = mapped_column(BigInteger)
    checksum_rows_total: Mapped[int | None] = mapped_column(BigInteger)
    detail: Mapped[str]
    error: Mapped[str]
    settled_by: Mapped[str]
    origin_id: Mapped[int | None] = mapped_column(BigInteger)


METADATA = Table.metadata
"""Every table of Tern: these, and those of tables.py, with what each column means."""
give_comments(METADATA)
