"""worker, beat, flower: the command line that is printed is the one that runs."""

import itertools
import os
import shlex
import sys
from collections.abc import Sequence

import pytest

from tern.cli import process
from tests.cli.conftest import Tern


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """What would have been executed."""
    seen: list[Sequence[str]] = []
    monkeypatch.setattr(process, "_execute", seen.append)
    monkeypatch.setenv("TERN_DATABASE_URL", "postgresql://h/t")
    monkeypatch.setenv("TERN_BROKER_URL", "redis://h")
    return seen


def test_the_worker_runs_threads_on_all_queues(
    bare: Tern, started: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", "postgresql://h/t")
    monkeypatch.setenv("TERN_BROKER_URL", "redis://h")
    monkeypatch.setenv("TERN_WORKER_CONCURRENCY", "3")
    done = bare("worker", "-Q", "control,sweep", "--", "--statedb", "x")
    (command,) = started
    assert shlex.split(done.err) == list(command)
    assert list(command[:6]) == [sys.executable, "-m", "celery", "-A", "tasks.app", "worker"]
    pairs = dict(itertools.pairwise(command))
    assert (pairs["--pool"], pairs["--concurrency"], pairs["--queues"]) == ("threads", "3", "control,sweep")
    assert {"--without-mingle", "--without-gossip", "--task-events"} <= set(command)
    assert list(command[-2:]) == ["--statedb", "x"]


@pytest.mark.parametrize("words", [("--pool", "prefork"), ("--pool=solo",), ("-P", "gevent"), ("-Pprefork",)])
def test_a_worker_of_another_kind_is_refused(
    words: Sequence[str], bare: Tern, started: list[Sequence[str]]
) -> None:
    """What is asked for and can't be had is said, and not left out."""
    done = bare("worker", "--", *words)
    assert (done.code, "Tern's workers are threads" in done.err) == (2, True)
    assert started == []


def test_printing_starts_nothing(
    bare: Tern, started: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", "postgresql://h/t")
    monkeypatch.setenv("TERN_BROKER_URL", "redis://h")
    for name in ("worker", "beat", "flower"):
        done = bare(name, "--print")
        assert (done.code, f"celery -A tasks.app {name}" in done.out) == (0, True)
    assert started == []


def test_flower_is_read_only_here_unless_told_otherwise(
    bare: Tern, started: list[Sequence[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_BROKER_URL", "redis://h")
    for name in process.FLOWER_DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWER_PORT", "1234")
    # Recorded as deleted, so that what the command sets is taken back too.
    bare("flower")
    assert len(started) == 1
    assert (os.environ["FLOWER_READ_ONLY"], os.environ["FLOWER_PORT"]) == ("true", "1234")
    for name in process.FLOWER_DEFAULTS:
        os.environ.pop(name, None)


def test_what_flower_may_show_and_to_whom() -> None:
    """Read only, on this machine, and within a bound of memory: whoever wants more says so."""
    given = process.FLOWER_DEFAULTS
    assert (given["FLOWER_READ_ONLY"], given["FLOWER_ADDRESS"]) == ("true", "127.0.0.1")
    assert int(given["FLOWER_MAX_TASKS"]) <= 20_000
    assert 0 < int(given["FLOWER_PURGE_OFFLINE_WORKERS"]) <= 300


def test_what_is_missing_is_told_before_anything_starts(bare: Tern) -> None:
    assert (bare("worker").code, bare("beat").code, bare("flower").code) == (78, 78, 78)
