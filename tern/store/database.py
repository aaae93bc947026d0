"""The connections of one process to Tern's database: opened when first needed, kept, and given up when dead.

No connection is tried out before it is used: that would be a round trip for every step. One that its server has ended
says so by itself, since its socket has something to read while nobody asked for anything.
"""

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import psycopg
from psycopg import pq
from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresQuery
from psycopg.types.numeric import Int8Dumper

from tern.domain.errors import Misconfigured
from tern.store.sql import Connection

SERVER_SETTINGS = {
    "statement_timeout": "10s",
    "lock_timeout": "3s",
    # A frozen claimer holds its apply's lock; nobody may wait for it longer than this.
    "idle_in_transaction_session_timeout": "5s",
    # A killed worker's statement that waits for a lock would otherwise go on without it.
    "client_connection_check_interval": "5s",
    # Each statement here has one good plan, by its index, whatever the values are; to look for a better one each time
    # costs more than to run it. A new one is made when the statistics change.
    "plan_cache_mode": "force_generic_plan",
    # One that was made while the tables were small would read all of them, and be kept while they grow.
    "enable_seqscan": "off",
    # A bitmap is read to its end before its first row is handed on: where a few of a crowd are wanted, all of it.
    "enable_bitmapscan": "off",
}
_OVERFLOW = 4
_PATIENCE_S = 10.0
_PREPARED_AFTER = 3
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
_IDLE = pq.TransactionStatus.IDLE


class NoConnection(psycopg.OperationalError):
    """All connections of this process were in use for too long."""


def database_url(text: str) -> str:
    """Reads TERN_DATABASE_URL; raises Misconfigured for anything but a PostgreSQL address. No secret is echoed."""
    how = "Write it as postgresql://user@host:port/database."
    scheme, separator, rest = text.partition("://")
    plain = f"postgresql://{rest}"
    if separator and scheme not in _SCHEMES:
        message = f"TERN_DATABASE_URL names {scheme}, and Tern keeps its truth in PostgreSQL"
        raise Misconfigured(message, next_step=how)
    try:
        given = psycopg.conninfo.conninfo_to_dict(plain if separator else "://")
        int(given.get("port") or 0)
        # An @ in a password makes the rest of it a host, which would be told when it can't be found.
        is_readable = "@" not in str(given.get("host") or "")
    except (psycopg.Error, ValueError):
        is_readable = False
    if not is_readable:
        message = "TERN_DATABASE_URL is not a database address"
        raise Misconfigured(message, next_step=how)
    return plain


class _NamedByContent(PrepareManager):
    """Prepared statements whose name says what they are. A pooler in between may hand out a session that another
    process prepared statements in: under psycopg's own counted names it would run whatever that one has there.
    """

    def get(self, query: PostgresQuery, prepare: bool | None = None) -> tuple[Prepare, bytes]:  # noqa: FBT001
        found, name = super().get(query, prepare)
        if found is Prepare.SHOULD:
            name = b"tern_" + blake2b(repr(self.key(query)).encode(), digest_size=16).hexdigest().encode()
        return found, name


@dataclass(slots=True)
class _Kept:
    """A connection of the pool."""

    connection: psycopg.Connection[Any]
    generation: int

    def is_usable(self) -> bool:
        """Open, between transactions; and its server has not ended it, which would make it readable."""
        if self.connection.closed or self.connection.pgconn.transaction_status != _IDLE:
            return False
        watch = select.poll()
        watch.register(self.connection.pgconn.socket, select.POLLIN)
        return not watch.poll(0)


class Database:
    """A pool. The first connection is made by the first transaction; safe for all threads of a process.

    prepares: frequent statements are planned once a connection.
    """

    def __init__(self, url: str, *, pool_size: int = 8, name: str = "tern", prepares: bool = True) -> None:
        self.url = database_url(url)
        self.prepares = prepares
        self._name = name
        self._keeps = pool_size
        self._places = threading.BoundedSemaphore(pool_size + _OVERFLOW)
        self._lock = threading.Lock()
        self._idle: list[_Kept] = []
        self._generation = 0

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back when the block raises.

        Raises psycopg's errors.
        """
        with self._taken() as taken:
            tx = Connection(taken)
            with tx.ending():
                yield tx
                taken.commit()

    @contextmanager
    def single(self) -> Iterator[Connection]:
        """For a step that is one statement: a transaction of its own, without the way to BEGIN and to COMMIT."""
        with self._taken() as taken:
            taken.autocommit = True
            yield Connection(taken)
            taken.autocommit = False

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A transaction on a connection of the block's own, that is never committed."""
        connection = self.open()
        try:
            yield Connection(connection)
        finally:
            connection.close()

    def dispose(self) -> None:
        """Closes what is idle now, and what is in use when it is given back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for each in idle:
            each.connection.close()

    def plan_anew(self) -> None:
        """No statement is prepared any more: something between us and the server loses them."""
        self.prepares = False
        self.dispose()

    def open(self) -> psycopg.Connection[Any]:
        """A connection that is the caller's own. Raises psycopg.OperationalError."""
        made: psycopg.Connection[Any] = psycopg.connect(
            self.url,
            application_name=self._name,
            connect_timeout=5,
            options=" ".join(f"-c {key}={value}" for key, value in SERVER_SETTINGS.items()),
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=15_000,
        )
        made._prepared = _NamedByContent()  # noqa: SLF001 - there is no other way to name a statement
        made.prepare_threshold = _PREPARED_AFTER if self.prepares else None
        # One type for every number: otherwise the same statement is prepared again for 5, 50 000 and 5 000 000 000.
        made.adapters.register_dumper(int, Int8Dumper)
        return made

    @contextmanager
    def _taken(self) -> Iterator[psycopg.Connection[Any]]:
        if not self._places.acquire(timeout=_PATIENCE_S):
            message = f"no connection became free within {_PATIENCE_S:.0f} s"
            raise NoConnection(message)
        try:
            kept = self._newest() or _Kept(self.open(), self._generation)
            try:
                yield kept.connection
            except BaseException:
                self._end(kept)
                raise
            self._keep(kept)
        finally:
            self._places.release()

    def _newest(self) -> _Kept | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                kept = self._idle.pop()
            if kept.is_usable():
                return kept
            kept.connection.close()

    def _end(self, kept: _Kept) -> None:
        """After an error: what was begun is taken back, and a connection that can't even do that is given up."""
        try:
            kept.connection.rollback()
            kept.connection.autocommit = False
        except psycopg.Error:
            kept.connection.close()
        self._keep(kept)

    def _keep(self, kept: _Kept) -> None:
        with self._lock:
            if (
                len(self._idle) < self._keeps
                and kept.generation == self._generation
                and not kept.connection.closed
            ):
                self._idle.append(kept)
                return
        kept.connection.close()
