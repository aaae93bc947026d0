"""Who goes next. Drivers are greenlets; each port call passes here, and here things go wrong as the plan says.

Without a fault everything is in order: a driver runs to the end of its tick, messages are worked on as they were
rung for, and time passes only when nobody has anything to do.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from greenlet import getcurrent, greenlet

from tern.domain.errors import TernError
from tern.ports import StorageUnavailable
from tests.simulation.clock import Clock
from tests.simulation.plan import Plan, Point

ENGINE_CALL_S = 0.01
STORE_CALL_S = 0.001


class WorkerDied(BaseException):
    """The process is gone: nothing catches it, nothing is cleaned up."""


@dataclass(frozen=True, slots=True)
class Message:
    """A bell that waits to be answered. `direct`: in a worker's own memory, out of the broker's reach; `copies`: so
    many workers answer it, in step with each other.
    """

    kind: str
    given: tuple[Any, ...]
    direct: bool = False
    copies: int = 1


@dataclass(slots=True, eq=False)
class Actor:
    """One tick of a worker, or one request of a person. Each is a worker of its own: its death ends nobody else."""

    kind: str
    owner: str
    work: Callable[["Actor"], None]
    direct: bool = False
    in_step: bool = False
    looked_at: float | None = None
    """When it last saw that it may go forward (G9)."""
    after: Message | None = None
    """What is rung for once it has ended well: the tail of its chain."""
    frame: Any = None


@dataclass
class Hub:
    """One run's order of events. `ended` and `begin` are told who ended and which message is to be worked on."""

    clock: Clock
    plan: Plan
    ended: Callable[[Actor], None]
    begin: Callable[[Message], None]
    situation: Callable[[], int] = int
    trace: list[Point] = field(default_factory=list)
    queue: deque[Message] = field(default_factory=deque)
    waiting: deque[Actor] = field(default_factory=deque)
    lockstep: deque[Actor] = field(default_factory=deque)
    complaints: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)
    troubled_until: float = 0.0
    broker_down_until: float = 0.0
    store_down_until: float = 0.0
    frozen: int = 0

    def __post_init__(self) -> None:
        self._by_step: dict[int, list[str]] = {}
        for fault in self.plan:
            self._by_step.setdefault(fault.at, []).append(fault.kind)
        self._last_fault = max(self._by_step, default=0)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = 0
        self.steps = 0

    # Actors

    def start(self, actor: Actor) -> None:
        """Runs the actor until it ends or has to wait."""
        actor.frame = greenlet(lambda: self._run(actor))
        self.resume(actor)

    def resume(self, actor: Actor) -> None:
        """Lets it go on."""
        actor.frame.parent = getcurrent()
        actor.frame.switch()
        if actor.frame.dead:
            self.ended(actor)

    def _run(self, actor: Actor) -> None:
        try:
            actor.work(actor)
        except WorkerDied:
            return
        except (TernError, StorageUnavailable) as error:
            self.raised.append(f"{actor.kind}: {type(error).__name__}: {error}")
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, no tick may end so
            self.complaints.append(f"{actor.kind} raised {type(error).__name__}: {error}")
            return
        if actor.after is not None:
            self.ring(actor.after)

    def suspend(self, actor: Actor) -> None:
        """Back to whoever let it run, until somebody resumes it."""
        actor.frame.parent.switch()

    # Order

    def turn(self) -> bool:
        """Lets one of those run who could; False when nobody can before time passes."""
        if self.lockstep:
            self.resume(self.lockstep.popleft())
        elif self.queue:
            self.begin(self.queue.popleft())
        elif self.waiting:
            self.resume(self.waiting.popleft())
        else:
            return False
        return True

    def others_first(self, actor: Actor) -> None:
        """Everybody who can goes before."""
        self.waiting.append(actor)
        self.suspend(actor)

    def freeze(self, actor: Actor, seconds: float) -> None:
        """It stands still."""
        self.frozen += 1

        def wake() -> None:
            self.frozen -= 1
            self.waiting.append(actor)

        self.later(seconds, wake)
        self.troubled(seconds)
        self.suspend(actor)

    # Time

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Something that happens by itself after so long."""
        self._numbers += 1
        heapq.heappush(self._timers, (self.clock.elapsed + seconds, self._numbers, what))

    @property
    def next_timer(self) -> float | None:
        """When the next of those happens."""
        return self._timers[0][0] if self._timers else None

    def fire(self) -> None:
        """The next of those happens now."""
        moment, _, what = heapq.heappop(self._timers)
        self.clock.jump_to(moment)
        what()

    def troubled(self, seconds: float = 0.0) -> None:
        """Something is wrong for so long."""
        self.troubled_until = max(self.troubled_until, self.clock.elapsed + seconds)

    @property
    def is_calm(self) -> bool:
        """Nothing goes wrong any more."""
        return self.steps >= self._last_fault and self.clock.elapsed >= self.troubled_until

    # The broker

    @property
    def broker_is_down(self) -> bool:
        """It takes nothing and holds nothing."""
        return self.clock.elapsed < self.broker_down_until

    def ring(self, message: Message) -> None:
        """One message, if there is anybody to take it."""
        if message.direct or not self.broker_is_down:
            self.queue.append(message)

    def forget_messages(self) -> None:
        """The broker loses all that it holds."""
        kept = [message for message in self.queue if message.direct]
        self.queue.clear()
        self.queue.extend(kept)

    # Port calls

    def arrive(self, actor: Actor, port: str, name: str) -> tuple[int, Sequence[str]]:
        """A port call is about to be made: its number, and what goes wrong with it."""
        if actor.in_step:
            self.lockstep.append(actor)
            self.suspend(actor)
        self.steps += 1
        self.clock.pass_(ENGINE_CALL_S if port == "engine" else STORE_CALL_S)
        alone = not (self.queue or self.waiting or self.lockstep)
        point = Point(self.steps, actor.kind, port, name, alone, situation=self.situation())
        self.trace.append(point)
        found = self._by_step.get(self.steps, ())
        if found:
            self.troubled()
        return self.steps, found

    def wrote(self, step: int) -> None:
        """The call left something behind."""
        point = self.trace[step - 1]
        self.trace[step - 1] = replace(point, wrote=True)
