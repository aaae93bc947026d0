"""All that Tern needs on one machine, in the foreground until Ctrl-C: servers, worker, beat, Flower."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tern.domain.errors import Misconfigured
from tern.local import stack
from tern.local.account import make_folder
from tern.local.command import CommandLine, environment
from tern.local.demo import Say, say_on_stdout
from tern.local.embedded import free_port, kept_servers
from tern.local.supervisor import Supervisor, terminating_signals_raise


def run_up(home: Path, *, say: Say = say_on_stdout) -> int:
    """Runs until Ctrl-C, which is how it ends; a process that ends by itself on the way is started again."""
    home = home.absolute()
    with (
        contextlib.suppress(KeyboardInterrupt),
        terminating_signals_raise(),
        _servers(home) as (settings, revive),
        Supervisor(home / "log") as programs,
    ):
        CommandLine(settings).run("db", "upgrade")
        port = free_port(stack.usual_ports(home)[0])
        started = [
            programs.start(program)
            for program in (stack.worker(settings), stack.beat(settings), stack.flower(settings, port))
        ]
        programs.wait_until_ready(*started)
        say(f"Tern is up. Flower: http://{stack.LOOPBACK}:{port}  Logs: {programs.log_directory}")
        say("Register a deployment with `tern deployments add`; Ctrl-C stops everything.")
        while True:
            for line in (*revive(), *programs.revive()):
                say(line)
            time.sleep(0.5)
    return 0


@contextlib.contextmanager
def _servers(home: Path) -> Iterator[tuple[Mapping[str, str], Callable[[], Iterable[str]]]]:
    """The servers that the environment names, else the embedded ones: as an environment for Tern's processes, and
    what starts those of them again that ended by themselves.
    """
    given = [name for name in ("TERN_DATABASE_URL", "TERN_BROKER_URL") if os.environ.get(name)]
    match given:
        case []:
            with kept_servers(home) as kept:
                yield environment(kept.servers), kept.revive
        case [only]:
            what = f"only {only} is set"
            raise Misconfigured(what, next_step="Set both URLs, or none to use the embedded servers.")
        case _:
            make_folder(home, 0o755)
            make_folder(home / "log", 0o755)
            yield {**os.environ, "TERN_HOME": str(home)}, tuple
