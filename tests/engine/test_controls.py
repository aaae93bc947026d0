"""Stop, start, cancel and cutover: what each does to a job that waits, works, rests or is over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tern.engine.service import EngineService
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import IDENTITY, Database, Driver, eventually

DEFER = {"defer_cutover": "true"}


def indexes(db: Database) -> list[tuple[str, bool]]:
    return db.execute(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 't'::regclass ORDER BY 1"
    ).fetchall()


@contextmanager
def answering(database_url: str) -> Iterator[Driver]:
    """An engine in which nobody works any more, but the calls are answered."""
    service = EngineService(database_url, IDENTITY)
    service._pool.open()
    yield Driver(service)
    service.close()


def waits_for_snapshot(driver: Driver, job: str) -> bool:
    """The build has reached the phase in which it waits for older snapshots."""
    return "old snapshots" in driver.progress(job).tables[0].progress_detail


def test_a_stopped_build_is_resumed_and_leaves_one_valid_index(
    db: Database, other: Database, driver: Driver, big_table: str
) -> None:
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM pg_class")
        job = driver.apply("CREATE INDEX i ON t (a)")
        eventually(lambda: waits_for_snapshot(driver, job))
        pid = other.info.backend_pid
        assert f"behind pid {pid}" in driver.progress(job).tables[0].progress_detail
        answer = driver.stop(job)
        assert (answer.accepted, answer.stopped_count) == (True, 1)
        seen = driver.wait(job, "STOPPED", within=5)
        assert seen.tables[0].status == "stopped"
        percent = seen.tables[0].percent_complete
        assert driver.stop(job).accepted
    assert driver.start(job).accepted
    seen = driver.wait(job, "COMPLETED")
    assert seen.tables[0].percent_complete == 100 >= percent
    assert indexes(db) == [("i", True)]


def test_a_cancelled_build_leaves_nothing(
    db: Database, other: Database, driver: Driver, big_table: str
) -> None:
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM pg_class")
        job = driver.apply("COMMENT ON TABLE t IS 'kept'", "CREATE INDEX i ON t (a)")
        eventually(lambda: "old snapshots" in driver.progress(job).tables[1].progress_detail)
        answer = driver.cancel(job)
        assert (answer.accepted, answer.cancelled_count, answer.skipped_count) == (True, 1, 1)
    seen = driver.wait(job, "CANCELLED")
    assert indexes(db) == []
    assert seen.summary == "Cancelled. 1 of 2 changes were completed and stay."
    assert [each.status for each in seen.tables] == ["completed", "cancelled"]
    assert db.execute("SELECT obj_description('t'::regclass)").fetchone() == ("kept",)


def test_a_cancelled_validation_leaves_no_half_constraint(db: Database, driver: Driver, table: str) -> None:
    db.execute(
        "CREATE FUNCTION slow(int) RETURNS bool LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(0.1) IS NOT NULL'"
    )
    job = driver.apply("ALTER TABLE t ADD CONSTRAINT sluggish CHECK (slow(a))")
    eventually(lambda: driver.progress(job).tables[0].status == "validating")
    driver.cancel(job)
    seen = driver.wait(job, "CANCELLED")
    assert seen.summary.startswith("Cancelled. Nothing was changed.")
    assert db.execute("SELECT count(*) FROM pg_constraint WHERE conname = 'sluggish'").fetchone() == (0,)


def test_a_job_that_waits_for_its_cutover_from_the_beginning_has_begun(driver: Driver, table: str) -> None:
    """By this moment it is known again: it is there from the first look and never another one."""
    job = driver.apply("ALTER TABLE t ADD COLUMN k int", options=DEFER)
    began = driver.wait(job, "WAITING_FOR_CUTOVER").started_at
    assert began
    driver.cutover(job)
    assert driver.wait(job, "COMPLETED").started_at == began


def test_a_stopped_job_can_be_cancelled(db: Database, driver: Driver, table: str) -> None:
    job = driver.apply("ALTER TABLE t ADD COLUMN k int", options=DEFER)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    driver.stop(job)
    driver.wait(job, "STOPPED")
    assert driver.cancel(job).accepted
    assert driver.wait(job, "CANCELLED").summary == "Cancelled. Nothing was changed."
    assert driver.cancel(job).accepted
    assert not driver.start(job).accepted
    driver.done("ALTER TABLE t ADD COLUMN k int")


def test_a_job_that_is_over_takes_no_wishes(driver: Driver, table: str) -> None:
    job = driver.done("ALTER TABLE t ADD COLUMN k int").apply_id
    for call in (driver.stop, driver.start, driver.cancel):
        answer = call(job)
        assert not answer.accepted
        assert answer.error_message == "the apply is completed already"
    assert "is completed" in driver.cutover(job).error_message


def test_a_deferred_job_waits_before_what_the_application_sees(
    db: Database, driver: Driver, table: str
) -> None:
    job = driver.apply(
        "CREATE INDEX i ON t (a)", "ALTER TABLE t ADD UNIQUE (b)", "CREATE INDEX j ON t (v)", options=DEFER
    )
    seen = driver.wait(job, "WAITING_FOR_CUTOVER")
    # The last one takes long and needs nothing that waits.
    assert [each.status for each in seen.tables] == ["completed", "waiting_for_cutover", "completed"]
    assert ("t_b_key", True) in indexes(db)
    assert db.execute("SELECT count(*) FROM pg_constraint WHERE conname = 't_b_key'").fetchone() == (0,)
    assert driver.cutover(job).accepted
    assert driver.progress(job).state in {contract.STATE_CUTTING_OVER, contract.STATE_COMPLETED}
    driver.wait(job, "COMPLETED")
    states = [each.new_state for each in driver.logs(job) if each.event_type == "state_changed"]
    assert states == ["running", "waiting_for_cutover", "cutting_over", "completed"]


def test_a_deferred_job_without_such_a_step_does_not_wait(driver: Driver, table: str) -> None:
    driver.done("CREATE INDEX i ON t (a)", options=DEFER)


def test_a_cutover_is_for_who_waits(db: Database, other: Database, driver: Driver, table: str) -> None:
    with other.transaction():
        other.execute("SELECT FROM t")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: driver.progress(job).tables[0].status == "waiting_for_lock")
        answer = driver.cutover(job)
        assert not answer.accepted
        assert "does not wait for a cutover" in answer.error_message
    driver.wait(job, "COMPLETED")


def test_a_stop_withdraws_the_cutover(db: Database, other: Database, driver: Driver, table: str) -> None:
    job = driver.apply("ALTER TABLE t ADD COLUMN k int", options=DEFER)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    with other.transaction():
        other.execute("SELECT FROM t")
        driver.cutover(job)
        driver.wait(job, "CUTTING_OVER")
        assert driver.cutover(job).accepted
        driver.stop(job)
        driver.wait(job, "STOPPED")
    driver.start(job)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    driver.cutover(job)
    driver.wait(job, "COMPLETED")


def test_a_cutover_that_was_stopped_half_way_is_asked_for_again(
    db: Database, driver: Driver, table: str
) -> None:
    """What the application sees is half there; the step that follows is none of that kind, and waits all the same."""
    db.execute(
        "CREATE FUNCTION slow(int) RETURNS bool LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(0.1) IS NOT NULL'"
    )
    job = driver.apply("ALTER TABLE t ADD CONSTRAINT sluggish CHECK (slow(a))", options=DEFER)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    driver.cutover(job)
    eventually(lambda: driver.progress(job).tables[0].status == "validating")
    driver.stop(job)
    driver.wait(job, "STOPPED")
    half = "SELECT convalidated FROM pg_constraint WHERE conname = 'sluggish'"
    assert db.execute(half).fetchone() == (False,)
    driver.start(job)
    driver.wait(job, "WAITING_FOR_CUTOVER")
    assert db.execute(half).fetchone() == (False,)
    driver.cutover(job)
    driver.wait(job, "CUTTING_OVER")
    driver.cancel(job)
    driver.wait(job, "CANCELLED")
    assert db.execute(half).fetchone() is None


def test_a_start_withdraws_a_stop_that_nobody_has_seen(
    database_url: str, db: Database, make_engine: Callable[..., EngineService], table: str
) -> None:
    running = make_engine()
    with db.transaction():
        db.execute("SELECT FROM t")
        job = Driver(running).apply("ALTER TABLE t ADD COLUMN k int")
        Driver(running).wait(job, "RUNNING")
        running.close()
        with answering(database_url) as idle:
            assert idle.stop(job).accepted
            assert idle.progress(job).summary.startswith("Asked to stop")
            assert idle.start(job).accepted
    Driver(make_engine("next")).wait(job, "COMPLETED")


@pytest.mark.parametrize("halt", ["stop", "cancel"])
def test_no_cutover_is_taken_once_a_halt_was(
    database_url: str, make_engine: Callable[..., EngineService], table: str, halt: str
) -> None:
    """G9: before anybody has carried the halt out, too; only a start makes room for a cutover again."""
    running = make_engine()
    job = Driver(running).apply("ALTER TABLE t ADD COLUMN k int", options=DEFER)
    Driver(running).wait(job, "WAITING_FOR_CUTOVER")
    running.close()
    with answering(database_url) as idle:
        assert getattr(idle, halt)(job).accepted
        refused = idle.cutover(job)
        assert (refused.accepted, refused.error_message) == (False, f"the apply was asked to {halt}")
        assert idle.progress(job).state == contract.STATE_WAITING_FOR_CUTOVER
        assert idle.start(job).accepted is (halt == "stop")
        assert idle.cutover(job).accepted is (halt == "stop")


@pytest.mark.parametrize("wish", ["stop", "cancel"])
def test_a_wish_reaches_whoever_runs_the_job(
    db: Database, make_engine: Callable[..., EngineService], table: str, wish: str
) -> None:
    runs, hears = Driver(make_engine("one")), Driver(make_engine("two"))
    with db.transaction():
        db.execute("SELECT FROM t")
        job = runs.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: runs.progress(job).tables[0].status == "waiting_for_lock")
        getattr(hears, wish)(job)
        hears.wait(job, {"stop": "STOPPED", "cancel": "CANCELLED"}[wish], within=5)
