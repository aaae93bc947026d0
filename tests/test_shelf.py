"""Databases that are lent again: empty, with their own clock, and never one whose schema was touched."""

import psycopg
import pytest

from tern.local.discovery import Servers
from tests.shelf import Shelf

ROW = "INSERT INTO deployments (name, environment, database, address, target) VALUES ('A', 'e', 'd', 'grpc://h:1', 't')"
CLOCK = (
    "CREATE OR REPLACE FUNCTION tern_clock() RETURNS timestamptz LANGUAGE sql"
    " AS $$ SELECT now() - interval '1 year' $$"
)


@pytest.fixture
def shelf(postgres_server: Servers) -> Shelf:
    return Shelf(postgres_server)


def number_of(url: str, question: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(question.encode()).fetchone()
        assert row is not None
        return int(row[0])


def test_rows_sequences_and_the_clock_are_as_in_a_new_one(shelf: Shelf) -> None:
    with shelf.lend() as first, psycopg.connect(first, autocommit=True) as connection:
        before = number_of(first, "SELECT nextval('applies_id_seq')")
        connection.execute(ROW)
        connection.execute(CLOCK)
        # Left open on purpose: whoever still holds a connection loses it.
    with shelf.lend() as second:
        assert second == first
        assert number_of(second, "SELECT count(*) FROM deployments") == 0
        assert number_of(second, "SELECT nextval('applies_id_seq')") == before
        assert number_of(second, "SELECT abs(extract(epoch FROM tern_clock() - clock_timestamp()))::int") == 0


@pytest.mark.parametrize(
    "touch",
    [
        "CREATE TABLE mine (a int)",
        "DROP TRIGGER {trigger} ON apply_operations",
        "ALTER TABLE apply_operations DISABLE TRIGGER {trigger}",
        "ALTER TABLE applies ALTER COLUMN state SET DEFAULT 'pending'",
        "ALTER TABLE applies ADD CONSTRAINT mine CHECK (true)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER DATABASE {database} SET work_mem = '1MB'",
    ],
)
def test_one_whose_schema_was_touched_is_not_lent_again(shelf: Shelf, touch: str) -> None:
    with shelf.lend() as first, psycopg.connect(first, autocommit=True) as connection:
        trigger = connection.execute(
            "SELECT tgname FROM pg_trigger WHERE tgrelid = 'apply_operations'::regclass AND NOT tgisinternal LIMIT 1"
        ).fetchone()
        assert trigger is not None
        connection.execute(touch.format(trigger=trigger[0], database=connection.info.dbname).encode())
    with shelf.lend() as second:
        assert second != first
