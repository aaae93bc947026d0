"""Small questions to the catalogue: what depends on a table, what refers to it, which names are taken."""

from tern.engine.names import Name, numbered
from tern.engine.session import Connection, row, rows, value


def index_table(connection: Connection, index: Name) -> Name | None:
    """The table of an index; None if there is no such index."""
    found = row(
        connection,
        "SELECT n.nspname AS namespace, c.relname AS name FROM pg_index AS i"
        "  JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE i.indexrelid = to_regclass(%s)::oid",
        (index.sql(),),
    )
    return None if found is None else Name(**found)


def is_partition(connection: Connection, table: Name) -> bool:
    """Whether a table is a partition of another."""
    return bool(
        value(
            connection, "SELECT relispartition FROM pg_class WHERE oid = to_regclass(%s)::oid", (table.sql(),)
        )
    )


def exists(connection: Connection, relation: Name) -> bool:
    """Whether any relation bears that name."""
    return bool(value(connection, "SELECT to_regclass(%s) IS NOT NULL", (relation.sql(),)))


ESTIMATED_ROWS = "CASE WHEN reltuples >= 0 THEN reltuples::bigint ELSE pg_relation_size(oid) / 8192 * 60 END"
"""Of a row of pg_class: the server's own estimate; for a table that was never analysed, one from its size."""


def estimated_rows(connection: Connection, relation: Name) -> int:
    """How many rows it has, about."""
    found = value(
        connection,
        f"SELECT {ESTIMATED_ROWS} FROM pg_class WHERE oid = to_regclass(%s)::oid AND relkind IN ('r', 'm', 't')",
        (relation.sql(),),
    )
    return int(found or 0)


def foreign_keys(connection: Connection, table: Name) -> list[tuple[str, Name]]:
    """The foreign keys of a table and the tables that they refer to."""
    found = rows(
        connection,
        "SELECT f.conname AS key, n.nspname AS namespace, c.relname AS name FROM pg_constraint AS f"
        "  JOIN pg_class AS c ON c.oid = f.confrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE f.contype = 'f' AND f.conrelid = to_regclass(%s)::oid ORDER BY f.conname",
        (table.sql(),),
    )
    return [(each["key"], Name(each["namespace"], each["name"])) for each in found]


def referring(connection: Connection, table: Name) -> list[tuple[str, Name]]:
    """The foreign keys of other tables that refer to a table, and those tables."""
    found = rows(
        connection,
        "SELECT f.conname AS key, n.nspname AS namespace, c.relname AS name FROM pg_constraint AS f"
        "  JOIN pg_class AS c ON c.oid = f.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE f.contype = 'f' AND f.confrelid = to_regclass(%(table)s)::oid AND f.conrelid <> f.confrelid"
        " ORDER BY 2, 3, 1",
        {"table": table.sql()},
    )
    return [(each["key"], Name(each["namespace"], each["name"])) for each in found]


def neighbours(connection: Connection, table: Name, words: list[str]) -> list[Name]:
    """The tables at the other ends of foreign keys, in either direction, that involve one of the named columns or
    constraints of a table.
    """
    found = rows(
        connection,
        "WITH involved AS ("
        "  SELECT f.*, f.conrelid = to_regclass(%(table)s)::oid AS own FROM pg_constraint AS f"
        "   WHERE f.contype = 'f' AND to_regclass(%(table)s)::oid IN (f.conrelid, f.confrelid))"
        "SELECT DISTINCT n.nspname AS namespace, c.relname AS name FROM involved AS f"
        "  JOIN pg_class AS c ON c.oid = CASE WHEN f.own THEN f.confrelid ELSE f.conrelid END"
        "  JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE (f.own AND f.conname = ANY(%(words)s)) OR EXISTS (SELECT FROM pg_attribute AS a"
        "   WHERE a.attrelid = to_regclass(%(table)s)::oid AND a.attname = ANY(%(words)s)"
        "     AND a.attnum = ANY(CASE WHEN f.own THEN f.conkey ELSE f.confkey END))"
        " ORDER BY 1, 2",
        {"table": table.sql(), "words": words},
    )
    return [Name(**each) for each in found if Name(**each) != table]


def dependants(connection: Connection, table: Name, column: str | None = None) -> list[str]:
    """What a drop or a change of type of a table or column would break, in the server's words.

    Views, policies, functions with a body that the server tracks; not what belongs to the table itself.
    """
    found = rows(
        connection,
        "SELECT DISTINCT CASE WHEN d.classid = 'pg_rewrite'::regclass"
        "            THEN (SELECT pg_describe_object('pg_class'::regclass, ev_class, 0) FROM pg_rewrite"
        "                   WHERE oid = d.objid)"
        "            ELSE pg_describe_object(d.classid, d.objid, d.objsubid) END AS what"
        "  FROM pg_depend AS d"
        " WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass(%(table)s)::oid"
        "   AND d.deptype IN ('n', 'i')"
        "   AND d.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass, 'pg_proc'::regclass)"
        "   AND (%(column)s::text IS NULL OR d.refobjsubid = (SELECT attnum FROM pg_attribute"
        "        WHERE attrelid = to_regclass(%(table)s)::oid AND attname = %(column)s))"
        " ORDER BY 1",
        {"table": table.sql(), "column": column},
    )
    return [str(each["what"]) for each in found]


def row_type_users(connection: Connection, table: Name) -> list[str]:
    """Columns, functions and the like that use the table's row type."""
    found = rows(
        connection,
        "SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid) AS what FROM pg_depend AS d"
        "  JOIN pg_class AS c ON c.reltype = d.refobjid"
        " WHERE d.refclassid = 'pg_type'::regclass AND d.deptype = 'n' AND c.oid = to_regclass(%s)::oid ORDER BY 1",
        (table.sql(),),
    )
    return [str(each["what"]) for each in found]


def free_name(connection: Connection, wanted: str, namespace: str, *, is_relation: bool) -> str:
    """The name that the server would choose if the first one is taken in the real namespace."""
    number, name = 0, wanted
    while _is_taken(connection, name, namespace, is_relation=is_relation):
        number += 1
        name = numbered(wanted, number)
    return name


def _is_taken(connection: Connection, name: str, namespace: str, *, is_relation: bool) -> bool:
    constraint = value(
        connection,
        "SELECT EXISTS (SELECT FROM pg_constraint AS c JOIN pg_namespace AS n ON n.oid = c.connamespace"
        "                WHERE c.conname = %s AND n.nspname = %s)",
        (name, namespace),
    )
    return bool(constraint or (is_relation and exists(connection, Name(namespace, name))))
