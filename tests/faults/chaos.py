"""Everything at once: real servers, workers, beat and engines, killed, frozen, cut off and wiped while people work.

    python -m tests.faults.chaos --seconds 60 [--seed N]

Ends with a calm phase in which everything must come to rest within a bound. Prints its figures; exits with 1 on any
violation.
"""

import argparse
import contextlib
import logging
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import Action, Capabilities, Deployment, PlannedChange, RemoteCall
from tern.domain.outcome import Ok
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.selection import Selection
from tern.flows.accept import accept_apply, ask
from tern.local import postgres, valkey
from tern.local.account import make_folder, server_account
from tern.local.embedded import free_port
from tern.local.supervisor import Program, Running, Supervisor
from tern.ports import Asked, Bells, NewApply, Ports, StorageUnavailable
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.store import PostgresStore
from tern.wire.routing import EngineDirectory
from tests.e2e.processes import Fleet, Process
from tests.faults.fake_engine import wait_for_port
from tests.faults.history import History, Job, from_file, install_audit, read_history
from tests.faults.invariants import violations
from tests.faults.relay import Relay
from tests.world import Fixed

LEASE_S = 5.0
DEADLINE_S = 2.0
FREEZE_S = LEASE_S + 2.0
CALM_S = 75.0
"""From the last fault until all is settled: a start's grace (30 s), a lease, a self-sweep, and slow polls between."""

LAG_S = 0.15
"""What an answer takes to come back: time enough to break something in the middle of a call."""

ENGINES = 3
PLACES_PER_ENGINE = 10
WORKERS = 2
# Power never fails here, and a killed server must not forget what it has committed: no fsync, but waiting for WAL.
OPTIONS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER)
LOST = (StorageUnavailable, SQLAlchemyError)


class Machines:
    """PostgreSQL and Valkey, which can be killed and come back on their ports."""

    def __init__(self, home: Path, programs: Supervisor) -> None:
        self._programs = programs
        account = server_account()
        self._ids = None if account is None else account.ids
        password = secrets.token_hex(8)
        make_folder(home, 0o755)
        self._cluster = postgres.Cluster.prepare(home, password, account, OPTIONS)
        self._broker = valkey.Broker.prepare(home, password, account)
        self._ports = (free_port(), free_port())
        self._running: dict[str, Running] = {}
        self.database_url = self._cluster.url(self._ports[0], "tern")
        self.broker_url = self._broker.url(self._ports[1])

    def start(self, name: str) -> None:
        """Starts one and waits for it."""
        url = self._cluster.url(self._ports[0], "postgres")
        if name == "postgres":
            self._cluster.clear_the_way(20)
            command, ready = self._cluster.command(self._ports[0]), lambda: postgres.answers(url)
        else:
            command, ready = (
                self._broker.command(self._ports[1]),
                lambda: self._broker.answers(self._ports[1]),
            )
        running = self._programs.start(
            Program(
                name,
                command,
                env=postgres.ENVIRONMENT,
                cwd=Path("/"),
                ready=ready,
                stop_signal=signal.SIGINT if name == "postgres" else signal.SIGTERM,
                account=self._ids,
            )
        )
        self._running[name] = running
        wait_until(ready, 30, f"{name} did not come back")

    def kill(self, name: str) -> None:
        """PostgreSQL by its immediate shutdown, Valkey by SIGKILL."""
        running = self._running.pop(name)
        running.process.send_signal(signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
        running.process.wait(30)
        self._programs._let_go(running)


@dataclass
class Place:
    """One engine process behind its relay."""

    name: str
    folder: Path
    complete_after_s: float
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    relay: Relay | None = None

    @property
    def ledger(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    def start(self) -> None:
        """On the same port and with the same jobs as before."""
        port_file = self.folder / f"{self.name}.port"
        port_file.unlink(missing_ok=True)
        with (self.folder / f"{self.name}.log").open("ab") as output:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-W", "ignore", "-m", "tests.faults.fake_engine", "--name", self.name),
                    *("--listen", f"127.0.0.1:{self.port}", "--port-file", str(port_file)),
                    *("--ledger", str(self.ledger), "--complete-after", str(self.complete_after_s)),
                ],
                stdout=output,
                stderr=output,
            )
        self.port = wait_for_port(port_file)
        if self.relay is None:
            self.relay = Relay(self.port)
            self.relay.lag_s = LAG_S

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Office:
    """The people: they enqueue rollouts, and stop, start, cut over and cancel as they like."""

    database: Engine
    bells: Bells
    draw: random.Random
    places: tuple[str, ...]
    figures: Counter[str] = field(default_factory=Counter)
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    _unanswered: list[NewApply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._store = PostgresStore(self.database, owner="office", lease_s=LEASE_S)
        self._ports = Ports(self._store, EngineDirectory(), self.bells, Fixed())
        self._number = 0

    def do_something(self) -> None:
        """One thing at random; whoever got no answer asks again, with the same key."""
        with contextlib.suppress(*LOST):
            if self._unanswered:
                self._enqueue(self._unanswered[0])
                self._unanswered.pop(0)
                return
            live = self._operations("a.state NOT IN ('completed', 'failed', 'cancelled')")
            free = [name for name in self.places if name not in {row.deployment for row in live}]
            if free and self.draw.random() < 0.7:
                self._enqueue(self._new(free))
            elif live:
                self._wish(self.draw.choice(live))

    def calm_down(self) -> int:
        """One round of bringing everything to its end; how many operations are not there yet."""
        for new in list(self._unanswered):
            self._enqueue(new)
            self._unanswered.remove(new)
        live = self._operations("a.state NOT IN ('completed', 'failed', 'cancelled')")
        for row in live:
            if row.state == "stopped" and row.apply_state != "pending":
                self._ask(Verb.START, row)
            elif row.state == "waiting_for_cutover":
                self._ask(Verb.CUTOVER, row)
        return len(live)

    def all_is_quiet(self) -> bool:
        """No wish is open, no verdict's effects are due."""
        with self.database.connect() as tx:
            return not tx.execute(
                text(
                    "SELECT EXISTS (SELECT 1 FROM control_deliveries WHERE state IN ('pending', 'sent'))"
                    " OR EXISTS (SELECT 1 FROM applies WHERE verdict_effects_done_at IS NULL)"
                )
            ).scalar_one()

    def states(self) -> dict[str, int]:
        """How many operations ended how."""
        return Counter(row.state for row in self._operations("true"))

    def picture(self) -> str:
        """What is not settled, for people."""
        rows = self._operations("a.state NOT IN ('completed', 'failed', 'cancelled')")
        return "\n".join(str(dict(row._mapping)) for row in rows)

    def _operations(self, where: str) -> list[Any]:
        with self.database.connect() as tx:
            return list(
                tx.execute(
                    text(
                        "SELECT a.apply_identifier, a.state AS apply_state, o.deployment, o.state, o.claim_owner,"
                        " o.next_attempt_at, o.next_poll_at, o.error_message, o.poll_error FROM apply_operations o"
                        f" JOIN applies a ON a.id = o.apply_id WHERE {where} ORDER BY o.id"
                    )
                )
            )

    def _new(self, free: list[str]) -> NewApply:
        self._number += 1
        count = min(len(free), self.draw.choice((1, 2, 3, 4, 5)))
        copy = self.draw.choice((Copy.ROLLING, Copy.PARALLEL))
        policy = Policy(
            copy=copy,
            on_failure=self.draw.choice((OnFailure.HALT, OnFailure.CONTINUE)),
            cutover=self.draw.choice((Cutover.AUTO, Cutover.AUTO, Cutover.AUTO, Cutover.MANUAL)),
            max_parallel=None if copy is Copy.ROLLING else self.draw.choice((None, 2)),
        )
        plan = self._store.save_plan(
            environment="test", database="shop", database_type="postgres", changes=(CHANGE,), caller="ann"
        )
        new = NewApply(
            plan.plan_id,
            "test",
            tuple(self.draw.sample(free, count)),
            policy,
            "ann",
            "chaos",
            f"chaos-{self._number}",
        )
        self._unanswered.append(new)
        return new

    def _enqueue(self, new: NewApply) -> None:
        try:
            accepted = accept_apply(new, self._ports)
        except TernError as refused:
            self.figures["rollouts refused"] += 1
            logging.getLogger(__name__).info("refused: %s", refused)
        else:
            self.figures["rollouts accepted"] += 1
            self.acknowledged.append(("apply", accepted.apply_id))
        if new in self._unanswered:
            self._unanswered.remove(new)

    def _wish(self, row: Any) -> None:
        if row.state == "stopped":
            verb = self.draw.choice((Verb.START, Verb.START, Verb.CANCEL))
        elif row.state == "waiting_for_cutover":
            verb = self.draw.choice((Verb.CUTOVER, Verb.CUTOVER, Verb.STOP))
        else:
            verb = self.draw.choice((Verb.STOP,) * 5 + (Verb.CANCEL, Verb.CUTOVER))
        self._ask(verb, row)

    def _ask(self, verb: Verb, row: Any) -> None:
        everyone = not verb.is_forward and self.draw.random() < 0.3
        chosen = Selection() if everyone else Selection((row.deployment,))
        with contextlib.suppress(TernError):
            receipt = ask(Asked(verb, ApplyId(row.apply_identifier), chosen, "bob", "chaos"), self._ports)
            if receipt.request_id is not None:
                self.figures[f"{verb} accepted"] += 1
                self.acknowledged.append(("request", str(receipt.request_id)))


@dataclass
class Monkey:
    """Breaks something every now and then, and puts it back."""

    machines: Machines
    places: list[Place]
    fleet: Fleet
    workers: list[Process]
    beats: list[Process]
    draw: random.Random
    figures: Counter[str]
    frozen: list[tuple[float, Process]] = field(default_factory=list)

    def act(self) -> None:
        """One fault."""
        self.thaw(time.monotonic())
        faults: list[tuple[int, Callable[[], None]]] = [
            (10, self.swallow_answer),
            (4, self.cut),
            (3, self.kill_worker),
            (2, self.freeze_worker),
            (2, self.kill_engine),
            (2, self.flush_broker),
            (1, self.restart_broker),
            (1, self.restart_database),
            (1, self.kill_beat),
        ]
        fault = self.draw.choices([act for _, act in faults], [weight for weight, _ in faults])[0]
        self.figures[f"fault: {fault.__name__.replace('_', ' ')}"] += 1
        fault()

    def swallow_answer(self) -> None:
        relay = self.draw.choice(self.places).relay
        assert relay is not None
        relay.swallow_next_answer()

    def cut(self) -> None:
        relay = self.draw.choice(self.places).relay
        assert relay is not None
        relay.cut()

    def kill_worker(self) -> None:
        worker = self.draw.choice(self.workers)
        worker.kill()
        self.frozen = [(until, process) for until, process in self.frozen if process is not worker]
        self.workers[self.workers.index(worker)] = self.fleet.worker()

    def freeze_worker(self) -> None:
        worker = self.draw.choice(self.workers)
        worker.freeze()
        self.frozen.append((time.monotonic() + FREEZE_S, worker))

    def thaw(self, now: float) -> None:
        """Those that have been frozen for longer than their lease."""
        for until, process in list(self.frozen):
            if until <= now:
                process.thaw()
                self.frozen.remove((until, process))

    def kill_engine(self) -> None:
        place = self.draw.choice(self.places)
        place.kill()
        place.start()

    def flush_broker(self) -> None:
        import redis  # noqa: PLC0415 - only here

        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.machines.broker_url) as client:
            client.flushall()

    def restart_broker(self) -> None:
        self.machines.kill("valkey")
        self.machines.start("valkey")

    def restart_database(self) -> None:
        self.machines.kill("postgres")
        self.machines.start("postgres")

    def kill_beat(self) -> None:
        self.beats[0].kill()
        self.beats[0] = self.fleet.beat()


def wait_until(condition: Callable[[], bool], seconds: float, words: str) -> None:
    """Polls; raises TimeoutError."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            raise TimeoutError(words)
        time.sleep(0.05)


@contextmanager
def _place(name: str, folder: Path) -> Iterator[Place]:
    place = Place(name, folder, complete_after_s=0.6)
    place.start()
    try:
        yield place
    finally:
        if place.relay is not None:
            place.relay.close()
        place.kill()


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
        machines = Machines(home / "servers", stack.enter_context(Supervisor(logs)))
        machines.start("postgres")
        machines.start("valkey")
        postgres.ensure_database(machines.database_url)
        places = [stack.enter_context(_place(f"engine{number}", home)) for number in range(ENGINES)]
        environment = {
            "TERN_DATABASE_URL": machines.database_url,
            "TERN_BROKER_URL": machines.broker_url,
            "TERN_LEASE_SECONDS": str(LEASE_S),
            "TERN_RPC_DEADLINE_SECONDS": str(DEADLINE_S),
            "TERN_POLL_STEADY_SECONDS": "1",
            "TERN_POLL_SLOW_SECONDS": "3",
            "TERN_LOG_LEVEL": "WARNING",
            "PYTHONWARNINGS": "ignore",
        }
        os.environ.update(environment)
        database = connect(machines.database_url, pool_size=4)
        stack.callback(database.dispose)
        migrate(database)
        install_audit(database)
        names = _register(database, places)
        fleet = stack.enter_context(Fleet(environment, logs))
        return _Chaos(seconds, seed, machines, places, fleet, database, names).run()


def _register(database: Engine, places: list[Place]) -> tuple[str, ...]:
    store = PostgresStore(database, owner="office")
    names: list[str] = []
    for place in places:
        assert place.relay is not None
        for number in range(PLACES_PER_ENGINE):
            names.append(f"{place.name}-{number}")
            store.save_deployment(
                Deployment(
                    name=names[-1],
                    environment="test",
                    database="shop",
                    address=place.relay.address,
                    target=names[-1],
                    position=len(names),
                    capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
                    idempotent_dispatch=True,
                )
            )
    return tuple(names)


@dataclass
class _Chaos:
    seconds: float
    seed: int
    machines: Machines
    places: list[Place]
    fleet: Fleet
    database: Engine
    names: tuple[str, ...]

    def run(self) -> int:
        from tasks.app import app  # noqa: PLC0415 - reads the environment, which is only set now
        from tasks.bells import CeleryBells  # noqa: PLC0415

        draw = random.Random(self.seed)  # noqa: S311 - faults are drawn, nothing is protected
        office = Office(self.database, CeleryBells(app), draw, self.names)
        workers = [self.fleet.worker() for _ in range(WORKERS)]
        monkey = Monkey(
            self.machines,
            self.places,
            self.fleet,
            workers,
            [self.fleet.beat()],
            draw,
            office.figures,
        )
        self._storm(office, monkey)
        calm_s, rest = self._calm(office, monkey)
        history = self._history(office)
        found = violations(history)
        if rest:
            found.append(f"liveness: {rest} operations were not settled {calm_s:.0f} s after the last fault")
            print(office.picture())  # noqa: T201
        self._print(office, history, calm_s, found)
        if found:
            print(self.fleet.picture())  # noqa: T201
        return len(found)

    def _storm(self, office: Office, monkey: Monkey) -> None:
        ends_at = time.monotonic() + self.seconds
        next_fault = time.monotonic() + 4.0  # the workers are still coming up
        while time.monotonic() < ends_at:
            office.do_something()
            if time.monotonic() > next_fault:
                monkey.act()
                next_fault = time.monotonic() + office.draw.uniform(0.3, 1.5)
            monkey.thaw(time.monotonic())
            time.sleep(0.1)

    def _calm(self, office: Office, monkey: Monkey) -> tuple[float, int]:
        """No more faults: how long it took until everything was settled, and what was not."""
        monkey.thaw(float("inf"))
        since = time.monotonic()
        rest = -1
        while time.monotonic() < since + CALM_S:
            with contextlib.suppress(*LOST):
                rest = office.calm_down()
                if rest == 0 and office.all_is_quiet():
                    break
            time.sleep(0.5)
        return time.monotonic() - since, rest or (0 if office.all_is_quiet() else -1)

    def _history(self, office: Office) -> History:
        return read_history(
            self.database,
            [from_file(place.name, place.ledger) for place in self.places],
            self._jobs(),
            acknowledged=office.acknowledged,
            in_flight_s=FREEZE_S + DEADLINE_S + 5.0,
        )

    def _jobs(self) -> list[Job]:
        """What the engines say of every job that they have ever started."""
        directory = EngineDirectory(deadline_s=5.0)
        store = PostgresStore(self.database, owner="office")
        by_name = {deployment.name: deployment for deployment in store.load_deployments()}
        jobs: list[Job] = []
        for place in self.places:
            _, done = from_file(place.name, place.ledger)
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

    def _print(self, office: Office, history: History, calm_s: float, found: list[str]) -> None:
        applied = [one for one in history.effects if one.kind == "apply"]
        figures: dict[str, object] = {
            "seconds of chaos, seed": f"{self.seconds:g}, {self.seed}",
            "applies, operations": f"{len(history.applies)}, {len(history.operations)}",
            **{f"operations {state}": count for state, count in sorted(office.states().items())},
            **dict(sorted(office.figures.items())),
            "calls to engines": len(history.calls),
            "Apply calls, jobs started": (
                f"{sum(call.method == 'Apply' for call in history.calls)},"
                f" {sum(not one.is_duplicate for one in applied)}"
            ),
            "repeated Apply absorbed by its key": sum(one.is_duplicate for one in applied),
            "events": len(history.events),
            "seconds a claim was held, median, worst": _middle_and_worst(_claims_s(history)),
            "seconds from a stop to its call or end": _middle_and_worst(_stops_s(history)),
            "seconds until all was settled": f"{calm_s:.1f} (bound {CALM_S:g})",
            "violations": len(found),
        }
        for name, value in figures.items():
            print(f"{name:40} {value}")  # noqa: T201 - the report
        for line in found:
            print(f"VIOLATION {line}")  # noqa: T201


def _claims_s(history: History) -> list[float]:
    """How long each claim stood until it was given back or taken over."""
    since: dict[int, float] = {}
    found: list[float] = []
    for change in history.writes("apply_operations"):
        before, after = change.old.get("claim_token"), change.new.get("claim_token")
        if before != after and change.row in since:
            found.append(change.at - since.pop(change.row))
        if after and before != after:
            since[change.row] = change.at
    return found


def _stops_s(history: History) -> list[float]:
    """From the commit of each stop to the Stop call, or to the end of the wish where none was needed."""
    scopes = {operation.id: operation.scope for operation in history.operations}
    calls = [call for call in history.calls if call.method == "Stop"]
    begun: dict[int, float] = {}
    found: list[float] = []
    for change in history.writes("control_deliveries"):
        if change.new["verb"] != "stop":
            continue
        if not change.old:
            begun[change.row] = change.at
        elif change.new["state"] not in {"pending", "sent"} and change.row in begun:
            since, scope = begun.pop(change.row), scopes[change.new["operation_id"]]
            sent = [call.at for call in calls if call.operation == scope and since <= call.at <= change.at]
            found.append(min([*sent, change.at]) - since)
    return found


def _middle_and_worst(seconds: list[float]) -> str:
    ordered = sorted(seconds) or [0.0]
    return f"{ordered[len(ordered) // 2]:.2f}, {ordered[-1]:.2f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else secrets.randbelow(10_000)
    sys.exit(1 if run(given.seconds, seed) else 0)


if __name__ == "__main__":
    main()
