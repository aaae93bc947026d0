"""Connections and transactions. What a lost connection or a lost COMMIT answer means is decided here, once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeout,
)

from tern.domain.errors import Misconfigured
from tern.ports import StorageUnavailable

_AFTER = "tern_after_commit"

SERVER_SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    # A frozen claimer holds its apply's lock; nobody may wait for it longer than this.
    "idle_in_transaction_session_timeout": "5s",
    # A killed worker's statement that waits for a lock would otherwise go on without it.
    "client_connection_check_interval": "5s",
}


def database_url(text: str) -> URL:
    """Reads TERN_DATABASE_URL; raises Misconfigured for anything but a PostgreSQL address. No secret is echoed."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        message = "TERN_DATABASE_URL is not a database address"
        raise Misconfigured(message, next_step="Write it as postgresql://user@host:port/database.") from None
    if not url.drivername.startswith("postgres"):
        message = f"TERN_DATABASE_URL names {url.drivername}, and Tern keeps its truth in PostgreSQL"
        raise Misconfigured(message, next_step="Write it as postgresql://user@host:port/database.")
    return url.set(drivername="postgresql+psycopg")


def connect(url: str, *, pool_size: int = 8, name: str = "tern") -> Engine:
    """One pool a process; the first connection is made by the first transaction."""
    options = " ".join(f"-c {key}={value}" for key, value in SERVER_SETTINGS.items())
    return create_engine(
        database_url(url),
        pool_size=pool_size,
        max_overflow=4,
        pool_timeout=10,
        pool_recycle=1800,
        # The server's own time limits may have ended an idle connection; a dead one is found before it is used.
        pool_pre_ping=True,
        connect_args={
            "application_name": name,
            "connect_timeout": 5,
            "options": options,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            # A pooler in between may hand out another session for every transaction.
            "prepare_threshold": None,
        },
    )


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One READ COMMITTED transaction.

    Raises StorageUnavailable for everything after which nobody can tell whether the step happened, a lost answer to
    COMMIT included, and for waits that the server cut short.
    """
    try:
        with engine.begin() as connection:
            committed: list[Callable[[], None]] = []
            connection.info[_AFTER] = committed
            yield connection
    except PoolTimeout as error:
        raise StorageUnavailable(_words(error)) from error
    except (OperationalError, InternalError) as error:
        raise StorageUnavailable(_words(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError):
            raise StorageUnavailable(_words(error)) from error
        raise
    for tell in committed:
        tell()


def after_commit(connection: Connection, tell: Callable[[], None]) -> None:
    """Logs or counts something once the transaction is committed, and not if it isn't."""
    connection.info[_AFTER].append(tell)


def _words(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300]
