"""The guard: what it still watches when its pipe ends is ended, what it was told to forget is not."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tern.local import guard

SLEEPER = (sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)")


@pytest.fixture
def sleepers() -> "Iterator[list[subprocess.Popen[bytes]]]":
    processes = [subprocess.Popen(SLEEPER, start_new_session=True) for _ in range(2)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_what_is_watched_ends_with_the_pipe(sleepers: "list[subprocess.Popen[bytes]]") -> None:
    watched, forgotten = sleepers
    lines = f"watch {watched.pid} 15\nwatch {forgotten.pid} 15\nforget {forgotten.pid}\nnonsense\n"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__], stdin=subprocess.PIPE, text=True
    ) as process:
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.close()
        assert watched.wait(timeout=20) == -signal.SIGTERM
    assert forgotten.poll() is None


def test_a_group_that_ignores_its_signal_is_killed(
    sleepers: "list[subprocess.Popen[bytes]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "GRACE", 0.2)
    guard.end({sleepers[0].pid: signal.SIGCONT})
    assert sleepers[0].wait(timeout=20) == -signal.SIGKILL


def test_an_empty_group_is_not_waited_for() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""], start_new_session=True)
    process.wait()
    since = time.monotonic()
    guard.end({process.pid: signal.SIGTERM})
    assert time.monotonic() - since < guard.GRACE / 2
