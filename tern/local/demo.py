"""The demo: one reviewed change, three real databases, every process of Tern, on one machine.

Everything that changes something goes through Tern's own commands, as a stranger would type them; only the
last question goes past Tern, to each target's own catalogue.
"""

import contextlib
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tern.domain.errors import Refused
from tern.local import stack, targets
from tern.local.account import make_folder
from tern.local.command import CommandFailed, CommandLine, environment
from tern.local.embedded import Kept, free_port, kept_servers
from tern.local.supervisor import Supervisor, terminating_signals_raise

DEPLOYMENTS: Mapping[str, str] = {"us-east": "us_east", "eu-west": "eu_west", "ap-south": "ap_south"}
SCALE = 10
REASON = "Give every account a tier"
CANCEL_SECONDS = 60

Say = Callable[[str], None]


def say_on_stdout(line: str) -> None:
    """Writes a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_demo(home: Path, *, keep: bool = False, scale: int = SCALE, say: Say = say_on_stdout) -> int:
    """Runs the whole demo in `home`; with `keep` everything stays up until Ctrl-C. Returns the exit code."""
    began = time.monotonic()
    try:
        with (
            terminating_signals_raise(),
            _only_one_demo(home),
            kept_servers(home) as kept,
            Supervisor(kept.servers.home / "log") as programs,
        ):
            return Demo(kept, programs, say, scale, began).run(keep=keep)
    except KeyboardInterrupt:
        say("\nStopped; no process is left. The same command starts again.")
        return 130


@dataclass
class Demo:
    """One run of the demo."""

    kept: Kept
    programs: Supervisor
    say: Say
    scale: int
    began: float

    def __post_init__(self) -> None:
        self.servers = self.kept.servers
        self.environment = environment(self.servers)
        self.tern = CommandLine(self.environment)

    def run(self, *, keep: bool) -> int:
        """The story, step by step."""
        self.step(f"PostgreSQL on port {self.servers.postgres_port}, Valkey on {self.servers.valkey_port}")
        self.prepare_databases()
        flower_port = self.start_processes()
        self.leave_nothing_of_the_last_run()
        apply_id = self.enqueue()
        code = self.tern.show("watch", apply_id, while_waiting=self.programs.check)
        found = self.report(apply_id)
        if code == 0 and not found:
            what = "the apply completed, but a target's own catalogue does not show the whole change"
            raise CommandFailed(what, next_step=f"Read the logs in {self.programs.log_directory}")
        if keep:
            self.stay(apply_id, flower_port)
        return code

    def prepare_databases(self) -> None:
        """Tern's own schema and a million rows in each target, at the same time."""
        rows = self.scale * targets.ROWS_PER_SCALE
        fillings = targets.start_filling(self.servers, tuple(DEPLOYMENTS.values()), self.scale, self.programs)
        self.tern.run("db", "upgrade")
        self.programs.wait_until_done(*fillings)
        done = "filled by pgbench" if fillings else "still full from the last run"
        self.step(f"Tern's database migrated; three targets with {rows:,} accounts each, {done}")

    def start_processes(self) -> int:
        """Three engines, a worker, beat and Flower; returns Flower's port."""
        flower_port, *engine_ports = (free_port(port) for port in stack.usual_ports(self.servers.home))
        ports = dict(zip(DEPLOYMENTS, engine_ports, strict=True))
        engines = [
            self.programs.start(
                stack.engine(
                    self.environment, deployment=name, dsn=self.servers.database(database), port=ports[name]
                )
            )
            for name, database in DEPLOYMENTS.items()
        ]
        self.programs.start(stack.worker(self.environment))
        self.programs.start(stack.beat(self.environment))
        flower = self.programs.start(stack.flower(self.environment, flower_port))
        self.programs.wait_until_ready(*engines, flower)
        self.register({name: f"grpc://{stack.LOOPBACK}:{port}" for name, port in ports.items()})
        self.step("three engines, a worker, beat and Flower; deployments " + ", ".join(DEPLOYMENTS))
        return flower_port

    def register(self, addresses: Mapping[str, str]) -> None:
        """Makes the deployments known under these addresses, which are others if a port was taken."""
        entries = [
            {"name": name, "environment": "demo", "database": "app", "target": name, "address": address}
            for name, address in addresses.items()
        ]
        self.tern.run("deployments", "import", "-", "--replace", stdin=json.dumps(entries))

    def leave_nothing_of_the_last_run(self) -> None:
        """Ends what a demo that was killed left unfinished, and takes its change back out of the targets."""
        for apply in self.tern.json("ls", "--live", "--environment", "demo")["applies"]:
            apply_id = str(apply["apply_id"])
            self.tern.run(
                *("cancel", apply_id, "--reason", "A new demo begins"),
                *("--wait", "--timeout", str(CANCEL_SECONDS)),
            )
            self.step(f"{apply_id}, left by an earlier demo, cancelled")
        changed = [
            name
            for name, database in DEPLOYMENTS.items()
            if targets.take_back(self.servers.database(database))
        ]
        if changed:
            self.step("the last demo's change taken back on " + ", ".join(changed))

    def enqueue(self) -> str:
        """One apply over three deployments; returns its id."""
        self.say("\nThe reviewed change:\n")
        for line in targets.CHANGE.splitlines():
            self.say(f"    {line}")
        file = self.write_down("change.sql", targets.CHANGE)
        arguments = (
            *("apply", "--ddl", str(file), "--environment", "demo", "--database", "app"),
            *("--deployments", ",".join(DEPLOYMENTS), "--copy", "rolling", "--reason", REASON),
        )
        self.say(f"\n$ {shlex.join(('tern', *arguments))}\n")
        apply_id = str(self.tern.json(*arguments)["apply_id"])
        self.step(f"{apply_id} accepted")
        return apply_id

    def report(self, apply_id: str) -> bool:
        """Shows each deployment's remote id and what its own catalogue says; True if all show the change."""
        view: dict[str, Any] = self.tern.json("get", apply_id)
        self.say("\nWhat the targets themselves say (read from their catalogues, not from Tern):")
        complete = True
        for operation in view["operations"]:
            name = operation["deployment"]
            catalogue = targets.read_catalogue(self.servers.database(DEPLOYMENTS[name]))
            complete = complete and catalogue.shows_the_change
            self.say(f"\n  {name}: {operation['state']}, remote id {operation['remote_id']}")
            for kind in ("column", "index", "check"):
                self.say(f"    {kind:<7}{getattr(catalogue, kind) or 'missing or unfinished'}")
            self.say(f"    {'rows':<7}{catalogue.rows:,}")
        self.say("")
        self.step(f"{apply_id} is {view['state']}")
        return complete

    def stay(self, apply_id: str, flower_port: int) -> None:
        """Keeps everything running until Ctrl-C, and says what there is to see."""
        tern = self.typed()
        file = self.write_down("another-change.sql", targets.ANOTHER_CHANGE)
        with contextlib.suppress(KeyboardInterrupt):
            self.say(
                f"""
Everything stays up until Ctrl-C. Flower: http://{stack.LOOPBACK}:{flower_port}
Try, in another terminal:

  {tern} watch {apply_id}
  {tern} explain {apply_id}/us-east

  # a longer change: stop it while it runs, ask why it stands still, and let it go on
  {tern} apply --ddl {file} -e demo -d app --all --reason 'To see it stop'
  {tern} stop APPLY --reason 'To see it stop' --wait
  {tern} explain APPLY
  {tern} start APPLY --all --reason 'To see it go on'
  {tern} watch APPLY

Logs: {self.programs.log_directory}"""
            )
            while True:
                for line in (*self.kept.revive(), *self.programs.revive()):
                    self.say(line)
                time.sleep(0.5)
        self.say("\nStopping.")

    def write_down(self, name: str, change: str) -> Path:
        """Puts a change into a file, and returns its path as one would type it."""
        file = self.servers.home / name
        file.write_text(change)
        return shortest(file)

    def typed(self) -> str:
        """How `tern` is typed here so that it finds these servers."""
        program = str(shortest(Path(sys.executable).with_name("tern")))
        is_usual = self.servers.home == Path(".tern").absolute() and "TERN_HOME" not in os.environ
        return program if is_usual else f"TERN_HOME={shlex.quote(str(self.servers.home))} {program}"

    def step(self, what: str) -> None:
        """One thing is done; shown with the seconds since the start."""
        self.say(f"{time.monotonic() - self.began:6.1f} s  {what}")


def shortest(path: Path) -> Path:
    """The path as one would type it: relative if it is below the current directory."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@contextlib.contextmanager
def _only_one_demo(home: Path) -> Iterator[None]:
    """Excludes a second demo in the same directory: both would change the same three targets."""
    make_folder(home, 0o755)
    with (home / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            what = f"another demo is running in {home}"
            raise Refused(what, next_step="Stop it with Ctrl-C, or set another TERN_HOME.") from None
        yield
