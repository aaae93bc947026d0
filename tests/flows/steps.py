"""Words that the scenarios share: what is given, what is driven, and what must hold once nothing moves any more."""

import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

from tern.domain.control import Verb
from tern.domain.holds import HoldKind
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.outcome import Ok
from tern.domain.policy import Copy, Cutover, Policy
from tern.domain.work import Sighting
from tern.ports import Ports
from tern.store.reading import Reading
from tern.store.sql import text
from tern.view import apply_view
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)
MANUAL = Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL)
FORWARD = frozenset({"Apply", "Start", "Cutover"})


# Given


def running(world: World, *names: str, policy: Policy = PARALLEL) -> dict[str, str]:
    """One apply, dispatched everywhere; the remote ids by deployment."""
    world.apply(*names, policy=policy)
    world.answer_bells()
    ids = {name: str(world.remote_id(name)) for name in names or world.engines}
    assert all(world.state(name) == "running" for name in ids)
    return ids


def waiting(world: World, *names: str, policy: Policy = MANUAL) -> dict[str, str]:
    """One apply whose operations all wait for their cutover."""
    ids = running(world, *names, policy=policy)
    for name in ids:
        engine_says(world, name, "waiting_for_cutover")
    return ids


def stopped(world: World, *names: str, policy: Policy = PARALLEL) -> dict[str, str]:
    """One apply, dispatched everywhere and then stopped everywhere."""
    ids = running(world, *names, policy=policy)
    world.ask(Verb.STOP)
    world.answer_bells()
    assert {world.state(name) for name in ids} == {"stopped"}
    return ids


# When


def engine_says(world: World, name: str, state: str, *, error: str = "", looks: bool = True) -> None:
    """The job at that deployment is in this state now, and somebody looks."""
    world.engines[name].set_state(str(world.remote_id(name)), state, error=error)
    if looks:
        look(world, name)


def sighting(
    world: World, name: ScopeName, remote_id: RemoteId, taken_from: ScopeName | None = None
) -> Sighting:
    """What the operation's engine says of an id that a person is about to name."""
    question = world.store.question(name, remote_id, taken_from)
    outcome = world.directory.of(question.deployment).progress(question.call)
    assert isinstance(outcome, Ok), outcome
    return Sighting(outcome.value, question.call.fence)


def committed_late(world: World, verb: Verb, name: str) -> None:
    """A wish that was accepted on rows as they were a moment ago, and is committed only now."""
    world.write(
        "WITH request AS (INSERT INTO control_requests (apply_id, verb, volume, caller, reason, outcomes)"
        " SELECT apply_id, :verb, :volume, 'bob', 'a moment ago', '[]' FROM apply_operations WHERE id = :id"
        " RETURNING *)"
        " INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb)"
        " SELECT id, apply_id, :id, verb FROM request",
        verb=verb.value,
        volume=3 if verb is Verb.VOLUME else None,
        id=world.operation(name).id,
    )


def look(world: World, name: str, ports: Ports | None = None) -> None:
    """One look at the operation."""
    world.do("progress", world.operation(name).id, str(world.name(name)), ports=ports)


def drive(world: World, verb: Verb, name: str, ports: Ports | None = None) -> None:
    """One tick for one wish."""
    world.do(verb.value, world.operation(name).id, str(world.name(name)), ports=ports)


def dispatch(world: World, name: str, ports: Ports | None = None) -> None:
    """One tick of a dispatch."""
    world.do("dispatch", world.operation(name).id, str(world.name(name)), ports=ports)


def settle(world: World, ports: Ports | None = None, *, rounds: int = 40, step_s: float = 4.0) -> None:
    """Bells and sweeps, with time moving on, until no wish is open."""
    for _ in range(rounds):
        world.answer_bells(ports)
        if not open_wishes(world):
            return
        world.pass_time(step_s)
        world.sweep(ports)
    raise AssertionError(f"{open_wishes(world)}\n{world.picture()}")


# Then


def wishes(world: World) -> list[tuple[str, str, str]]:
    """Deployment, verb and fate of every wish, oldest first."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT o.deployment, d.verb, d.state FROM control_deliveries d"
                " JOIN apply_operations o ON o.id = d.operation_id ORDER BY d.id"
            )
        )
        return [(row.deployment, row.verb, row.state) for row in rows]


def open_wishes(world: World) -> list[tuple[str, str, str]]:
    return [wish for wish in wishes(world) if wish[2] in {"pending", "sent"}]


def methods(
    world: World, name: str, among: Iterable[str] = ("Apply", "Stop", "Start", "Cutover", "Cancel")
) -> list[str]:
    """What the engine was asked to do, in order; questions are left out."""
    return [call.method for call in world.engines[name].calls() if call.method in set(among)]


def tables(world: World, name: str) -> set[str]:
    """The states of the operation's statements."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text("SELECT state FROM table_changes WHERE operation_id = :id"), {"id": world.operation(name).id}
        )
        return {row.state for row in rows}


def holds_of(world: World, name: str) -> set[HoldKind]:
    """Why `tern explain` says that the operation does not move."""
    view = apply_view(Reading(world.database).apply(world.last))
    return {hold.kind for hold in view.operation(name).holds}


def held_targets(world: World) -> set[str]:
    """The deployments that live applies hold."""
    with world.database.begin() as tx:
        return set(tx.execute(text("SELECT deployment FROM target_reservations")).scalars())


# Ports that somebody can freeze, cut or overhear


class WorkerDied(BaseException):
    """The process is gone: nothing catches it, nothing is cleaned up."""


class Cut:
    """Breaks off at the k-th boundary of the ports, before the call is made or after it had its effect."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.passed = 0
        self.where = ""

    @property
    def was_reached(self) -> bool:
        return self.passed >= self.at

    def passing(self, name: str, call: Callable[[], Any]) -> Any:
        self.passed += 1
        dies = self.passed == self.at
        if dies:
            self.where = f"{'after' if self.after else 'before'} {name} (boundary {self.at})"
            if self.after:
                call()
            raise WorkerDied(self.where)
        return call()


class Through:
    """A port of which every call passes through a hook first."""

    def __init__(self, inner: Any, hook: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._inner = inner
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*given: Any, **named: Any) -> Any:
            return self._hook(name, lambda: found(*given, **named))

        return call


class EnginesThrough:
    """ports.Engines that hands out engines with a hook."""

    def __init__(self, inner: Any, hook: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._inner = inner
        self._hook = hook

    def of(self, deployment: Any) -> Any:
        return Through(self._inner.of(deployment), self._hook)


def through(ports: Ports, hook: Callable[[str, Callable[[], Any]], Any]) -> Ports:
    """The same parts, every call to store and engines through the hook."""
    return Ports(Through(ports.store, hook), EnginesThrough(ports.engines, hook), ports.bells, ports.chance)


def meanwhile(ports: Ports, name: str, happens: Callable[[], Any], *, after: bool = False) -> Ports:
    """The same parts; just before (or after) the first call of that name, something else happens."""
    left = [happens]

    def hook(called: str, call: Callable[[], Any]) -> Any:
        if called != name or not left:
            return call()
        if after:
            result = call()
            left.pop()()
            return result
        left.pop()()
        return call()

    return through(ports, hook)


class Frozen:
    """A worker that stops just before a call until it is woken: `with Frozen(...)` in a thread of its own."""

    def __init__(self, ports: Ports, name: str, work: Callable[[Ports], None]) -> None:
        self._at_the_call = threading.Event()
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=lambda: work(meanwhile(ports, name, self._freeze)))

    def _freeze(self) -> None:
        self._at_the_call.set()
        assert self._go_on.wait(30)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._at_the_call.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.wake()

    def wake(self) -> None:
        """It goes on as if nothing had happened, to the end of its tick."""
        self._go_on.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
