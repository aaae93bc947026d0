"""What every benchmark stands on: real servers, real processes, and what each of them costs in processor time.

Rates on a machine that others use too are noisy; processor time per operation is much less so. Both are printed.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tern.domain.model import Action, Capabilities, Deployment, PlannedChange
from tern.local.discovery import Servers
from tern.local.embedded import embedded_servers, ensure_database
from tern.store.database import Database
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.sql import text
from tern.store.store import PostgresStore

CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER)
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 300.0


def wait_until(
    happens: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S, every_s: float = 0.01
) -> None:
    """Polls a condition; raises TimeoutError."""
    ends_at = time.monotonic() + patience_s
    while not happens():
        if time.monotonic() > ends_at:
            raise TimeoutError(what)
        time.sleep(every_s)


@dataclass
class Program:
    """A process that a benchmark started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_s(self) -> float:
        """Processor seconds so far, ended children included."""
        return _cpu_s(self.process.pid)

    def resident_mib(self, line: str = "VmRSS") -> float:
        """Memory now, or with VmHWM at most."""
        for each in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if each.startswith(line):
                return int(each.split()[1]) / 1024
        return float("nan")

    def end(self) -> None:
        """Asks it to end, and waits."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def complaint(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


@dataclass
class Ground:
    """Servers, and the programs that run on them. A context manager that ends them all."""

    folder: Path
    servers: Servers
    programs: list[Program] = field(default_factory=list)
    opened: list[Database] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self.programs):
            program.end()
        for database in self.opened:
            database.dispose()

    def database(self, name: str = "tern") -> tuple[str, Database]:
        """A migrated database of that name: its address and a pool."""
        url = ensure_database(self.servers, name)
        engine = connect(url, name="bench")
        self.opened.append(engine)
        migrate(engine)
        return url, engine

    def start(self, name: str, *arguments: str, **settings: str) -> Program:
        """A Python module in a process of its own."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**os.environ, **self.settings, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        program = Program(name, process, log)
        self.programs.append(program)
        return program

    def engine(self, name: str = "engine", *arguments: str) -> tuple[Program, int]:
        """A trivial engine; returns it with its port."""
        port_file = self.folder / f"{name}.port"
        program = self.start(name, "benchmarks.trivial_engine", "--port-file", str(port_file), *arguments)
        wait_until(lambda: port_file.exists() or program.process.poll() is not None, name, 60)
        if not port_file.exists():
            raise RuntimeError(program.complaint())
        return program, int(port_file.read_text())

    def worker(self, name: str, queues: str, threads: int, *extra: str, **settings: str) -> Program:
        """A Tern worker, as `tern worker` starts it."""
        program = self.start(
            name,
            *("celery", "-A", "tasks.app", "worker", "--pool", "threads", "--concurrency", str(threads)),
            *("--queues", queues, "--hostname", f"{name}@%h", "--without-mingle", "--without-gossip"),
            *("--task-events", "--loglevel", "INFO", *extra),
            **{"TERN_POOL_SIZE": str(threads), "TERN_LOG_LEVEL": "INFO", **settings},
        )
        wait_until(
            lambda: b" ready." in program.log.read_bytes() or program.process.poll() is not None, name, 60
        )
        if program.process.poll() is not None:
            raise RuntimeError(program.complaint())
        return program

    def cpu_s(self) -> Mapping[str, float]:
        """Processor seconds so far of everything that runs here."""
        found = {program.name: program.cpu_s() for program in self.programs}
        found["postgres"] = _cpu_s(self.servers.postgres.pid)
        found["valkey"] = _cpu_s(self.servers.valkey.pid)
        found["this process"] = sum(os.times()[:2])
        return found


@contextmanager
def ground(**postgres: str) -> Iterator[Ground]:
    """Servers of their own in a new folder, with fsync on. Settings of PostgreSQL can be given."""
    folder = Path(tempfile.mkdtemp(prefix="tern-bench-"))
    folder.chmod(0o755)
    with embedded_servers(folder / "home", options=postgres) as servers, Ground(folder, servers) as made:
        made.settings = {"TERN_DATABASE_URL": servers.database("tern"), "TERN_BROKER_URL": servers.broker_url}
        yield made


def add_deployments(store: PostgresStore, names: Sequence[str], port: int) -> None:
    """Registers them in one statement; all are served by the engine on that port."""
    example = Deployment(
        name="example",
        environment="bench",
        database="shop",
        address=f"grpc://127.0.0.1:{port}",
        target="example",
        position=0,
        capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
        idempotent_dispatch=True,
    )
    store.save_deployment(example)
    with store.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO deployments (name, environment, database, address, target, labels, position,"
                " credentials, capabilities, idempotent_dispatch)"
                " SELECT n.name, d.environment, d.database, d.address, n.name, d.labels, n.number, d.credentials,"
                " d.capabilities, d.idempotent_dispatch FROM deployments d,"
                " unnest(CAST(:names AS text[])) WITH ORDINALITY AS n(name, number) WHERE d.name = 'example'"
            ),
            {"names": list(names)},
        )


def _cpu_s(pid: int) -> float:
    """Of a process, its children, theirs, and those of them that have ended."""
    parents: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(folder.name))
                spent[int(folder.name)] = sum(map(int, fields[11:15])) / _TICKS
    total, waiting = 0.0, [pid]
    while waiting:
        each = waiting.pop()
        total += spent.get(each, 0.0)
        waiting += parents.get(each, [])
    return total
