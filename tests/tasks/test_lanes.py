"""Where ticks run: an engine that leaves calls without an answer binds nobody, and its deployment goes slowly."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tasks import lanes as tested
from tasks.lanes import Lanes
from tern.domain.silence import CALLS_AT_ONCE, SLOW_AFTER, CallKind, Silence
from tern.ports import StorageUnavailable

DISPATCH, POLL = CallKind.DISPATCH, CallKind.POLL


class Memory:
    """many.ManyStore, as far as lanes need it."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, CallKind], Silence] = {}
        self.writes = 0
        self.is_gone = False

    def record_silence(self, deployment: str, kind: CallKind) -> Silence:
        self.writes += 1
        count = self.rows[deployment, kind].in_a_row + 1 if (deployment, kind) in self.rows else 1
        self.rows[deployment, kind] = Silence(deployment, kind, count, 60.0 if count >= SLOW_AFTER else 0.0)
        return self.rows[deployment, kind]

    def record_answer(self, deployment: str, kind: CallKind) -> None:
        self.writes += 1
        self.rows.pop((deployment, kind), None)

    def silences(self) -> tuple[Silence, ...]:
        if self.is_gone:
            message = "gone"
            raise StorageUnavailable(message)
        return tuple(self.rows.values())


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def lanes(memory: Memory) -> Iterator[Lanes]:
    store: Any = memory
    made = Lanes(lambda: store)
    yield made
    made.close(5)


class Hole:
    """An engine that takes a call and says nothing until it is let."""

    def __init__(self, lanes: Lanes, deployment: str, method: str = "Apply") -> None:
        self.lanes = lanes
        self.deployment = deployment
        self.method = method
        self.speaks = threading.Event()
        self.asked = 0

    def tick(self) -> None:
        self.asked += 1
        self.lanes.begun(self.deployment)
        self.speaks.wait(20)
        self.lanes.ended(self.deployment, self.method, "DEADLINE_EXCEEDED", 10.0)


def until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def test_a_tick_is_waited_for_and_raises_where_it_was_handed_in(lanes: Lanes) -> None:
    done: list[int] = []
    lanes.drive(DISPATCH, "apl-1/A", lambda: done.append(1))
    assert done == [1]

    def fail() -> None:
        message = "a bug"
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match="a bug"):
        lanes.drive(DISPATCH, "apl-1/A", fail)


def test_a_tick_that_works_long_without_an_engine_is_waited_for(lanes: Lanes) -> None:
    """Only waiting for an engine is a reason to let go: else a busy worker would take more and more at once."""
    done: list[int] = []

    def work() -> None:
        time.sleep(4 * tested.PATIENCE_S)
        done.append(1)

    lanes.drive(DISPATCH, "apl-1/A", work)
    assert done == [1]


def test_whoever_waits_for_a_silent_engine_is_let_go(lanes: Lanes, memory: Memory) -> None:
    holes = [Hole(lanes, f"hole-{number}") for number in range(40)]
    begun = time.monotonic()
    for hole in holes:
        lanes.drive(DISPATCH, f"apl-1/{hole.deployment}", hole.tick)
    assert time.monotonic() - begun < 40 * 4 * tested.PATIENCE_S
    done: list[int] = []
    lanes.drive(DISPATCH, "apl-2/A", lambda: done.append(1))
    assert done == [1]
    for hole in holes:
        hole.speaks.set()
    until(lambda: len(memory.rows) == 40)


def test_of_one_deployment_so_many_run_at_once(lanes: Lanes) -> None:
    """The next one is turned away before it has claimed anything, and without anybody waiting for it."""
    hole = Hole(lanes, "hole")
    for _ in range(6):
        lanes.drive(DISPATCH, "apl-1/hole", hole.tick)
    assert hole.asked == CALLS_AT_ONCE
    hole.speaks.set()
    until(lambda: not lanes._running)


def test_a_healthy_deployment_has_a_place_a_moment_later(lanes: Lanes) -> None:
    done: list[int] = []

    def work() -> None:
        time.sleep(tested.PATIENCE_S / 4)
        done.append(1)

    threads = [threading.Thread(target=lanes.drive, args=(POLL, "A", work)) for _ in range(2 * CALLS_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2 * CALLS_AT_ONCE


def silence(lanes: Lanes, deployment: str, times: int, method: str = "Apply") -> None:
    for _ in range(times):
        lanes.ended(deployment, method, "DEADLINE_EXCEEDED", 10.0)


def runs(lanes: Lanes, kind: CallKind, deployment: str) -> bool:
    done = threading.Event()
    lanes.drive(kind, deployment, done.set)
    return done.wait(0.5)


def test_after_three_in_a_row_the_kind_that_failed_waits(lanes: Lanes) -> None:
    silence(lanes, "hole", SLOW_AFTER - 1)
    assert runs(lanes, DISPATCH, "hole")
    silence(lanes, "hole", 1)
    assert not runs(lanes, DISPATCH, "hole")
    assert runs(lanes, POLL, "hole")
    assert runs(lanes, DISPATCH, "A")


def test_only_an_answer_of_the_kind_that_failed_ends_it(lanes: Lanes, memory: Memory) -> None:
    silence(lanes, "hole", SLOW_AFTER)
    lanes.ended("hole", "Health", "OK", 0.1)
    lanes.ended("hole", "Apply", "UNAVAILABLE", 0.01)
    lanes.ended("hole", "Stop", "OK", 0.01)
    assert not runs(lanes, DISPATCH, "hole")
    lanes.ended("hole", "Apply", "INTERNAL", 0.1)
    assert memory.rows == {}
    assert runs(lanes, DISPATCH, "hole")


def test_healthy_calls_cost_no_write(lanes: Lanes, memory: Memory) -> None:
    for _ in range(100):
        lanes.ended("A", "Apply", "OK", 0.01)
    assert memory.writes == 0


def test_what_another_worker_counted_holds_here(lanes: Lanes, memory: Memory) -> None:
    memory.rows["hole", DISPATCH] = Silence("hole", DISPATCH, SLOW_AFTER, 60.0)
    assert not runs(lanes, DISPATCH, "hole")


def test_slow_deployments_share_few_threads(
    lanes: Lanes, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tested, "SLOW_MOST", 3)
    holes = [Hole(lanes, f"hole-{number}") for number in range(10)]
    for hole in holes:
        memory.rows[hole.deployment, DISPATCH] = Silence(hole.deployment, DISPATCH, SLOW_AFTER, -1.0)
    for hole in holes:
        lanes.drive(DISPATCH, f"apl-1/{hole.deployment}", hole.tick)
    until(lambda: sum(hole.asked for hole in holes) == 3)
    for hole in holes:
        hole.speaks.set()
    until(lambda: not lanes._running)
    assert lanes._slow == 0


def test_a_database_that_is_away_keeps_no_tick_from_saying_so(lanes: Lanes, memory: Memory) -> None:
    memory.is_gone = True

    def fail() -> None:
        message = "gone"
        raise StorageUnavailable(message)

    with pytest.raises(StorageUnavailable):
        lanes.drive(DISPATCH, "apl-1/A", fail)


def test_a_forged_message_meets_the_flow_and_its_refusal(lanes: Lanes) -> None:
    done: list[int] = []
    for scope in ("", "nonsense", "a/b/c", 5, None):
        lanes.drive(DISPATCH, scope, lambda: done.append(1))  # type: ignore[arg-type]
    assert done == [1] * 5
