"""Locks are asked for politely: bounded waits, blockers named, the application hardly delayed."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import psycopg
import pytest

from tern.engine.locks import LONGEST_BUDGET_MS, Blocker, Patience, blockers, in_the_way, lock_statements
from tern.engine.names import Name
from tern.engine.recipes.model import CONFLICTS, LockMode, TableLock
from tern.engine.session import connect

from .conftest import Database, Driver, eventually


def test_blockers_are_named_without_what_is_in_their_queries(
    db: Database, other: Database, driver: Driver, table: str
) -> None:
    other.execute("SET application_name = 'reports'")
    with other.transaction():
        other.execute("SELECT 'secret' FROM t WHERE id = 1")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int")
        seen = eventually(
            lambda: (p := driver.progress(job).tables[0]) and "reports" in p.progress_detail and p,
        )
        assert seen.status == "waiting_for_lock"
        assert f"pid {other.info.backend_pid}" in seen.progress_detail
        assert "secret" not in seen.progress_detail
        assert "SELECT $1 FROM t WHERE id = $2" in seen.progress_detail
        assert "idle in transaction" in seen.progress_detail
        assert f"to end it: SELECT pg_terminate_backend({other.info.backend_pid})" in seen.progress_detail
    driver.wait(job, "COMPLETED")


def test_readers_pass_while_an_old_transaction_blocks_the_change(
    database_url: str, db: Database, other: Database, driver: Driver, table: str
) -> None:
    """A queued exclusive lock would stop every reader; the engine must neither queue for long nor often."""
    slowest = 0.0
    with other.transaction():
        other.execute("SELECT FROM t LIMIT 1")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: driver.progress(job).tables[0].status == "waiting_for_lock")
        deadline = time.monotonic() + 3
        with psycopg.connect(database_url, autocommit=True) as reader:
            while time.monotonic() < deadline:
                began = time.monotonic()
                reader.execute("SELECT count(*) FROM t WHERE id < 10")
                slowest = max(slowest, time.monotonic() - began)
    driver.wait(job, "COMPLETED")
    assert slowest < LONGEST_BUDGET_MS / 1000 + 0.5


def test_an_attempt_waits_within_its_budget(
    db: Database, other: Database, driver: Driver, table: str
) -> None:
    """A young transaction is worth an attempt; it holds nobody up for longer than the budget."""
    waits: list[float] = []
    done = threading.Event()

    def follow() -> None:
        query = (
            "SELECT extract(epoch FROM clock_timestamp() - waitstart)::float8 FROM pg_locks"
            " WHERE relation = 't'::regclass AND NOT granted AND waitstart IS NOT NULL"
        )
        while not done.is_set():
            waits.extend(each[0] for each in db.execute(query).fetchall())

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        with other.transaction():
            other.execute("SELECT FROM t LIMIT 1")
            job = driver.apply("ALTER TABLE t ADD COLUMN k int")
            eventually(lambda: driver.progress(job).tables[0].status == "waiting_for_lock")
        driver.wait(job, "COMPLETED")
    finally:
        done.set()
        follower.join()
    assert max(waits, default=0.0) < LONGEST_BUDGET_MS / 1000 + 0.2


def test_budgets_double_up_to_a_limit_and_patience_never_ends() -> None:
    patience = Patience()
    budgets = []
    for _ in range(50):
        budgets.append(patience.budget_ms(LockMode.ACCESS_EXCLUSIVE))
        assert 0 < patience.pause() <= 60 * 1.3
    assert budgets[:4] == [50, 100, 200, 250]
    assert set(budgets[3:]) == {LONGEST_BUDGET_MS}


def test_a_foreign_key_waits_for_both_tables_within_one_budget(
    db: Database, other: Database, driver: Driver, table: str
) -> None:
    db.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    db.execute("INSERT INTO parent SELECT g FROM generate_series(1, 1000) AS g")
    with other.transaction():
        other.execute("INSERT INTO parent VALUES (2000)")
        job = driver.apply("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES parent")
        seen = eventually(
            lambda: (p := driver.progress(job).tables[0]) and "in the way" in p.progress_detail and p,
        )
        assert f"pid {other.info.backend_pid}" in seen.progress_detail
    driver.wait(job, "COMPLETED")
    assert db.execute("SELECT convalidated FROM pg_constraint WHERE conname = 't_a_fkey'").fetchone() == (
        True,
    )


ALL = [TableLock(Name("public", "t"), LockMode.ACCESS_EXCLUSIVE)]


def test_the_modes_that_conflict_are_the_server_s(db: Database, other: Database, table: str) -> None:
    """All sixty-four pairs, tried: a pair that is missing would let an attempt queue before every reader."""
    refused = set()
    for held, wanted in itertools.product(LockMode, LockMode):
        with other.transaction(force_rollback=True):
            other.execute(f"LOCK TABLE t IN {held.sql} MODE")
            try:
                with db.transaction(force_rollback=True):
                    db.execute(f"LOCK TABLE t IN {wanted.sql} MODE NOWAIT")
            except psycopg.errors.LockNotAvailable:
                refused.add((wanted, held))
    assert refused == {(wanted, held) for wanted, modes in CONFLICTS.items() for held in modes}


@pytest.fixture
def look(database_url: str) -> Iterator[Callable[[], list[Blocker]]]:
    """Who is in the way of an ACCESS EXCLUSIVE on t, as a session of the engine sees it."""
    with connect(database_url, "job", "test") as connection:
        yield lambda: blockers(connection, ALL)


def test_a_prepared_transaction_is_in_the_way(
    database_url: str, look: Callable[[], list[Blocker]], table: str
) -> None:
    """It has no session, no age and no end: an attempt against it can only fail, so none is made."""
    with psycopg.connect(database_url) as client:
        client.tpc_begin("two-phases")
        client.execute("UPDATE t SET a = 0 WHERE id = 1")
        client.tpc_prepare()
        try:
            found = look()
            (told,) = [str(each) for each in in_the_way(found)]
            assert told.startswith("a prepared transaction of ")
            assert told.endswith("to end it: ROLLBACK PREPARED 'two-phases'")
        finally:
            client.tpc_rollback()
    assert look() == []


def test_a_change_waits_behind_a_prepared_transaction(
    database_url: str, db: Database, driver: Driver, table: str
) -> None:
    """And says what it waits for; readers pass meanwhile, and it goes on when that is through."""
    with psycopg.connect(database_url) as client:
        client.tpc_begin("two-phases-of-a-shop")
        client.execute("UPDATE t SET a = 0 WHERE id = 1")
        client.tpc_prepare()
        try:
            job = driver.apply("ALTER TABLE t ADD COLUMN k int")
            told = eventually(
                lambda: (p := driver.progress(job).tables[0]) and "in the way" in p.progress_detail and p
            )
            assert "a prepared transaction" in told.progress_detail
            assert db.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,)
        finally:
            client.tpc_commit()
    driver.wait(job, "COMPLETED")


HOLDERS = {
    "reads": ("SELECT FROM t LIMIT 1", True),
    "writes": ("UPDATE t SET a = 0 WHERE id = 1", True),
    "locks rows": ("SELECT FROM t WHERE id = 1 FOR KEY SHARE", True),
    "locks the table": ("LOCK TABLE t IN SHARE MODE", True),
    "reads another table": ("SELECT FROM pg_class LIMIT 1", False),
    "takes an advisory lock": ("SELECT pg_advisory_xact_lock(1)", False),
}


@pytest.mark.parametrize("what", HOLDERS)
def test_every_kind_of_holder_is_counted(
    what: str, other: Database, look: Callable[[], list[Blocker]], table: str
) -> None:
    """While it runs and while it idles in its transaction; with its pid, and no longer than it holds."""
    statement, holds = HOLDERS[what]
    with other.transaction():
        other.execute(statement.encode())
        assert [each.pid for each in look()] == ([other.info.backend_pid] if holds else [])
    assert look() == []


def test_who_only_waits_holds_nothing(
    database_url: str, other: Database, look: Callable[[], list[Blocker]], table: str
) -> None:
    """The one in front is in the way, not the one behind it."""
    with psycopg.connect(database_url, autocommit=True) as waiter, other.transaction():
        other.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        waiter.execute("BEGIN")

        def wait() -> None:
            with suppress(psycopg.errors.QueryCanceled):
                waiter.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(
            lambda: other.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (1,)
        )
        assert [each.pid for each in look()] == [other.info.backend_pid]
        waiter.cancel_safe()
        thread.join()


def test_the_same_table_of_another_database_is_another_table(
    database_url: str, db: Database, look: Callable[[], list[Blocker]]
) -> None:
    """A database made from a template has the template's oids."""
    name = f"{db.info.dbname}_copy"
    admin = urlsplit(database_url)._replace(path="/postgres").geturl()
    db.execute("CREATE TABLE t (a int)")
    db.close()
    with psycopg.connect(admin, autocommit=True) as server:
        server.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
            (name.removesuffix("_copy"),),
        )
        server.execute(f"CREATE DATABASE {name} TEMPLATE {name.removesuffix('_copy')}")
        try:
            there = urlsplit(database_url)._replace(path=f"/{name}").geturl()
            with psycopg.connect(there) as holder, connect(database_url, "job", "test") as here:
                holder.execute("SELECT FROM t")
                assert blockers(here, ALL) == []
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_old_transaction_is_not_waited_for_and_a_young_one_is() -> None:
    def one(age_s: float | None, pid: int | None = 1) -> Blocker:
        return Blocker(pid, age_s, backend="client backend")

    found = [one(0.5), one(None), one(1.5), one(None, pid=None)]
    assert in_the_way(found) == [found[2], found[3]]


def test_tables_are_locked_in_the_order_of_their_oids() -> None:
    """Whatever the order in which a step names them, and whatever their names or modes are."""
    oids = {Name("public", "z"): 1, Name("public", "a"): 2, Name("app", "m"): 3}
    modes = (LockMode.SHARE_ROW_EXCLUSIVE, LockMode.ROW_SHARE, LockMode.SHARE_ROW_EXCLUSIVE)
    for names in itertools.permutations(oids):
        locks = [TableLock(name, modes[oids[name] - 1]) for name in names]
        assert lock_statements(locks, oids) == [
            'LOCK TABLE ONLY "public"."z" IN SHARE ROW EXCLUSIVE MODE',
            'LOCK TABLE ONLY "public"."a" IN ROW SHARE MODE',
            'LOCK TABLE ONLY "app"."m" IN SHARE ROW EXCLUSIVE MODE',
        ]


@contextmanager
def sampled(db: Database) -> Iterator[list[tuple[frozenset[str], frozenset[str]]]]:
    """What the engine's sessions held (beyond reading) and waited for, whenever one of them waited."""
    seen: list[tuple[frozenset[str], frozenset[str]]] = []
    done = threading.Event()
    query = (
        "SELECT granted, relation::regclass::text FROM pg_locks WHERE locktype = 'relation'"
        " AND relation = ANY (ARRAY(SELECT oid FROM pg_class WHERE relname IN ('low', 'high')))"
        " AND mode <> 'AccessShareLock' AND pid IN"
        " (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tern:%')"
    )

    def follow() -> None:
        while not done.is_set():
            found = db.execute(query).fetchall()
            waits = frozenset(name for granted, name in found if not granted)
            if waits:
                seen.append((frozenset(name for granted, name in found if granted), waits))

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield seen
    finally:
        done.set()
        follower.join()


@pytest.mark.parametrize(("child", "parent"), [("low", "high"), ("high", "low")])
def test_a_change_of_two_tables_holds_none_while_it_waits_for_the_lower_one(
    child: str, parent: str, db: Database, other: Database, driver: Driver
) -> None:
    """Two engines, or an engine and a pg_dump, that each hold what the other wants would wait for ever."""
    for name in ("low", "high"):
        db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, other int)")
    with sampled(db) as seen:
        job = ""
        # Young again and again: attempts are made against it.
        for _ in range(40):
            with other.transaction(force_rollback=True):
                other.execute("LOCK TABLE low IN ROW EXCLUSIVE MODE")
                job = job or driver.apply(
                    f"ALTER TABLE {child} ADD FOREIGN KEY (other) REFERENCES {parent}", table=child
                )
                time.sleep(0.1)
            if len(seen) > 20:
                break
        driver.wait(job, "COMPLETED")
    assert seen
    held_meanwhile = {name for held, waits in seen if "low" in waits for name in held}
    assert "high" not in held_meanwhile
