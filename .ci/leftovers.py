"""Fails if a process still belongs to a TERN_HOME: by its command line or by its environment."""

# ruff: noqa: INP001 - a script, no part of a package
import os
import sys
from pathlib import Path


def leftovers(home: str) -> list[str]:
    """The command lines of the processes that know this directory, ourselves and our callers excepted."""
    own = {os.getpid(), os.getppid()}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            known = command + (process / "environ").read_bytes()
        except OSError:
            continue  # it has just ended, or it is not ours
        if int(process.name) not in own and home.encode() in known:
            found.append(f"{process.name} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


if __name__ == "__main__":
    left = leftovers(sys.argv[1])
    sys.exit("The demo left processes behind:\n" + "\n".join(left) if left else 0)
