"""kill -9 at the worst moments: what was begun is finished once, and nothing is left behind."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tern.engine.service import EngineService
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import Database, Driver, eventually
from .process import Process


@pytest.fixture
def process(database_url: str, tmp_path: Path) -> Iterator[Process]:
    one = Process(database_url, tmp_path)
    one.start()
    yield one
    one.close()


def indexes(db: Database) -> list[tuple[str, bool]]:
    return db.execute(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1"
    ).fetchall()


@contextlib.contextmanager
def old_snapshot(database_url: str) -> Iterator[None]:
    """A transaction that makes every concurrent index build wait for its end."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM pg_class")
        yield


def is_building(db: Database) -> bool:
    return bool(db.execute("SELECT count(*) FROM pg_stat_progress_create_index").fetchone()[0])


def test_an_index_build_survives_its_engine(
    database_url: str, db: Database, process: Process, big_table: str
) -> None:
    """The server builds on without us; the next engine waits for it instead of beginning anew."""
    with old_snapshot(database_url):
        job = process.apply("CREATE INDEX i ON t (a)", "ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: "old snapshots" in process.progress(job).tables[0].progress_detail)
        revision = process.progress(job).metadata["revision"]
        process.kill()
        process.start()
        assert is_building(db)
        assert int(process.progress(job).metadata["revision"]) >= int(revision)
        assert process.apply("CREATE INDEX i ON t (a)", "ALTER TABLE t ADD COLUMN k int") == job
        eventually(lambda: db.execute("SELECT epoch FROM _tern.job").fetchone() == (2,))
        assert is_building(db)
    eventually(lambda: process.completed(job))
    assert indexes(db) == [("i", True)]
    attempts = db.execute("SELECT attempts FROM _tern.step WHERE n = 0").fetchone()
    assert attempts == (1,)


def test_an_index_build_that_died_is_cleaned_up_and_repeated(
    database_url: str, db: Database, process: Process, big_table: str
) -> None:
    with old_snapshot(database_url):
        job = process.apply("CREATE INDEX i ON t (a)")
        eventually(lambda: "old snapshots" in process.progress(job).tables[0].progress_detail)
        process.kill()
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index")
        eventually(lambda: not is_building(db))
        assert indexes(db) == [("i", False)]
        process.start()
        # Its remains are dropped first (an attempt of its own), then it is built anew.
        eventually(lambda: db.execute("SELECT attempts FROM _tern.step").fetchone() == (3,))
    eventually(lambda: process.completed(job))
    assert indexes(db) == [("i", True)]


def test_a_validation_dies_with_its_engine_and_is_repeated(
    db: Database, process: Process, big_table: str
) -> None:
    db.execute(
        "CREATE TABLE pace (seconds float); INSERT INTO pace VALUES (0.05);"
        "CREATE FUNCTION slow(int) RETURNS bool LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(seconds) FROM pace; RETURN true; END';"
        "DELETE FROM t WHERE id > 400"
    )
    job = process.apply("ALTER TABLE t ADD CONSTRAINT c CHECK (slow(a))")
    eventually(lambda: process.progress(job).tables[0].status == "validating")
    process.kill()
    db.execute("UPDATE pace SET seconds = 0")
    process.start()
    eventually(lambda: process.completed(job))
    assert db.execute("SELECT convalidated FROM pg_constraint WHERE conname = 'c'").fetchone() == (True,)
    assert (
        db.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%VALIDATE%'").fetchone()[0] <= 1
    )


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.08, 0.2])
def test_a_kill_at_any_moment_does_nothing_twice(
    db: Database, process: Process, table: str, delay: float
) -> None:
    ddl = (
        "ALTER TABLE t ADD COLUMN k int DEFAULT 1 CHECK (k > 0)",
        "CREATE INDEX ON t (a)",
        "ALTER TABLE t ADD UNIQUE (b)",
    )
    job = process.apply(*ddl)
    time.sleep(delay)  # not an assertion: a moment in the middle of it
    process.kill()
    process.start()
    assert process.apply(*ddl) == job
    eventually(lambda: process.completed(job))
    assert indexes(db) == [("t_a_idx", True), ("t_b_key", True), ("t_pkey", True)]
    done = db.execute("SELECT status, count(*) FROM _tern.step GROUP BY status").fetchall()
    assert done == [("done", 6)]
    assert db.execute("SELECT count(*) FROM pg_constraint WHERE conname LIKE 't_k_check%'").fetchone() == (1,)


def test_sigterm_leaves_the_job_to_the_next(
    database_url: str,
    db: Database,
    process: Process,
    make_engine: Callable[..., EngineService],
    big_table: str,
) -> None:
    with old_snapshot(database_url):
        job = process.apply("CREATE INDEX i ON t (a)")
        eventually(lambda: "old snapshots" in process.progress(job).tables[0].progress_detail)
        assert process.end(signal.SIGTERM) == 0
        successor = Driver(make_engine("next"))
        assert successor.progress(job).state == contract.STATE_RUNNING
    successor.wait(job, "COMPLETED")
    assert indexes(db) == [("i", True)]


def test_a_second_engine_takes_over_from_a_killed_one(
    db: Database, process: Process, make_engine: Callable[..., EngineService], table: str
) -> None:
    with db.transaction():
        db.execute("SELECT FROM t")
        job = process.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: process.progress(job).tables[0].status == "waiting_for_lock")
        heir = Driver(make_engine("heir"))
        process.kill()
    heir.wait(job, "COMPLETED", within=10)


def test_a_runner_that_was_replaced_lets_go_and_the_next_one_finishes(
    db: Database, make_engine: Callable[..., EngineService], table: str
) -> None:
    """G12: it sees somebody else's epoch at its next look. What it would write before that: test_attempt.py."""
    driver = Driver(make_engine())
    with db.transaction():
        db.execute("SELECT FROM t")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: driver.progress(job).tables[0].status == "waiting_for_lock")
        with psycopg.connect(driver.service._dsn, autocommit=True) as rival:
            rival.execute("UPDATE _tern.job SET epoch = epoch + 100")
        eventually(lambda: db.execute("SELECT epoch FROM _tern.job").fetchone()[0] >= 102)
    driver.wait(job, "COMPLETED")


def test_the_database_may_go_away_and_come_back(db: Database, driver: Driver, table: str) -> None:
    """Every session of the engine is cut, in the middle of its wait."""
    with db.transaction():
        db.execute("SELECT FROM t")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: driver.progress(job).tables[0].status == "waiting_for_lock")
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'tern:%'"
        )
    driver.wait(job, "COMPLETED")


@pytest.mark.parametrize(("wish", "state"), [("Stop", "STOPPED"), ("Cancel", "CANCELLED")])
def test_a_build_without_its_engine_is_ended_on_demand(
    database_url: str, db: Database, process: Process, big_table: str, wish: str, state: str
) -> None:
    """The wish arrives while only the server knows of the build: nothing may go on behind a stopped job."""
    with old_snapshot(database_url):
        job = process.apply("CREATE INDEX i ON t (a)")
        eventually(lambda: "old snapshots" in process.progress(job).tables[0].progress_detail)
        process.kill()
        db.execute(f"UPDATE _tern.job SET control = '{wish.lower()}'")
        assert is_building(db)
        process.start()
        eventually(lambda: contract.State.Name(process.progress(job).state) == f"STATE_{state}")
        assert not is_building(db)
    if wish == "Cancel":
        assert indexes(db) == []
        return
    assert process.stub.Start(contract.StartRequest(apply_id=job), timeout=10).accepted
    eventually(lambda: process.completed(job))
    assert indexes(db) == [("i", True)]
