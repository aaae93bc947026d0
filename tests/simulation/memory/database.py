"""Tables in memory: one transaction at a time, undone as a whole when it raises, and audited like the real ones.

A method of the store is one transaction here. What two transactions do to each other in the same instant (locks,
SKIP LOCKED, READ COMMITTED) is not played: that is shown on PostgreSQL alone (tests/store/test_race.py).
"""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tern.domain.control import Verb
from tern.domain.model import Deployment, PlannedChange, TableChange
from tern.domain.policy import Policy
from tern.domain.states import State
from tests.simulation.clock import Clock
from tests.simulation.memory.rows import (
    ApplyRow,
    DeliveryRow,
    DeploymentRow,
    EventRow,
    LeaseRow,
    OperationRow,
    PlanRow,
    RequestRow,
    ReservationRow,
    Row,
    TableChangeRow,
)


class Audited(NamedTuple):
    """One write of one watched row, as a trigger would see it."""

    at: float
    xid: int
    table: str
    row: int
    old: dict[str, Any]
    new: dict[str, Any]


class Database:
    """All rows, with the look-ups that the store needs."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deployments: dict[str, DeploymentRow] = {}
        self.plans: dict[int, PlanRow] = {}
        self.plan_changes: dict[int, tuple[PlannedChange, ...]] = {}
        self.applies: dict[int, ApplyRow] = {}
        self.operations: dict[int, OperationRow] = {}
        self.table_changes: dict[int, TableChangeRow] = {}
        self.requests: dict[int, RequestRow] = {}
        self.deliveries: dict[int, DeliveryRow] = {}
        self.reservations: dict[tuple[str, str, str], ReservationRow] = {}
        self.events: dict[int, EventRow] = {}
        self.leases: dict[str, LeaseRow] = {}
        self.operations_of: dict[int, list[OperationRow]] = defaultdict(list)
        self.changes_of: dict[int, list[TableChangeRow]] = defaultdict(list)
        self.deliveries_of: dict[int, list[DeliveryRow]] = defaultdict(list)
        self.policies: dict[int, Policy] = {}
        self.statements: dict[int, tuple[TableChange, ...]] = {}
        self.places: dict[tuple[str, str], Deployment] = {}
        """What never changes, read once; places are forgotten with every write of a deployment."""
        self.audit: list[Audited] = []
        self.event_xids: dict[int, int] = {}
        self.transactions = 0
        self._sequences: dict[str, int] = defaultdict(int)
        self._undo: list[tuple[Any, ...]] = []
        self.wrote = False
        """Whether the last transaction has changed anything."""

    @property
    def now(self) -> float:
        """tern_clock()."""
        return self.clock.now

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self.transactions += 1
        self._undo.clear()
        audited = len(self.audit)
        try:
            yield
        except BaseException:
            for row, old in reversed(self._undo):
                if callable(row):
                    row()
                else:
                    row.__dict__.clear()
                    row.__dict__.update(old)
            del self.audit[audited:]
            self.wrote = False
            raise
        self.wrote = bool(self._undo)

    def next_id(self, table: str) -> int:
        """From a sequence: like PostgreSQL's it forgets nothing, not what was rolled back either."""
        self._sequences[table] += 1
        return self._sequences[table]

    def insert(self, row: Row) -> None:
        """Adds a row, with the look-ups that find it."""
        table, key = self._place(row)
        table[key] = row
        lists = self._lists(row)
        for found in lists:
            found.append(row)

        def undo() -> None:
            del table[key]
            for found in lists:
                found.remove(row)

        self._undo.append((undo, None))
        row.check({})
        if row.WATCHED is None or row.WATCHED:
            self._note(row, {})

    def write(self, row: Row, **values: Any) -> None:
        """UPDATE of one row."""
        current = row.__dict__
        old = current.copy()
        if isinstance(row, DeploymentRow):
            self.places.clear()
        current.update(values)
        self._undo.append((row, old))
        row.check(old)
        watched = row.WATCHED
        if watched is None or any(current[name] != old[name] for name in watched):
            self._note(row, old)

    def delete(self, row: ReservationRow | DeploymentRow) -> None:
        """DELETE of one row."""
        table, key = self._place(row)
        del table[key]
        self.places.clear()
        self._undo.append((lambda: table.__setitem__(key, row), None))

    def _note(self, row: Any, old: dict[str, Any]) -> None:
        self.audit.append(
            Audited(self.clock.now, self.transactions, row.TABLE, row.id, old, row.__dict__.copy())
        )

    def _place(self, row: Any) -> tuple[dict[Any, Any], Any]:
        match row:
            case DeploymentRow():
                return self.deployments, row.name
            case ReservationRow():
                return self.reservations, (row.environment, row.database, row.deployment)
            case LeaseRow():
                return self.leases, row.name
            case _:
                return {
                    "plans": self.plans,
                    "applies": self.applies,
                    "apply_operations": self.operations,
                    "table_changes": self.table_changes,
                    "control_requests": self.requests,
                    "control_deliveries": self.deliveries,
                    "apply_events": self.events,
                }[row.TABLE], row.id

    def _lists(self, row: Any) -> list[list[Any]]:
        match row:
            case OperationRow():
                return [self.operations_of[row.apply_id]]
            case TableChangeRow():
                return [self.changes_of[row.operation_id]]
            case DeliveryRow():
                return [self.deliveries_of[row.operation_id]]
            case _:
                return []

    # What everybody asks

    def apply_named(self, identifier: str) -> ApplyRow | None:
        """The apply with that public id."""
        return next((row for row in self.applies.values() if row.apply_identifier == identifier), None)

    def remote_id(self, operation: OperationRow) -> str | None:
        """The id, from its one home (G1)."""
        apply = self.applies[operation.apply_id]
        return apply.external_id if apply.operation_count == 1 else operation.engine_resume_context

    def policy(self, apply_pk: int) -> Policy:
        """The frozen policy of an apply."""
        if apply_pk not in self.policies:
            self.policies[apply_pk] = Policy.from_json(self.applies[apply_pk].policy)
        return self.policies[apply_pk]

    def open_delivery(self, operation_id: int, verb: Verb | str) -> DeliveryRow | None:
        """The open wish of that kind; there is one at most."""
        return next(
            (row for row in self.deliveries_of[operation_id] if row.verb == verb and row.is_open), None
        )

    def is_wished(self, operation_id: int) -> bool:
        """A wish about it is open, and driven some time; or one is open though it is settled."""
        is_settled = State(self.operations[operation_id].state).is_settled
        return any(
            row.is_open and (row.next_attempt_at is not None or is_settled)
            for row in self.deliveries_of[operation_id]
        )

    def newest_release(self, apply_pk: int) -> RequestRow | None:
        """The last time that somebody opened a pause."""
        found = [row for row in self.requests.values() if row.apply_id == apply_pk and row.verb == "release"]
        return max(found, key=lambda row: row.id, default=None)

    def holder(self, environment: str, database: str, deployment: str) -> ApplyRow | None:
        """The apply that holds a target."""
        row = self.reservations.get((environment, database, deployment))
        return None if row is None else self.applies[row.apply_id]

    def stop_in_force(self, operation_id: int) -> str | None:
        """The cancel, skip or stop that covers an operation and that no accepted start has superseded (G9)."""
        wishes = self.deliveries_of[operation_id]
        in_force = [
            row
            for row in wishes
            if row.verb in {"stop", "cancel"} and row.state in {"pending", "sent", "acknowledged"}
        ]
        if any(row.verb == "cancel" for row in in_force):
            return "cancel"
        if any(row.verb == "skip" and row.state == "pending" for row in wishes):
            return "skip"
        newest_start = max(
            (row.id for row in wishes if row.verb == "start" and row.state != "failed"), default=0
        )
        return "stop" if any(row.id > newest_start for row in in_force) else None
