"""This process's parts, made by the first task that needs them: never at import, never before a fork."""

import threading
from dataclasses import replace

from kombu.exceptions import OperationalError

from tasks.app import app, settings
from tasks.bells import CeleryBells
from tasks.halting import HaltSender
from tasks.lanes import Lanes
from tern.domain.errors import TernError
from tern.ports import Ports, StorageUnavailable
from tern.wiring import close_ports, open_ports, owner_name

EXPECTED = (TernError, StorageUnavailable, OperationalError)
"""What a task may raise on purpose: logged in one line, acknowledged, and found again by the sweeps. The last is
Celery's own, when a task is done and its chain can't be rung on.
"""

OWNER = owner_name()
_lock = threading.Lock()
_made: list[Ports] = []
lanes = Lanes(lambda: ports().store)
"""Where this process's ticks run."""


def ports() -> Ports:
    """The parts; raises Misconfigured or Unreachable as long as PostgreSQL is not there, and tries again next time."""
    if not _made:
        with _lock:
            if not _made:
                opened = open_ports(settings, CeleryBells(app), listener=lanes)
                _made.append(replace(opened, halts=HaltSender()))
    return _made[0]


def close(patience_s: float) -> None:
    """Gives the parts back, if there are any; ticks that were let go of and halts under way may end before that, for
    so long each.
    """
    lanes.close(patience_s)
    with _lock:
        while _made:
            parts = _made.pop()
            if isinstance(parts.halts, HaltSender):
                parts.halts.close(patience_s)
            close_ports(parts)
