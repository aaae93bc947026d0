"""The demo's target databases: filled by pgbench, changed by Tern, and asked what they look like then.

pgbench makes its tables in a fixed order and their primary keys last, so a filling that was interrupted
shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from tern.local.discovery import Servers
from tern.local.postgres import drop_database, ensure_database, postgres_program
from tern.local.supervisor import Program, Running, Supervisor

ROWS_PER_SCALE = 100_000
COLUMN = "tier"
INDEX = "pgbench_accounts_by_tier"
CHECK = "pgbench_accounts_tier_known"

# One reviewed change: a column with a default, an index built beside the traffic, a constraint that is
# validated.
CHANGE = f"""\
ALTER TABLE pgbench_accounts ADD COLUMN {COLUMN} smallint NOT NULL DEFAULT 1;
CREATE INDEX CONCURRENTLY {INDEX} ON pgbench_accounts ({COLUMN}, abalance);
ALTER TABLE pgbench_accounts ADD CONSTRAINT {CHECK} CHECK ({COLUMN} BETWEEN 1 AND 5);
"""

# What a kept demo offers to try: it takes long enough to be stopped on its way.
MORE_INDEXES = ("pgbench_accounts_more_1", "pgbench_accounts_more_2", "pgbench_accounts_more_3")
ANOTHER_CHANGE = "".join(
    f"CREATE INDEX CONCURRENTLY {name} ON pgbench_accounts (filler, {column});\n"
    for name, column in zip(MORE_INDEXES, ("aid", "bid", "abalance"), strict=True)
)

TAKE_BACK = f"""\
DROP INDEX IF EXISTS {", ".join((INDEX, *MORE_INDEXES))};
ALTER TABLE pgbench_accounts DROP CONSTRAINT IF EXISTS {CHECK};
ALTER TABLE pgbench_accounts DROP COLUMN IF EXISTS {COLUMN};
"""

IS_FILLED = """
SELECT (SELECT count(*) FROM pgbench_branches) = %(scale)s
   AND EXISTS (SELECT FROM pg_constraint WHERE contype = 'p' AND conrelid = 'pgbench_accounts'::regclass)
"""

HAS_CHANGE = f"""
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'pgbench_accounts'::regclass AND attname = '{COLUMN}')
    OR EXISTS (SELECT FROM pg_class WHERE oid IN (SELECT indexrelid FROM pg_index
                WHERE indrelid = 'pgbench_accounts'::regclass AND NOT indisprimary))
"""

COLUMN_FACT = f"""
SELECT format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attrelid = 'pgbench_accounts'::regclass AND attname = '{COLUMN}' AND NOT attisdropped
"""

INDEX_FACT = f"""
SELECT pg_get_indexdef(indexrelid), indisvalid AND indisready FROM pg_index WHERE indexrelid =
to_regclass('{INDEX}')
"""

CHECK_FACT = f"""
SELECT pg_get_constraintdef(oid), convalidated FROM pg_constraint
 WHERE conname = '{CHECK}' AND conrelid = 'pgbench_accounts'::regclass
"""


@dataclass(frozen=True)
class Catalogue:
    """What a target's own catalogue says about the change, in words; None where it knows nothing of it."""

    rows: int
    column: str | None
    index: str | None
    check: str | None

    @property
    def shows_the_change(self) -> bool:
        """True if all three parts are there and finished."""
        return None not in (self.column, self.index, self.check)


def start_filling(
    servers: Servers, names: Sequence[str], scale: int, programs: Supervisor
) -> Sequence[Running]:
    """Starts filling the named databases with pgbench's tables, all at once; full ones are left alone."""
    empty = [name for name in names if not _is_filled(servers.database(name), scale)]
    for name in empty:
        # What an interrupted run left, or another scale.
        drop_database(servers.database(name))
        ensure_database(servers.database(name))
    return [programs.start(_filling(servers, name, scale)) for name in empty]


def take_back(url: str) -> bool:
    """Removes the demo's change, so that the next run has something to do; True if it was there."""
    with psycopg.connect(url) as connection:
        row = connection.execute(HAS_CHANGE).fetchone()
        if row is None or not row[0]:
            return False
        connection.execute(TAKE_BACK)
    return True


def read_catalogue(url: str) -> Catalogue:
    """Asks the target itself, past Tern."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT count(*) FROM pgbench_accounts").fetchone()
        column = connection.execute(COLUMN_FACT).fetchone()
        index = connection.execute(INDEX_FACT).fetchone()
        check = connection.execute(CHECK_FACT).fetchone()
    column_words = None
    if column is not None:
        kind, is_required, default = column
        column_words = f"{COLUMN} {kind}{' NOT NULL' if is_required else ''} DEFAULT {default}"
    return Catalogue(
        rows=rows[0] if rows else 0,
        column=column_words,
        index=f"{index[0]}, valid" if index and index[1] else None,
        check=f"{CHECK} {check[0]}, validated" if check and check[1] else None,
    )


def _is_filled(url: str, scale: int) -> bool:
    ensure_database(url)
    try:
        with psycopg.connect(url) as connection:
            row = connection.execute(IS_FILLED, {"scale": scale}).fetchone()
    except psycopg.errors.UndefinedTable:
        return False
    return row is not None and bool(row[0])


def _filling(servers: Servers, name: str, scale: int) -> Program:
    url = servers.database_without_password(name)
    return Program(
        f"pgbench-{name}",
        [str(postgres_program("pgbench")), "--initialize", "--quiet", f"--scale={scale}", url],
        env={"PGPASSWORD": servers.password},
        ends=True,
    )
