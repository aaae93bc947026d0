"""The command line of a program that must not outlive us, and may run as somebody else (launcher.py).

Never subprocess's own `user=`: with it Python really forks, and the hooks that gRPC keeps for forks run in the child of
a process whose threads hold unknown locks. Now and then such a child dies before it has become the program.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
# The launcher's exit code where this process may not become somebody else.
MAY_NOT_BECOME = 126


def launched(
    argv: Sequence[str], *, stop_signal: signal.Signals = signal.SIGTERM, ids: tuple[int, int] | None = None
) -> list[str]:
    """`argv` behind the launcher; `stop_signal` reaches it when we die, `ids` are the user and group to become."""
    account = "-" if ids is None else "{}:{}".format(*ids)
    launcher = [sys.executable, "-I", "-S", str(HERE / "launcher.py")]
    return [*launcher, str(os.getpid()), str(stop_signal.value), account, *argv]
