"""The embedded servers, for real: started, joined, killed, started again, in awkward places."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
import redis

from tern.domain.errors import Misconfigured
from tern.local import postgres
from tern.local.discovery import discover, last_known
from tern.local.embedded import embedded_servers, free_port, kept_servers

Eventually = Callable[[Callable[[], bool]], bool]
FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}
IS_ROOT = os.geteuid() == 0
STAY = """
import sys, time
from pathlib import Path
from tern.local.embedded import embedded_servers
with embedded_servers(Path(sys.argv[1]), options={"fsync": "off", "shared_buffers": "16MB"}):
    print("up", flush=True)
    time.sleep(300)
"""


def answer(url: str, question: LiteralString) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(question).fetchone()
    assert row is not None
    return row[0]


def owner_process(home: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STAY, str(home)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_embedded_servers_answer_and_are_gone_after_the_block(place: Path) -> None:
    home = place / "home"
    with embedded_servers(home, options=FAST, databases=("tern", "eu_west")) as servers:
        assert discover(home) == servers
        assert answer(servers.database_url, "SELECT current_database()") == "tern"
        assert answer(servers.database("eu_west"), "SELECT current_database()") == "eu_west"
        assert answer(servers.database_url, "SHOW listen_addresses") == "127.0.0.1"
        with redis.Redis.from_url(servers.broker_url) as broker:
            assert broker.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert broker.config_get("bind") == {"bind": "127.0.0.1"}
    assert discover(home) is None
    assert not servers.postgres.is_alive()
    assert not servers.valkey.is_alive()


def test_embedded_servers_keep_data_and_ports_over_a_restart(place: Path) -> None:
    home = place / "home"
    with embedded_servers(home, options=FAST) as first, psycopg.connect(first.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    with embedded_servers(home, options=FAST) as second:
        assert (second.database_url, second.broker_url) == (first.database_url, first.broker_url)
        assert answer(second.database_url, "SELECT n FROM kept") == 42


def test_embedded_servers_are_joined_and_left_alone_by_a_second_user(place: Path) -> None:
    home = place / "home"
    with embedded_servers(home, options=FAST) as first:
        with embedded_servers(home) as second:
            assert second == first
        assert first.are_alive()


def test_embedded_servers_ask_for_the_password(place: Path) -> None:
    with embedded_servers(place / "home", options=FAST) as servers:
        for file in ("servers.json", "secret"):
            assert stat.S_IMODE((servers.home / file).stat().st_mode) == 0o600
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{servers.postgres_port}/tern")
        no_retry = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        with (
            redis.Redis(port=servers.valkey_port, retry=no_retry) as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_embedded_servers_start_again_after_everything_was_killed(place: Path) -> None:
    home = place / "home"
    process = owner_process(home)
    servers = last_known(home)
    assert servers is not None
    for pid in (process.pid, servers.postgres.pid, servers.valkey.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    with embedded_servers(home, options=FAST) as again:
        assert answer(again.database_url, "SELECT 1") == 1
    process.stdout.close()  # type: ignore[union-attr]


def pings(url: str) -> bool:
    """A server may run a moment before it takes connections."""
    with suppress(redis.ConnectionError), redis.Redis.from_url(url) as broker:
        return bool(broker.ping())
    return False


def test_kept_servers_that_are_killed_run_again_where_they_ran(place: Path, eventually: Eventually) -> None:
    home = place / "home"
    with kept_servers(home, options=FAST) as kept:
        first = kept.servers
        with psycopg.connect(first.database_url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        for process in (first.postgres, first.valkey):
            os.kill(process.pid, signal.SIGKILL)
        said: list[str] = []

        def run_again() -> bool:
            said.extend(kept.revive())
            return (
                sum("runs again" in line for line in said) == 2
                and postgres.answers(first.database_url)
                and pings(first.broker_url)
            )

        assert eventually(run_again)
        again = discover(home)
        assert again is not None
        assert again.are_alive()
        assert (again.database_url, again.broker_url) == (first.database_url, first.broker_url)
        assert answer(again.database_url, "SELECT n FROM kept") == 42
        with redis.Redis.from_url(again.broker_url) as broker:
            assert broker.ping()
    assert not again.postgres.is_alive()
    assert not again.valkey.is_alive()


def test_embedded_servers_end_with_an_owner_that_is_killed(place: Path, eventually: Eventually) -> None:
    home = place / "home"
    process = owner_process(home)
    servers = discover(home)
    assert servers is not None
    process.kill()
    process.wait()
    process.stdout.close()  # type: ignore[union-attr]
    assert eventually(lambda: not servers.postgres.is_alive() and not servers.valkey.is_alive())


def test_embedded_servers_survive_a_stale_note_with_a_reused_process_id(place: Path) -> None:
    home = place / "home"
    with embedded_servers(home, options=FAST) as servers:
        note = (home / "postgres" / "data" / "postmaster.pid").read_text()
    # After a restart of the machine the old id may be anybody's, for instance ours.
    stale = note.replace(str(servers.postgres.pid), str(os.getpid()), 1)
    (home / "postgres" / "data" / "postmaster.pid").write_text(stale)
    with embedded_servers(home, options=FAST) as again:
        assert again.are_alive()


def test_embedded_servers_work_below_a_very_long_path_with_spaces(place: Path) -> None:
    home = place.joinpath(*["a rather long directory name"] * 8) / "home"
    assert len(str(home)) > 200
    home.parent.mkdir(parents=True)
    with embedded_servers(home, options=FAST) as servers:
        assert answer(servers.database_url, "SELECT 1") == 1


def test_a_cluster_without_its_secret_is_refused(place: Path) -> None:
    home = place / "home"
    with embedded_servers(home, options=FAST):
        pass
    (home / "secret").unlink()
    with pytest.raises(Misconfigured, match="secret"), embedded_servers(home, options=FAST):
        pass


def test_free_port_prefers_what_is_free() -> None:
    port = free_port()
    assert free_port(port) == port
