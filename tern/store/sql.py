"""Statements and their rows: a thin way from a `:named` statement over psycopg to a row with attributes.

Why not SQLAlchemy's own execution: it costs more than PostgreSQL does (docs/performance.md), and a command that only
looks would load it for that. SQLAlchemy describes the tables and drives the migrations. Names are the same, so that
whoever knows the one reads the other.
"""

import re
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, Generic, Protocol, TypeVar, cast

import psycopg
from psycopg import pq
from psycopg.rows import dict_row, scalar_row

from tern.store.together import begin_together

RowMapping = Mapping[str, Any]
Found = TypeVar("Found")
_BIND = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
_BEGUN, _ONE_BY_ONE = pq.TransactionStatus.INTRANS, pq.PipelineStatus.OFF
_NO_VALUES: Mapping[str, object] = {}


class Row(Protocol):
    """One row: its columns are attributes."""

    def __getattr__(self, column: str) -> Any: ...
    def __getitem__(self, index: int) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


class Statement(Protocol):
    """SQL with `:name` where a value goes."""

    @property
    def text(self) -> str:
        """As it was written."""


class TextClause:
    """A statement, made ready for psycopg once."""

    __slots__ = ("sql", "text")

    def __init__(self, written: str) -> None:
        self.text = written
        self.sql = _BIND.sub(r"%(\1)s", written.replace("%", "%%")).replace("\\:", ":").encode()


@lru_cache(maxsize=1024)
def text(written: str) -> TextClause:
    """The statement; the same text is the same statement."""
    return TextClause(written)


@lru_cache(maxsize=512)
def _row_class(names: tuple[bytes, ...]) -> Callable[[Sequence[Any]], Any]:
    columns = tuple(name.decode() for name in names)
    base = namedtuple("Row", columns, rename=True)  # type: ignore[misc]  # noqa: PYI024 - columns are known at run time

    class Line(base):
        __slots__ = ()

        @property
        def _mapping(self) -> dict[str, Any]:
            return dict(zip(columns, self, strict=True))

    return partial(tuple.__new__, Line)


def _attribute_row(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Any]:
    # Not cursor.description, which describes types too, of forty columns for one that is read.
    found = cursor.pgresult
    if found is None or not found.nfields:
        return tuple
    return _row_class(tuple(found.fname(number) or b"" for number in range(found.nfields)))


class Result(Generic[Found]):
    """What a statement found. `one` and its kin count: a row too many is a bug, and raises LookupError."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    def __iter__(self) -> Iterator[Found]:
        return iter(self._cursor)

    @property
    def rowcount(self) -> int:
        """Rows that were found or written."""
        self._wait()
        return self._cursor.rowcount

    def _wait(self) -> None:
        # Among statements that are sent together this one may not have been sent yet; its count would be -1.
        self._cursor._fetch_pipeline()  # noqa: SLF001 - psycopg does so itself before it gives out rows

    def all(self) -> list[Found]:
        """Every row."""
        return self._cursor.fetchall()

    def first(self) -> Found | None:
        """The first row, or None."""
        return self._cursor.fetchone()

    def one_or_none(self) -> Found | None:
        """The only row, or None where there is none."""
        if self.rowcount > 1:
            message = f"one row was expected, {self._cursor.rowcount} came"
            raise LookupError(message)
        return self._cursor.fetchone()

    def one(self) -> Found:
        """The only row."""
        found = self.one_or_none()
        if found is None and self._cursor.rowcount != 1:
            message = "one row was expected, none came"
            raise LookupError(message)
        return cast("Found", found)

    def scalar_one_or_none(self) -> Any | None:
        """The first column of the only row, or None where there is no row."""
        return self.scalars().one_or_none()

    def scalar_one(self) -> Any:
        """The first column of the only row."""
        return self.scalars().one()

    def scalars(self) -> "Result[Any]":
        """The first column of each row."""
        self._cursor.row_factory = scalar_row
        return cast("Result[Any]", self)

    def mappings(self) -> "Result[dict[str, Any]]":
        """Each row as a mapping from its columns."""
        self._cursor.row_factory = dict_row
        return cast("Result[dict[str, Any]]", self)


class Connection:
    """A transaction under way, or a single statement of its own, on one connection."""

    __slots__ = ("_connection", "_ending", "afterwards")

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._ending: ExitStack | None = None
        self.afterwards: list[Callable[[], None]] = []

    def execute(
        self, statement: Statement, values: Mapping[str, object] | Sequence[Mapping[str, object]] = _NO_VALUES
    ) -> Result[Row]:
        """Runs one statement, once or for each of a list of values. A text made elsewhere (SQLAlchemy's) does too."""
        made = statement if isinstance(statement, TextClause) else text(statement.text)
        cursor = self._connection.cursor(row_factory=_attribute_row)
        if isinstance(values, Mapping):
            cursor.execute(made.sql, values)
        else:
            cursor.executemany(made.sql, values)
        return Result(cursor)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Sends the statements of the block one after the other without waiting for answers in between; the server runs
        each in a snapshot of its own, as ever. Results can be looked at after the block, which raises what any raised.
        """
        if self._connection.pgconn.pipeline_status != _ONE_BY_ONE:
            yield
            return
        begin_together(self._connection)
        with self._connection.pipeline():
            yield

    def hasten(self) -> None:
        """From here on statements are sent together with COMMIT, so that locks are held for one journey and not for
        one a statement. Results can be looked at once it is committed; to look earlier is no mistake, only slower.
        """
        server = self._connection.pgconn
        # Not before BEGIN is answered: psycopg takes what has not begun for something that needs no COMMIT.
        if self._ending and server.transaction_status == _BEGUN and server.pipeline_status == _ONE_BY_ONE:
            begin_together(self._connection)
            self._ending.enter_context(self._connection.pipeline())

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Whoever began the transaction ends it in this block."""
        with ExitStack() as self._ending:
            yield

    def stream(
        self, statement: Statement, values: Mapping[str, object], *, at_once: int
    ) -> Iterator[RowMapping]:
        """Rows as they are wanted, so many at a time, where all together would not fit into memory."""
        with self._connection.cursor(name="tern_stream", row_factory=dict_row) as cursor:
            cursor.itersize = at_once
            cursor.execute(text(statement.text).sql, values)
            yield from cursor
