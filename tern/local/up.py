"""All that Tern needs on one machine, in the foreground until Ctrl-C: servers, worker, beat, Flower."""

import contextlib
import time
from pathlib import Path

from tern.local import stack
from tern.local.command import CommandLine, environment
from tern.local.demo import Say, say_on_stdout
from tern.local.embedded import embedded_servers, free_port
from tern.local.supervisor import Supervisor, terminating_signals_raise


def run_up(home: Path, *, say: Say = say_on_stdout) -> int:
    """Runs until Ctrl-C, which is how it ends well; a process that dies ends it with the reason."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        terminating_signals_raise(),
        embedded_servers(home) as servers,
        Supervisor(servers.home / "log") as programs,
    ):
        settings = environment(servers)
        CommandLine(settings).run("db", "upgrade")
        port = free_port(stack.usual_ports(servers.home)[0])
        started = [
            programs.start(program)
            for program in (stack.worker(settings), stack.beat(settings), stack.flower(settings, port))
        ]
        programs.wait_until_ready(*started)
        say(f"Tern is up. Flower: http://{stack.LOOPBACK}:{port}  Logs: {programs.log_directory}")
        say("Register a deployment with `tern deployments add`; Ctrl-C stops everything.")
        while True:
            programs.check()
            time.sleep(0.5)
    return 0
