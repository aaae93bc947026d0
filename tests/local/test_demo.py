"""The demo's own story on real servers, with a stand-in for Tern's commands; `.ci/run` runs the real thing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tern.domain.errors import Refused
from tern.local import command, stack
from tern.local.command import CommandFailed
from tern.local.demo import run_demo
from tern.local.discovery import discover, last_known
from tern.local.supervisor import ProgramFailed

Eventually = Callable[[Callable[[], bool]], bool]

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
KEPT = """
import sys
from pathlib import Path
from tern.local import command, stack, demo
command.TERN = stack.TERN = tuple(sys.argv[2:])
sys.exit(demo.run_demo(Path(sys.argv[1]), keep=True, scale=1))
"""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (command, stack):
        monkeypatch.setattr(module, "TERN", STAND_IN)


@pytest.fixture
def kept(place: Path) -> Iterator["subprocess.Popen[str]"]:
    """A demo that stays up, in a process of its own, waiting at its last line."""
    with subprocess.Popen(
        [sys.executable, "-c", KEPT, str(place / "home"), *STAND_IN],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Logs: "):
                break
        yield process
        process.terminate()


def processes_of(home: Path) -> list[int]:
    """Whoever carries the home in its environment or on its command line, ourselves excepted."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(home).encode() in known and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def test_the_demo_runs_and_runs_again(place: Path) -> None:
    for expected in ("filled by pgbench", "taken back"):
        said: list[str] = []
        assert run_demo(place / "home", scale=1, say=said.append) == 0
        text = "\n".join(said)
        assert expected in text
        for name in ("us-east", "eu-west", "ap-south"):
            assert f"{name}: completed, remote id r-{name}" in text
        assert text.count("column tier smallint NOT NULL DEFAULT 1") == 3
        assert text.count("validated") == 3
        assert "missing or unfinished" not in text
    assert processes_of(place / "home") == []


def test_the_demo_returns_the_outcome_of_the_apply(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_OUTCOME", "10")
    assert run_demo(place / "home", scale=1, say=lambda _: None) == 10


def test_the_demo_does_not_believe_an_apply_that_changed_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tern.local.targets.CHANGE", "SELECT 1")
    with pytest.raises(CommandFailed, match="catalogue does not show"):
        run_demo(place / "home", scale=1, say=lambda _: None)


@pytest.mark.parametrize("name", ["worker", "engine"])
def test_a_process_that_dies_ends_the_demo_with_its_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", name)
    monkeypatch.setenv("STAND_IN_WATCHES", "30")
    with pytest.raises(ProgramFailed, match=rf"{name}.* ended by itself.*told to fail"):
        run_demo(place / "home", scale=1, say=lambda _: None)
    assert processes_of(place / "home") == []


def test_a_command_that_fails_ends_the_demo(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "db")
    with pytest.raises(CommandFailed, match="tern db upgrade"):
        run_demo(place / "home", scale=1, say=lambda _: None)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_kept_demo_leaves_no_process_behind(
    kept: "subprocess.Popen[str]", place: Path, eventually: Eventually, number: signal.Signals, code: int
) -> None:
    home = place / "home"
    assert discover(home) is not None
    assert len(processes_of(home)) > 6
    kept.send_signal(number)
    assert kept.wait(timeout=30) == code
    assert eventually(lambda: processes_of(home) == [])
    servers = last_known(home)
    assert servers is not None
    assert eventually(lambda: not servers.postgres.is_alive() and not servers.valkey.is_alive())


def test_a_second_demo_in_the_same_directory_is_refused(kept: "subprocess.Popen[str]", place: Path) -> None:
    with pytest.raises(Refused, match="another demo"):
        run_demo(place / "home")
    assert kept.poll() is None
