"""The PostgreSQL engine in the storm, with a target database of its own, an application at work in it, and a ledger of
every statement that changed it: an event trigger that Tern can't see.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psycopg

from tern.domain.model import Capabilities, Deployment
from tern.local import postgres
from tests.faults.history import Asked, Done
from tests.faults.place import Place

ROWS = 20_000
PAUSE_S = 0.05
"""Between two rows of the application."""

_TARGET = """
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount integer NOT NULL);
INSERT INTO orders (amount) SELECT n % 997 FROM generate_series(1, {rows}) n;
CREATE SCHEMA watched;
CREATE TABLE watched.ddl (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), tag text NOT NULL, said text NOT NULL);
CREATE FUNCTION watched.note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO watched.ddl (tag, said) SELECT command_tag, current_query()
    FROM pg_event_trigger_ddl_commands() WHERE schema_name = 'public' LIMIT 1;
END $$;
CREATE EVENT TRIGGER watched ON ddl_command_end EXECUTE FUNCTION watched.note();
"""
_APPLIED = (
    "SELECT j.id, j.operation, k.key, extract(epoch FROM j.created_at)::float FROM _tern.job j"
    " LEFT JOIN _tern.dispatch_key k ON k.job = j.id ORDER BY j.num"
)
_FORBIDDEN = "SELECT key, extract(epoch FROM created_at)::float FROM _tern.dispatch_key WHERE forbidden"
_MOVED = (
    "SELECT e.job, j.operation, e.old_state, e.new_state, extract(epoch FROM e.created_at)::float"
    " FROM _tern.event e JOIN _tern.job j ON j.id = e.job WHERE e.event_type = 'state_changed' ORDER BY e.id"
)
_SHOWN = (
    "SELECT attname FROM pg_attribute WHERE attrelid = 'orders'::regclass AND attname LIKE 'note_%'"
    " AND NOT attisdropped"
    " UNION ALL SELECT relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid"
    " WHERE i.indrelid = 'orders'::regclass AND relname LIKE 'note_%' AND i.indisvalid"
)
_BROKEN = "SELECT count(*) FROM pg_index WHERE indrelid = 'orders'::regclass AND NOT indisvalid"


class RealPlace(Place):
    """`tern engine serve` on one database of the cluster that the storm shuts down, freezes and cuts off."""

    def __init__(self, name: str, folder: Path, database: Callable[[str], str]) -> None:
        super().__init__(name, folder)
        self.dsn = database(f"target_{name}")
        postgres.ensure_database(self.dsn)
        with psycopg.connect(self.dsn) as connection:
            connection.execute(_TARGET.format(rows=ROWS))
        self.application = Application(self.dsn)

    @property
    def names(self) -> Sequence[str]:
        return [f"{self.name}-0"]

    def command(self, port_file: Path) -> Sequence[str]:
        return [
            *(sys.executable, "-W", "ignore", "-m", "tern", "engine", "serve"),
            *("--listen", f"127.0.0.1:{self.port}", "--port-file", str(port_file)),
            *("--environment", "test", "--database", "shop", "--target", self.names[0]),
        ]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "TERN_ENGINE_DSN": self.dsn}

    def deployment(self, name: str, position: int) -> Deployment:
        return Deployment(
            name=name,
            environment="test",
            database="shop",
            address=self.address,
            target=name,
            position=position,
            capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
            idempotent_dispatch=True,
        )

    def told(self) -> tuple[list[Asked], list[Done]]:
        """Its own books, which are written in the transactions that do what they say. It writes down no calls."""
        done: list[Done] = []
        with psycopg.connect(self.dsn) as connection:
            for job, operation, key, at in connection.execute(_APPLIED):
                done.append(Done(at, self.name, "apply", job, key or "", operation))
            for key, at in connection.execute(_FORBIDDEN):
                done.append(Done(at, self.name, "forbid", "", key, ""))
            for job, operation, before, after, at in connection.execute(_MOVED):
                if (kind := _kind(before, after)) is not None:
                    done.append(Done(at, self.name, kind, job, "", operation))
        return [], done

    def complaints(self, changes: Mapping[str, str]) -> Iterator[str]:
        """What the target's own catalogue and its ledger say against it.

        changes: how the operation ended that was to bring each name into the target.
        """
        with psycopg.connect(self.dsn) as connection:
            shown = Counter(name for (name,) in connection.execute(_SHOWN))
            said = [words for (words,) in connection.execute("SELECT said FROM watched.ddl")]
            broken = connection.execute(_BROKEN).fetchone()
            there = {number for (number,) in connection.execute("SELECT id FROM orders")}
        for name, state in changes.items():
            executed = sum(f" {name} " in f"{words} ".replace('"', "").replace(";", " ") for words in said)
            if (shown[name] == 1) != (state == "completed"):
                yield f"D: {name} is {state}, and {self.name} shows it {shown[name]} times"
            if executed > 1:
                yield f"S1: the statement of {name} took effect {executed} times in {self.name}"
        yield from (
            f"D4: {name} is in {self.name}, and nobody asked for it" for name in shown.keys() - changes.keys()
        )
        if broken is not None and broken[0]:
            yield f"D4: {broken[0]} broken indexes are left in {self.name}"
        if lost := self.application.acknowledged - there:
            yield f"D1: {len(lost)} rows that the application had committed are gone from {self.name}"


def _kind(before: str, after: str) -> str | None:
    match before, after:
        case _, "stopped":
            return "stop"
        case _, "cancelled":
            return "cancel"
        case "stopped", "running":
            return "start"
        case "waiting_for_cutover", "cutting_over" | "completed":
            return "cutover"
        case _:
            return None


class Application:
    """Writes rows all the time, and remembers which of them were committed for certain."""

    def __init__(self, dsn: str) -> None:
        self.acknowledged: set[int] = set()
        self._dsn = dsn
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more rows."""
        self._ends.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ends.wait(PAUSE_S):
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=5) as connection:
                    while not self._ends.wait(PAUSE_S):
                        row = connection.execute(
                            "INSERT INTO orders (amount) VALUES (7) RETURNING id"
                        ).fetchone()
                        assert row is not None
                        self.acknowledged.add(row[0])
            except psycopg.OperationalError:
                continue
