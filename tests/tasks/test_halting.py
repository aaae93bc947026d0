"""Stop and cancel that nobody waits for: one at a time to each deployment, written by others, tried again."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tasks import halting
from tasks.halting import HaltSender
from tern.domain.control import Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.outcome import Ok, Outcome, Unknown
from tern.flows.control import deliver
from tern.ports import DueControl, Ports
from tests.faults.behaviour import fail, hang
from tests.flows.steps import PARALLEL, methods, running
from tests.world import World

LOST: Outcome[None] = Unknown("no answer", "", "DEADLINE_EXCEEDED")


@pytest.fixture
def sender() -> Iterator[HaltSender]:
    made = HaltSender()
    yield made
    made.close(5)


@pytest.fixture
def ports(world: World, sender: HaltSender) -> Ports:
    """A control worker's."""
    return replace(world.ports, halts=sender)


def due(deployment: str, number: int = 1, *, apply_id: str = "apl-1", verb: Verb = Verb.STOP) -> DueControl:
    return DueControl(number, ScopeName(ApplyId(apply_id), deployment), verb)


def until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def nothing(_: DueControl) -> None:
    pass


def test_one_at_a_time_to_each_deployment(sender: HaltSender) -> None:
    first = sender.turn(due("A"), nothing)
    assert first is not None
    assert sender.turn(due("A", 2), nothing) is None
    # Of another rollout, and a cancel: it would wait for the same engine.
    assert sender.turn(due("A", 3, apply_id="apl-2"), nothing) is None
    assert sender.turn(due("A", 4, apply_id="apl-3", verb=Verb.CANCEL), nothing) is None
    assert sender.turn(due("B"), nothing) is not None
    first.give_back()
    assert sender.turn(due("A", 2), nothing) is not None


def test_a_turn_lasts_until_its_answer_is_written(sender: HaltSender) -> None:
    turn = sender.turn(due("A"), nothing)
    assert turn is not None
    written: list[Outcome[None]] = []
    goes_on = threading.Event()

    def write(outcome: Outcome[None]) -> None:
        assert goes_on.wait(10)
        written.append(outcome)

    done = turn.later(write)
    turn.give_back()
    assert sender.turn(due("A"), nothing) is None
    done(Ok(None))
    assert sender.turn(due("A"), nothing) is None
    goes_on.set()
    until(lambda: sender.turn(due("A"), nothing) is not None)
    assert written == [Ok(None)]


def test_a_write_that_fails_gives_the_turn_back(sender: HaltSender) -> None:
    turn = sender.turn(due("A"), nothing)
    assert turn is not None

    def write(_: Outcome[None]) -> None:
        message = "a bug"
        raise RuntimeError(message)

    turn.later(write)(Ok(None))
    until(lambda: sender.turn(due("A"), nothing) is not None)


def test_one_without_an_answer_is_rung_for_again(sender: HaltSender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halting, "HALT_RETRY_MAX_S", 0.05)
    rung: list[DueControl] = []
    for outcome in (LOST, Ok(None)):
        turn = sender.turn(due("A"), rung.append)
        assert turn is not None
        turn.later(lambda _: None)(outcome)
        until(lambda: not sender._under_way)
    until(lambda: bool(rung))
    assert rung == [due("A")]


def test_closing_waits_for_what_is_under_way_and_takes_nothing_new(sender: HaltSender) -> None:
    turn = sender.turn(due("A"), nothing)
    assert turn is not None
    written: list[Outcome[None]] = []
    threading.Timer(0.2, lambda: turn.later(written.append)(Ok(None))).start()
    sender.close(10)
    assert written == [Ok(None)]
    assert sender.turn(due("B"), nothing) is None


def stop_all(world: World, ports: Ports) -> None:
    for name in world.engines:
        deliver(Verb.STOP, world.operation(name).id, str(world.name(name)), ports)


def test_a_stop_is_sent_and_not_waited_for(world: World, ports: Ports, sender: HaltSender) -> None:
    """Three engines that take two seconds to answer cost the driver nothing, and each answer is written."""
    running(world)
    for engine in world.engines.values():
        engine.always("Stop", hang(1.0))
    world.ask(Verb.STOP)
    world.forget_bells()
    begun = time.monotonic()
    stop_all(world, ports)
    assert time.monotonic() - begun < 1.0
    until(lambda: not sender._under_way)
    assert {world.delivery(name, Verb.STOP).state for name in world.engines} == {"sent"}
    assert all(world.operation(name).claim_token is None for name in world.engines)
    world.run(until=lambda: world.apply_row().state == "stopped")
    assert [methods(world, name) for name in world.engines] == [["Apply", "Stop"]] * 3


def test_a_cancel_goes_the_same_way(world: World, ports: Ports, sender: HaltSender) -> None:
    running(world)
    world.ask(Verb.CANCEL, "A")
    world.forget_bells()
    deliver(Verb.CANCEL, world.operation("A").id, str(world.name("A")), ports)
    until(lambda: not sender._under_way)
    world.run(until=lambda: world.state("A") == "cancelled")
    assert methods(world, "A") == ["Apply", "Cancel"]


def test_a_stop_that_meets_an_unanswered_dispatch_waits_for_nobody(
    world: World, ports: Ports, sender: HaltSender
) -> None:
    """Its question about the key is a call like the stop itself, and the engine may swallow it as well."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.engines["A"].always("Resolve", hang(1.0))
    world.apply("A", policy=PARALLEL)
    world.answer_one()
    assert world.state("A") == "failed_retryable"
    world.ask(Verb.STOP)
    world.forget_bells()
    begun = time.monotonic()
    deliver(Verb.STOP, world.operation("A").id, str(world.name("A")), ports)
    assert time.monotonic() - begun < 1.0
    until(lambda: world.state("A") == "stopped")


def test_a_process_that_dies_before_the_answer_leaves_a_claim_that_ends(
    world: World, sender: HaltSender
) -> None:
    """G12: nobody holds or renews anything; the next driver stops it."""
    running(world)
    world.ask(Verb.STOP, "A")
    world.forget_bells()

    class Dead(HaltSender):
        def write(self, work: Callable[[], None]) -> None:
            del work

    dead = Dead()
    deliver(Verb.STOP, world.operation("A").id, str(world.name("A")), replace(world.ports, halts=dead))
    until(lambda: methods(world, "A") == ["Apply", "Stop"])
    operation = world.operation("A")
    assert operation.claim_token is not None
    assert world.delivery("A", Verb.STOP).called_at is not None
    world.pass_time(31)
    world.run(until=lambda: world.state("A") == "stopped")
    dead.close(0)
