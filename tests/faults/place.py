"""Engines as processes of their own, each behind a relay that can cut; what they did, as nobody else can write it."""

import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tern.domain.model import Capabilities, Deployment
from tests.e2e.processes import tied
from tests.faults.fake_engine import wait_for_port
from tests.faults.history import Asked, Done, from_file
from tests.faults.relay import Relay

LAG_S = 0.15
"""What an answer takes to come back: time enough to break something in the middle of a call."""

COMPLETE_AFTER_S = 0.6
DEPLOYMENTS_PER_FAKE = 8


class Place(ABC):
    """One engine process behind its relay."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.port = 0
        self.relay: Relay | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The deployments that it serves."""

    @abstractmethod
    def command(self, port_file: Path) -> Sequence[str]:
        """How it is started."""

    @abstractmethod
    def deployment(self, name: str, position: int) -> Deployment:
        """As people register it."""

    @abstractmethod
    def told(self) -> tuple[list[Asked], list[Done]]:
        """What it was asked and did, as far as it wrote it down."""

    def environment(self) -> Mapping[str, str] | None:
        """Of its process; None for ours."""
        return None

    @property
    def address(self) -> str:
        """Where its relay listens."""
        assert self.relay is not None
        return self.relay.address

    def start(self) -> None:
        """On the same port and with the same jobs as before."""
        port_file = self.folder / f"{self.name}.port"
        port_file.unlink(missing_ok=True)
        with (self.folder / f"{self.name}.log").open("ab") as output:
            self._process = subprocess.Popen(
                tied(*self.command(port_file)), stdout=output, stderr=output, env=self.environment()
            )
        self.port = wait_for_port(port_file, timeout_s=60.0)
        if self.relay is None:
            self.relay = Relay(self.port)
            self.relay.lag_s = LAG_S

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


@dataclass(frozen=True)
class Character:
    """What a fake engine can do, and how lucky its changes are."""

    name: str
    offers_engine_service: bool = True
    deduplicates: bool = True
    unlucky: int = 0
    """One change in so many fails, and one is refused."""


CHARACTERS = (
    Character("steady"),
    Character("brisk"),
    Character("unlucky", unlucky=6),
    Character("plain", offers_engine_service=False),
    Character("naive", offers_engine_service=False, deduplicates=False),
)


class FakePlace(Place):
    """An engine that changes nothing and keeps a ledger of everything."""

    def __init__(self, character: Character, folder: Path) -> None:
        super().__init__(character.name, folder)
        self._character = character
        self._ledger = folder / f"{character.name}.jsonl"

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.name}-{number}" for number in range(DEPLOYMENTS_PER_FAKE)]

    def command(self, port_file: Path) -> Sequence[str]:
        character = self._character
        return [
            *(sys.executable, "-W", "ignore", "-m", "tests.faults.fake_engine", "--name", self.name),
            *("--listen", f"127.0.0.1:{self.port}", "--port-file", str(port_file)),
            *("--ledger", str(self._ledger), "--complete-after", str(COMPLETE_AFTER_S)),
            *(() if character.offers_engine_service else ("--no-engine-service",)),
            *(() if character.deduplicates else ("--no-dedup",)),
            *("--unlucky", str(character.unlucky)),
        ]

    def deployment(self, name: str, position: int) -> Deployment:
        offers = self._character.offers_engine_service
        return Deployment(
            name=name,
            environment="test",
            database="shop",
            address=self.address,
            target=name,
            position=position,
            capabilities=Capabilities(resolve=offers, batch_progress=offers, preview=offers),
            idempotent_dispatch=self._character.deduplicates,
        )

    def told(self) -> tuple[list[Asked], list[Done]]:
        return from_file(self.name, self._ledger)


@contextmanager
def running(place: Place) -> Iterator[Place]:
    """An engine for a block."""
    place.start()
    try:
        yield place
    finally:
        if place.relay is not None:
            place.relay.close()
        place.kill()
