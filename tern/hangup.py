"""Signals that end no process which is to go on: a terminal that closes, and what people send to have something read
again. Certificates and tokens are read again when they change, so there is nothing to do for it.
"""

import signal
from collections.abc import Iterable

HARMLESS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Each would end a process that knows nothing of it."""


def ignore(numbers: Iterable[signal.Signals] = HARMLESS) -> None:
    """From here on, also for the program that this process becomes. Only in a main thread."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
