"""How the lines of Celery's own programs look: worker, beat, Flower and what else begins `celery -A tasks.app`."""

import logging
import sys
import time

import click
from celery.beat import SchedulingError

from tern.native import keep_quiet
from tern.observe import take_over
from tern.settings import LogFormat, Settings

# Every tick would be two lines; what changes is logged by the event that is committed with it.
_CHATTY = ("celery.worker.strategy", "celery.app.trace", "celery.beat")


_SAID_AGAIN_AFTER_S = 60.0


class UnsentBells(logging.Filter):
    """Of the bells that beat could not ring one line, and one more a minute while that lasts: each comes with two
    tracebacks, and a broker that is away for an hour would fill a disk with them. Nothing depends on any of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Shortens the record, or keeps it away; everything else passes as it is."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, SchedulingError):
            return True
        if time.monotonic() < self._quiet_until:
            return False
        self._quiet_until = time.monotonic() + _SAID_AGAIN_AFTER_S
        record.msg, record.args = "a bell was not rung, and the next ones are tried: %s", (str(error),)
        record.exc_info = record.exc_text = None
        return True


def is_program_of_celery() -> bool:
    """Whether Celery's command line is what runs here. Others use the app to publish, and have logs of their own."""
    context = click.get_current_context(silent=True)
    return context is not None and context.find_root().command.name == "celery"


def shape(settings: Settings) -> None:
    """From the first line on: Celery would ask for it only once it has said and warned some."""
    keep_quiet()
    take_over(settings.log_format, settings.log_level)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("celery.beat").addFilter(UnsentBells())
    if settings.log_format == LogFormat.JSON:
        # Where Celery's words at a signal go, which it writes past all logging; tasks.worker logs the same.
        sys.__stdout__ = None  # type: ignore[misc]
