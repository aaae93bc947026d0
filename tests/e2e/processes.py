"""Real worker and beat processes for end-to-end tests, and the means to kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

QUEUES = "control,sweep,dispatch,poll"


class Process:
    """One process of Tern, in a session of its own, with its output in a file."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tasks.app", *arguments],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole group: no handler runs, nothing is given back."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self._signal(signal.SIGTERM)
        return self._process.wait(60)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def _signal(self, number: int) -> None:
        if self.is_running:
            os.killpg(self._process.pid, number)


class Fleet:
    """The processes of one test; leaves none behind."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self._environment = environment
        self._folder = folder
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.thaw()
            process.kill()

    def worker(self, **environment: str) -> Process:
        number = len(self._processes) + 1
        arguments = [
            "worker",
            *("-P", "threads", "-c", "4", "-Q", QUEUES, "-n", f"w{number}@%h", "-E"),
            *("--without-mingle", "--without-gossip", "--without-heartbeat"),
        ]
        return self._start(f"worker-{number}", arguments, environment)

    def beat(self) -> Process:
        return self._start(f"beat-{len(self._processes) + 1}", ["beat"], {})

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Process:
        process = Process(name, arguments, {**self._environment, **environment}, self._folder / f"{name}.log")
        self._processes.append(process)
        return process

    def picture(self) -> str:
        return "\n".join(f"== {p.name}\n{p.output()[-3000:]}" for p in self._processes)


def wait_for(condition: Callable[[], bool], picture: Callable[[], str], *, deadline_s: float = 90.0) -> None:
    """Polls a condition; the deadline only bounds a failing test."""
    ends_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > ends_at:
            raise AssertionError(picture())
        time.sleep(0.05)
