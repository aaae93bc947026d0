"""The door: fast help, one error shape, exit codes, and no traceback for anybody who did not ask for one."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
import pytest

from tern.cli import main, reach
from tern.cli.main import COMMANDS
from tern.domain.errors import Refused
from tern.ports import StorageUnavailable
from tests.cli.conftest import Tern

HEAVY = (
    "pydantic",
    "sqlalchemy",
    "psycopg",
    "grpc",
    "celery",
    "kombu",
    "rich",
    "structlog",
    "postgast",
    "alembic",
)


def python(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from tern.cli import main
main.run(["--help"])
print(sorted(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""
    assert python("-c", code).stderr.strip() == "[]"


def test_help_costs_little_more_than_python_itself() -> None:
    def best(*arguments: str) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            python(*arguments)
            times.append(time.perf_counter() - began)
        return min(times)

    # A ratio: the machine may be as slow as it likes. Click alone makes it about five.
    assert best("-m", "tern", "--help") < 15 * best("-c", "pass")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_list_is_there_and_helps(name: str, bare: Tern) -> None:
    answer = bare(name, "--help")
    assert answer.code == 0
    assert answer.out.startswith(f"Usage: tern {name}")


def test_the_list_has_every_command_and_no_other(bare: Tern) -> None:
    listed = re.findall(r"^  ([a-z-]+)  ", bare("--help").out.partition("Start here:")[2], re.MULTILINE)
    assert listed == list(COMMANDS)
    assert bare("destroy").code == 2


def test_version(bare: Tern) -> None:
    assert re.fullmatch(r"tern \d+\.\d+\.\d+\n", bare("--version").out)


def test_a_usage_error_has_the_one_shape(bare: Tern) -> None:
    answer = bare("apply", "--nonsense")
    assert answer.code == 2
    assert answer.out == ""
    assert re.search(
        r"^can't read that: no such option.*\n +unchanged: .*\n +next: +tern apply --help$",
        answer.err,
        re.MULTILINE,
    )


def test_with_json_an_error_is_the_one_document(bare: Tern) -> None:
    answer = bare("ls", "--json")
    assert (answer.code, answer.document["kind"]) == (78, "error")
    assert answer.data["reason"] == "MISCONFIGURED"
    assert answer.data["exit_code"] == 78
    assert "tern up" in answer.data["next"]
    assert answer.err.startswith("not set up: ")


def test_all_reasons_of_a_refusal_are_told(bare: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        what = "no"
        raise Refused(what, why=("one", "two"), unchanged="All of it.", next_step="Ask.")

    monkeypatch.setattr(reach, "reading", refuse)
    answer = bare("ls")
    assert answer.code == 5
    assert (
        answer.err
        == "refused: no\n  why:       one\n             two\n  unchanged: All of it.\n  next:      Ask.\n"
    )


def test_what_a_refusal_quotes_does_nothing_to_the_terminal(
    bare: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = "\x1b]0;title\x07\x9b31m\u202e"

    def refuse(*_: object, **__: object) -> None:
        raise Refused(f"no {bad}", why=(f"  {bad}^",), unchanged=f"All {bad}.", next_step=f"tern {bad}")

    monkeypatch.setattr(reach, "settings", refuse)
    told = bare("ls").err
    assert "".join(told.splitlines()).isprintable()
    assert "  why:         " in told
    # JSON says exactly what was said, and a terminal still obeys none of it.
    done = bare("ls", "--json")
    assert done.data["what"] == f"no {bad}"
    assert "".join(done.out.splitlines()).isprintable()


def test_silent_storage_claims_nothing_about_what_was_written(
    bare: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "reading", _raiser(StorageUnavailable("connection lost")))
    answer = bare("ls")
    assert answer.code == 69
    assert "PostgreSQL did not answer" in answer.err
    assert "not known" in answer.err


def test_the_unexpected_is_one_line_and_a_traceback_only_on_request(
    bare: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "reading", _raiser(RuntimeError("a\nb")))
    answer = bare("ls")
    assert answer.code == 1
    assert answer.err.startswith("failed: RuntimeError: a b\n")
    assert "Traceback" not in answer.err
    monkeypatch.setenv("TERN_DEBUG", "1")
    assert "Traceback" in bare("ls").err


def test_interrupts_have_their_exit_codes(bare: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, code in ((KeyboardInterrupt(), 130), (main._Terminated(), 143), (click.Abort(), 130)):
        monkeypatch.setattr(reach, "reading", _raiser(error))
        assert bare("ls").code == code


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tern --help | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""


@pytest.mark.parametrize("json", ["", "--json"])
@pytest.mark.parametrize(
    ("stdout", "code", "told"),
    [
        (">&-", "78", ""),
        (">/dev/full", "1", "the answer can't be written: No space left on device"),
        ("2>/dev/null >/dev/full", "1", ""),
        (">&- 2>&-", "78", ""),
        (">/dev/full 2>&1", "1", ""),
    ],
)
def test_a_stdout_that_takes_nothing_is_never_a_traceback(
    stdout: str, code: str, told: str, json: str, tmp_path: Path
) -> None:
    # With --json the refusal is the document on stdout; --help stands there without.
    words = f"ls {json}" if json else "--help"
    done = subprocess.run(
        ["bash", "-c", f"({sys.executable} -m tern {words} {stdout}); echo $?"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "TERN_HOME": str(tmp_path)},
    )
    assert done.stdout.strip() == (code if json or code == "1" else "0")
    assert "Traceback" not in done.stderr
    assert told in done.stderr


@pytest.mark.parametrize("words", ["doctor", "doctor --json", "help", "help exit-codes", "version"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_no_mistake_of_tern_s(words: str, unbuffered: str, tmp_path: Path) -> None:
    """However it is written: through click, through rich, as one document, with and without a buffer."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m tern {words} >/dev/full"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "TERN_HOME": str(tmp_path), "PYTHONUNBUFFERED": unbuffered},
    )
    assert (done.returncode, done.stderr) == (
        1,
        "failed: the answer can't be written: No space left on device\n",
    )


@pytest.mark.parametrize("columns", ["0", "1", "-5", "many", "100000"])
@pytest.mark.parametrize("term", ["xterm", "dumb", ""])
def test_a_terminal_of_any_width_is_told(columns: str, term: str, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERN_HOME": str(tmp_path), "COLUMNS": columns, "TERM": term}
    with os.fdopen(follower, "wb") as terminal:
        done = subprocess.run(
            [sys.executable, "-m", "tern", "doctor"],
            stdout=terminal,
            stderr=terminal,
            env=environment,
            check=False,
        )
    told = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.returncode == 78
    assert "settings" in told
    assert "Traceback" not in told


def test_a_terminated_command_says_so_by_its_exit_code(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HANGING],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERN_HOME": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hanging\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_a_document_is_all_that_stands_on_stdout(tmp_path: Path) -> None:
    done = python("-m", "tern", "doctor", "--json", env={"TERN_HOME": str(tmp_path), "TERN_DATABASE_URL": ""})
    assert done.returncode == 78
    assert json.loads(done.stdout)["kind"] == "doctor"


def _raiser(error: BaseException) -> object:
    def fail() -> None:
        raise error

    return fail


_HANGING = """
import time
from tern.cli import main, reach
def hang():
    print("hanging", flush=True)
    time.sleep(60)
reach.reading = hang
main.main(["ls"])
"""
