"""The sweeps alone carry everything: bells lost, beat absent or doubled, broker gone (G11)."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tasks.direct import DirectBells
from tern.domain.control import Verb
from tern.flows.sweep import RECONCILE, reconcile, sweep_progress, sweep_when_nobody_does
from tern.ports import Bells, Ports
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    engine_says,
    held_targets,
    methods,
    open_wishes,
    running,
    stopped,
)
from tests.world import World


class SelfSweeper:
    """A worker that hears nothing from any broker."""

    def __init__(self, world: World, owner: str) -> None:
        self.world = world
        self.owner = owner
        self.ports = world.worker(owner)
        self.bells = DirectBells(self._with)

    def _with(self, bells: Bells) -> Ports:
        return Ports(self.ports.store, self.ports.engines, bells, self.ports.chance)

    def sweep(self) -> bool:
        self.world.forget_bells()
        swept = sweep_when_nobody_does(self.owner, self.ports, self.bells)
        self.let_finish()
        return swept

    def let_finish(self) -> None:
        ends_at = time.monotonic() + 20
        while self.bells._running:
            assert time.monotonic() < ends_at
            time.sleep(0.005)

    def run(self, until: Callable[[], bool], *, rounds: int = 40, step_s: float = 3.0) -> None:
        for _ in range(rounds):
            if until():
                return
            self.world.pass_time(step_s)
            self.sweep()
        assert until(), self.world.picture()


@pytest.fixture
def alone(make_world: Callable[..., World]) -> Iterator[SelfSweeper]:
    """The last worker on earth."""
    sweeper = SelfSweeper(make_world("A", "B", "C"), "lonely")
    yield sweeper
    sweeper.bells.close()


def test_a_rollout_finishes_with_nobody_but_a_self_sweeping_worker(make_world: Callable[..., World]) -> None:
    """BR1 (G11): no beat, no broker, one worker; one deployment after the other."""
    sweeper = SelfSweeper(make_world("A", "B", "C", complete_after_polls=2), "lonely")
    world = sweeper.world
    world.apply("A", "B", "C")
    sweeper.run(until=lambda: world.apply_row().state == "completed")
    assert [methods(world, name) for name in "ABC"] == [["Apply"]] * 3
    sweeper.run(until=lambda: world.apply_row().verdict_effects_done_at is not None)
    assert held_targets(world) == set()
    sweeper.bells.close()


def test_every_control_is_delivered_by_self_sweeps(alone: SelfSweeper) -> None:
    """BR1 (G8, G11): stop, start, cutover and cancel without a single bell."""
    world = alone.world
    world.apply("A", "B", "C", policy=MANUAL)
    alone.run(until=lambda: {world.state(name) for name in "ABC"} == {"running"})
    world.ask(Verb.STOP)
    alone.run(until=lambda: world.apply_row().state == "stopped")
    world.ask(Verb.START, "A", "B")
    alone.run(until=lambda: {world.state(name) for name in "AB"} == {"running"})
    for name in "AB":
        engine_says(world, name, "waiting_for_cutover", looks=False)
    alone.run(until=lambda: world.state("B") == "waiting_for_cutover")
    world.ask(Verb.CUTOVER, "A")
    alone.run(until=lambda: world.state("A") == "completed")
    world.ask(Verb.CANCEL)
    alone.run(until=lambda: not open_wishes(world))
    assert [world.state(name) for name in "ABC"] == ["completed", "cancelled", "cancelled"]
    assert methods(world, "A") == ["Apply", "Stop", "Start", "Cutover"]
    assert methods(world, "B") == ["Apply", "Stop", "Start", "Cancel"]
    assert methods(world, "C") == ["Apply", "Stop", "Cancel"]


def test_a_killed_driver_is_followed_up_without_bells(alone: SelfSweeper) -> None:
    """G11, G12: the claim expires, and the sweep finds it."""
    world = alone.world
    world.apply("A", policy=PARALLEL)
    operation = world.operation("A")
    world.store.claim_dispatch(operation.id, world.name("A"))
    world.forget_bells()
    alone.run(until=lambda: world.state("A") == "running" and world.remote_id("A") is not None, step_s=10)
    assert methods(world, "A") == ["Apply"]


def test_a_worker_is_quiet_while_somebody_else_sweeps(alone: SelfSweeper) -> None:
    """§8: beat sweeps; a self-sweep on top would only cost."""
    world = alone.world
    world.sweep()
    assert not alone.sweep()
    world.pass_time(4)
    assert not alone.sweep()
    world.pass_time(2)
    assert alone.sweep()
    # and as long as nobody else comes, it goes on as often as beat would ring
    world.pass_time(1)
    assert alone.sweep()


def test_a_message_takes_over_from_a_worker_that_sweeps_by_itself(alone: SelfSweeper) -> None:
    """G11: the broker works again, so the work is shared again. The own sweep is as frequent as messages are: whoever
    had to wait for its period would never come.
    """
    world = alone.world
    assert alone.sweep()
    world.pass_time(0.5)
    assert reconcile("beat", world.ports)
    assert sweep_progress("beat", world.ports)
    # Of a heap of old messages the first one sweeps.
    assert not reconcile("beat", world.ports)
    for _ in range(4):
        world.pass_time(1)
        assert not alone.sweep()


def test_two_beats_at_once_are_one_sweep(world: World) -> None:
    """§8: 0, 1 or 5 beats are all right."""
    store = world.store
    assert store.begin_sweep(RECONCILE, "beat-1")
    assert not reconcile("beat-2", world.ports)
    store.finish_sweep(RECONCILE, "beat-1")
    world.pass_time(2)
    assert reconcile("beat-2", world.ports)
    assert store.seconds_since_sweep(RECONCILE)[1] == "beat-2"


def test_a_sweeper_that_died_is_replaced(world: World) -> None:
    """§8: a lease ends by itself."""
    assert world.store.begin_sweep(RECONCILE, "dead")
    assert not reconcile("beat", world.ports)
    world.pass_time(11)
    assert reconcile("beat", world.ports)
    # and the dead one's late finish is nobody's
    world.store.finish_sweep(RECONCILE, "dead")
    assert world.store.seconds_since_sweep(RECONCILE)[1] == "beat"


def test_many_beats_and_doubled_bells_do_everything_once(make_world: Callable[..., World]) -> None:
    """K8, G11: every bell rings three times, from three workers at once."""
    world = make_world("A", "B", "C")
    world.apply("A", "B", "C", policy=PARALLEL)
    bells = list(world.bells.queue)
    world.forget_bells()
    barrier = threading.Barrier(3)

    def hear(number: int) -> None:
        ports = world.worker(f"worker-{number}")
        barrier.wait()
        for kind, given in bells:
            world.do(kind, *given, ports=ports)
        reconcile(f"beat-{number}", ports)
        sweep_progress(f"beat-{number}", ports)

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.run(until=lambda: {world.state(name) for name in "ABC"} == {"running"}, rounds=15)
    assert [methods(world, name) for name in "ABC"] == [["Apply"]] * 3


def test_wishes_are_rung_in_the_order_of_their_weight(world: World) -> None:
    """G9: stops before starts, cancels before stops."""
    running(world)
    world.ask(Verb.STOP, "A")
    world.ask(Verb.CANCEL, "B")
    stop_first = world.last
    assert stop_first
    world.ask(Verb.START, "A")
    world.forget_bells()
    reconcile("beat", world.ports)
    rung = [kind for kind, _ in world.bells.queue if kind in {verb.value for verb in Verb}]
    assert rung == ["cancel", "stop", "start"]


def test_what_is_done_is_due_for_nobody(world: World) -> None:
    """§8: cost follows what is due, not what exists."""
    stopped(world)
    world.sweep()
    due = world.store.due_work()
    assert (due.dispatches, due.controls, due.applies) == ((), (), ())
    world.ask(Verb.CANCEL)
    world.run(until=lambda: world.apply_row().state == "cancelled")
    world.sweep()
    world.pass_time(600)
    due = world.store.due_work()
    assert (due.dispatches, due.controls, due.applies) == ((), (), ())
    assert world.store.due_deployments() == ()


def test_a_bug_in_one_flow_ends_no_other(alone: SelfSweeper) -> None:
    """G11: the thread that drives the others lives on."""
    world = alone.world
    world.apply("A", "B", policy=PARALLEL)
    broken = {"left": 1}
    real = alone.ports.store.claim_dispatch

    def claim(operation_id: int, name: object) -> object:
        if broken["left"]:
            broken["left"] -= 1
            message = "a bug"
            raise RuntimeError(message)
        return real(operation_id, name)  # type: ignore[arg-type]

    alone.ports.store.claim_dispatch = claim  # type: ignore[method-assign,assignment]
    alone.run(until=lambda: {world.state(name) for name in "AB"} == {"running"}, step_s=6)
    assert broken["left"] == 0
