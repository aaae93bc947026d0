"""The first connection to the target database, and what keeps the engine from it: told once, in words.

A first connection proves that there is a session of our own at the other end and a server that can be written, before
anything is set in it; the engine's other connections are made after it. While it fails, each call is told why.
"""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import psycopg
import structlog
from psycopg.rows import TupleRow

from tern.engine import failure
from tern.engine.errors import EngineError, Reason, unavailable
from tern.engine.schema import ensure_schema
from tern.engine.session import CONNECT_SECONDS, Connection, connect, value

ANSWER_SECONDS = 2.0
"""A session of our own says which one it is within this."""
_WHICH_SESSION = b"SELECT pg_catalog.pg_backend_pid()"
_SILENT = f"the server has not answered within {ANSWER_SECONDS:g} s which session this is"
log = structlog.get_logger(__name__)


class Contact:
    """Whether the engine gets at its database; shared by all threads of one engine."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._told: set[str] = set()
        self.words = ""
        """What keeps it from its database at this moment; empty for nothing."""

    def lost(self, words: str) -> None:
        """Each cause is a line in the log, once until the database is back."""
        with self._guard:
            self.words = words
            is_new = words not in self._told
            self._told.add(words)
        if is_new:
            log.warning("engine.database.lost", error=words)

    def found(self) -> None:
        """It answers, and nothing is in the way."""
        with self._guard:
            was_lost = bool(self._told)
            self._told.clear()
            self.words = ""
        if was_lost:
            log.info("engine.database.found")


class Watched(psycopg.Connection[TupleRow]):
    """A connection of a pool, which tells nobody by itself why it could not be made."""

    @classmethod
    def connect(cls, conninfo: str = "", *, contact: Contact, **given: Any) -> Self:  # type: ignore[override]
        """See psycopg."""
        try:
            return super().connect(conninfo, **given)
        except psycopg.Error as error:
            contact.lost(failure.words(error))
            raise


@contextmanager
def first_connection(dsn: str, name: str, role: str, contact: Contact) -> Iterator[Connection]:
    """A connection to the database itself, one that can be written, and with the engine's tables.

    Raises EngineError: UNAVAILABLE with the reason and words where it can't be had now, another where a person has to
    change something first.
    """
    try:
        refuse_transaction_pooler(dsn)
        with connect(dsn, name, role) as connection:
            _refuse_standby(connection)
            ensure_schema(connection)
            contact.found()
            yield connection
    except psycopg.Error as error:
        if failure.meaning(error) not in {failure.Meaning.TRANSIENT, failure.Meaning.LOCKED}:
            raise
        contact.lost(failure.words(error))
        raise unavailable(failure.words(error)) from error
    except EngineError as error:
        contact.lost(error.message)
        raise


def refuse_transaction_pooler(dsn: str) -> None:
    """Raises EngineError where each transaction gets a session of somebody else's: what the engine sets in a session
    would stay in it for the application, and its locks would be let go behind its back.

    One connection asks which session it has, before and while others keep a transaction open each, which a pooler has
    to give a session of its own: two of them, because one that gives its sessions in turn may have the first one's left
    beside one. Nothing is set in any, since it may be the application's.
    """
    with _plain(dsn) as ours, ExitStack() as others:
        before = _answer(_asked(ours, _WHICH_SESSION))
        again = before
        for _ in range(2):
            other = others.enter_context(_plain(dsn))
            held = _answer(_asked(other, b"BEGIN; " + _WHICH_SESSION))
            if before is None or held is None:
                raise unavailable(_SILENT)
            again = _answer(_asked(ours, _WHICH_SESSION))
            if again != before:
                break
        if again is None:
            # A pool of few sessions answers as soon as they are let go; a server that is merely slow is no pool.
            others.close()
            if _answer(ours) is None:
                raise unavailable(_SILENT)
        if again != before:
            message = (
                "the address leads through a pooler that gives each transaction another session (such as PgBouncer with"
                " pool_mode=transaction): what the engine sets would stay in sessions of the application, and its locks"
                " would be lost. Give the engine the address of the server itself, or of a pool with pool_mode=session"
            )
            raise unavailable(message, Reason.TRANSACTION_POOLER)


@contextmanager
def _plain(dsn: str) -> Iterator[Connection]:
    """A connection in which nothing is set."""
    connection = psycopg.connect(dsn, autocommit=True, connect_timeout=CONNECT_SECONDS)
    try:
        yield connection
    finally:
        connection.close()


def _asked(connection: Connection, query: bytes) -> Connection:
    """The same, with its answer on the way."""
    connection.pgconn.send_query(query)
    connection.pgconn.flush()
    return connection


def _answer(connection: Connection) -> str | None:
    """The last value of what was asked; None without one in time. Raises psycopg.Error for what the server refuses."""
    asked, until = connection.pgconn, time.monotonic() + ANSWER_SECONDS
    last: str | None = None
    while True:
        while asked.is_busy():
            watch = select.poll()
            watch.register(asked.socket, select.POLLIN)
            if not watch.poll(max(0.0, until - time.monotonic()) * 1000):
                return None
            asked.consume_input()
        result = asked.get_result()
        if result is None:
            return last
        if result.error_message:
            raise psycopg.OperationalError(result.error_message.decode(errors="replace").strip())
        if result.ntuples:
            found = result.get_value(0, 0)
            last = None if found is None else found.decode()


def _refuse_standby(connection: Connection) -> None:
    if value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        message = (
            "the server is a standby, on which nothing can be written: give the engine the address of the primary, or"
            " several with target_session_attrs=read-write; a standby that is promoted is taken as it is"
        )
        raise unavailable(message)
