"""What a command needs from the world, opened when it is needed and closed with the command.

Settings, SQL and gRPC are imported inside: a command that only prints its help pays for none of them.
"""

import logging
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from tern.ports import Bells, Ports

if TYPE_CHECKING:
    from tern.settings import Settings
    from tern.store.paging import Paging
    from tern.store.plan_reading import Plans
    from tern.store.reading import Reading
    from tern.store.record import Record
    from tern.store.store import PostgresStore

BROKER_PATIENCE_S = 1.0
DEFAULT_BROKER_PORT = 6379


def settings(*, only_looks: bool = False) -> "Settings":
    """What the environment says; raises Misconfigured. A command that only looks logs nothing unless it fails."""
    from tern.settings import load  # noqa: PLC0415

    found = load()
    _quieten(found, only_looks=only_looks)
    return found


def reading() -> "Reading":
    """The way to look; raises Misconfigured and Unreachable in words."""
    from tern import wiring  # noqa: PLC0415

    found = wiring.open_reading(settings(only_looks=True))
    _when_done(found.close)
    return found


def record() -> "Record":
    """The way to look at what happened; raises Misconfigured and Unreachable in words."""
    from tern import wiring  # noqa: PLC0415

    found = wiring.open_record(settings(only_looks=True))
    _when_done(found.close)
    return found


def plans() -> "Plans":
    """The way to look at kept plans; raises Misconfigured and Unreachable in words."""
    from tern import wiring  # noqa: PLC0415

    found = wiring.open_plans(settings(only_looks=True))
    _when_done(found.close)
    return found


def paging() -> "Paging":
    """The way to look that other services use; raises Misconfigured and Unreachable in words."""
    from tern import wiring  # noqa: PLC0415

    found = wiring.open_paging(settings(only_looks=True))
    _when_done(found.close)
    return found


def store() -> "PostgresStore":
    """The durable steps without engines or bells; raises Misconfigured and Unreachable."""
    from tern import wiring  # noqa: PLC0415

    found = wiring.open_store(settings())
    _when_done(found.engine.dispose)
    return found


def ports(*, ringing: bool = False, deadline_s: float | None = None) -> Ports:
    """All parts; bells ring only where the command asks for work to be done at once. deadline_s: for an engine's
    answer, where another than the workers' will do.
    """
    from tern import wiring  # noqa: PLC0415

    found = settings()
    rings = bells(found) if ringing else wiring.Silent()
    opened = wiring.open_ports(found, rings, run_local_jobs=False, asks_for_s=deadline_s)
    _when_done(lambda: wiring.close_ports(opened))
    return opened


def caller() -> str:
    """Who is recorded as asking."""
    from tern.settings import caller as name  # noqa: PLC0415

    return name(settings())


def bells(found: "Settings") -> Bells:
    """Celery's bells; silent ones, with a warning, where the broker does not answer."""
    trouble = broker_trouble(found.broker_url)
    if trouble:
        click.echo(
            f"warning: {trouble}. What is asked for is written down all the same;"
            " workers find it by their own sweep, a few seconds later.",
            err=True,
        )
        from tern.wiring import Silent  # noqa: PLC0415

        return Silent()
    return lasting_bells()


def lasting_bells() -> Bells:
    """Celery's bells, for a process that outlives a broker that is away: each failure is a line in its log."""
    import importlib  # noqa: PLC0415

    # Entry points bring their own bells. Celery is imported here and nowhere else in Tern: it takes half a second.
    app = importlib.import_module("tasks.app").app
    made: Bells = importlib.import_module("tasks.bells").CeleryBells(app)
    return made


def broker_trouble(url: str) -> str:
    """Why the broker can't be reached, in words; empty if it accepts connections."""
    if not url:
        return "TERN_BROKER_URL is not set"
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        return ""
    try:
        where = (parts.hostname or "localhost", parts.port or DEFAULT_BROKER_PORT)
    except ValueError:
        return "TERN_BROKER_URL has no usable port"
    try:
        socket.create_connection(where, timeout=BROKER_PATIENCE_S).close()
    except OSError as error:
        return f"the broker at {where[0]}:{where[1]} does not answer ({error.strerror or error})"
    return ""


def _quieten(found: "Settings", *, only_looks: bool) -> None:
    """Logs of the parts go to stderr, and only what matters: stdout is for the answer alone."""
    level = "DEBUG" if found.debug else "WARNING"
    if not only_looks:
        from tern.observe import configure  # noqa: PLC0415

        configure(found.log_format, level)
        return
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(_FirstLine(found.log_format, level))
    root.setLevel(level)


class _FirstLine(logging.Handler):
    """Shapes the logs when the first line comes: what shapes them costs as much time as the rest of a look."""

    def __init__(self, log_format: str, level: str) -> None:
        super().__init__()
        self._log_format = log_format
        self._level = level

    def emit(self, record: logging.LogRecord) -> None:
        """Gives way to the real thing."""
        from tern.observe import configure  # noqa: PLC0415

        configure(self._log_format, self._level)
        logging.getLogger(record.name).handle(record)


def _when_done(close: object) -> None:
    context = click.get_current_context(silent=True)
    if context is not None and callable(close):
        context.call_on_close(close)
