"""What is due, and who looks; the twin of tern/store/sweep.py."""

import math

from tern.domain.control import Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.states import SETTLED_APPLY, ApplyState
from tern.ports import Due, DueControl, DueWork
from tern.store.sweep import ALONE_AFTER_S, RING_AGAIN_MOST_S, RING_AGAIN_S, SWEEP_LEASE_S
from tests.simulation.memory.database import Database
from tests.simulation.memory.rows import ApplyRow, DeliveryRow, LeaseRow, OperationRow
from tests.simulation.memory.scope import Steps, new_token

_DISPATCH_BATCH = 200
_BATCH = 500
_STARTED = frozenset(
    {
        "running",
        "waiting_for_cutover",
        "cutting_over",
        "revert_window",
        "reverting",
        "resuming",
        "failed_retryable",
        "uncertain",
    }
)


def rings_again_after_s(waited_s: float) -> float:
    """Until a sweep rings again for what waited so long when it was rung for."""
    return max(RING_AGAIN_S, min(RING_AGAIN_MOST_S, waited_s))


class SweepSteps(Steps):
    """ports.SweepStore in memory."""

    def begin_sweep(self, name: str, owner: str) -> bool:
        """See ports.SweepStore."""
        with self.db.transaction():
            return self.take_lease(name, owner, SWEEP_LEASE_S)

    def take_lease(self, name: str, owner: str, lease_s: float) -> bool:
        """A lease by name; False while another's runs. Inside the caller's transaction."""
        db = self.db
        row = db.leases.get(name)
        if row is None:
            db.insert(LeaseRow(name, owner, new_token(db), db.now + lease_s))
            return True
        if db.now < row.expires_at <= db.now + 2 * lease_s:
            return False
        db.write(row, owner=owner, token=new_token(db), expires_at=db.now + lease_s)
        return True

    def finish_sweep(self, name: str, owner: str) -> None:
        """See ports.SweepStore."""
        db = self.db
        with db.transaction():
            row = db.leases.get(name)
            if row is not None and row.owner == owner:
                db.write(row, expires_at=db.now, finished_at=db.now, finished_by=owner)

    def seconds_since_sweep(self, name: str) -> tuple[float, str]:
        """See ports.SweepStore."""
        row = self.db.leases.get(name)
        if row is None or row.finished_at is None:
            return math.inf, ""
        return self.db.now - row.finished_at, row.finished_by

    def due_work(self) -> DueWork:
        """See ports.SweepStore. In the order of ids; PostgreSQL promises none."""
        db = self.db
        with db.transaction():
            due = [row for row in db.operations.values() if self._is_due(row)]
            due.sort(key=lambda row: row.next_attempt_at or 0.0)
            for row in due[:_DISPATCH_BATCH]:
                db.write(row, rung_at=db.now)
            runaway = [row for row in db.operations.values() if self._is_runaway(row)]
            found = {row.id: row for row in [*due[:_DISPATCH_BATCH], *runaway]}
            controls = [
                (db.operations[wish.operation_id], wish.verb)
                for wish in db.deliveries.values()
                if wish.is_open
                and wish.next_attempt_at is not None
                and wish.next_attempt_at <= db.now
                and self._is_free(db.operations[wish.operation_id])
                and not (needs_no_call(db, wish) and wish.next_attempt_at > db.now - ALONE_AFTER_S)
            ]
            applies = [apply for apply in db.applies.values() if wants_advance(db, apply)]
            return DueWork(
                dispatches=tuple(Due(key, self._name(found[key])) for key in sorted(found)),
                controls=tuple(
                    DueControl(row.id, self._name(row), Verb(verb))
                    for row, verb in sorted(controls, key=lambda pair: (pair[0].id, pair[1]))[:_BATCH]
                ),
                applies=tuple(sorted(ApplyId(apply.apply_identifier) for apply in applies)),
            )

    def due_deployments(self) -> tuple[str, ...]:
        """See ports.SweepStore."""
        db = self.db
        with db.transaction():
            found = {
                row.deployment
                for row in db.operations.values()
                if row.next_poll_at is not None and row.next_poll_at <= db.now
            }
            for row in db.operations.values():
                probe = db.leases.get(f"probe:{row.deployment}")
                if row.state == "failed_retryable" and (probe is None or probe.expires_at <= db.now):
                    found.add(row.deployment)
            return tuple(name for name in sorted(found) if self._rings_for(name))

    def _rings_for(self, deployment: str) -> bool:
        """Not again for what was rung for and not polled since."""
        db = self.db
        row = db.leases.get(f"bell:{deployment}")
        expires_at = db.now + RING_AGAIN_S
        if row is None:
            db.insert(LeaseRow(f"bell:{deployment}", "sweep", "", expires_at))
            return True
        if db.now < row.expires_at <= db.now + 2 * RING_AGAIN_S:
            return False
        db.write(row, expires_at=expires_at)
        return True

    def unheard_work(self, after_s: float) -> DueWork:
        """See ports.SweepStore."""
        db = self.db
        with db.transaction():
            since = db.now - after_s
            late = [row for row in db.operations.values() if row.next_attempt_at is not None]
            late = [row for row in late if (row.next_attempt_at or 0.0) <= since]
            controls = [
                (db.operations[wish.operation_id], wish.verb)
                for wish in db.deliveries.values()
                if wish.is_open and wish.next_attempt_at is not None and wish.next_attempt_at <= since
            ]
            return DueWork(
                dispatches=tuple(Due(row.id, self._name(row)) for row in late[:_DISPATCH_BATCH]),
                controls=tuple(
                    DueControl(row.id, self._name(row), Verb(verb))
                    for row, verb in sorted(controls, key=lambda pair: (pair[0].id, pair[1]))
                    if (row.claim_expires_at or 0.0) <= db.now
                ),
                applies=(),
            )

    def unheard_deployments(self, after_s: float) -> tuple[str, ...]:
        """See ports.SweepStore."""
        rows = self.db.operations.values()
        late = {row.deployment for row in rows if (row.next_poll_at or math.inf) <= self.db.now - after_s}
        return tuple(sorted(late))

    def _is_due(self, row: OperationRow) -> bool:
        now = self.db.now
        if row.next_attempt_at is None or row.next_attempt_at > now:
            return False
        if row.rung_at is None or row.rung_at < row.next_attempt_at:
            return True
        return row.rung_at < now - rings_again_after_s(row.rung_at - row.next_attempt_at)

    def _is_runaway(self, row: OperationRow) -> bool:
        late = self.db.now + 2 * self.lease_s
        expires = row.claim_expires_at
        return row.next_attempt_at is not None and expires is not None and expires > late

    def _is_free(self, row: OperationRow) -> bool:
        expires = row.claim_expires_at
        return expires is None or not self.db.now < expires <= self.db.now + 2 * self.lease_s

    def _name(self, row: OperationRow) -> ScopeName:
        return ScopeName(ApplyId(self.db.applies[row.apply_id].apply_identifier), row.deployment)


def wants_advance(db: Database, apply: ApplyRow) -> bool:
    """A verdict whose effects nobody has driven; wishes that need no call; a release that it has not heard of; a live
    apply in which nothing moves although something may.
    """
    if any(
        needs_no_call(db, wish) and wish.next_attempt_at is not None and wish.next_attempt_at <= db.now
        for row in db.operations_of[apply.id]
        for wish in db.deliveries_of[row.id]
    ):
        return True
    if ApplyState(apply.state) in SETTLED_APPLY:
        return apply.verdict_effects_done_at is None
    if apply.state in {"paused", "running_degraded"} and has_unheard_release(db, apply):
        return True
    if apply.next_advance_at is not None:
        return apply.next_advance_at <= db.now
    return apply.state != "paused" and not any(
        row.state in _STARTED or (row.state == "pending" and row.next_attempt_at is not None)
        for row in db.operations_of[apply.id]
    )


def needs_no_call(db: Database, wish: DeliveryRow) -> bool:
    """It is carried out together with others (memory/uncalled.py)."""
    row = db.operations[wish.operation_id]
    if wish.state != "pending" or row.claim_token is not None or db.remote_id(row) is not None:
        return False
    if row.state not in {"pending", "stopped", "failed"}:
        return False
    if wish.verb == "retry":
        return True
    undispatched = row.dispatch_key is None or row.dispatch_key_is_dead
    return wish.verb in {"stop", "cancel", "skip", "start"} and undispatched


def has_unheard_release(db: Database, apply: ApplyRow) -> bool:
    """The newest release has no event yet."""
    newest = db.newest_release(apply.id)
    return newest is not None and not any(
        one.event == "released" and one.at >= newest.created_at
        for one in db.events.values()
        if one.apply_id == apply.id and one.operation_id is None
    )
