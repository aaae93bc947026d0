"""The world of a story that a doomed worker and its rescuer play in turn."""

import contextlib
from typing import Any

from tern.domain.identity import ApplyId
from tern.ports import Ports, StorageUnavailable
from tern.store.database import Database
from tern.store.store import PostgresStore
from tests.faults.boundaries import Boundaries, WatchedBells
from tests.world import Fixed, World

LEASE_S = 30.0


class Stage(World):
    """A world in which the harness' own looks are no boundaries, and drivers survive a lost connection."""

    def __init__(
        self, database: Database, owner: str, boundaries: Boundaries | None = None, *, deaf: bool = False
    ) -> None:
        super().__init__(database, {}, lease_s=LEASE_S)
        self.boundaries = boundaries or Boundaries()
        self.deaf = deaf
        self.store = PostgresStore(database, owner=owner, lease_s=LEASE_S)
        self.bells = WatchedBells(self.boundaries)
        self.ports = Ports(self.store, self.directory, self.bells, Fixed())
        nobody = WatchedBells(self.boundaries, deaf=True)
        self.unheard = Ports(self.store, self.directory, nobody, Fixed())

    def do(self, kind: str, *given: Any, ports: Ports | None = None) -> None:
        # Deaf: what a flow rings for is never heard; only the sweeps' own findings are worked on.
        parts = self.unheard if self.deaf else (ports or self.ports)
        with contextlib.suppress(StorageUnavailable):  # the tick ends, as a task does; the rows stay due
            super().do(kind, *given, ports=parts)

    def sweep(self, ports: Ports | None = None) -> None:
        with contextlib.suppress(StorageUnavailable):
            super().sweep(ports)

    def lose_bells(self) -> None:
        """What people's requests rang for is not heard either."""
        if self.deaf:
            self.forget_bells()

    def pass_time(self, seconds: float) -> None:
        with self.boundaries.hidden():
            super().pass_time(seconds)

    def one(self, statement: str, **values: Any) -> Any:
        with self.boundaries.hidden():
            return super().one(statement, **values)

    def write(self, statement: str, **values: Any) -> None:
        with self.boundaries.hidden():
            super().write(statement, **values)

    def first_apply(self) -> ApplyId | None:
        """The story's apply, if it is there already; what follows it comes later."""
        found = self.one("SELECT (SELECT apply_identifier FROM applies ORDER BY id LIMIT 1) AS name").name
        return ApplyId(found) if found else None
