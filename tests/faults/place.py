"""Engines as processes of their own, each behind a relay that can cut, and each with its own character."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tern.domain.model import Capabilities, Deployment
from tests.e2e.processes import tied
from tests.faults.fake_engine import wait_for_port
from tests.faults.relay import Relay

LAG_S = 0.15
"""What an answer takes to come back: time enough to break something in the middle of a call."""

COMPLETE_AFTER_S = 0.6


@dataclass(frozen=True)
class Character:
    """What an engine can do, and how lucky its changes are."""

    name: str
    offers_engine_service: bool = True
    deduplicates: bool = True
    unlucky: int = 0
    """One change in so many fails, and one is refused."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the fake engine's command line."""
        return (
            *(() if self.offers_engine_service else ("--no-engine-service",)),
            *(() if self.deduplicates else ("--no-dedup",)),
            *("--unlucky", str(self.unlucky)),
        )

    def deployment(self, name: str, address: str, position: int) -> Deployment:
        """One place that it serves, as people would register it."""
        offers = self.offers_engine_service
        return Deployment(
            name=name,
            environment="test",
            database="shop",
            address=address,
            target=name,
            position=position,
            capabilities=Capabilities(resolve=offers, batch_progress=offers, preview=offers),
            idempotent_dispatch=self.deduplicates,
        )


CHARACTERS = (
    Character("steady"),
    Character("brisk"),
    Character("unlucky", unlucky=6),
    Character("plain", offers_engine_service=False),
    Character("naive", offers_engine_service=False, deduplicates=False),
)


@dataclass
class Place:
    """One engine process behind its relay."""

    character: Character
    folder: Path
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    relay: Relay | None = None

    @property
    def name(self) -> str:
        return self.character.name

    @property
    def ledger(self) -> Path:
        """What it was asked and did; written by it alone."""
        return self.folder / f"{self.name}.jsonl"

    def start(self) -> None:
        """On the same port and with the same jobs as before."""
        port_file = self.folder / f"{self.name}.port"
        port_file.unlink(missing_ok=True)
        with (self.folder / f"{self.name}.log").open("ab") as output:
            self.process = subprocess.Popen(
                tied(
                    *(sys.executable, "-W", "ignore", "-m", "tests.faults.fake_engine", "--name", self.name),
                    *("--listen", f"127.0.0.1:{self.port}", "--port-file", str(port_file)),
                    *("--ledger", str(self.ledger), "--complete-after", str(COMPLETE_AFTER_S)),
                    *self.character.arguments,
                ),
                stdout=output,
                stderr=output,
            )
        self.port = wait_for_port(port_file)
        if self.relay is None:
            self.relay = Relay(self.port)
            self.relay.lag_s = LAG_S

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def open_place(character: Character, folder: Path) -> Iterator[Place]:
    """An engine for a block."""
    place = Place(character, folder)
    place.start()
    try:
        yield place
    finally:
        if place.relay is not None:
            place.relay.close()
        place.kill()
