"""An application that goes on working: a writer with a book of its own, and a reader who never looks away."""

import threading
import time
from collections.abc import Callable
from typing import Any, Self

import psycopg

READ_EVERY_S = 0.005
WRITE_EVERY_S = 0.003
BEARABLE = "5s"
"""Longer than any engine makes anybody wait (D5): half a second for a lock, and four for what it does under it."""

LEFTOVERS = {
    "an invalid index": "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready",
    "a constraint of ours": "SELECT conname FROM pg_constraint WHERE conname LIKE '\\_tern%'",
    "a copy": "SELECT nspname FROM pg_namespace WHERE nspname LIKE '\\_tern\\_%'",
    "a second job": "SELECT id FROM _tern.job OFFSET 1",
    "a job that is not over": "SELECT id FROM _tern.job WHERE completed_at IS NULL",
    "a step that is not over": "SELECT n::text FROM _tern.step JOIN _tern.job ON id = job"
    " WHERE status NOT IN ('done', 'undone') AND state = 'completed'",
    "a table that is held": "SELECT table_name FROM _tern.tbl WHERE active",
    "a session": "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name LIKE 'tern:job%'",
    "an advisory lock": "SELECT objid::text FROM pg_locks WHERE locktype = 'advisory'"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
}
"""What should not be there any more, each with the question that finds it."""


class Load:
    """On table t, which keeps its columns id, a, b and parent_id. Errors of either are violations."""

    def __init__(self, dsn: str, *, bearable: str = BEARABLE) -> None:
        self._dsn = dsn
        self._bearable = bearable
        self._stop = threading.Event()
        self.errors: list[str] = []
        self.book: dict[int, str] = {}
        self.shapes: list[tuple[str, ...]] = []
        self.writes = self.reads = 0
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__)
            for work in (self._write, self._read)
        ]

    def __enter__(self) -> Self:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            self.book.update(connection.execute("SELECT id, b FROM t").fetchall())
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def violations(self) -> list[str]:
        """D1, D3 and D5, once it has ended."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            held = dict(connection.execute("SELECT id, b FROM t").fetchall())
        found = list(self.errors)
        if held != self.book:
            odd = sorted(key for key in held.keys() | self.book.keys() if held.get(key) != self.book.get(key))
            found.append(f"D1: rows {odd[:10]} are not what was acknowledged")
        changes = [
            shape
            for number, shape in enumerate(self.shapes)
            if number == 0 or shape != self.shapes[number - 1]
        ]
        if len(changes) != len(set(changes)):
            found.append(f"D3: versions of the table came back: {changes}")
        if not self.writes or not self.reads:
            found.append(f"the application did nothing: {self.writes} writes, {self.reads} reads")
        return found

    def _guarded(self, work: Callable[[psycopg.Connection[Any]], None]) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None) as connection:
                connection.execute(f"SET lock_timeout = '{self._bearable}'")
                work(connection)
        except psycopg.Error as error:
            self.errors.append(f"{work.__name__} (D1, D3 or D5): {error}")

    def _write(self, connection: psycopg.Connection[Any]) -> None:
        number = 1_000_000
        mine: list[int] = []
        while not self._stop.is_set():
            number += 1
            row = connection.execute(
                "INSERT INTO t (a, b, parent_id) VALUES (%s, %s, 1) RETURNING id", (number, f"b{number}")
            ).fetchone()
            assert row is not None
            self.book[row[0]] = f"b{number}"
            mine.append(row[0])
            if number % 3 == 0:
                connection.execute("UPDATE t SET b = %s WHERE id = %s", (f"c{number}", mine[len(mine) // 2]))
                self.book[mine[len(mine) // 2]] = f"c{number}"
            if number % 5 == 0:
                gone = mine.pop(0)
                connection.execute("DELETE FROM t WHERE id = %s", (gone,))
                del self.book[gone]
            self.writes += 1
            time.sleep(WRITE_EVERY_S)

    def _read(self, connection: psycopg.Connection[Any]) -> None:
        while not self._stop.is_set():
            cursor = connection.execute("SELECT * FROM t ORDER BY a LIMIT 3")
            names = tuple(column.name for column in cursor.description or ())
            if len(cursor.fetchall()) != 3 or not {"id", "a", "b", "parent_id"} <= set(names):
                self.errors.append(f"D3: the reader saw {names}")
            if not self.shapes or self.shapes[-1] != names:
                self.shapes.append(names)
            self.reads += 1
            time.sleep(READ_EVERY_S)


def left_behind(dsn: str) -> list[str]:
    """D4, once every engine has left."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        # A session that was told to end may take a moment to be gone.
        deadline = time.monotonic() + 10
        while connection.execute(LEFTOVERS["a session"].encode()).fetchall() and time.monotonic() < deadline:
            time.sleep(0.05)
        return [
            f"D4: {what}: {row[0]}"
            for what, question in LEFTOVERS.items()
            for row in connection.execute(question.encode()).fetchall()
        ]
