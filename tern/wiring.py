"""Where concrete things meet: from settings to the ports that flows use. Entry points bring their own bells.

Each part is imported by the function that opens it: most commands need one of them, and each costs a person time.
"""

import logging
import os
import random
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tern.domain.errors import Misconfigured, Unreachable
from tern.domain.identity import ApplyId
from tern.ports import Bells, Due, DueControl, Ports, StorageUnavailable
from tern.settings import Settings
from tern.store.database import Database
from tern.store.revision import require_migrated
from tern.store.session import connect

if TYPE_CHECKING:
    from tern.doors.desk import Desk
    from tern.exporter import Exporter
    from tern.store.paging import Paging
    from tern.store.plan_reading import Plans
    from tern.store.reading import Reading
    from tern.store.record import Record
    from tern.store.store import PostgresStore
    from tern.wire.transport import Listener

_log = logging.getLogger("tern.wiring")


@dataclass(frozen=True, slots=True)
class Dice:
    """ports.Chance."""

    def jitter(self) -> float:
        """In [0, 1)."""
        return random.random()  # noqa: S311 - spreads load, protects nothing


class Silent:
    """Rings nowhere: workers sweep, and find what is due a few seconds later."""

    def dispatch(self, due: Due) -> None:
        """See ports.Bells."""

    def control(self, due: DueControl) -> None:
        """See ports.Bells."""

    def progress(self, due: Due) -> None:
        """See ports.Bells."""

    def poll(self, deployment: str) -> None:
        """See ports.Bells."""

    def advance(self, apply_id: ApplyId) -> None:
        """See ports.Bells."""


def owner_name() -> str:
    """How this process signs its claims."""
    return f"{socket.gethostname()}:{os.getpid()}"


def open_database(settings: Settings) -> Database:
    """The pool to Tern's own database, proved by nothing yet. Raises Misconfigured for a wrong address."""
    return connect(
        settings.require_database_url(),
        pool_size=settings.pool_size,
        name="tern",
        prepares=settings.prepared_statements,
    )


def _checked(settings: Settings) -> Database:
    engine = open_database(settings)
    try:
        require_migrated(engine)
    except Misconfigured:
        engine.dispose()
        raise
    except StorageUnavailable as error:
        engine.dispose()
        message = "Tern's PostgreSQL does not answer"
        raise Unreachable(
            message, why=(str(error),), next_step="Check TERN_DATABASE_URL and the server."
        ) from None
    return engine


def open_store(settings: Settings) -> "PostgresStore":
    """The store on a migrated database; raises Misconfigured, Unreachable."""
    from tern.store.counted import CountedStore  # noqa: PLC0415

    return CountedStore(
        _checked(settings),
        owner=owner_name(),
        lease_s=settings.lease_seconds,
        deadline_s=settings.rpc_deadline_seconds,
        pace=settings.pace,
    )


def open_reading(settings: Settings) -> "Reading":
    """The read-only side on a migrated database; raises Misconfigured, Unreachable."""
    from tern.store.reading import Reading  # noqa: PLC0415

    return Reading(_checked(settings), deadline_s=settings.rpc_deadline_seconds)


def open_plans(settings: Settings) -> "Plans":
    """Kept plans, read-only, on a migrated database; raises Misconfigured, Unreachable."""
    from tern.store.plan_reading import Plans  # noqa: PLC0415

    return Plans(_checked(settings))


def open_record(settings: Settings) -> "Record":
    """The record of applies, read-only, on a migrated database; raises Misconfigured, Unreachable."""
    from tern.store.record import Record  # noqa: PLC0415

    return Record(_checked(settings))


def open_paging(settings: Settings) -> "Paging":
    """The read-only side of other services, on a migrated database; raises Misconfigured, Unreachable."""
    from tern.store.paging import Paging  # noqa: PLC0415

    return Paging(_checked(settings), lease_s=settings.lease_seconds)


def open_ports(
    settings: Settings,
    bells: Bells,
    *,
    run_local_jobs: bool = True,
    listener: "Listener | None" = None,
    asks_for_s: float | None = None,
) -> Ports:
    """All parts of a process, counted; raises Misconfigured, Unreachable.

    A process that lives for one command asks local engines without taking their jobs from the workers, and may give
    up sooner than they do: asks_for_s. What is decided about calls under way goes by the deadline that is set.
    """
    # gRPC costs a third of a command's start, and most commands call no engine.
    from tern.wire.routing import EngineDirectory  # noqa: PLC0415

    store = open_store(settings)
    engines = EngineDirectory(
        deadline_s=asks_for_s or settings.rpc_deadline_seconds,
        run_local_jobs=run_local_jobs,
        listener=listener,
    )
    return Ports(store, engines, bells, Dice(), deadline_s=settings.rpc_deadline_seconds)


def open_desk(settings: Settings, bells: Bells, *, most_watchers: int = 0) -> "Desk":
    """The door in this process, for as long as it lives; raises Misconfigured, Unreachable."""
    from tern.doors.desk import Desk  # noqa: PLC0415
    from tern.doors.watching import MOST_WATCHERS  # noqa: PLC0415
    from tern.store.paging import Paging  # noqa: PLC0415
    from tern.store.record import Record  # noqa: PLC0415
    from tern.store.store import PostgresStore  # noqa: PLC0415

    ports = open_ports(settings, bells, run_local_jobs=False)
    assert isinstance(ports.store, PostgresStore)  # noqa: S101 - as made above
    reading = Paging(ports.store.engine, lease_s=settings.lease_seconds)
    record = Record(ports.store.engine)
    watchers = most_watchers or MOST_WATCHERS
    return Desk(ports, reading, record, close=lambda: close_ports(ports), most_watchers=watchers)


def open_exporter(settings: Settings) -> "Exporter | None":
    """The port that answers scrapes, where TERN_METRICS_PORT asks for one. One that can't be had is said and done
    without: nobody's rollout waits for a dashboard.
    """
    if not settings.metrics_port:
        return None
    from tern.exporter import Exporter  # noqa: PLC0415 - costs more than all the rest, and few processes need it
    from tern.store.gauge import read_gauges  # noqa: PLC0415

    engine = connect(settings.require_database_url(), pool_size=1, name="tern-metrics")
    try:
        look = partial(read_gauges, engine)
        return Exporter(settings.metrics_address, settings.metrics_port, look, engine.dispose)
    except OSError as error:
        engine.dispose()
        where = f"{settings.metrics_address}:{settings.metrics_port}"
        _log.error("no metrics: %s can't be listened on: %s", where, error.strerror or error)
        return None


def close_ports(ports: Ports) -> None:
    """Ends channels, engines of local deployments and connections; running jobs are left to be resumed."""
    from tern.store.store import PostgresStore  # noqa: PLC0415
    from tern.wire.routing import EngineDirectory  # noqa: PLC0415

    if isinstance(ports.engines, EngineDirectory):
        ports.engines.close()
    if isinstance(ports.store, PostgresStore):
        ports.store.engine.dispose()
