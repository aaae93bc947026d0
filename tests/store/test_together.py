"""Statements that are sent together: one journey, the same answers, and the same ends when one of them fails."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import errors

from tern.store.database import Database
from tern.store.session import connect
from tern.store.sql import Connection, text

_PLUS_ONE = text("SELECT CAST(:number AS bigint) + 1 AS next")
_KEEP = text("INSERT INTO kept (number) VALUES (:number) RETURNING number")
_KEPT = text("SELECT number FROM kept ORDER BY number")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = connect(database_url, pool_size=1)
    with made.begin() as tx:
        tx.execute(text("CREATE TABLE kept (number bigint PRIMARY KEY)"))
    yield made
    made.dispose()


def kept(database: Database) -> list[int]:
    with database.begin() as tx:
        return [row.number for row in tx.execute(_KEPT)]


def backend(database: Database) -> int:
    """The one server process behind the one connection of the pool."""
    with database.begin() as tx:
        return int(tx.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_hastened_transaction_keeps_what_it_wrote(database: Database) -> None:
    with database.begin() as tx:
        assert tx.execute(_PLUS_ONE, {"number": 1}).one().next == 2
        tx.hasten()
        written = [tx.execute(_KEEP, {"number": number}) for number in (1, 2)]
    assert [each.one().number for each in written] == [1, 2]
    assert kept(database) == [1, 2]


def test_an_answer_can_be_looked_at_before_the_end(database: Database) -> None:
    """A count too: that of a statement that was not sent yet would be -1, which reads like yes."""
    with database.begin() as tx:
        tx.execute(_PLUS_ONE, {"number": 1})
        tx.hasten()
        nothing = tx.execute(text("UPDATE kept SET number = 0 WHERE number = 7"))
        assert nothing.rowcount == 0
        assert tx.execute(_KEEP, {"number": 5}).one().number == 5
    assert kept(database) == [5]


def test_a_block_that_begins_the_transaction_can_be_hastened_after_it(database: Database) -> None:
    with database.begin() as tx:
        with tx.together():
            first, second = (tx.execute(_PLUS_ONE, {"number": number}) for number in (1, 2))
        assert (first.one().next, second.one().next) == (2, 3)
        tx.hasten()
        with tx.together():
            tx.execute(_KEEP, {"number": 3})
    assert kept(database) == [3]


def test_hastening_what_has_not_begun_loses_nothing(database: Database) -> None:
    with database.begin() as tx:
        tx.hasten()
        tx.execute(_KEEP, {"number": 4})
    assert kept(database) == [4]


def fails_when_read(tx: Connection) -> None:
    tx.execute(_KEEP, {"number": 1}).one()


def fails_at_commit(tx: Connection) -> None:
    tx.execute(_KEEP, {"number": 1})


def ends_its_server(tx: Connection) -> None:
    tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def fails_in_the_block(_: Connection) -> None:
    message = "of our own"
    raise RuntimeError(message)


def hastened(database: Database, end: Callable[[Connection], None]) -> None:
    """Something is written and put off; and then the end."""
    with database.begin() as tx:
        tx.execute(_PLUS_ONE, {"number": 1})
        tx.hasten()
        tx.execute(_KEEP, {"number": 2})
        end(tx)


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (fails_when_read, errors.UniqueViolation),
        (fails_at_commit, errors.UniqueViolation),
        (fails_in_the_block, RuntimeError),
    ],
)
def test_what_fails_is_rolled_back_whole_and_the_connection_serves_on(
    database: Database, end: Callable[[Connection], None], error: type[Exception]
) -> None:
    """The first error is the one that is raised, not that the rest was not tried; nobody waits for a ROLLBACK that a
    server in the middle of a pipeline does not hear.
    """
    with database.begin() as tx:
        tx.execute(_KEEP, {"number": 1})
    before = backend(database)
    with pytest.raises(error):
        hastened(database, end)
    assert kept(database) == [1]
    assert backend(database) == before


def test_a_connection_that_ends_in_the_middle_is_not_taken_again(database: Database) -> None:
    before = backend(database)
    with pytest.raises(psycopg.OperationalError):
        hastened(database, ends_its_server)
    assert kept(database) == []
    assert backend(database) != before
