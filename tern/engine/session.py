"""Connections to the target database: who they say they are, and after how long they give up.

The session's TimeZone, DateStyle and the like stay those of the role and database: a literal in a statement must
mean here what it would mean if the owner ran the statement by hand.
"""

from typing import Any

import psycopg
import psycopg.conninfo
from psycopg.rows import TupleRow, dict_row

Row = dict[str, Any]
Connection = psycopg.Connection[TupleRow]

# A server that is alive answers a connection attempt within this; libpq counts in whole seconds.
CONNECT_SECONDS = 5
# The engine's own small statements (its tables, the catalogue). Long statements lift this for themselves.
STATEMENT_MS = 10_000
LOCK_MS = 3_000
# The server looks this often whether a client whose statement runs is still there, and frees its locks if not.
CLIENT_CHECK_MS = 5_000
MINIMUM_VERSION = 140_000
NAME_PREFIX = "tern"


def application_name(job: str, role: str) -> str:
    """The name under which a job's connection is found in pg_stat_activity, after a crash too."""
    return f"{NAME_PREFIX}:{job}:{role}"


def is_readable(dsn: str) -> bool:
    """Whether libpq reads it as it was meant. What it says about one that it can't read quotes the password; and an @
    or a / in a password makes the rest of it a host or a port, which is told when it can't be found.
    """
    try:
        found = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        return False
    hosts, ports = str(found.get("host") or ""), str(found.get("port") or "")
    return "@" not in hosts and all(not port or port.isdecimal() for port in ports.split(","))


def connect(
    dsn: str,
    job: str,
    role: str,
    *,
    survives_client: bool = False,
) -> Connection:
    """Opens an autocommit connection with a limit on everything.

    `survives_client` is for CREATE INDEX CONCURRENTLY: after a kill -9 the server goes on building, the next
    engine waits for it, and an hour of work is not thrown away.
    """
    connection = psycopg.connect(
        dsn,
        autocommit=True,
        application_name=application_name(job, role),
        connect_timeout=CONNECT_SECONDS,
        keepalives=1,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        # Half a minute without an acknowledgement ends a connection whose peer vanished in the middle of a send.
        tcp_user_timeout=30_000,
    )
    try:
        settle(connection, client_check_ms=0 if survives_client else CLIENT_CHECK_MS)
    except BaseException:
        connection.close()
        raise
    return connection


def settle(connection: Connection, *, client_check_ms: int = CLIENT_CHECK_MS) -> None:
    """Gives a fresh connection our settings, in one round trip."""
    settings = {
        "statement_timeout": str(STATEMENT_MS),
        "lock_timeout": str(LOCK_MS),
        "idle_in_transaction_session_timeout": "30000",
        "client_connection_check_interval": str(client_check_ms),
        # A machine that vanishes without a word must not keep a job's lock for the two hours that are the default.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        # Nothing of the application's may be found by an unqualified name of ours.
        "search_path": "pg_catalog, pg_temp",
        "row_security": "off",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        # Whatever we report as done must survive a power cut, whatever the role's default is.
        "synchronous_commit": "on",
        "client_min_messages": "warning",
    }
    connection.execute(
        "SELECT pg_catalog.set_config(name, value, false)"
        "  FROM unnest(%s::text[], %s::text[]) AS wanted(name, value)",
        (list(settings), list(settings.values())),
    )


def set_local(connection: Connection, **settings: str | int) -> None:
    """Changes settings until the end of the transaction."""
    for name, value in settings.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, str(value)))


def rows(connection: Connection, query: str, parameters: Any = None) -> list[Row]:
    """All rows of a query, as dictionaries."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


def row(connection: Connection, query: str, parameters: Any = None) -> Row | None:
    """The first row of a query, or None."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, parameters).fetchone()


def value(connection: Connection, query: str, parameters: Any = None) -> Any:
    """The first column of the first row, or None without a row."""
    found = connection.execute(query, parameters).fetchone()
    return None if found is None else found[0]
