"""Runs Tern's own command line from the demo, as a stranger would: every step that it shows can be typed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tern.domain.errors import TernError
from tern.local.discovery import Servers
from tern.local.launching import launched
from tern.local.supervisor import POLL_SECONDS

TERN = (sys.executable, "-m", "tern")


class CommandFailed(TernError):  # noqa: N818 - reads as the outcome that it is
    """A command of Tern that the demo needs did not do what it should."""

    default_reason = "COMMAND_FAILED"


def environment(servers: Servers) -> Mapping[str, str]:
    """What every process of Tern on this machine needs to know."""
    return {
        **os.environ,
        "TERN_HOME": str(servers.home),
        "TERN_DATABASE_URL": servers.database_url,
        "TERN_BROKER_URL": servers.broker_url,
        "PYTHONUNBUFFERED": "1",
    }


@dataclass(frozen=True)
class CommandLine:
    """Tern's commands in a given environment."""

    environment: Mapping[str, str]

    def run(self, *arguments: str, stdin: str = "") -> str:
        """What the command wrote; raises CommandFailed with its own words if it did not end well."""
        done = subprocess.run(  # noqa: S603 - our own program
            [*TERN, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=dict(self.environment),
        )
        if done.returncode != 0:
            what = f"tern {' '.join(arguments)}: exit code {done.returncode}"
            raise CommandFailed(what, why=tuple((done.stderr or done.stdout).splitlines()[-10:]))
        return done.stdout

    def json(self, *arguments: str, stdin: str = "") -> dict[str, Any]:
        """The data of a command that answers in JSON."""
        document = json.loads(self.run(*arguments, "--json", stdin=stdin))
        return dict(document["data"])

    def show(self, *arguments: str, while_waiting: Callable[[], None]) -> int:
        """Runs a command on the caller's own terminal and returns its exit code.

        In a process group of its own: Ctrl-C is for the demo, which then ends the command too.
        """
        process = subprocess.Popen(  # noqa: S603 - our own program
            launched([*TERN, *arguments]),
            stdin=subprocess.DEVNULL,
            env=dict(self.environment),
            process_group=0,
        )
        try:
            while process.poll() is None:
                while_waiting()
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        return process.returncode
