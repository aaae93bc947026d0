"""Everything at once: real servers, workers, beat and engines, killed, frozen, cut off and wiped while people work.

    python -m tests.faults.chaos --seconds 60 [--seed N]

Ends with a calm phase in which everything must come to rest within a bound, and with drills of liveness after a longer
storm. Prints its figures, and violations last; exits with 1 on any.
"""

import argparse
import contextlib
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok
from tern.local import postgres
from tern.local.supervisor import Supervisor
from tern.observe import configure
from tern.store.database import Database as Tables
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.store import PostgresStore
from tern.wire.routing import EngineDirectory
from tests.e2e.processes import Fleet
from tests.faults.crew import Crew
from tests.faults.drills import Drilled, Drills
from tests.faults.figures import claims_s, counts, middle_and_worst, rescues_s, stops_s
from tests.faults.history import History, Job, install_audit, read_history
from tests.faults.invariants import violations
from tests.faults.machines import Broker, Database, wait_until
from tests.faults.monkey import Monkey
from tests.faults.office import LOST, Office
from tests.faults.place import CHARACTERS, FakePlace, Place, running
from tests.faults.real_place import RealPlace

LEASE_S = 5.0
DEADLINE_S = 2.0
FREEZE_S = LEASE_S + 2.0
IN_FLIGHT_S = FREEZE_S + DEADLINE_S + 5.0
CALM_S = 75.0
"""From the last fault until all is settled: a start's grace (30 s), a lease, a self-sweep, and slow polls between."""

DRILLS_FROM_S = 60.0
"""Shorter storms are followed by no drills: the suite has tests of its own for each bound."""

WORKERS = 2
REAL = ("real", "other")
"""Engines that really change a database."""


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="tern-chaos-"))
    home.chmod(0o755)  # as root the servers run as somebody else, who must be able to enter
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run(seconds: float, seed: int) -> int:
    """The whole of it; how many violations there were."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(_home())
        logs = home / "log"
        logs.mkdir()
        programs = stack.enter_context(Supervisor(logs))
        database, broker = Database(home / "servers", programs), Broker(home / "servers", programs)
        database.start()
        broker.start()
        postgres.ensure_database(database.url)
        real = [RealPlace(name, home, database.url_of) for name in REAL]
        for place in real:
            stack.callback(place.application.close)
        fakes = [FakePlace(character, home) for character in CHARACTERS]
        places = [stack.enter_context(running(place)) for place in (*fakes, *real)]
        environment = {
            "TERN_DATABASE_URL": database.url,
            "TERN_BROKER_URL": broker.url,
            "TERN_LEASE_SECONDS": str(LEASE_S),
            "TERN_RPC_DEADLINE_SECONDS": str(DEADLINE_S),
            "TERN_POLL_STEADY_SECONDS": "1",
            "TERN_POLL_SLOW_SECONDS": "3",
            "TERN_LOG_LEVEL": "WARNING",
            "PYTHONWARNINGS": "ignore",
        }
        os.environ.update(environment)
        configure("console", "ERROR")
        tables = connect(database.url, pool_size=4, name="chaos")
        stack.callback(tables.dispose)
        migrate(tables)
        install_audit(tables)
        by_deployment = _register(tables, places)
        crew = Crew(stack.enter_context(Fleet(environment, logs)))
        return _Chaos(seconds, seed, database, broker, places, by_deployment, crew, tables).run()


def _register(tables: Tables, places: list[Place]) -> Mapping[str, Place]:
    store = PostgresStore(tables, owner="office")
    by_name = {name: place for place in places for name in place.names}
    # Mixed, so that a rollout in the usual order meets all kinds early.
    for position, name in enumerate(sorted(by_name, key=lambda name: name.rpartition("-")[2])):
        store.save_deployment(by_name[name].deployment(name, position))
    return by_name


@dataclass
class _Chaos:
    seconds: float
    seed: int
    database: Database
    broker: Broker
    places: list[Place]
    by_deployment: Mapping[str, Place]
    crew: Crew
    tables: Tables
    drilled: list[Drilled] = field(default_factory=list)

    def run(self) -> int:
        from tasks.app import app  # noqa: PLC0415 - reads the environment, which is only set now
        from tasks.bells import CeleryBells  # noqa: PLC0415

        draw = random.Random(self.seed)  # noqa: S311 - faults are drawn, nothing is protected
        office = Office(self.tables, CeleryBells(app), draw, self.by_deployment, IN_FLIGHT_S)
        self.crew.hire(WORKERS, 1)
        wait_until(office.has_swept, 60, "no worker came up\n" + self.crew.fleet.picture())
        monkey = Monkey(
            *(self.database, self.broker, self.tables, self.places, self.crew, draw, office.figures),
            freeze_s=FREEZE_S,
        )
        self._storm(office, monkey)
        calm_s, rest = self._calm(office, monkey)
        late = [] if rest or self.seconds < DRILLS_FROM_S else self._drill(office, monkey)
        history = self._history(office)
        found = [*self.crew.complaints, *violations(history), *late]
        for place in self.places:
            if isinstance(place, RealPlace):
                place.application.close()
                found += place.complaints(office.changes(place.names[0]))
        if rest:
            found.append(f"liveness: {rest} operations were not settled {calm_s:.0f} s after the last fault")
        if found:
            print(self.crew.picture(), office.picture(), sep="\n", flush=True)  # noqa: T201 - the report
        self._print(office, monkey, history, calm_s)
        for line in found:
            print(f"VIOLATION {line}")  # noqa: T201
        print(f"seed {self.seed}: {len(found)} violations", flush=True)  # noqa: T201
        return len(found)

    def _storm(self, office: Office, monkey: Monkey) -> None:
        ends_at = time.monotonic() + self.seconds
        next_fault = time.monotonic() + 1.0
        while time.monotonic() < ends_at:
            office.do_something()
            if time.monotonic() > next_fault:
                monkey.act()
                next_fault = time.monotonic() + office.draw.uniform(0.3, 1.5)
            monkey.thaw(time.monotonic())
            self.crew.look_after()
            time.sleep(0.1)

    def _calm(self, office: Office, monkey: Monkey) -> tuple[float, int]:
        """No more faults: how long it took until everything was settled, and what was not."""
        monkey.thaw(float("inf"))
        since = time.monotonic()
        rest, quiet = -1, False
        while time.monotonic() < since + CALM_S:
            self.crew.look_after()
            with contextlib.suppress(*LOST):
                rest, quiet = office.calm_down(), office.all_is_quiet()
                if rest == 0 and quiet and not self.crew.leaving:
                    break
            time.sleep(0.5)
        return time.monotonic() - since, rest or (0 if quiet else -1)

    def _drill(self, office: Office, monkey: Monkey) -> list[str]:
        try:
            for drilled in Drills(office, monkey, LEASE_S).run():
                self.drilled.append(drilled)
                self.crew.look_after()
        except TimeoutError as error:
            return [f"liveness: {error}"]
        return [f"liveness: {each.name}: {each}" for each in self.drilled if each.took_s > each.bound_s]

    def _history(self, office: Office) -> History:
        return read_history(
            self.tables,
            [place.told() for place in self.places],
            self._jobs(),
            acknowledged=office.acknowledged,
            in_flight_s=IN_FLIGHT_S,
        )

    def _jobs(self) -> list[Job]:
        """What the engines say of every job that they have ever started."""
        directory = EngineDirectory(deadline_s=5.0)
        store = PostgresStore(self.tables, owner="office")
        by_name = {deployment.name: deployment for deployment in store.load_deployments()}
        jobs: list[Job] = []
        for place in self.places:
            _, done = place.told()
            for one in done:
                if one.kind != "apply" or one.is_duplicate:
                    continue
                name = ScopeName.parse(one.operation)
                call = RemoteCall(name, RemoteId(one.remote_id), "test", 0)
                for _ in range(3):  # the last cut may still be felt
                    outcome = directory.of(by_name[name.deployment]).progress(call)
                    if isinstance(outcome, Ok):
                        said = str(outcome.value.state)
                        jobs.append(Job(place.name, one.remote_id, one.operation, said))
                        break
        directory.close()
        return jobs

    def _print(self, office: Office, monkey: Monkey, history: History, calm_s: float) -> None:
        figures: dict[str, object] = {
            "seconds of chaos, seed": f"{self.seconds:g}, {self.seed}",
            **counts(history),
            **{f"operations {state}": count for state, count in sorted(office.states().items())},
            **dict(sorted(Counter(office.figures).items())),
            "leases that a claim was held, median, worst": middle_and_worst(claims_s(history), LEASE_S),
            "leases from a driver's death to its rescue": middle_and_worst(
                rescues_s(history, monkey.deaths), LEASE_S
            ),
            "seconds from a stop to its call or end": middle_and_worst(stops_s(history)),
            "seconds from SIGTERM to the end": middle_and_worst(self.crew.left_s),
            "seconds until all was settled": f"{calm_s:.1f} (bound {CALM_S:g})",
            **{each.name: str(each) for each in self.drilled},
        }
        for name, value in figures.items():
            print(f"{name:44} {value}")  # noqa: T201 - the report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(10_000)
    print(f"seed {seed}, {given.seconds:g} seconds", flush=True)  # noqa: T201 - the report
    sys.exit(1 if run(given.seconds, seed) else 0)


if __name__ == "__main__":
    main()
