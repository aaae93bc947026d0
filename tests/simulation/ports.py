"""The ports as one tick sees them. Each call passes the hub, and meets what the plan has for it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tern.domain.identity import ApplyId
from tern.domain.model import Deployment
from tern.domain.outcome import Ok, Refused, Unknown
from tern.domain.samples import Sample
from tern.ports import Due, DueControl, Looked, NotClaimed, Ports, StorageUnavailable
from tests.simulation.engines import SimEngine
from tests.simulation.hub import Actor, Hub, Message, WorkerDied
from tests.simulation.mishaps import MISHAPS, befall
from tests.simulation.plan import ASKS

FREEZE_S = 36.0
"""Longer than a lease."""
AWAY_S = 45.0
BACK_AFTER_S = 800.0
"""Longer than it takes to give it up."""
DOWN_S = 20.0
LATE_EFFECT_S = 5.0
LATE_MESSAGE_S = 25.0
A_LITTLE_S, AN_HOUR_S = 0.1, 3_600.0
"""By which the database's clock is set back."""


@dataclass(frozen=True)
class Circumstances:
    """What a port call may lead to besides itself. `ask`: somebody asks for something, for the whole apply."""

    hub: Hub
    engines: dict[str, SimEngine]
    ask: Callable[[str], None]
    wrote: Callable[[], bool]
    """Whether the last transaction changed anything."""
    instant: Callable[[], float]
    away_until: dict[str, float]

    def before(self, actor: Actor, kinds: Sequence[str]) -> None:
        """What comes before the call: everybody else, or nothing for a long time."""
        hub = self.hub
        for kind in kinds:
            if kind.removesuffix("-first") in ASKS:
                self.ask(kind.removesuffix("-first"))
            match kind:
                case "database-down":
                    hub.store_down_until = hub.clock.elapsed + DOWN_S
                    hub.troubled(DOWN_S)
                case "broker-down":
                    hub.broker_down_until = hub.clock.elapsed + DOWN_S
                    hub.forget_messages()
                    hub.troubled(DOWN_S)
                case "clock-back-a-little":
                    hub.clock.set_back(A_LITTLE_S)
                case "clock-back-an-hour":
                    hub.clock.set_back(AN_HOUR_S)
                case "freeze":
                    hub.freeze(actor, FREEZE_S)
                case "yield":
                    hub.others_first(actor)
                case _ if kind.endswith("-first"):
                    hub.others_first(actor)

    def ports(self, actor: Actor, store: Any, chance: Any) -> Ports:
        """The parts of one tick."""
        return Ports(
            SimStore(self, actor, store),  # type: ignore[arg-type]
            SimEngines(self, actor),
            SimBells(self, actor),
            chance,
        )


class SimStore:
    """ports.Store, any of them."""

    def __init__(self, around: Circumstances, actor: Actor, inner: Any) -> None:
        self._around = around
        self._actor = actor
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def call(*given: Any, **named: Any) -> Any:
            return self._call(name, lambda: method(*given, **named))

        self.__dict__[name] = call
        return call

    def _call(self, name: str, perform: Callable[[], Any]) -> Any:
        around, actor = self._around, self._actor
        hub = around.hub
        step, kinds = hub.arrive(actor, "store", name)
        if kinds:
            around.before(actor, kinds)
        if hub.clock.elapsed < hub.store_down_until or "unavailable" in kinds:
            message = "PostgreSQL does not answer"
            raise StorageUnavailable(message)
        if "busy" in kinds:
            return NotClaimed("another driver is just claiming it")
        answer = perform()
        if around.wrote():
            hub.wrote(step)
        if "die-after" in kinds:
            raise WorkerDied
        if "unknown" in kinds:
            message = "the answer to COMMIT got lost"
            raise StorageUnavailable(message)
        if name == "may_go_forward" and answer:
            actor.looked_at = around.instant()
        return answer


class SimEngines:
    """ports.Engines."""

    def __init__(self, around: Circumstances, actor: Actor) -> None:
        self._around = around
        self._actor = actor

    def of(self, deployment: Deployment) -> Any:
        """The engine as this tick reaches it."""
        return SimClient(self._around, self._actor, self._around.engines[deployment.name])


class SimClient:
    """ports.Engine over a bad line."""

    def __init__(self, around: Circumstances, actor: Actor, engine: SimEngine) -> None:
        self._around = around
        self._actor = actor
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)
        is_forward = name in {"apply", "start", "cutover", "revert", "skip_revert", "volume"}

        def call(*given: Any, **named: Any) -> Any:
            if is_forward:
                named["begun_at"] = self._actor.looked_at
            return self._call(name, lambda: method(*given, **named), given)

        return call

    def _call(self, name: str, perform: Callable[[], Any], given: tuple[Any, ...]) -> Any:
        around, actor = self._around, self._actor
        hub = around.hub
        _, kinds = hub.arrive(actor, "engine", name)
        if kinds:
            around.before(actor, kinds)
            for kind in kinds:
                if kind in MISHAPS:
                    befall(self._engine, kind)
                if kind == "gone":
                    around.away_until[self._engine.name] = math.inf
                if kind == "comes-back":
                    around.away_until[self._engine.name] = hub.clock.elapsed + BACK_AFTER_S
                if kind == "away":
                    around.away_until[self._engine.name] = hub.clock.elapsed + AWAY_S
                    hub.troubled(AWAY_S)
        if hub.clock.elapsed < around.away_until.get(self._engine.name, 0.0) or "lost" in kinds:
            return _failed(name, given, Unknown("connection refused", "", "UNAVAILABLE"))
        if "refused" in kinds:
            return _failed(name, given, Refused("who are you?", "", "PERMISSION_DENIED"))
        if "late" in kinds:
            hub.later(LATE_EFFECT_S, perform)
            hub.troubled(LATE_EFFECT_S)
            return _failed(name, given, Unknown("connection reset", "", "UNAVAILABLE"))
        answer = perform()
        if "die-after" in kinds:
            raise WorkerDied
        if "unanswered" in kinds:
            return _failed(name, given, Unknown("the answer got lost", "", "DEADLINE_EXCEEDED"))
        if "senseless" in kinds:
            return _senseless(name, given)
        return answer


def _failed(name: str, given: tuple[Any, ...], failure: Refused | Unknown) -> Any:
    if name == "batch_progress":
        return tuple(Looked(cursor, failure) for cursor in given[0])
    return failure


def _senseless(name: str, given: tuple[Any, ...]) -> Any:
    """STATE_NO_ACTIVE_CHANGE, which says nothing about a known job (PO1)."""
    if name == "batch_progress":
        return tuple(
            Looked(cursor, Ok(Sample(cursor.call.remote_id, None, "no_active_change", revision=999)))
            for cursor in given[0]
        )
    return Ok(Sample(given[0].remote_id, None, "no_active_change", revision=999))


class SimBells:
    """ports.Bells over a broker that may forget, double and delay everything (G11)."""

    def __init__(self, around: Circumstances, actor: Actor) -> None:
        self._around = around
        self._actor = actor

    def dispatch(self, due: Due) -> None:
        """tern.operation.dispatch."""
        self._ring("dispatch", due.operation_id, str(due.scope))

    def control(self, due: DueControl) -> None:
        """tern.operation.VERB, then its progress."""
        self._ring(due.verb.value, due.operation_id, str(due.scope))

    def progress(self, due: Due) -> None:
        """tern.operation.progress."""
        self._ring("look", due.operation_id, str(due.scope))

    def poll(self, deployment: str) -> None:
        """tern.deployment.poll."""
        self._ring("poll", deployment)

    def advance(self, apply_id: ApplyId) -> None:
        """tern.apply.advance."""
        self._ring("advance", apply_id)

    def _ring(self, kind: str, *given: Any) -> None:
        hub, actor = self._around.hub, self._actor
        _, kinds = hub.arrive(actor, "bells", kind)
        message = Message(kind, given, actor.direct)
        if "lose" in kinds:
            return
        if "postpone" in kinds:
            hub.later(LATE_MESSAGE_S, lambda: hub.ring(message))
            hub.troubled(LATE_MESSAGE_S)
            return
        hub.ring(Message(kind, given, actor.direct, copies=2) if "race" in kinds else message)
        if "double" in kinds:
            hub.ring(message)
