"""Liveness, once the storm is over: one thing breaks, and what hangs on it must go on within its bound.

The bounds are those of docs/reliability.md, with the lease of this run in the place of the usual one. On a machine that
is slower than the one they were set on they grow with what a rollout without any fault takes in the same run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.policy import Copy, Cutover, Policy
from tests.faults.machines import wait_until
from tests.faults.monkey import Monkey
from tests.faults.office import LOST, Office

USUAL_ROLLOUT_S = 3.0
"""What one deployment's rollout takes when nothing breaks and the machine is idle."""

PATIENCE_S = 90.0
_MANUAL = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL)
_PARALLEL = Policy(copy=Copy.PARALLEL)


@dataclass(frozen=True)
class Drilled:
    """What a drill took, and what it may take."""

    name: str
    took_s: float
    bound_s: float

    def __str__(self) -> str:
        return f"{self.took_s:.1f} s, {self.took_s / self.bound_s:.2f} of its bound"


@dataclass
class Drills:
    """All of them, one after the other, on a system at rest."""

    office: Office
    monkey: Monkey
    lease_s: float

    def run(self) -> Iterator[Drilled]:
        """Yields what each took."""
        usual_s = self._usual_s()
        slower = max(1.0, usual_s / USUAL_ROLLOUT_S)
        yield Drilled("a rollout without a fault", usual_s, usual_s)
        for name, drill, bound_s in (
            ("accepted control to its call", self._control, 5.0),
            ("killed driver to re-driven", self._killed_driver, self.lease_s + 10.0),
            ("engine back to progress", self._engine_back, 15.0),
            ("database back to all driven", self._database_back, self.lease_s + 15.0),
            ("broker wiped, later by", self._broker_wiped, 10.0),
        ):
            yield Drilled(name, drill(), bound_s * slower)

    def _usual_s(self) -> float:
        took: list[float] = []
        for _ in range(3):
            since = time.monotonic()
            self._until_completed(self._enqueue(self._place("steady", 0)))
            took.append(time.monotonic() - since)
        return sorted(took)[1]

    def _control(self) -> float:
        name = self._place("steady", 1)
        row = self._waiting(name)
        since = time.time()
        self.office.ask(Verb.CUTOVER, row)
        scope = f"{row.apply_identifier}/{name}"
        place = self.office.places[name]

        def sent() -> list[float]:
            asked, _ = place.told()
            return [call.at for call in asked if call.method == "Cutover" and call.operation == scope]

        self._until(lambda: bool(sent()), "the cutover was not sent")
        self._until_completed(ApplyId(row.apply_identifier))
        return min(sent()) - since

    def _killed_driver(self) -> float:
        name = self._place("steady", 2)
        place = self.office.places[name]
        place.freeze()
        apply_id = self._enqueue(name)
        self._until(lambda: self._row(apply_id).claim_owner is not None, "nobody claimed it")
        pid = int(self._row(apply_id).claim_owner.rpartition(":")[2])
        for worker in list(self.monkey.crew.workers):
            if worker.pid == pid:
                worker.kill()
                self.monkey.crew.replace(worker)
        since = time.monotonic()
        place.thaw()
        self._until(lambda: self._row(apply_id).remote_id is not None, "nobody took it over")
        took_s = time.monotonic() - since
        self._until_completed(apply_id)
        return took_s

    def _engine_back(self) -> float:
        row = self._waiting(self._place("brisk", 0))
        place = self.office.places[row.deployment]
        place.kill()
        self.office.ask(Verb.CUTOVER, row)
        time.sleep(2 * self.lease_s)
        place.start()
        since = time.monotonic()
        self._until_completed(ApplyId(row.apply_identifier))
        return time.monotonic() - since

    def _database_back(self) -> float:
        names = [self._place(kind, number) for kind in ("steady", "brisk", "plain") for number in (0, 1)]
        apply_id = self._enqueue(*names, policy=_PARALLEL)
        time.sleep(0.5)
        self.monkey.database.kill()
        time.sleep(2.0)
        self.monkey.database.start()
        since = time.monotonic()
        self._until_completed(apply_id)
        return time.monotonic() - since

    def _broker_wiped(self) -> float:
        names = [self._place("steady", number) for number in range(3)]
        self._until_free(names)
        since = time.monotonic()
        apply_id = self._enqueue(*names, policy=_PARALLEL)
        usual_s = self._until_completed(apply_id) - since
        self.monkey.broker.kill()
        since = time.monotonic()
        apply_id = self._enqueue(*names, policy=_PARALLEL)
        took_s = self._until_completed(apply_id) - since
        self.monkey.broker.start()
        return max(took_s - usual_s, 0.0)

    def _enqueue(self, *names: str, policy: Policy | None = None) -> ApplyId:
        """Once nothing holds these targets: a call that another drill left without an answer does so for a minute."""
        self._until_free(names)
        return self.office.enqueue(*names, policy=policy)

    def _place(self, kind: str, number: int) -> str:
        return [name for name, place in self.office.places.items() if place.name == kind][number]

    def _row(self, apply_id: ApplyId) -> Any:
        return self.office.operations(f"a.apply_identifier = '{apply_id}'")[0]

    def _waiting(self, name: str) -> Any:
        """An operation that waits for a person."""
        apply_id = self._enqueue(name, policy=_MANUAL)
        self._until(lambda: self._row(apply_id).state == "waiting_for_cutover", f"{name} never waited")
        return self._row(apply_id)

    def _until_completed(self, apply_id: ApplyId) -> float:
        self._until(lambda: self._row(apply_id).apply_state == "completed", f"{apply_id} never completed")
        return time.monotonic()

    def _until_free(self, names: Sequence[str]) -> None:
        try:
            self._until(lambda: not self.office.held(names), "nobody gave it back")
        except TimeoutError as late:
            raise TimeoutError("; ".join(self.office.held(names))) from late

    def _until(self, condition: Callable[[], bool], words: str) -> None:
        def holds() -> bool:
            try:
                return condition()
            except LOST:
                return False

        wait_until(holds, PATIENCE_S, words)
