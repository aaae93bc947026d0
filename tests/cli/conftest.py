"""The command line in this process, on a real database, with fake engines that are really called."""

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog

from tern import observe, wiring
from tern.cli import main, reach
from tern.settings import Settings
from tern.store.database import Database
from tests.flows.conftest import database, make_world, world

__all__ = ["database", "make_world", "world"]


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document."""
        found: dict[str, Any] = json.loads(self.out)
        assert found["schema"] == "tern.cli/v1"
        assert set(found) == {"schema", "kind", "observed_at", "data", "warnings"}
        return found

    @property
    def data(self) -> dict[str, Any]:
        """Its data."""
        found: dict[str, Any] = self.document["data"]
        return found


class Tern(Protocol):
    """Runs one command line."""

    def __call__(self, *words: str, stdin: str | bytes = "") -> Answer: ...


@pytest.fixture
def bare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Tern]:
    """The command line where nothing is set up."""
    for name in ("TERN_DATABASE_URL", "TERN_BROKER_URL", "TERN_DEBUG", "TERN_CALLER", "TERN_LEASE_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    # Logging belongs to the process, and this process is pytest's, which listens to the standard library's.
    monkeypatch.setattr(reach, "_quieten", lambda _found, **_more: None)
    monkeypatch.setattr(observe, "take_over", lambda *_: None)
    opened: list[Database] = []
    right = wiring.open_database

    def open_database(settings: Settings) -> Database:
        opened.append(right(settings))
        return opened[-1]

    # A process that ends closes its connections; this one goes on.
    monkeypatch.setattr(wiring, "open_database", open_database)
    structlog.configure(logger_factory=structlog.stdlib.LoggerFactory())

    def run(*words: str, stdin: str | bytes = "") -> Answer:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        capsys.readouterr()
        code = main.run(words)
        return Answer(code, *capsys.readouterr())

    yield run
    structlog.reset_defaults()
    for each in opened:
        each.dispose()


@pytest.fixture
def tern(bare: Tern, monkeypatch: pytest.MonkeyPatch, migrated_url: str, database: Database) -> Tern:
    """The command line on a migrated database, without a broker."""
    monkeypatch.setenv("TERN_DATABASE_URL", migrated_url)
    monkeypatch.setenv("TERN_CALLER", "ann@desk")
    return bare
