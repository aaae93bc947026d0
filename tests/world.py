"""A small world for scenarios: real PostgreSQL, real gRPC, fake engines, and drivers that a test steps by hand.

    world = World(database, engines)
    apply_id = world.apply("A", "B", "C")
    world.run(until=lambda: world.state("A") == "completed")

Bells are queued and answered in order by whoever the test says; time is the database's and can be moved on.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tern.domain.control import Receipt, Verb
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import Action, Capabilities, Deployment, PlannedChange
from tern.domain.policy import Policy
from tern.domain.selection import Selection
from tern.flows.accept import accept_apply, answer, ask
from tern.flows.advance import advance
from tern.flows.control import deliver
from tern.flows.dispatch import dispatch
from tern.flows.poll import look, poll
from tern.flows.sweep import reconcile, sweep_progress
from tern.ports import Answered, Asked, Due, DueControl, NewApply, Ports, Resolved, WishReceipt
from tern.store.database import Database
from tern.store.sql import text
from tern.store.store import PostgresStore
from tern.wire.routing import EngineDirectory
from tests.faults.fake_engine import FakeEngine

CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER)


class QueuedBells:
    """Bells that wait until the test answers them."""

    def __init__(self) -> None:
        self.queue: deque[tuple[str, tuple[Any, ...]]] = deque()

    def dispatch(self, due: Due) -> None:
        self.queue.append(("dispatch", (due.operation_id, str(due.scope))))

    def control(self, due: DueControl) -> None:
        self.queue.append((due.verb.value, (due.operation_id, str(due.scope))))

    def progress(self, due: Due) -> None:
        self.queue.append(("progress", (due.operation_id, str(due.scope))))

    def poll(self, deployment: str) -> None:
        self.queue.append(("poll", (deployment,)))

    def advance(self, apply_id: ApplyId) -> None:
        self.queue.append(("advance", (apply_id,)))


class Fixed:
    """Chance without chance."""

    def jitter(self) -> float:
        return 0.5


class World:
    """One database, some fake engines, and as many workers as a test asks for."""

    def __init__(
        self, database: Database, engines: Mapping[str, FakeEngine], *, lease_s: float = 30.0
    ) -> None:
        self.database = database
        self.engines = dict(engines)
        self.lease_s = lease_s
        self.bells = QueuedBells()
        self.directory = EngineDirectory(deadline_s=2.0)
        self.store = PostgresStore(database, owner="worker-1", lease_s=lease_s)
        self.ports = Ports(self.store, self.directory, self.bells, Fixed())
        self._keys = itertools.count(1)
        self.last: ApplyId = ApplyId("")
        for position, (name, engine) in enumerate(self.engines.items()):
            self.add(
                name,
                engine.address,
                position,
                offers=engine.offers_engine_service,
                identity=engine.identity,
            )

    def add(
        self,
        name: str,
        address: str,
        position: int,
        *,
        offers: bool,
        deduplicates: bool | None = None,
        identity: str = "",
    ) -> None:
        """As a person does who declares of an engine with the second service that it deduplicates, too; scenarios
        about what nobody declared say `deduplicates=False`, or undeclared().
        """
        self.store.save_deployment(
            Deployment(
                name=name,
                environment="test",
                database="shop",
                address=address,
                target=f"target-{name}",
                position=position,
                capabilities=Capabilities(offers, offers, offers, identity),
                idempotent_dispatch=offers if deduplicates is None else deduplicates,
            )
        )

    def undeclared(self) -> None:
        """Nobody has said of any engine that it runs a repeated Apply only once."""
        self.write("UPDATE deployments SET deduplicates = false, idempotent_dispatch = false")

    def worker(self, owner: str) -> Ports:
        """Another worker on the same world, with the same queue of bells."""
        store = PostgresStore(self.database, owner=owner, lease_s=self.lease_s)
        return Ports(store, self.directory, self.bells, Fixed())

    # What people do

    def apply(
        self,
        *deployments: str,
        policy: Policy | None = None,
        changes: Iterable[PlannedChange] = (CHANGE,),
        key: str = "",
        allow_unsafe: bool = False,
        accept_drift: bool = True,
    ) -> ApplyId:
        """As somebody does who knows what was left half done there; scenarios about that say accept_drift=False."""
        plan = self.store.save_plan(
            environment="test",
            database="shop",
            database_type="postgres",
            changes=tuple(changes),
            caller="ann",
        )
        new = NewApply(
            plan.plan_id,
            "test",
            deployments or tuple(self.engines),
            policy or Policy(),
            "ann",
            "because",
            key or f"key-{next(self._keys)}",
            allow_unsafe,
            accept_drift=accept_drift,
        )
        self.last = accept_apply(new, self.ports).apply_id
        return self.last

    def ask(
        self,
        verb: Verb,
        *deployments: str,
        apply_id: ApplyId | None = None,
        volume: int | None = None,
        who: str = "bob",
    ) -> WishReceipt:
        return self.ask_for(verb, Selection(deployments), apply_id=apply_id, volume=volume, who=who)

    def ask_for(
        self,
        verb: Verb,
        selection: Selection,
        *,
        apply_id: ApplyId | None = None,
        who: str = "bob",
        **more: Any,
    ) -> WishReceipt:
        asked = Asked(verb, apply_id or self.last, selection, who, "the night is long", **more)
        return ask(asked, self.ports)

    def resolve(
        self, name: str, found: Resolved, remote_id: str = "", *, who: str = "eve", why: str = "I looked"
    ) -> None:
        """A person's answer about one operation of the newest apply."""
        named = RemoteId(remote_id) if remote_id else None
        answer(Answered(self.last, Selection((name,)), found, named, who, why), self.ports)

    def outcomes(self, receipt: WishReceipt) -> dict[str, Receipt]:
        return {line.deployment: line.outcome for line in receipt.lines}

    # What workers do

    def answer_bells(self, ports: Ports | None = None) -> None:
        """Answers the queued bells, and those that they ring, in order."""
        for _ in range(2_000):
            if not self.bells.queue:
                return
            self.answer_one(ports)
        message = "the bells never end"
        raise AssertionError(message)

    def answer_one(self, ports: Ports | None = None) -> None:
        kind, given = self.bells.queue.popleft()
        self.do(kind, *given, ports=ports)

    def do(self, kind: str, *given: Any, ports: Ports | None = None) -> None:
        parts = ports or self.ports
        match kind:
            case "dispatch":
                dispatch(*given, parts)
            case "progress":
                look(*given, parts)
            case "poll":
                poll(*given, parts)
            case "advance":
                advance(*given, parts)
            case verb:
                deliver(Verb(verb), *given, parts)

    def forget_bells(self) -> None:
        """The broker loses everything that it holds."""
        self.bells.queue.clear()

    def sweep(self, ports: Ports | None = None) -> None:
        """One round of both sweeps, answered, as if the last one had been long enough ago."""
        parts = ports or self.ports
        self.write(
            "UPDATE sweep_leases SET began_at = began_at - interval '2 s' WHERE began_at <= tern_clock()"
        )
        reconcile("sweeper", parts)
        self.answer_bells(parts)
        sweep_progress("sweeper", parts)
        self.answer_bells(parts)

    def run(self, until: Callable[[], bool], *, rounds: int = 60, step_s: float = 3.0) -> None:
        """Sweeps, with time moving on, until the condition holds."""
        for _ in range(rounds):
            self.answer_bells()
            if until():
                return
            self.pass_time(step_s)
            self.sweep()
        assert until(), self.picture()

    def pass_time(self, seconds: float) -> None:
        """Moves the only clock that counts."""
        with self.database.begin() as tx:
            now = tx.execute(
                text("SELECT extract(epoch FROM tern_clock() - clock_timestamp())::float")
            ).scalar_one()
            tx.execute(
                text(
                    "CREATE OR REPLACE FUNCTION tern_clock() RETURNS timestamptz LANGUAGE sql VOLATILE"
                    f" AS $$ SELECT clock_timestamp() + make_interval(secs => {now + seconds}) $$"
                )
            )

    # What can be seen

    def name(self, deployment: str, apply_id: ApplyId | None = None) -> ScopeName:
        return ScopeName(apply_id or self.last, deployment)

    def operation(self, deployment: str, apply_id: ApplyId | None = None) -> Any:
        return self.one(
            "SELECT o.* FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
            " WHERE a.apply_identifier = :apply AND o.deployment = :deployment",
            apply=apply_id or self.last,
            deployment=deployment,
        )

    def state(self, deployment: str, apply_id: ApplyId | None = None) -> str:
        return str(self.operation(deployment, apply_id).state)

    def apply_row(self, apply_id: ApplyId | None = None) -> Any:
        return self.one("SELECT * FROM applies WHERE apply_identifier = :apply", apply=apply_id or self.last)

    def remote_id(self, deployment: str, apply_id: ApplyId | None = None) -> str | None:
        operation, apply = self.operation(deployment, apply_id), self.apply_row(apply_id)
        found = apply.external_id if apply.operation_count == 1 else operation.engine_resume_context
        return str(found) if found else None

    def delivery(self, deployment: str, verb: Verb) -> Any:
        return self.one(
            "SELECT d.* FROM control_deliveries d JOIN apply_operations o ON o.id = d.operation_id"
            " JOIN applies a ON a.id = o.apply_id WHERE a.apply_identifier = :apply"
            " AND o.deployment = :deployment AND d.verb = :verb ORDER BY d.id DESC LIMIT 1",
            apply=self.last,
            deployment=deployment,
            verb=verb.value,
        )

    def events(self, deployment: str | None = None) -> list[Any]:
        with self.database.begin() as tx:
            return list(
                tx.execute(
                    text(
                        "SELECT e.*, o.deployment FROM apply_events e JOIN applies a ON a.id = e.apply_id"
                        " LEFT JOIN apply_operations o ON o.id = e.operation_id WHERE a.apply_identifier = :apply"
                        " AND (CAST(:deployment AS text) IS NULL OR o.deployment = :deployment) ORDER BY e.id"
                    ),
                    {"apply": self.last, "deployment": deployment},
                )
            )

    def one(self, statement: str, **values: Any) -> Any:
        with self.database.begin() as tx:
            return tx.execute(text(statement), values).one()

    def write(self, statement: str, **values: Any) -> None:
        with self.database.begin() as tx:
            tx.execute(text(statement), values)

    def picture(self) -> str:
        """The rows, for a failing test's message."""
        with self.database.begin() as tx:
            rows = tx.execute(
                text(
                    "SELECT a.state AS apply_state, o.deployment, o.state, o.error_message, o.poll_error,"
                    " o.next_attempt_at, o.next_poll_at, o.claim_owner FROM apply_operations o"
                    " JOIN applies a ON a.id = o.apply_id ORDER BY a.id, o.position"
                )
            )
            return "\n".join(str(dict(row._mapping)) for row in rows)
