"""What a worker process does beside its tasks: it sweeps for itself when nobody does, and gives back what it holds."""

import logging
import signal
import sys
import threading
import traceback
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
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
_asked: SimpleQueue[int] = SimpleQueue()
"""Signals that ask what each thread does; the one kind of queue that a signal's handler may put into."""
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
        unanswered = (each for each in hangup.HARMLESS if signal.getsignal(each) == signal.SIG_DFL)
        hangup.ignore((signal.SIGHUP, *unanswered))
        # Celery would write local variables too, passwords and statements among them, past all logging.
        threading.Thread(target=_tell_of_threads, name="tern-threads", daemon=True).start()
        signal.signal(signal.SIGUSR1, lambda number, _: _asked.put(number))


app.steps["worker"].add(Steady)


def _tell_of_threads() -> None:
    """One line for each SIGUSR1. Not where the signal is handled: that may be in the middle of another line."""
    while _asked.get():
        names = {each.ident: each.name for each in threading.enumerate()}
        stacks = (
            f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
            for ident, frame in sys._current_frames().items()  # noqa: SLF001 - there is no other way
        )
        _log.warning("what each thread does", extra={"fields": {"stack": "\n".join(stacks)}})


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
