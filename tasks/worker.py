"""What a worker process does beside its tasks: it sweeps for itself when nobody does, and gives back what it holds."""

import logging
import signal
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.signals import celeryd_init, worker_shutdown, worker_shutting_down

from tasks.app import app, settings
from tasks.direct import DirectBells
from tasks.process import OWNER, close, lanes, ports
from tern import hangup
from tern.domain.errors import TernError
from tern.flows.sweep import sweep_when_nobody_does
from tern.ports import Bells, Ports, StorageUnavailable
from tern.wiring import open_exporter

if TYPE_CHECKING:
    from tern.exporter import Exporter

_log = logging.getLogger("tern.worker")
_INTERVAL_S = 1.0
_LAST_TICK_S = 40.0
"""Longer than a tick with all its deadlines, shorter than a supervisor's patience."""
_stopping = threading.Event()
_exporters: list["Exporter"] = []


@celeryd_init.connect
def _begin_sweeping(**_: Any) -> None:
    """Before the first connection to the broker, which may never have been there."""
    _sweeper.start()
    if (exporter := open_exporter(settings)) is not None:
        _exporters.append(exporter)


class Steady(bootsteps.StartStopStep):
    """Goes on when a terminal closes. Celery would begin anew as the command line that it thinks it was started with,
    and that one fails; what may have changed is read again without it.
    """

    def start(self, parent: Any) -> None:  # noqa: ARG002 - the shape that Celery wants
        """After Celery has set its own answers to signals, and before it waits for a broker."""
        # What Celery makes of the others (such as what each thread does, for USR1) ends nothing.
        unanswered = (each for each in hangup.HARMLESS if signal.getsignal(each) == signal.SIG_DFL)
        hangup.ignore((signal.SIGHUP, *unanswered))


app.steps["worker"].add(Steady)


@worker_shutting_down.connect
def _end_sweeping(**_: Any) -> None:
    _stopping.set()


@worker_shutdown.connect
def _close_parts(**_: Any) -> None:
    """After the last tick, those of this process's own sweep included: channels, and the engines of local
    deployments, whose jobs are left to be resumed.
    """
    _stopping.set()
    _sweeper.join(_LAST_TICK_S)
    close(_LAST_TICK_S)
    while _exporters:
        _exporters.pop().close()


def _sweep_for_ever() -> None:
    direct: DirectBells | None = None
    complaint = ""
    while not _stopping.wait(_INTERVAL_S):
        try:
            parts = ports()
            if direct is None:
                direct = DirectBells(partial(_with_bells, parts), lanes.drive)
            sweep_when_nobody_does(OWNER, parts, direct)
            if complaint:
                _log.info("PostgreSQL is back")
            complaint = ""
        except (TernError, StorageUnavailable) as error:
            if str(error) != complaint:
                complaint = str(error)
                _log.error("nothing is done until PostgreSQL answers: %s", complaint)
        except Exception:  # noqa: BLE001 - a bug in one sweep must not end all sweeps of this process
            _log.exception("the sweep failed unexpectedly")
    # Said here, and not where the signal is handled: that may be in the middle of another line.
    _log.info("told to end: what is under way is finished first")
    if direct is not None:
        direct.close()


_sweeper = threading.Thread(target=_sweep_for_ever, name="tern-sweep", daemon=True)


def _with_bells(parts: Ports, bells: Bells) -> Ports:
    return replace(parts, bells=bells)
