"""Who runs a job that nobody runs: as many at once as a process can bear, and none that breaks again and again."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from tern.engine import adopt
from tern.engine.runner import Runner
from tern.engine.service import EngineService

from .conftest import Database, Driver, eventually


def test_a_job_whose_runner_breaks_is_left_alone_for_a_moment(
    make_engine: Callable[..., EngineService], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug, or a table that no runner can bear, must not become a storm of connections to somebody's database."""
    begun: list[float] = []
    right = Runner._drive

    def breaks(self: Runner, tenure: object) -> None:
        begun.append(time.monotonic())
        if len(begun) < 3:
            message = "a bug"
            raise RuntimeError(message)
        right(self, tenure)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "_drive", breaks)
    driver = Driver(make_engine())
    job = driver.apply("ALTER TABLE t ADD COLUMN k int")
    driver.wait(job, "COMPLETED")
    pauses = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(pauses) == 2
    assert min(pauses) >= adopt.REST_SECONDS


def test_more_jobs_than_a_process_can_bear_wait_for_their_turn(
    make_engine: Callable[..., EngineService], db: Database, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runner is a thread and two connections; the oldest job goes first, and none is forgotten."""
    monkeypatch.setattr(adopt, "MOST_RUNNERS", 2)
    driver = Driver(make_engine())
    names = [f"t{number}" for number in range(4)]
    for name in names:
        db.execute(f"CREATE TABLE {name} (a int)".encode())

    def running() -> list[str]:
        return [thread.name for thread in threading.enumerate() if isinstance(thread, Runner)]

    with other.transaction():
        other.execute("LOCK TABLE t0, t1, t2, t3 IN ACCESS SHARE MODE")
        jobs = [driver.apply(f"ALTER TABLE {name} ADD COLUMN k int", table=name) for name in names]
        eventually(
            lambda: all(driver.progress(job).tables[0].status == "waiting_for_lock" for job in jobs[:2])
        )
        assert len(running()) == 2
        assert [driver.progress(job).state for job in jobs[2:]] == [driver.progress(jobs[2]).state] * 2
        assert driver.progress(jobs[3]).tables[0].status != "waiting_for_lock"
    for job in jobs:
        driver.wait(job, "COMPLETED")
