"""Tern's database as a run has it: one connection, the run's clock in every transaction, and few journeys.

Each journey to the server costs two changes of process, which is more than most statements of a run. So BEGIN and the
clock travel with a transaction's first statement, and COMMIT with whatever comes next; nobody else looks in between.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from tern.store.database import Database
from tern.store.sql import Connection, Result, Row, Statement, text
from tests.simulation.clock import Clock

SCHEMA = """
CREATE OR REPLACE FUNCTION tern_clock() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
    AS $$ SELECT to_timestamp(current_setting('tern.now')::float8) $$;
CREATE FUNCTION public.random() RETURNS float8 LANGUAGE sql AS $$ SELECT 0.5::float8 $$;
CREATE FUNCTION public.written_so_far() RETURNS bigint LANGUAGE sql AS $$
    SELECT sum(pg_stat_get_xact_tuples_inserted(oid) + pg_stat_get_xact_tuples_updated(oid)
        + pg_stat_get_xact_tuples_deleted(oid))::bigint
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' $$;
"""
"""No chance, no clock but the run's, and a count of written rows of which only a difference means something."""

_COUNT = text("SELECT written_so_far()")


class SimDatabase(Database):
    """A pool of one. `clock` is the present run's; `counts` lets each transaction say whether it wrote."""

    def __init__(self, url: str) -> None:
        super().__init__(url, pool_size=1)
        self.clock = Clock()
        self._ahead_s = 0.0
        self.counts = False
        self.transactions = 0
        self.wrote = False
        """Whether the last transaction changed a row; kept up to date only while `counts`."""
        self._server: psycopg.Connection[Any] | None = None
        self._is_uncommitted = False

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, as of any Database; whether its COMMIT succeeds is seen by the next one."""
        server = self._connected()
        self._set_ahead(server)
        self.transactions += 1
        tx = _Begun(self, server)
        try:
            with tx.ending():
                yield tx
                tx.count_again()
        except BaseException as error:
            self._take_back(server, error)
            raise
        self.wrote = tx.has_written()

    @contextmanager
    def single(self) -> Iterator[Connection]:
        """The same: here a transaction costs no journey."""
        with self.begin() as tx:
            yield tx

    def settle(self) -> None:
        """Commits what waits for it, so that other connections see it."""
        if self._is_uncommitted and self._server is not None:
            self._server.execute("COMMIT")
        self._is_uncommitted = False

    def dispose(self) -> None:
        """Closes the connection."""
        if self._server is not None:
            self.settle()
            self._server.close()
            self._server = None

    def open_with(self, tx: "_Begun") -> None:
        """What goes before the first statement of a transaction."""
        first = (b"COMMIT", b"BEGIN") if self._is_uncommitted else (b"BEGIN",)
        self._is_uncommitted = True
        # SET rather than set_config: that is a query, and before the first one the isolation level may be said.
        for command in (*first, f"SET LOCAL tern.now = '{self.clock.now!r}'".encode()):
            tx.server.wait(tx.server._exec_command(command))

    def _connected(self) -> psycopg.Connection[Any]:
        if self._server is None or self._server.closed:
            self._server, self._is_uncommitted, self._ahead_s = self.open(), False, 0.0
            self._server.autocommit = True
            self._server.prepared_max = None
            self._server.execute(
                "SELECT set_config('search_path', 'public, pg_catalog', false),"
                " set_config('idle_in_transaction_session_timeout', '0', false), set_config('tern.ahead', '0', false)"
            )
        return self._server

    def _set_ahead(self, server: psycopg.Connection[Any]) -> None:
        if self._ahead_s != self.clock.ahead_s:
            self.settle()
            self._ahead_s = self.clock.ahead_s
            server.execute("SELECT set_config('tern.ahead', %s, false)", (repr(self._ahead_s),))

    def _take_back(self, server: psycopg.Connection[Any], error: BaseException) -> None:
        self.wrote = self._is_uncommitted = False
        if isinstance(error, psycopg.Error):
            server.rollback()
        else:
            # psycopg's own would forget what is prepared, though nothing of it failed.
            server.pgconn.exec_(b"ROLLBACK")


class _Begun(Connection):
    """A transaction that begins with its first statement."""

    __slots__ = ("_after", "_before", "_database", "_has_begun", "server")

    def __init__(self, database: SimDatabase, server: psycopg.Connection[Any]) -> None:
        super().__init__(server)
        self._database = database
        self.server = server
        self._has_begun = False
        self._before: Result[Any] | None = None
        self._after: Result[Any] | None = None

    def execute(
        self, statement: Statement, values: Mapping[str, object] | Sequence[Mapping[str, object]] = {}
    ) -> Result[Row]:
        """See Connection."""
        if self._has_begun:
            return super().execute(statement, values)
        self._has_begun = True
        with self.together():
            self._database.open_with(self)
            if self._database.counts:
                self._before = self.run(_COUNT)
            return self.run(statement, values)

    def run(
        self, statement: Statement, values: Mapping[str, object] | Sequence[Mapping[str, object]] = {}
    ) -> Result[Any]:
        """A statement as it is."""
        return super().execute(statement, values)

    def count_again(self) -> None:
        """At the end."""
        if self._before is not None:
            self._after = self.run(_COUNT)

    def has_written(self) -> bool:
        """Whether a row was written meanwhile."""
        if self._before is None or self._after is None:
            return False
        return bool(self._before.scalar_one() != self._after.scalar_one())
