"""How the lines of Celery's own programs look: worker, beat, Flower and what else begins `celery -A tasks.app`."""

import logging
import sys

import click

from tern.native import keep_quiet
from tern.observe import take_over
from tern.settings import LogFormat, Settings

# Every tick would be two lines; what changes is logged by the event that is committed with it.
_CHATTY = ("celery.worker.strategy", "celery.app.trace", "celery.beat")


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
    if settings.log_format == LogFormat.JSON:
        # Where Celery's words at a signal go, which it writes past all logging; tasks.worker logs the same.
        sys.__stdout__ = None  # type: ignore[misc]
