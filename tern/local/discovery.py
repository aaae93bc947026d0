"""Finds the embedded servers of a directory: the state file that they leave there, and whether they run.

Every Tern command reads this when no database URL is set, so it must stay cheap: standard library only, and
no import of the servers' own packages. Starting and stopping them is not here (embedded.py).
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

STATE_FILE = "servers.json"


@dataclass(frozen=True)
class RunningProcess:
    """A process id and the moment it began, because a bare id may belong to somebody else by now."""

    pid: int
    began: str

    def is_alive(self) -> bool:
        """True while exactly this process runs."""
        return bool(self.began) and began(self.pid) == self.began


@dataclass(frozen=True)
class Servers:
    """Where the embedded PostgreSQL and Valkey of one directory answer, and who started them."""

    home: Path
    database_url: str
    broker_url: str
    postgres_port: int
    valkey_port: int
    postgres: RunningProcess
    valkey: RunningProcess
    owner: RunningProcess

    def are_alive(self) -> bool:
        """True while both servers run."""
        return self.postgres.is_alive() and self.valkey.is_alive()

    def database(self, name: str) -> str:
        """The URL of another database in the same cluster."""
        return urlunsplit(urlsplit(self.database_url)._replace(path=f"/{name}"))

    def database_without_password(self, name: str) -> str:
        """The same for a command line, which everybody on the machine can read; PGPASSWORD holds the rest."""
        parts = urlsplit(self.database(name))
        return urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))

    @property
    def password(self) -> str:
        """The password of both servers."""
        return urlsplit(self.database_url).password or ""


def default_home() -> Path:
    """The directory of the embedded servers: `TERN_HOME`, or `.tern` where the command was given."""
    return Path(os.environ.get("TERN_HOME") or ".tern").absolute()


def discover(home: Path | None = None) -> Servers | None:
    """The embedded servers that run in `home`, or None if there are none (or they are not ours to read).

    PostgreSQL decides: a broker that is away costs time, and hides nothing (G11).
    """
    servers = last_known(home or default_home())
    return servers if servers is not None and servers.postgres.is_alive() else None


def last_known(home: Path) -> Servers | None:
    """What the state file says, whether or not the servers still run."""
    try:
        state = json.loads((home / STATE_FILE).read_text())
        return Servers(
            home=home,
            database_url=state["database_url"],
            broker_url=state["broker_url"],
            postgres_port=int(state["postgres_port"]),
            valkey_port=int(state["valkey_port"]),
            postgres=RunningProcess(**state["postgres"]),
            valkey=RunningProcess(**state["valkey"]),
            owner=RunningProcess(**state["owner"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def publish(servers: Servers) -> None:
    """Writes the state file in one step, readable only by its owner: the URLs hold passwords."""
    state = asdict(replace(servers, home=Path()))
    del state["home"]
    file = servers.home / STATE_FILE
    draft = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump(state, stream, indent=2)
    # A reader sees the old file or the new one, never half of one.
    draft.replace(file)


def this_process() -> RunningProcess:
    """The process that asks."""
    return RunningProcess(os.getpid(), began(os.getpid()))


def began(pid: int) -> str:
    """When a process began, in the system's own words; empty if it does not run (a zombie does not)."""
    return _began_by_proc(pid) if Path("/proc/self/stat").exists() else _began_by_ps(pid)


def _began_by_proc(pid: int) -> str:
    try:
        # The command's name may hold spaces and brackets; the fields after its last bracket do not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _began_by_ps(pid: int) -> str:
    answer = subprocess.run(  # noqa: S603 - a fixed command and a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, moment = answer.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else moment.strip()
