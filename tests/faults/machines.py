"""PostgreSQL and Valkey that a test may kill, and that come back where they were."""

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from tern.local import postgres, valkey
from tern.local.account import make_folder, server_account
from tern.local.embedded import free_port
from tern.local.supervisor import Program, Running, Supervisor

# Power never fails here, and a killed server must not forget what it has committed: no fsync, but waiting for WAL.
OPTIONS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
PASSWORD = "not-a-secret"


class Machine(ABC):
    """One server with a port of its own."""

    name: str
    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, home: Path, programs: Supervisor) -> None:
        self._programs = programs
        self._account = server_account()
        self._running: Running | None = None
        make_folder(home, 0o755)
        self.prepare(home)
        self.port = free_port()

    @abstractmethod
    def prepare(self, home: Path) -> None:
        """Its folder and configuration."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """How it is started."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it is there."""

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        self._running = self._programs.start(
            Program(
                self.name,
                self.command(),
                env=postgres.ENVIRONMENT,
                cwd=Path("/"),
                ready=self.answers,
                stop_signal=self.stop_signal,
                account=None if self._account is None else self._account.ids,
            )
        )
        wait_until(self.answers, 30, f"{self.name} did not come back")

    def kill(self) -> None:
        """At once, and it is gone when this returns."""
        assert self._running is not None
        self._running.process.send_signal(self.kill_signal)
        self._running.process.wait(30)
        self._programs._let_go(self._running)
        self._running = None

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        """To its children, too. One that is just being restarted is not frozen any more."""
        if self._running is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._running.pid, number)

    def restart(self, away_s: float = 0.0) -> None:
        """Killed, and back after so long."""
        self.kill()
        time.sleep(away_s)
        self.start()


class Database(Machine):
    """PostgreSQL; killed by its immediate shutdown, because children of a killed one hold its memory."""

    name = "postgres"
    stop_signal = signal.SIGINT
    kill_signal = signal.SIGQUIT

    def prepare(self, home: Path) -> None:
        self._cluster = postgres.Cluster.prepare(home, PASSWORD, self._account, OPTIONS)

    def command(self) -> Sequence[str]:
        self._cluster.clear_the_way(20)
        return self._cluster.command(self.port)

    def answers(self) -> bool:
        return postgres.answers(self._cluster.url(self.port, "postgres"))

    @property
    def url(self) -> str:
        """Tern's database in it."""
        return self.url_of("tern")

    def url_of(self, name: str) -> str:
        """Any database in it."""
        return self._cluster.url(self.port, name)


class Broker(Machine):
    """Valkey, which forgets everything when it is killed."""

    name = "valkey"

    def prepare(self, home: Path) -> None:
        self._broker = valkey.Broker.prepare(home, PASSWORD, self._account)

    def command(self) -> Sequence[str]:
        return self._broker.command(self.port)

    def answers(self) -> bool:
        return self._broker.answers(self.port)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self._broker.url(self.port)


def wait_until(condition: Callable[[], bool], seconds: float, words: str) -> None:
    """Polls; raises TimeoutError."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            raise TimeoutError(words)
        time.sleep(0.05)
