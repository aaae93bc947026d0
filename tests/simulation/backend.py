"""The two stores behind the same hub: in memory, and PostgreSQL with a clock that the run moves."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.faults.history import Apply, Change, Delivered, History, Job, Operation, Recorded
from tests.simulation.clock import Clock
from tests.simulation.engines import SimEngine
from tests.simulation.memory.database import Database
from tests.simulation.memory.store import MemoryStore
from tests.simulation.memory.sweep import rings_again_after_s, wants_advance


@dataclass(frozen=True, slots=True)
class OperationLook:
    """One operation as people see it."""

    id: int
    deployment: str
    state: str
    remote_id: str | None
    attempt: int
    key: str | None
    age_s: float
    """Since its state changed."""
    open_wishes: int


@dataclass(frozen=True, slots=True)
class ApplyLook:
    """One apply as people see it."""

    apply_id: str
    state: str
    is_over: bool
    """Settled, its effects driven, and no wish open."""
    operations: tuple[OperationLook, ...]

    def state_of(self, deployment: str) -> str:
        """Its operation's state there."""
        return next(one.state for one in self.operations if one.deployment == deployment)

    def has_id(self, deployment: str) -> bool:
        """Its operation has been followed there."""
        return any(one.remote_id for one in self.operations if one.deployment == deployment)


_SETTLED = ("completed", "failed", "cancelled", "reverted", "stopped")


class MemoryBackend:
    """Everything in this process: some hundred runs a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.db = Database(clock)

    def store(self, owner: str) -> MemoryStore:
        """A worker's way in."""
        return MemoryStore(self.db, owner)

    def instant(self) -> float:
        """The clock that the audit and the engines' ledgers share."""
        return self.clock.now

    def wrote(self) -> bool:
        """Whether the last transaction changed anything."""
        return self.db.wrote

    def next_due(self) -> tuple[float, float]:
        """When a sweep of the progress, and one of all the rest, would find something."""
        db = self.db
        poll, work = math.inf, math.inf
        for row in db.operations.values():
            bell = db.leases.get(f"bell:{row.deployment}")
            rung_until = bell.expires_at if bell else 0.0
            if row.next_poll_at is not None:
                poll = min(poll, max(row.next_poll_at, rung_until))
            if row.state == "failed_retryable":
                probe = db.leases.get(f"probe:{row.deployment}")
                poll = min(poll, max(probe.expires_at if probe else db.now, rung_until))
            if row.next_attempt_at is not None:
                rung = row.rung_at
                waits = rung is not None and rung >= row.next_attempt_at
                again = (rung or 0.0) + rings_again_after_s((rung or 0.0) - row.next_attempt_at)
                work = min(work, again if waits else row.next_attempt_at)
        for wish in db.deliveries.values():
            if wish.next_attempt_at is not None:
                expires = db.operations[wish.operation_id].claim_expires_at
                work = min(work, max(wish.next_attempt_at, expires or 0.0))
        for apply in db.applies.values():
            if apply.next_advance_at is not None:
                work = min(work, apply.next_advance_at)
        if any(wants_advance(db, apply) for apply in db.applies.values()):
            work = min(work, db.now)
        return poll, work

    def look(self) -> tuple[ApplyLook, ...]:
        """All applies, oldest first."""
        return tuple(self._look(pk) for pk in sorted(self.db.applies))

    def _look(self, pk: int) -> ApplyLook:
        db = self.db
        apply = db.applies[pk]
        operations = tuple(
            OperationLook(
                row.id,
                row.deployment,
                row.state,
                db.remote_id(row),
                row.attempt,
                row.dispatch_key,
                round(db.now - row.state_changed_at, 6),
                sum(wish.is_open for wish in db.deliveries_of[row.id]),
            )
            for row in db.operations_of[pk]
        )
        done = apply.state in _SETTLED and apply.verdict_effects_done_at is not None
        is_over = done and not any(one.open_wishes for one in operations)
        return ApplyLook(apply.apply_identifier, apply.state, is_over, operations)

    def situation(self) -> tuple[Any, ...]:
        """What the rows look like, without times, numbers of tries and everything that only grows."""
        db = self.db
        return (
            tuple((row.state, row.next_advance_at is None) for row in db.applies.values()),
            tuple(
                (
                    row.state,
                    db.remote_id(row) is None,
                    row.claim_token is None,
                    row.next_attempt_at is None,
                    row.dispatch_key is None,
                    row.dispatch_key_is_dead,
                    row.dispatch_generation,
                    min(row.attempt, 2),
                    row.poll_failures > 0,
                    row.runs_though_stopped,
                )
                for row in db.operations.values()
            ),
            tuple((row.verb, row.state, row.attempts > 0) for row in db.deliveries.values()),
        )

    def history(
        self, engines: Iterable[SimEngine], jobs: Iterable[Job], acknowledged: Iterable[tuple[str, str]]
    ) -> History:
        """All that happened, for the checkers."""
        db = self.db
        engines = list(engines)
        applies = tuple(
            Apply(
                row.id,
                row.apply_identifier,
                row.state,
                row.operation_count,
                row.external_id,
                db.policy(row.id),
            )
            for row in db.applies.values()
        )
        names = {apply.pk: apply.identifier for apply in applies}
        return History(
            applies=applies,
            operations=tuple(
                Operation(
                    row.id,
                    row.apply_id,
                    f"{names[row.apply_id]}/{row.deployment}",
                    row.deployment,
                    row.position,
                    row.state,
                    db.remote_id(row),
                    row.dispatch_generation,
                    row.dispatch_key,
                    row.claim_token,
                    row.wave,
                )
                for row in db.operations.values()
            ),
            events=tuple(
                Recorded(
                    row.id,
                    db.event_xids[row.id],
                    row.apply_id,
                    row.operation_id,
                    row.event,
                    row.who,
                    row.why,
                    row.before,
                    row.after,
                    row.detail,
                )
                for row in db.events.values()
            ),
            deliveries=tuple(
                Delivered(row.id, row.request_id, row.operation_id, row.verb, row.state)
                for row in db.deliveries.values()
            ),
            requests=frozenset(db.requests),
            reservations=tuple((row.apply_id, row.deployment) for row in db.reservations.values()),
            changes=tuple(
                Change(number, one.at, one.at, one.xid, one.table, one.row, one.old, one.new)
                for number, one in enumerate(db.audit, 1)
            ),
            calls=tuple(sorted((one for e in engines for one in e.calls), key=lambda one: one.at)),
            effects=tuple(sorted((one for e in engines for one in e.effects), key=lambda one: one.at)),
            jobs=tuple(jobs),
            acknowledged=tuple(acknowledged),
        )

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Everything visible, for the comparison with PostgreSQL."""
        db = self.db
        tables = {
            "deployments": db.deployments,
            "plans": db.plans,
            "applies": db.applies,
            "apply_operations": db.operations,
            "table_changes": db.table_changes,
            "control_requests": db.requests,
            "control_deliveries": db.deliveries,
            "target_reservations": db.reservations,
            "apply_events": db.events,
            "sweep_leases": db.leases,
        }
        return {name: [dict(row.__dict__) for row in rows.values()] for name, rows in tables.items()}
