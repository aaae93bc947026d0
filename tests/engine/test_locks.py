"""Locks are asked for politely: bounded waits, blockers named, the application hardly delayed."""

import threading
import time

import psycopg

from tern.engine.locks import LONGEST_BUDGET_MS, Patience
from tern.engine.recipes.model import LockMode

from .conftest import Database, Driver, eventually


def test_blockers_are_named_without_their_query(
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
