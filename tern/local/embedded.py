"""Starts, joins and stops the embedded servers of one directory: one PostgreSQL cluster and one Valkey.

Both listen on free loopback ports and ask for a password that only the directory's owner can read. Whoever
starts them owns them: they end with their owner. Others who find them running join them and leave them alone.
"""

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tern.domain.errors import Misconfigured
from tern.local import postgres, valkey
from tern.local.account import make_folder, server_account
from tern.local.discovery import RunningProcess, Servers, began, last_known, publish, this_process
from tern.local.supervisor import Program, ProgramFailed, Running, Supervisor

START_SECONDS = 60.0
STOP_SECONDS = 20.0
PORT_ATTEMPTS = 3
DATABASE = "tern"


@dataclass(frozen=True)
class Kept:
    """Embedded servers and what keeps them running; nothing does that here if they were joined."""

    servers: Servers
    programs: Supervisor

    def revive(self) -> Iterator[str]:
        """Starts again which of them ended by itself, on the same port; yields a line at each end and each start."""
        before = self._pids()
        yield from self.programs.revive()
        now = self._pids()
        known = last_known(self.servers.home)
        if now != before and known is not None:
            running = {name: RunningProcess(pid, began(pid)) for name, pid in now.items()}
            publish(replace(known, postgres=running["postgres"], valkey=running["valkey"]))

    def _pids(self) -> Mapping[str, int]:
        return {running.program.name: running.pid for running in self.programs.running}


@contextlib.contextmanager
def embedded_servers(
    home: Path,
    *,
    options: Mapping[str, str] | None = None,
    databases: Sequence[str] = (DATABASE,),
) -> Iterator[Servers]:
    """The servers of `home` for a block in which nobody looks after them."""
    with kept_servers(home, options=options, databases=databases) as kept:
        yield kept.servers


@contextlib.contextmanager
def kept_servers(
    home: Path,
    *,
    options: Mapping[str, str] | None = None,
    databases: Sequence[str] = (DATABASE,),
) -> Iterator[Kept]:
    """The servers of `home` for a block: joined if they run already, else started, and stopped after it."""
    home = home.absolute()
    make_folder(home, 0o755)
    make_folder(home / "log", 0o755)
    with Supervisor(home / "log") as programs:
        with _only_one_starts(home):
            servers = _adopted(home) or _started(home, programs, options or {})
        for name in databases:
            postgres.ensure_database(servers.database(name))
        yield Kept(servers, programs)


def ensure_database(servers: Servers, name: str) -> str:
    """The URL of a database in the embedded cluster, created if it is missing."""
    url = servers.database(name)
    postgres.ensure_database(url)
    return url


def _adopted(home: Path) -> Servers | None:
    """Servers that run already and whose owner lives; orphans are stopped, the next ones have an owner."""
    servers = last_known(home)
    if servers is None:
        return None
    if servers.postgres.is_alive() and servers.owner.is_alive():
        return servers
    stop_orphans(servers)
    return None


def stop_orphans(servers: Servers) -> None:
    """Ends servers whose owner is gone (kill -9 of everything around them), gently and then not."""
    for process, number in ((servers.postgres, signal.SIGINT), (servers.valkey, signal.SIGTERM)):
        deadline = time.monotonic() + STOP_SECONDS
        sent = False
        while process.is_alive():
            overdue = time.monotonic() > deadline
            if overdue or not sent:
                with contextlib.suppress(OSError):
                    os.kill(process.pid, signal.SIGKILL if overdue else number)
                sent = True
            time.sleep(0.05)


def _started(home: Path, programs: Supervisor, options: Mapping[str, str]) -> Servers:
    account = server_account()
    ids = None if account is None else account.ids
    password = _secret(home)
    cluster = postgres.Cluster.prepare(home, password, account, options)
    broker = valkey.Broker.prepare(home, password, account)
    cluster.clear_the_way(STOP_SECONDS)
    known = last_known(home)

    def run_postgres(port: int) -> Running:
        url = cluster.url(port, "postgres")
        return programs.start(
            Program(
                "postgres",
                cluster.command(port),
                env=postgres.ENVIRONMENT,
                cwd=Path("/"),
                ready=lambda: postgres.answers(url),
                ready_seconds=START_SECONDS,
                # INT is PostgreSQL's fast shutdown; TERM would wait for every client to leave.
                stop_signal=signal.SIGINT,
                grace_seconds=STOP_SECONDS,
                account=ids,
            )
        )

    def run_valkey(port: int) -> Running:
        return programs.start(
            Program(
                "valkey",
                broker.command(port),
                env=postgres.ENVIRONMENT,
                cwd=Path("/"),
                ready=lambda: broker.answers(port),
                ready_seconds=START_SECONDS,
                account=ids,
            )
        )

    for attempt in range(PORT_ATTEMPTS):
        # The same ports as last time if they are free: URLs that somebody noted down stay right.
        postgres_port = free_port(known.postgres_port if known and attempt == 0 else None)
        valkey_port = free_port(known.valkey_port if known and attempt == 0 else None)
        try:
            database, bell = run_postgres(postgres_port), run_valkey(valkey_port)
            programs.wait_until_ready(database, bell)
        except ProgramFailed:
            # Another process may have taken a free port between our look and the server's; or the children of
            # a killed server hold its memory for a moment longer. Both pass.
            programs.stop()
            if attempt == PORT_ATTEMPTS - 1:
                raise
            time.sleep(attempt + 1)
            continue
        servers = Servers(
            home=home,
            database_url=cluster.url(postgres_port, DATABASE),
            broker_url=broker.url(valkey_port),
            postgres_port=postgres_port,
            valkey_port=valkey_port,
            postgres=RunningProcess(database.pid, began(database.pid)),
            valkey=RunningProcess(bell.pid, began(bell.pid)),
            owner=this_process(),
        )
        publish(servers)
        return servers
    raise AssertionError


@contextlib.contextmanager
def _only_one_starts(home: Path) -> Iterator[None]:
    """Excludes a second `tern demo` or `tern up` in the same directory while the first starts servers."""
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _secret(home: Path) -> str:
    """The password of both servers, made once per directory."""
    file = home / "secret"
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        if (home / "postgres" / "data").exists():
            what = f"{file} is missing, and with it the password of the cluster beside it"
            raise Misconfigured(what, next_step=f"Remove {home} to start afresh.") from None
    secret = secrets.token_hex(16)
    draft = home / f"secret.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(secret)
    draft.replace(file)
    return secret


def free_port(preferred: int | None = None) -> int:
    """A loopback port that nobody listens on at this moment, the preferred one if possible."""
    for port in (preferred, 0):
        if port is not None:
            with socket.socket() as probe, contextlib.suppress(OSError):
                # As the servers do it: connections that linger after a restart don't matter.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    what = "there is no free port on 127.0.0.1"
    raise Misconfigured(what)
