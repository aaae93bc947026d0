"""`tern up` with a stand-in for Tern's commands: up until it is told to stop, and then nothing is left."""

import signal
import sys
from pathlib import Path

import pytest

from tern.domain.errors import Misconfigured
from tern.local import command, stack
from tern.local.discovery import Servers, discover, last_known
from tern.local.up import run_up

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (command, stack):
        monkeypatch.setattr(module, "TERN", STAND_IN)
    for name in ("TERN_DATABASE_URL", "TERN_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)


def interrupt(line: str) -> None:
    """Answers the last line that `up` says with Ctrl-C."""
    if "Ctrl-C stops everything" in line:
        signal.raise_signal(signal.SIGINT)


def test_up_runs_until_it_is_interrupted(place: Path) -> None:
    home = place / "home"
    assert run_up(home, say=interrupt) == 0
    assert discover(home) is None
    assert last_known(home) is not None


def test_up_uses_the_servers_that_the_environment_names(
    place: Path, valkey_server: Servers, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_DATABASE_URL", database_url)
    monkeypatch.setenv("TERN_BROKER_URL", valkey_server.broker_url)
    assert run_up(place / "home", say=interrupt) == 0
    assert [path.name for path in (place / "home").iterdir()] == ["log"]


@pytest.mark.parametrize("name", ["TERN_DATABASE_URL", "TERN_BROKER_URL"])
def test_up_refuses_one_url_without_the_other(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "somewhere")
    with pytest.raises(Misconfigured, match=f"only {name} is set"):
        run_up(place / "home")
