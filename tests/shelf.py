"""Migrated databases that are used again: making one takes a quarter of a second, emptying one some milliseconds.

A test gets a database without a row, with sequences at their start and the real clock. One whose schema a test has
touched, or that has served often enough to be bloated, is thrown away.
"""

import contextlib
import secrets
from collections.abc import Iterator

import psycopg

from tern.local.discovery import Servers
from tern.local.postgres import drop_database, ensure_database
from tern.store.schema import migrate
from tern.store.session import connect

_MOST_USES = 60

# A row of the catalogue that is changed gets a newer xmin, one that is gone is missing in the count. The clock is left
# out: nearly every test sets it, and it is set back below.
_SCHEMA = """
SELECT string_agg(part, ' ') FROM (
    SELECT 'relations ' || count(*) || '/' || max(xmin::text::bigint)
      FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'columns ' || count(*) || '/' || max(a.xmin::text::bigint)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'defaults ' || count(*) || '/' || max(xmin::text::bigint) FROM pg_attrdef
    UNION ALL SELECT 'constraints ' || count(*) || '/' || max(xmin::text::bigint) FROM pg_constraint
    UNION ALL SELECT 'triggers ' || count(*) || '/' || max(xmin::text::bigint) FROM pg_trigger
    UNION ALL SELECT 'functions ' || count(*) || '/' || max(xmin::text::bigint)
      FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname <> 'tern_clock'
    UNION ALL SELECT 'schemas ' || count(*) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 'settings ' || count(*) FROM pg_db_role_setting s
      JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
) AS parts (part)
"""
_LET_GO = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""
# Without triggers: neither what refuses to delete a record nor a foreign key's order has a say.
_EMPTY = """
DO $$
DECLARE
    name text;
    has_rows boolean;
BEGIN
    SET LOCAL session_replication_role = replica;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM public.%I)', name) INTO has_rows;
        IF has_rows THEN
            EXECUTE format('DELETE FROM public.%I', name);
        END IF;
    END LOOP;
    PERFORM setval(format('public.%I', sequencename), start_value, false)
       FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL;
END $$
"""


class Shelf:
    """The migrated databases of one test process."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._free: list[str] = []
        self._uses: dict[str, int] = {}
        self._schemas: dict[str, str] = {}
        self._clock = ""

    @contextlib.contextmanager
    def lend(self) -> Iterator[str]:
        """The address of an empty, migrated database, until the end of the block."""
        url = self._free.pop() if self._free else self._make()
        yield url
        # A test may have killed the server, or locked what nobody can empty then.
        with contextlib.suppress(psycopg.Error):
            if self._take_back(url):
                self._free.append(url)
                return
            drop_database(url)

    def _make(self) -> str:
        url = self._servers.database(f"migrated_{secrets.token_hex(4)}")
        ensure_database(url)
        database = connect(url, pool_size=1)
        migrate(database)
        database.dispose()
        with psycopg.connect(url, autocommit=True) as connection:
            self._schemas[url] = _only(connection, _SCHEMA)
            self._clock = _only(connection, "SELECT pg_get_functiondef('tern_clock()'::regprocedure)")
        self._uses[url] = 0
        return url

    def _take_back(self, url: str) -> bool:
        """Whether it is as it was made, and empty."""
        self._uses[url] += 1
        if self._uses[url] >= _MOST_USES:
            return False
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_LET_GO)
            if _only(connection, _SCHEMA) != self._schemas[url]:
                return False
            connection.execute(_EMPTY)
            connection.execute(self._clock.encode())
        return True


def _only(connection: psycopg.Connection, statement: str) -> str:
    found = connection.execute(statement.encode()).fetchone()
    assert found is not None
    return str(found[0])
