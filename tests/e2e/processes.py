"""Real worker and beat processes for end-to-end tests, and the means to kill them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from tern.cli.process import FLOWER_DEFAULTS
from tern.local import launcher

QUEUES = "control,sweep,dispatch,poll"
LAUNCHER = Path(launcher.__file__)


def tied(*argv: str) -> list[str]:
    """A command whose process dies with ours: a test that is killed outright leaves nothing behind."""
    us = (str(os.getpid()), str(signal.SIGKILL.value), "-")
    return [sys.executable, "-I", "-S", str(LAUNCHER), *us, *argv]


class Process:
    """One process of Tern, in a session of its own, with its output in a file."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.started = time.monotonic()
        self.may_end = False
        """We have told it to; else its end is its own doing."""
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                tied(sys.executable, "-m", "celery", "-A", "tasks.app", *arguments),
                env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    @property
    def has_ended_by_itself(self) -> bool:
        return not self.may_end and not self.is_running

    def kill(self) -> None:
        """SIGKILL to the whole group: no handler runs, nothing is given back."""
        self.may_end = True
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def leave(self) -> None:
        """SIGTERM, without waiting."""
        self.may_end = True
        self._signal(signal.SIGTERM)

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.leave()
        return self._process.wait(60)

    def abort(self) -> None:
        """It ends, and leaves in its log what each of its threads was doing."""
        self.may_end = True
        self.thaw()
        self._signal(signal.SIGABRT)
        self._process.wait()

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
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.thaw()
            process.kill()

    def worker(self, queues: str = QUEUES, **environment: str) -> Process:
        number = len(self.processes) + 1
        arguments = [
            "worker",
            *("-P", "threads", "-c", "4", "-Q", queues, "-n", f"w{number}@%h", "-E"),
            *("--without-mingle", "--without-gossip", "--without-heartbeat"),
        ]
        return self._start(f"worker-{number}", arguments, environment)

    def beat(self) -> Process:
        return self._start(f"beat-{len(self.processes) + 1}", ["beat"], {})

    def flower(self, port: int) -> Process:
        """With the command's own settings."""
        defaults = {**FLOWER_DEFAULTS, "FLOWER_PORT": str(port)}
        return self._start(f"flower-{len(self.processes) + 1}", ["flower"], defaults)

    def _start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Process:
        process = Process(name, arguments, {**self._environment, **environment}, self._folder / f"{name}.log")
        self.processes.append(process)
        return process

    def picture(self) -> str:
        return "\n".join(f"== {p.name}\n{p.output()[-2500:]}" for p in self.processes)


def wait_for(condition: Callable[[], bool], picture: Callable[[], str], *, deadline_s: float = 90.0) -> None:
    """Polls a condition; the deadline only bounds a failing test."""
    ends_at = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > ends_at:
            raise AssertionError(picture())
        time.sleep(0.05)
