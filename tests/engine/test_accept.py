"""Apply: once per key, for ever; and never twice on a table."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tern.engine import preview
from tern.engine.errors import EngineError
from tern.engine.service import EngineService
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import Database, Driver


def together(*calls: Callable[[], object]) -> list[object]:
    """Runs calls at the same moment; their answers or errors."""
    answers: list[object] = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def run(place: int, call: Callable[[], object]) -> None:
        gate.wait()
        try:
            answers[place] = call()
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers[place] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def jobs(db: Database) -> int:
    return db.execute("SELECT count(*) FROM _tern.job").fetchone()[0]


def test_the_same_key_starts_one_job_for_ever(db: Database, driver: Driver, table: str) -> None:
    request = driver.request("ALTER TABLE t ADD COLUMN k int", idempotency_key="once", caller="one")
    first = driver.service.apply(request, driver.context).apply_id
    assert driver.service.apply(request, driver.context).apply_id == first
    driver.wait(first, "COMPLETED")
    request.caller = "another"
    assert driver.service.apply(request, driver.context).apply_id == first
    assert jobs(db) == 1


def test_the_same_key_at_the_same_moment_starts_one_job(
    db: Database, make_engine: Callable[..., EngineService], table: str
) -> None:
    engines = [make_engine("one"), make_engine("two")]
    request = Driver(engines[0]).request("ALTER TABLE t ADD COLUMN k int", idempotency_key="once")
    context = Driver(engines[0]).context
    answers = together(*(lambda each=each: each.apply(request, context).apply_id for each in engines * 3))
    assert len(set(answers)) == 1, answers
    assert isinstance(answers[0], str)
    assert jobs(db) == 1
    Driver(engines[1]).wait(answers[0], "COMPLETED")


def test_a_rival_that_is_done_before_we_have_judged_is_the_answer(
    make_engine: Callable[..., EngineService], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G4: the column is there by then, and the verdict says that it can't be added; nobody may take that for a no."""
    slow, quick = Driver(make_engine("slow")), Driver(make_engine("quick"))
    request = slow.request("ALTER TABLE t ADD COLUMN k int", idempotency_key="once")
    judged = preview.judge
    finished: list[str] = []

    def judge_late(*given: Any) -> Any:
        monkeypatch.undo()
        finished.append(quick.done("ALTER TABLE t ADD COLUMN k int", idempotency_key="once").apply_id)
        return judged(*given)

    monkeypatch.setattr(preview, "judge", judge_late)
    assert [slow.service.apply(request, slow.context).apply_id] == finished


def test_another_request_under_the_same_key_is_refused(driver: Driver, table: str) -> None:
    driver.done("ALTER TABLE t ADD COLUMN k int", idempotency_key="once")
    with pytest.raises(EngineError) as refused:
        driver.apply("ALTER TABLE t ADD COLUMN l int", idempotency_key="once")
    assert (refused.value.code, refused.value.reason) == (grpc.StatusCode.ALREADY_EXISTS, "KEY_REUSED")


def test_an_empty_key_always_starts_something(driver: Driver, table: str) -> None:
    first = driver.done("COMMENT ON TABLE t IS 'x'", idempotency_key="").apply_id
    assert driver.done("COMMENT ON TABLE t IS 'x'", idempotency_key="").apply_id != first


def test_a_tombstoned_key_starts_nothing(db: Database, driver: Driver, table: str) -> None:
    assert driver.resolve("dead").forbidden is False
    assert driver.resolve("dead", forbid=True).forbidden
    with pytest.raises(EngineError) as refused:
        driver.apply("ALTER TABLE t ADD COLUMN k int", idempotency_key="dead")
    assert (refused.value.code, refused.value.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "KEY_FORBIDDEN",
    )
    assert driver.resolve("dead").forbidden
    assert jobs(db) == 0


def test_resolve_finds_what_a_key_started(driver: Driver, table: str) -> None:
    job = driver.done("ALTER TABLE t ADD COLUMN k int", idempotency_key="live").apply_id
    for forbid in (False, True):
        found = driver.resolve("live", forbid=forbid)
        assert (found.apply_id, found.forbidden) == (job, False)


def test_apply_and_forbid_never_both_win(
    db: Database, make_engine: Callable[..., EngineService], table: str
) -> None:
    one, two = Driver(make_engine("one")), Driver(make_engine("two"))
    outcomes = set()
    for n in range(8):
        key = f"race-{n}"
        request = one.request(f"COMMENT ON TABLE t IS '{n}'", idempotency_key=key)
        applied, resolved = together(
            lambda request=request: one.service.apply(request, one.context).apply_id,
            lambda key=key: two.resolve(key, forbid=True),
        )
        if isinstance(applied, str):
            assert (resolved.apply_id, resolved.forbidden) == (applied, False)
            one.wait(applied, "COMPLETED")
        else:
            assert applied.reason == "KEY_FORBIDDEN"
            assert (resolved.apply_id, resolved.forbidden) == ("", True)
        outcomes.add(type(applied).__name__)
    assert jobs(db) <= 8


def test_a_table_belongs_to_one_unfinished_job(
    db: Database, other: Database, driver: Driver, table: str
) -> None:
    with db.transaction():
        db.execute("SELECT FROM t")
        holder = driver.as_operation("apl-1/eu").apply("ALTER TABLE t ADD COLUMN k int")
        refused = driver.service.apply(
            driver.request("CREATE INDEX ON t (a)", idempotency_key="later"), driver.context
        )
    assert (refused.accepted, refused.apply_id) == (False, "")
    assert (refused.conflict.table, refused.conflict.holder_external_id) == ("t", holder)
    for word in (holder, "apl-1/eu", "running"):
        assert word in refused.error_message
    driver.as_operation("apl-1/eu").wait(holder, "COMPLETED")
    driver.done("CREATE INDEX ON t (a)", idempotency_key="later")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("environment", "staging", "TARGET_MISMATCH"),
        ("database", "billing", "TARGET_MISMATCH"),
        ("target", "us-1", "TARGET_MISMATCH"),
        ("type", "mysql", "TYPE_MISMATCH"),
    ],
)
def test_work_for_somebody_else_is_refused(
    driver: Driver, table: str, field: str, value: str, reason: str
) -> None:
    with pytest.raises(EngineError) as refused:
        driver.apply("ALTER TABLE t ADD COLUMN k int", **{field: value})
    assert refused.value.reason == reason


def test_options_that_cannot_be_read_or_kept_are_refused(driver: Driver, table: str) -> None:
    for options, reason in (
        ({"defer_cutover": "yes"}, "INVALID_REQUEST"),
        ({"enable_revert": "true"}, "NOT_OFFERED"),
    ):
        with pytest.raises(EngineError) as refused:
            driver.apply("ALTER TABLE t ADD COLUMN k int", options=options)
        assert refused.value.reason == reason


def test_ours_and_empty_names_are_accepted(driver: Driver, table: str) -> None:
    driver.done(
        "COMMENT ON TABLE t IS 'x'", environment="prod", database="orders", target="eu-1", type="postgres"
    )
    driver.done("COMMENT ON TABLE t IS 'y'")


def test_an_apply_is_bound_to_its_operation(driver: Driver, table: str) -> None:
    eu, us = driver.as_operation("apl-1/eu"), driver.as_operation("apl-1/us")
    request = eu.request("ALTER TABLE t ADD COLUMN k int", idempotency_key="eu")
    answer = driver.service.apply(request, eu.context)
    assert answer.apply_operation_id == "apl-1/eu"
    eu.wait(answer.apply_id, "COMPLETED")
    calls: list[Callable[[], object]] = [
        lambda: us.progress(answer.apply_id),
        lambda: us.stop(answer.apply_id),
        lambda: us.start(answer.apply_id),
        lambda: us.cancel(answer.apply_id),
        lambda: us.cutover(answer.apply_id),
        lambda: us.logs(answer.apply_id),
        lambda: us.resolve("eu"),
        lambda: driver.service.apply(request, us.context),
    ]
    for call in calls:
        with pytest.raises(EngineError) as refused:
            call()
        assert refused.value.reason == "OPERATION_MISMATCH"
    assert driver.progress(answer.apply_id).state == contract.STATE_COMPLETED


def test_a_lower_fence_changes_nothing(db: Database, driver: Driver, table: str) -> None:
    first = driver.as_operation("apl-1/eu", 5)
    request = first.request("ALTER TABLE t ADD COLUMN k int", idempotency_key="fenced")
    job = driver.service.apply(request, first.context).apply_id
    driver.as_operation("apl-1/eu", 5).wait(job, "COMPLETED")
    assert driver.as_operation("apl-1/eu", 9).stop(job).accepted is False
    late = driver.as_operation("apl-1/eu", 8)
    calls: list[Callable[[], object]] = [
        lambda: late.stop(job),
        lambda: late.start(job),
        lambda: late.cancel(job),
        lambda: late.cutover(job),
        lambda: late.resolve("unknown", forbid=True),
        lambda: late.apply("ALTER TABLE t ADD COLUMN l int"),
        lambda: late.service.apply(request, late.context),
    ]
    for call in calls:
        with pytest.raises(EngineError) as refused:
            call()
        assert refused.value.reason == "STALE_DRIVER"
    # Reads are exempt, and another operation has a fence of its own.
    assert late.progress(job).apply_id == job
    assert late.resolve("fenced").apply_id == job
    driver.as_operation("apl-2/eu", 1).done("ALTER TABLE t ADD COLUMN l int")
    assert db.execute("SELECT fence FROM _tern.fence ORDER BY operation").fetchall() == [(9,), (1,)]


def test_forbid_raises_the_fence_before_there_is_a_job(driver: Driver, table: str) -> None:
    driver.as_operation("apl-1/eu", 7).resolve("lost", forbid=True)
    with pytest.raises(EngineError) as refused:
        driver.as_operation("apl-1/eu", 6).apply("ALTER TABLE t ADD COLUMN k int", idempotency_key="other")
    assert refused.value.reason == "STALE_DRIVER"


def test_unknown_and_empty_ids(driver: Driver) -> None:
    for job, code in (("job-nope", grpc.StatusCode.NOT_FOUND), ("", grpc.StatusCode.INVALID_ARGUMENT)):
        for call in (driver.progress, driver.stop, driver.start, driver.cancel, driver.cutover, driver.logs):
            with pytest.raises(EngineError) as refused:
                call(job)
            assert refused.value.code == code


def test_a_refused_apply_leaves_no_fence(db: Database, driver: Driver, table: str) -> None:
    """Else a mistake with a high fence would shut out every later call of the operation, a stop included."""
    bold = driver.as_operation("apl-1/a", 2**62)
    with pytest.raises(EngineError):
        bold.service.apply(
            bold.request("ALTER TABLE nowhere ADD COLUMN k int", idempotency_key="bold"), bold.context
        )
    assert db.execute("SELECT count(*) FROM _tern.fence").fetchone() == (0,)
