"""WatchApply: every change once, until the verdict; resumed by revision; many watchers and one look."""

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tern.domain.policy import Copy, Policy
from tern.store.reading import Reading
from tern.wire.control.server import ControlServer
from tern.wire.generated.tern.control.v1 import apply_pb2
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tests.doors.calling import READ, Stubs, bearer, ended
from tests.doors.conftest import INTERVAL_S, MOST_WATCHERS
from tests.e2e.processes import wait_for
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)


class Watcher:
    """A stream that is read by a thread of its own."""

    def __init__(self, stubs: Stubs, apply_id: str, **fields: Any) -> None:
        self.messages: list[control_v1.WatchApplyResponse] = []
        self.error: grpc.RpcError | None = None
        self.call = stubs.control.WatchApply(
            control_v1.WatchApplyRequest(apply_id=apply_id, **fields), metadata=bearer(READ), timeout=60
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for message in self.call:
                self.messages.append(message)
        except grpc.RpcError as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    @property
    def states(self) -> list[str]:
        """Of the apply, each once."""
        names = [apply_pb2.ApplyState.Name(message.apply.state) for message in self.messages]
        return [name for place, name in enumerate(names) if not place or names[place - 1] != name]

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, lambda: f"{self.messages} {self.error}")

    def wait_until_over(self) -> None:
        self.wait(lambda: self.is_over)


def finish(world: World) -> None:
    for name in world.engines:
        world.engines[name].set_state(world.remote_id(name) or "", "completed")
    world.run(until=lambda: world.apply_row().state == "completed")


def test_a_watch_tells_each_change_once_and_ends_with_the_verdict(world: World, stubs: Stubs) -> None:
    apply_id = world.apply(policy=PARALLEL)
    watcher = Watcher(stubs, apply_id)
    watcher.wait(lambda: len(watcher.messages) == 1)
    assert [each.deployment for each in watcher.messages[0].operations] == ["A", "B", "C"]
    world.answer_bells()
    watcher.wait(lambda: watcher.states[-1] == "APPLY_STATE_RUNNING")
    time.sleep(5 * INTERVAL_S)
    quiet = len(watcher.messages)
    time.sleep(5 * INTERVAL_S)
    assert len(watcher.messages) == quiet
    world.engines["B"].set_state(world.remote_id("B") or "", "completed")
    world.run(until=lambda: world.state("B") == "completed")
    watcher.wait(lambda: len(watcher.messages) > quiet)
    assert {each.deployment for message in watcher.messages[quiet:] for each in message.operations} == {"B"}
    finish(world)
    watcher.wait_until_over()
    assert watcher.error is None
    assert watcher.states == ["APPLY_STATE_PENDING", "APPLY_STATE_RUNNING", "APPLY_STATE_COMPLETED"]
    assert watcher.messages[-1].apply.is_settled


def test_a_watch_goes_on_from_a_revision(world: World, stubs: Stubs) -> None:
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    revision = world.apply_row().revision
    watcher = Watcher(stubs, apply_id, revision=revision)
    time.sleep(5 * INTERVAL_S)
    assert watcher.messages == []
    finish(world)
    watcher.wait_until_over()
    assert watcher.states[-1] == "APPLY_STATE_COMPLETED"
    assert {each.deployment for message in watcher.messages for each in message.operations} == {"A", "B", "C"}
    after = Watcher(stubs, apply_id, revision=world.apply_row().revision)
    after.wait_until_over()
    assert (after.messages, after.error) == ([], None)


def test_a_watch_until_somebody_is_needed(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A", "B")
    world.answer_bells()
    world.write("UPDATE deployments SET drained = true WHERE name = 'B'")
    world.engines["A"].set_state(world.remote_id("A") or "", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    watcher = Watcher(stubs, apply_id, until_person=True)
    watcher.wait_until_over()
    assert watcher.error is None
    assert not watcher.messages[-1].apply.is_settled
    assert watcher.messages[-1].apply.exit_code == 13
    assert "undrain B" in watcher.messages[-1].apply.blockers[0].command


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the database was read."""
    seen: list[float] = []
    right = Reading.apply

    def counted(self: Reading, apply_id: Any) -> Any:
        seen.append(time.monotonic())
        return right(self, apply_id)

    monkeypatch.setattr(Reading, "apply", counted)
    return seen


def test_many_who_watch_the_same_cost_one_look_an_interval(
    world: World, stubs: Stubs, looks: list[float]
) -> None:
    apply_id = world.apply()
    watchers = [Watcher(stubs, apply_id) for _ in range(MOST_WATCHERS)]
    for watcher in watchers:
        watcher.wait(lambda watcher=watcher: bool(watcher.messages))
    looks.clear()
    began = time.monotonic()
    time.sleep(10 * INTERVAL_S)
    intervals = (time.monotonic() - began) / INTERVAL_S
    assert 1 <= len(looks) <= intervals + 2
    for watcher in watchers:
        watcher.call.cancel()


def test_too_many_watchers_are_told_so_and_a_place_comes_free(world: World, stubs: Stubs) -> None:
    apply_id = world.apply()
    watchers = [Watcher(stubs, apply_id) for _ in range(MOST_WATCHERS)]
    for watcher in watchers:
        watcher.wait(lambda watcher=watcher: bool(watcher.messages))
    one_more = Watcher(stubs, apply_id)
    one_more.wait_until_over()
    assert one_more.error is not None
    assert ended(one_more.error)[:2] == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS")
    # Everything else is served all the same.
    shown = stubs.control.GetApply(
        control_v1.GetApplyRequest(subject=apply_id), metadata=bearer(READ), timeout=10
    )
    assert shown.apply.apply_id == apply_id
    watchers.pop().call.cancel()

    def comes_in() -> bool:
        watchers.append(Watcher(stubs, apply_id))
        watchers[-1].wait(lambda: bool(watchers[-1].messages) or watchers[-1].is_over)
        return bool(watchers[-1].messages)

    wait_for(comes_in, lambda: "nobody comes in any more")
    for watcher in watchers:
        watcher.call.cancel()


def test_a_large_apply_travels_in_parts(world: World, stubs: Stubs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tern.wire.control.service.LARGEST_PAGE", 2)
    apply_id = world.apply()
    watcher = Watcher(stubs, apply_id)
    watcher.wait(lambda: len(watcher.messages) == 2)
    assert [[each.deployment for each in part.operations] for part in watcher.messages] == [["A", "B"], ["C"]]
    assert [part.has_more for part in watcher.messages] == [True, False]
    watcher.call.cancel()


def test_who_watches_is_sent_elsewhere_when_the_process_ends(
    world: World, stubs: Stubs, server: ControlServer
) -> None:
    apply_id = world.apply()
    watcher = Watcher(stubs, apply_id)
    watcher.wait(lambda: bool(watcher.messages))
    server.stop()
    watcher.wait_until_over()
    assert watcher.error is not None
    assert ended(watcher.error)[:2] == (grpc.StatusCode.UNAVAILABLE, "CLOSING")
