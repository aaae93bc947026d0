"""One run: a scenario and a plan of faults; from the first request until everything is at rest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.model import Capabilities, Deployment
from tern.flows.advance import advance
from tern.flows.control import deliver
from tern.flows.dispatch import dispatch
from tern.flows.poll import look, poll
from tern.flows.sweep import reconcile, sweep_progress, sweep_when_nobody_does
from tern.ports import Ports
from tests.simulation import people
from tests.simulation.backend import ApplyLook, Backend
from tests.simulation.checks import check
from tests.simulation.clock import EPOCH
from tests.simulation.engines import EngineKind, SimEngine
from tests.simulation.hub import Actor, Hub, Message
from tests.simulation.plan import Plan, Point, write_plan
from tests.simulation.ports import Circumstances, SimBells
from tests.simulation.scenarios import Act, Ask, CarryOn, Drain, Enqueue, Scenario

HORIZON_S = 1_500.0
STEPS_MAX = 8_000
IDLE_S = 10.0
"""The metronome is not played while nothing is due, but never silent for longer than this."""
HELP_EVERY_S = 5.0


class Steady:
    """ports.Chance without chance."""

    def jitter(self) -> float:
        """In the middle."""
        return 0.5


@dataclass
class Result:
    """What came of a run. `wrong` is empty if everything holds."""

    scenario: Scenario
    plan: Plan
    trace: list[Point]
    wrong: list[str]
    states: dict[str, str]
    calm_at: float
    rest_at: float
    told: list[str] = field(default_factory=list)

    @property
    def rest_s(self) -> float:
        """From the end of all trouble to rest."""
        return self.rest_at - self.calm_at

    @property
    def befallen(self) -> tuple[Point, ...]:
        """The calls at which something goes wrong."""
        steps = {fault.at for fault in self.plan}
        return tuple(point for point in self.trace if point.step in steps)

    def __str__(self) -> str:
        wrong = "\n".join(f"  {line}" for line in self.wrong) or "  nothing is wrong"
        plan = write_plan(self.plan)
        where = "\n".join(f"    {point.step}: {point}" for point in self.befallen)
        told = "\n".join(f"    {line}" for line in self.told)
        return f"{self.scenario.name}: {plan or 'no fault'}\n{where}\n{wrong}\n{told}"


class Run:
    """Plays one scenario on a fresh backend."""

    def __init__(
        self, backend: Backend, scenario: Scenario, plan: Plan = (), *, watches: bool = False
    ) -> None:
        self.scenario = scenario
        self.clock = backend.clock
        self.backend = backend
        self.hub = Hub(self.clock, plan, ended=self._ended, begin=self._begin)
        if watches:
            self.hub.situation = self._situation
        self.engines: dict[str, SimEngine] = {}
        self.around = Circumstances(
            self.hub, self.engines, self._asked_by_fault, self.backend.wrote, self.backend.instant, {}
        )
        self.drains: list[tuple[float, str, bool]] = []
        """When somebody was told that a deployment is drained (or no longer)."""
        self.acknowledged: list[tuple[str, str]] = []
        self._acts = list(scenario.acts)
        self._actors = 0
        self._changed = True
        self._helped_at = 0.0
        self._asked_at = self.clock.elapsed
        self._polled_at = self._swept_at = self.clock.elapsed

    def play(self) -> Result:
        """To the end."""
        self._prepare()
        self._person("person:apply", partial(self._enqueue, self.scenario.deployments, self.scenario.policy))
        wrong = self._until_rest()
        rest_at = self.clock.elapsed
        trace = list(self.hub.trace)
        if not wrong:
            self._ring_again()
        looks = self.backend.look()
        states = {one.deployment: one.state for one in looks[0].operations} if looks else {}
        result = Result(
            self.scenario,
            self.hub.plan,
            trace,
            [*self.hub.complaints, *wrong],
            states,
            max(self.hub.troubled_until, self._asked_at),
            rest_at,
        )
        check(self, result, at_rest=not wrong)
        return result

    # The stage

    def _prepare(self) -> None:
        store = self.backend.store("door")
        for position, name in enumerate(dict.fromkeys(self.scenario.deployments)):
            kind = self.kinds[name]
            self.engines[name] = SimEngine(name, kind, self.clock, self.backend.instant)
            store.save_deployment(
                Deployment(
                    name=name,
                    environment="test",
                    database="shop",
                    address=f"grpc://{name}:1",
                    target=f"target-{name}",
                    position=position,
                    capabilities=Capabilities(kind.resolves, batch_progress=True, preview=True),
                    idempotent_dispatch=kind.deduplicates,
                )
            )

    def declares(self, name: str) -> bool:
        """Whether a person has said of its engine that it runs a repeated Apply only once."""
        return self.kinds[name].deduplicates

    @property
    def kinds(self) -> Mapping[str, EngineKind]:
        """What each engine is when it is made known."""
        return {name: self.scenario.engines.get(name, EngineKind()) for name in self.scenario.deployments}

    def _until_rest(self) -> list[str]:
        hub = self.hub
        while True:
            if hub.steps > STEPS_MAX:
                return ["liveness: it never comes to rest"]
            if hub.turn() or self._act():
                continue
            if self._is_over():
                return []
            moment = self._next_moment()
            if moment > self.clock.elapsed + HORIZON_S or self.clock.elapsed > EPOCH + HORIZON_S:
                return ["liveness: it never comes to rest"]
            if hub.next_timer is not None and hub.next_timer <= moment:
                hub.fire()
            else:
                self.clock.jump_to(moment)
                self._tick()
            self._changed = True

    def _is_over(self) -> bool:
        if self.hub.frozen or self.hub.next_timer is not None or not self.hub.is_calm:
            return False
        looks = self.backend.look()
        return bool(looks) and all(one.is_over for one in looks)

    def _situation(self) -> int:
        """What everything looks like, without the time."""
        for engine in self.engines.values():
            engine.get_on()
        jobs = tuple(
            (job.operation, job.state, job.stops_at is None)
            for e in self.engines.values()
            for job in e.jobs.values()
        )
        waiting = tuple((message.kind, message.given) for message in self.hub.queue)
        return hash((self.backend.situation(), jobs, waiting, len(self._acts)))

    # Time

    def _next_moment(self) -> float:
        """The next whole second at which a sweep finds something, or somebody would sweep anyway."""
        soonest = math.floor(self.clock.elapsed) + 1
        return max(soonest, math.ceil(min(self._polls_at(), self._works_at())))

    def _polls_at(self) -> float:
        """When a sweep of the progress finds something, or has not been heard for too long."""
        return min(self.backend.next_due()[0], self._polled_at + IDLE_S)

    def _works_at(self) -> float:
        """The same of the other one, which comes every other second."""
        work_at = math.ceil(min(self.backend.next_due()[1], self._swept_at + IDLE_S))
        return work_at + work_at % 2

    def _tick(self) -> None:
        """A second of the metronome, with those beats that find something; where none is heard, of the workers' own."""
        hub, beats = self.hub, self.scenario.beats
        if hub.is_calm and self.clock.elapsed >= self._helped_at + HELP_EVERY_S:
            self._helped_at = self.clock.elapsed
            self._help()
        now = round(self.clock.elapsed)
        if not beats or hub.broker_is_down:
            self._polled_at = self._swept_at = now
            self._start("self_sweep", self._sweep_itself)
            return
        polls, works = self._polls_at() <= now, self._works_at() <= now and now % 2 == 0
        if polls:
            self._polled_at = now
        if works:
            self._swept_at = now
        for _ in range(beats):
            if polls:
                hub.ring(Message("sweep_progress", ()))
            if works:
                hub.ring(Message("reconcile", ()))

    # Workers

    def _begin(self, message: Message) -> None:
        for _ in range(message.copies):
            after = None
            if message.kind in set(Verb):
                after = Message("look", message.given, message.direct)
            self._start(
                message.kind,
                partial(self._do, message),
                direct=message.direct,
                in_step=message.copies > 1,
                after=after,
            )

    def _start(self, kind: str, work: Any, **how: Any) -> None:
        self._actors += 1
        self.hub.start(Actor(kind, f"w{self._actors}", work, **how))

    def _do(self, message: Message, actor: Actor) -> None:
        ports = self._ports(actor)
        match message.kind:
            case "dispatch":
                dispatch(*message.given, ports)
            case "look":
                look(*message.given, ports)
            case "poll":
                poll(*message.given, ports)
            case "advance":
                advance(*message.given, ports)
            case "reconcile":
                reconcile("beat", ports)
            case "sweep_progress":
                sweep_progress("beat", ports)
            case verb:
                deliver(Verb(verb), *message.given, ports)

    def _sweep_itself(self, actor: Actor) -> None:
        ports = self._ports(actor)
        direct = Actor(actor.kind, actor.owner, actor.work, direct=True)
        direct.frame = actor.frame
        sweep_when_nobody_does("itself", ports, SimBells(self.around, direct))

    def _ports(self, actor: Actor) -> Ports:
        return self.around.ports(actor, self.backend.store(actor.owner), Steady())

    def _ended(self, _actor: Actor) -> None:
        self._changed = True

    # People

    def _act(self) -> bool:
        """The next of the scenario's people, if it is their turn."""
        if not self._acts or not self._changed:
            return False
        self._changed = False
        looks = self.backend.look()
        if not looks:
            return False
        act = self._acts[0]
        if not act.when(looks):
            if self._is_over():
                self._acts.clear()  # what they waited for never came
            return False
        self._asked_at = self.clock.elapsed
        while True:
            self._say(self._acts.pop(0), looks)
            if not (self._acts and self._acts[0].at_once):
                return True

    def _say(self, act: Act, looks: tuple[ApplyLook, ...]) -> None:
        match act:
            case Ask():
                who = partial(self._wish, act.verb, looks[act.apply].apply_id, act.deployments)
                self._person(f"person:{act.verb}", who)
            case Enqueue():
                self._person("person:apply", partial(self._enqueue, act.deployments, act.policy))
            case Drain():
                self._drain(act.deployments, drained=act.drained)
            case CarryOn():
                who = partial(self._carry_on, looks[act.apply].apply_id, act.deployments)
                self._person("person:carry-on", who)

    def _drain(self, names: Sequence[str], *, drained: bool) -> None:
        def work(actor: Actor) -> None:
            people.drain(self._ports(actor), names, self._told_of_drain, drained=drained)

        self._person("person:drain" if drained else "person:undrain", work)

    def _told_of_drain(self, name: str, drained: bool) -> None:  # noqa: FBT001
        self.drains.append((self.backend.instant(), name, drained))

    def _asked_by_fault(self, verb: str) -> None:
        looks = self.backend.look()
        if looks:
            first: ApplyLook = looks[0]
            if verb in {"drain", "undrain"}:
                self._drain([one.deployment for one in first.operations], drained=verb == "drain")
                return
            if verb == "carry-on":
                every = [one.deployment for one in first.operations]
                self._person("person:carry-on", partial(self._carry_on, first.apply_id, every))
                return
            names = None if verb == Verb.RELEASE else [one.deployment for one in first.operations]
            self._person(f"person:{verb}", partial(self._wish, Verb(verb), first.apply_id, names))

    def _help(self) -> None:
        if self._acts and not self._is_stuck():
            return
        for one in self.backend.look():
            ask = partial(self._ask_for, one.apply_id)
            open_again = partial(self._drain, drained=False)
            action = people.help_out(one, self.engines, ask, open_again, self._silent_s)
            if action is not None:
                self._asked_at = self.clock.elapsed
                self._start("person:help", lambda actor, action=action: action(self._ports(actor)))

    def _silent_s(self, name: str) -> float:
        return self.around.away_until.get(name, 0.0) - self.clock.elapsed

    def _is_stuck(self) -> bool:
        return self.clock.elapsed > self.hub.troubled_until + 60.0

    def _ask_for(self, apply_id: str, verb: Verb, names: Any) -> None:
        self._person(f"person:{verb}", partial(self._wish, verb, apply_id, names))

    def _person(self, kind: str, work: Any) -> None:
        self._start(kind, work)

    def _enqueue(self, deployments: Any, policy: Any, actor: Actor) -> None:
        key = f"key-{len(self.acknowledged)}"
        people.enqueue(
            self._ports(actor), deployments, policy, key, self._told, changes=self.scenario.changes
        )

    def _carry_on(self, apply_id: str, names: Sequence[str], actor: Actor) -> None:
        people.carry_on(self._ports(actor), apply_id, names, self._told_of_follow_up)

    def _told_of_follow_up(self, kind: str, name: str) -> None:
        # The same follow-up may be told of twice: a digest is sent once, however often it is said.
        if (kind, name) not in self.acknowledged:
            self._told(kind, name)

    def _wish(self, verb: Verb, apply_id: str, names: Any, actor: Actor) -> None:
        people.wish(self._ports(actor), verb, apply_id, names, self._told)

    def _told(self, kind: str, name: str) -> None:
        self.acknowledged.append((kind, name))

    # Afterwards

    def _ring_again(self) -> None:
        """Late and doubled messages of every kind, after all is over: nothing may come of them (G11)."""
        asked = {act.verb for act in self.scenario.acts if isinstance(act, Ask)}
        for one in self.backend.look():
            for operation in one.operations:
                given = (operation.id, f"{one.apply_id}/{operation.deployment}")
                for kind in ("dispatch", *sorted(asked | {Verb.STOP}), "look"):
                    self.hub.ring(Message(kind, given, direct=True))
            self.hub.ring(Message("advance", (ApplyId(one.apply_id),), direct=True))
        while self.hub.turn():
            pass


def play(
    backend: Backend, scenario: Scenario, plan: Plan = (), *, notes: bool = False, watches: bool = False
) -> Result:
    """One run. With `notes` each call knows whether it left something behind, which plans are made from; with `watches`
    also the situation that it is made in.
    """
    with backend.fresh(counts=notes or watches):
        return Run(backend, scenario, plan, watches=watches).play()
