"""Transactions. What a lost connection or a lost COMMIT answer means is decided here, once."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psycopg
from psycopg import errors

from tern.domain.text import within
from tern.ports import StorageUnavailable
from tern.store.database import Database
from tern.store.sql import Connection

_log = logging.getLogger("tern.store")
_PREPARED_IS_LOST = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)


def connect(url: str, *, pool_size: int = 8, name: str = "tern", prepares: bool = True) -> Database:
    """One pool a process; the first connection is made by the first transaction."""
    return Database(url, pool_size=pool_size, name=name, prepares=prepares)


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """One READ COMMITTED transaction.

    Raises StorageUnavailable for everything after which nobody can tell whether the step happened, a lost answer to
    COMMIT included, and for waits that the server cut short.
    """
    with _told(database, database.begin) as connection:
        yield connection


@contextmanager
def single(database: Database) -> Iterator[Connection]:
    """For a step that is one statement: committed by itself. Raises StorageUnavailable, as a transaction does."""
    with _told(database, database.single) as connection:
        yield connection


@contextmanager
def _told(
    database: Database, begin: Callable[[], AbstractContextManager[Connection]]
) -> Iterator[Connection]:
    try:
        with begin() as connection:
            yield connection
    except _PREPARED_IS_LOST as error:
        _log.warning(
            "a pooler in between loses prepared statements; from here on every statement is planned anew"
        )
        database.plan_anew()
        raise StorageUnavailable(_words(error)) from error
    except (psycopg.OperationalError, psycopg.InternalError) as error:
        raise StorageUnavailable(_words(error)) from error
    except errors.FeatureNotSupported as error:
        # A prepared statement outlived a migration; the rollback has thrown it away.
        if "cached plan" not in str(error):
            raise
        raise StorageUnavailable(_words(error)) from error
    for tell in connection.afterwards:
        tell()


def after_commit(connection: Connection, tell: Callable[[], None]) -> None:
    """Logs or counts something once the transaction is committed, and not if it isn't."""
    connection.afterwards.append(tell)


def _words(error: Exception) -> str:
    return within(" ".join(str(error).split()), 300)
