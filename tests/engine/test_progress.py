"""What a look from outside shows: once per change, never backwards, cheap when nothing happened."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tern.engine import job as books
from tern.engine import sampling
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import Database, Driver, eventually


def batch(driver: Driver, *cursors: tuple[str, int, str]) -> list[ours.ProgressEntry]:
    asked = [
        ours.ProgressCursor(apply_id=job, revision=seen, operation=operation)
        for job, seen, operation in cursors
    ]
    return list(
        driver.service.batch_progress(ours.BatchProgressRequest(cursors=asked), driver.context).entries
    )


def test_a_batch_answers_what_has_changed(driver: Driver, table: str) -> None:
    eu = driver.as_operation("apl-1/eu")
    job = eu.done("ALTER TABLE t ADD COLUMN k int").apply_id
    (entry,) = batch(driver, (job, 0, "apl-1/eu"))
    assert (entry.apply_id, entry.progress.state) == (job, contract.STATE_COMPLETED)
    assert batch(driver, (job, entry.revision, "apl-1/eu")) == []
    # A database that was restored is behind its askers: any difference is one.
    assert len(batch(driver, (job, entry.revision + 5, "apl-1/eu"))) == 1
    assert len(batch(driver, (job, entry.revision - 1, ""), (job, 0, ""), (job, entry.revision, ""))) == 2


def test_a_batch_tells_strangers_so(driver: Driver, table: str) -> None:
    job = driver.as_operation("apl-1/eu").done("ALTER TABLE t ADD COLUMN k int").apply_id
    unknown, foreign, good = batch(driver, ("job-x", 7, ""), (job, 7, "apl-1/us"), (job, 0, "apl-1/eu"))
    assert (unknown.error.code, unknown.error.reason) == (5, "APPLY_NOT_FOUND")
    assert (foreign.error.code, foreign.error.reason) == (9, "OPERATION_MISMATCH")
    assert good.HasField("progress")


def test_the_revision_rises_with_everything_visible(db: Database, driver: Driver, table: str) -> None:
    seen: list[tuple[int, bytes]] = []

    def look(job: str) -> contract.ProgressResponse:
        progress = driver.progress(job)
        bare = contract.ProgressResponse()
        bare.CopyFrom(progress)
        revision = int(bare.metadata.pop("revision"))
        seen.append((revision, bare.SerializeToString(deterministic=True)))
        return progress

    with db.transaction():
        db.execute("SELECT FROM t")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int", "CREATE INDEX ON t (a)")
        eventually(lambda: look(job).tables[0].status == "waiting_for_lock")
        driver.stop(job)
        eventually(lambda: look(job).state == contract.STATE_STOPPED)
        driver.start(job)
    eventually(lambda: look(job).state == contract.STATE_COMPLETED)
    revisions = [revision for revision, _ in seen]
    assert revisions == sorted(revisions)
    shown: dict[int, bytes] = {}
    for revision, bare in seen:
        assert shown.setdefault(revision, bare) == bare, f"two pictures of revision {revision}"


def test_the_percentage_never_falls(db: Database, other: Database, driver: Driver, big_table: str) -> None:
    job = driver.apply("CREATE INDEX i ON t (b)", "ALTER TABLE t ADD CHECK (a > 0)")
    seen: list[list[int]] = []

    def done() -> bool:
        progress = driver.progress(job)
        seen.append([each.percent_complete for each in progress.tables])
        assert all(0 <= each.rows_copied <= each.rows_total for each in progress.tables)
        return progress.state == contract.STATE_COMPLETED

    eventually(done)
    for column in zip(*seen, strict=True):
        assert list(column) == sorted(column)
    assert seen[-1] == [100, 100]


def test_a_table_that_nobody_analysed_is_estimated_by_its_size(db: Database, driver: Driver) -> None:
    """By the preview and by the samples alike: a total of nothing would leave a validation at 0 %."""
    db.execute("CREATE TABLE t (a int, b text) WITH (autovacuum_enabled = false)")
    db.execute("INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 10000) AS g")
    job = driver.apply("ALTER TABLE t ADD COLUMN c int")
    driver.wait(job, "COMPLETED")
    told = sampling._estimated_rows(
        db, *cast("tuple[Any, Any]", (SimpleNamespace(id=job), SimpleNamespace(change=0)))
    )
    assert 1_000 < told < 100_000


@pytest.mark.parametrize("counter", ["percent", "rows_done", "rows_total"])
def test_a_build_that_begins_anew_takes_back_nothing_that_was_shown(
    db: Database, driver: Driver, table: str, counter: str
) -> None:
    """Its own counters begin at nothing; each of those that are shown stays where it was."""
    job = driver.apply("ALTER TABLE t ADD COLUMN k int", options={"defer_cutover": "true"})
    driver.wait(job, "WAITING_FOR_CUTOVER")
    assert books.show(db, job, 0, percent=60, rows_done=600, rows_total=1000)
    before = driver.progress(job)
    assert before.tables[0].rows_copied == 600
    assert not books.show(db, job, 0, **{counter: 0})
    assert driver.progress(job) == before


def test_an_old_snapshot_holds_a_build_up_and_is_named(
    db: Database, other: Database, driver: Driver, big_table: str
) -> None:
    """It belongs to a transaction on an unrelated table; the build waits without failing."""
    db.execute("CREATE TABLE unrelated (a int)")
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT FROM unrelated")
        job = driver.apply("CREATE INDEX i ON t (a)")
        eventually(
            lambda: f"behind pid {other.info.backend_pid}" in driver.progress(job).tables[0].progress_detail
        )
        assert driver.progress(job).tables[0].status == "building_index"
    driver.wait(job, "COMPLETED")


def test_a_failed_job_says_of_each_change_what_became_of_it(driver: Driver, table: str) -> None:
    """The second of three fails: the first is in, the third was never begun, and is not said to have failed."""
    driver.done("ALTER TABLE t ADD COLUMN there int")
    job = driver.apply(
        "ALTER TABLE t ADD COLUMN one int",
        "ALTER TABLE t ADD CONSTRAINT never CHECK (false)",
        "ALTER TABLE t ADD COLUMN three int",
    )
    seen = driver.wait(job, "FAILED")
    assert [each.status for each in seen.tables] == ["completed", "failed", "pending"]


def test_a_change_of_which_a_part_stays_is_unknown(driver: Driver, table: str) -> None:
    """Each part of an ALTER TABLE is done or undone as a whole, and the first of these is done."""
    job = driver.apply("ALTER TABLE t ADD COLUMN k int, ADD CONSTRAINT never CHECK (false)")
    seen = driver.wait(job, "FAILED")
    (change,) = seen.tables
    assert change.status == "unknown"
    assert "never" in change.progress_detail


def test_a_cancelled_job_says_of_what_had_not_begun_that_it_is_pending(driver: Driver, table: str) -> None:
    job = driver.apply(
        "ALTER TABLE t ADD COLUMN k int", "ALTER TABLE t ADD COLUMN l int", options={"defer_cutover": "true"}
    )
    driver.wait(job, "WAITING_FOR_CUTOVER")
    driver.stop(job)
    assert [each.status for each in driver.wait(job, "STOPPED").tables] == ["pending", "pending"]
    driver.cancel(job)
    assert [each.status for each in driver.wait(job, "CANCELLED").tables] == ["pending", "pending"]
