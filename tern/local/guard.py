"""Ends what a supervisor started when the supervisor itself is gone, which it can't do itself.

Run by path and in isolated mode (standard library only), in its own session, with a pipe from the supervisor
as standard input. Each line is `watch GROUP SIGNAL` or `forget GROUP`. The pipe ends when the supervisor
does, even by kill -9; whatever is still watched then gets its signal, and KILL after the grace. The
parent-death signal of launcher.py covers a child, this covers its children too, and systems that have no such
signal.
"""

import contextlib
import os
import signal
import sys
import time

GRACE = 10.0


def main() -> None:
    """Follows the supervisor until its end."""
    for deaf in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A signal that is meant for the supervisor may reach everything around it; the guard must be the
        # last.
        signal.signal(deaf, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    watched: dict[int, int] = {}
    for line in sys.stdin:
        match line.split():
            case ["watch", group, number]:
                watched[int(group)] = int(number)
            case ["forget", group]:
                watched.pop(int(group), None)
            case _:
                pass
    end(watched)


def end(watched: dict[int, int]) -> None:
    """Signals every watched group, waits for the grace, and kills what is left."""
    for group, number in watched.items():
        with contextlib.suppress(OSError):
            os.killpg(group, number)
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline and any(is_populated(group) for group in watched):
        time.sleep(0.05)
    for group in watched:
        with contextlib.suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def is_populated(group: int) -> bool:
    """True while the group has a member (a zombie counts; the deadline bounds that)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
