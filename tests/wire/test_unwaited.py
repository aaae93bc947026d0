"""Calls that nobody waits for, and how many may be waited for at once."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.identity import RemoteId
from tern.domain.outcome import Ok, Outcome, Unknown
from tern.domain.silence import CALLS_AT_ONCE
from tern.ports import Engine
from tern.wire.routing import EngineDirectory
from tests.faults.behaviour import delay, fail, hang, not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import call_for, deployment_at


class Listening:
    """wire.transport.Listener."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str]] = []

    def begun(self, deployment: str) -> None:
        self.heard.append((deployment, "", "begun"))

    def ended(self, deployment: str, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.heard.append((deployment, method, code))


def answers(ask: Callable[[Callable[[Outcome[Any]], None]], None]) -> Outcome[Any]:
    found: queue.SimpleQueue[Outcome[Any]] = queue.SimpleQueue()
    ask(found.put)
    outcome = found.get(timeout=20)
    with pytest.raises(queue.Empty):
        found.get(timeout=0.05)
    return outcome


def test_a_halt_that_nobody_waits_for_is_answered_like_one(
    fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    """The same outcome, whichever way it is asked: taken, refused, lost, not to be sent."""
    call = call_for(started)
    assert answers(lambda done: engine.halt_later(Verb.STOP, call, done)) == Ok(None)
    assert len(fake.calls("Stop")) == 1
    for behaviour in (
        not_accepted(),
        fail("FAILED_PRECONDITION"),
        fail("UNAVAILABLE"),
        fail("UNIMPLEMENTED"),
    ):
        fake.script("Cancel", behaviour, behaviour)
        assert answers(lambda done: engine.halt_later(Verb.CANCEL, call, done)) == engine.cancel(call)
    empty = replace(call, remote_id=RemoteId(""))
    assert answers(lambda done: engine.halt_later(Verb.STOP, empty, done)) == engine.stop(empty)


def test_a_halt_that_is_swallowed_ends_with_its_deadline(fake: FakeEngine) -> None:
    directory = EngineDirectory(deadline_s=0.3)
    fake.always("Stop", delay(5))
    engine = directory.of(deployment_at(fake.address))
    call = call_for("job-1")
    begun = time.monotonic()
    outcomes: queue.SimpleQueue[Outcome[None]] = queue.SimpleQueue()
    for _ in range(20):
        engine.halt_later(Verb.STOP, call, outcomes.put)
    sent_s = time.monotonic() - begun
    found = [outcomes.get(timeout=20) for _ in range(20)]
    assert {type(each) for each in found} == {Unknown}, found[0]
    assert {each.code for each in found if isinstance(each, Unknown)} == {"DEADLINE_EXCEEDED"}
    # Sending twenty took less than waiting for a few of them would have.
    assert sent_s < 5 * 0.3
    directory.close()


def test_after_the_end_a_halt_is_a_call_that_got_lost(fake: FakeEngine, directory: EngineDirectory) -> None:
    engine = directory.of(deployment_at(fake.address))
    directory.close()
    call = call_for("job-1")
    assert isinstance(answers(lambda done: engine.halt_later(Verb.STOP, call, done)), Unknown)


def test_of_one_deployment_so_many_calls_are_under_way(fake: FakeEngine, started: RemoteId) -> None:
    """A third one waits for a place, and is sent then; a stop does not wait."""
    listening = Listening()
    directory = EngineDirectory(deadline_s=5, listener=listening)
    engine = directory.of(deployment_at(fake.address))
    fake.script("Health", hang(0.6), hang(0.6))
    call = call_for(started)
    threads = [threading.Thread(target=engine.health) for _ in range(CALLS_AT_ONCE + 2)]
    for thread in threads:
        thread.start()
    while len(fake.calls("Health")) < CALLS_AT_ONCE:
        time.sleep(0.01)
    begun = time.monotonic()
    assert engine.stop(call) == Ok(None)
    stopped_s = time.monotonic() - begun
    assert len(fake.calls("Health")) == CALLS_AT_ONCE
    for thread in threads:
        thread.join()
    assert len(fake.calls("Health")) == CALLS_AT_ONCE + 2
    assert stopped_s < 0.5
    assert listening.heard.count(("us-east", "Health", "OK")) == CALLS_AT_ONCE + 2
    directory.close()


def test_who_finds_no_place_in_time_has_no_refusal(fake: FakeEngine) -> None:
    """Nothing was sent, but a refusal would be taken for the engine's, and would fail an operation for good."""
    directory = EngineDirectory(deadline_s=0.4)
    engine = directory.of(deployment_at(fake.address))
    fake.always("Health", hang(3))
    threads = [threading.Thread(target=engine.health) for _ in range(3 * CALLS_AT_ONCE)]
    for thread in threads:
        thread.start()
    outcome = engine.health()
    for thread in threads:
        thread.join()
    assert isinstance(outcome, Unknown)
    directory.close()
