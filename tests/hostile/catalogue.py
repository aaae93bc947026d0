"""All that a database is, as one fingerprint a catalogue: whatever is changed anywhere shows."""

from typing import Any

import psycopg
from psycopg import sql

# Written by the server for itself.
_OWN_BUSINESS = {"pg_statistic", "pg_statistic_ext_data", "pg_stat_activity"}
_COUNTERS = [
    "relpages", "reltuples", "relallvisible", "relallfrozen", "relfrozenxid", "relminmxid", "relhassubclass",
    "datfrozenxid", "datminmxid",
]  # fmt: skip
_RELATIONS = (
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'S') AND c.relpersistence = 'p'"
    " AND n.nspname !~ '^(pg_toast|pg_temp|information_schema)' ORDER BY 1, 2"
)


def fingerprint(connection: psycopg.Connection[Any], *, but: frozenset[str] = frozenset()) -> dict[str, str]:
    """Catalogues, tables and sequences by name, each with a digest of every row; `but` leaves schemas out."""
    found: dict[str, str] = {}
    for namespace, name in connection.execute(_RELATIONS).fetchall():
        if name in _OWN_BUSINESS or namespace in but:
            continue
        digest = connection.execute(
            sql.SQL(
                "SELECT coalesce(md5(string_agg(line, '' ORDER BY line)), '') FROM"
                " (SELECT (to_jsonb(r) - %s::text[])::text AS line FROM (SELECT * FROM {}) r) AS lines"
            ).format(sql.Identifier(namespace, name)),
            (_COUNTERS,),
        ).fetchone()
        found[f"{namespace}.{name}"] = str(digest[0]) if digest else ""
    return found


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is not the same any more."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
