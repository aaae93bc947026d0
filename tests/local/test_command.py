"""Running Tern's command line from the demo, with a stand-in for Tern."""

import os
import sys
from pathlib import Path

import pytest

from tern.local import command
from tern.local.command import CommandFailed, CommandLine
from tern.local.discovery import Servers

ECHO = """
import json, sys
if "fail" in sys.argv:
    sys.exit("refused: no")
print(json.dumps({"data": {"arguments": sys.argv[1:], "stdin": sys.stdin.read()}}))
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setattr(command, "TERN", (sys.executable, "-c", ECHO))
    return CommandLine(os.environ)


def test_json_is_asked_for_and_its_data_returned(stand_in: CommandLine) -> None:
    assert stand_in.json("get", "apl-1", stdin="x") == {"arguments": ["get", "apl-1", "--json"], "stdin": "x"}


def test_a_command_that_fails_is_named_with_its_own_words(stand_in: CommandLine) -> None:
    with pytest.raises(CommandFailed, match="tern fail: exit code 1; refused: no"):
        stand_in.run("fail")


def test_a_shown_command_returns_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "TERN", (sys.executable, "-c", "raise SystemExit(12)"))
    assert CommandLine(os.environ).show("watch", "apl-1", while_waiting=lambda: None) == 12


def test_a_shown_command_ends_with_whatever_interrupts_the_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    code = (
        f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(300)"
    )
    monkeypatch.setattr(command, "TERN", (sys.executable, "-c", code))

    def interrupt() -> None:
        if note.exists() and note.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CommandLine(os.environ).show("watch", "apl-1", while_waiting=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_every_process_is_told_where_the_servers_are(valkey_server: Servers) -> None:
    told = command.environment(valkey_server)
    assert told["TERN_DATABASE_URL"] == valkey_server.database_url
    assert told["TERN_BROKER_URL"] == valkey_server.broker_url
    assert told["TERN_HOME"] == str(valkey_server.home)
    assert told["PATH"] == os.environ["PATH"]
