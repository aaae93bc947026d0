"""`tern engine serve`: told who it is, and no secret on its command line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tern.local.discovery import Servers
from tests.cli.conftest import Tern
from tests.engine.pooler import Pooler

WHO = ("--environment", "test", "--database", "shop", "--target", "t")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "TERN_ENGINE_DSN"),
        (("--dsn", "postgresql://h/x", "--target", ""), 2, "--target is empty"),
        (("--dsn", "postgresql://h/x", "--listen", "127.0.0.1:99999"), 78, "there is no port 99999"),
        (("--dsn", "mysql://h/x"), 2, "names mysql"),
        (("--dsn", "postgresql://u:hunter2 2@h/x"), 2, "--dsn is not a database address"),
        (("--dsn", "postgresql://u:hunter2%zz@h/x"), 2, "--dsn is not a database address"),
        (("--dsn", "postgresql://u:hunter2@[h/x"), 2, "--dsn is not a database address"),
        (("--dsn", "postgresql://u:p@hunter2@h/x"), 2, "in a password @ is %40"),
        (("--dsn", "postgresql://u:hunter2/3@h/x"), 2, "--dsn is not a database address"),
        (("--dsn", "host=h password='hunter2"), 2, "--dsn is not a database address"),
        (("--dsn", "postgresql://h/x", "--token-ref", "hunter2"), 2, "no reference"),
        (("--dsn", "postgresql://h/x", "--token-ref", "env:TERN_TEST_NOT_SET"), 78, "not set in env:"),
        (("--dsn", "postgresql://h/x", "--token-ref", "file:/not/there"), 78, "can't be read"),
        (("--dsn", "postgresql://h/x", "--tls-cert", "/not/there"), 2, "does not exist"),
        (("--dsn", "postgresql://h/x", "--listen", "0.0.0.0:0"), 78, "no loopback address"),
    ],
)
def test_bad_input_is_refused(
    words: tuple[str, ...], code: int, told: str, bare: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERN_ENGINE_DSN", raising=False)
    monkeypatch.setattr("tern.observe.configure", lambda *_: None)
    done = bare("engine", "serve", "--listen", "127.0.0.1:0", *WHO, *words)
    assert (done.code, told in done.err) == (code, True), done.err
    assert "hunter2" not in done.err


def test_a_password_on_the_command_line_is_warned_about(bare: Tern, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tern.observe.configure", lambda *_: None)
    done = bare("engine", "serve", "--listen", "0.0.0.0:0", *WHO, "--dsn", "postgresql://u:hunter2@h/x")
    assert "can read the password" in done.err
    assert "hunter2" not in done.err


def test_an_address_that_leads_through_a_transaction_pooler_is_refused(
    bare: Tern, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tern.observe.configure", lambda *_: None)
    with Pooler(database_url, 1) as pooler:
        done = bare("engine", "serve", "--listen", "127.0.0.1:0", *WHO, "--dsn", pooler.url)
    assert (done.code, "gives each transaction another session" in done.err) == (78, True)
    assert "TERN_ENGINE_DSN" in done.err


def test_it_serves_until_it_is_told_to_end(
    postgres_server: Servers, database_url: str, tmp_path: Path
) -> None:
    port_file = tmp_path / "port"
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tern",
            "engine",
            "serve",
            "--listen",
            "127.0.0.1:0",
            *WHO,
            "--port-file",
            str(port_file),
        ],
        env={**os.environ, "TERN_ENGINE_DSN": database_url, "TERN_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "listens on port" not in process.stderr.readline():
            assert process.poll() is None
        assert int(port_file.read_text()) > 0
        process.send_signal(signal.SIGTERM)
        assert "engine was told to end" in process.stderr.read()
        assert process.wait(20) == 0
