"""One attempt at a step: done and noted at the same instant, and by nobody but the job's present runner (G16)."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import psycopg
import pytest

from tern.engine import attempt, ending, session
from tern.engine import job as books
from tern.engine.job import FencedOutError, Job, KeptStep, State
from tern.engine.recipes.model import StepKind
from tern.engine.service import EngineService

from .conftest import IDENTITY, Database, Driver

CHANGES = {
    "a column": "ALTER TABLE t ADD COLUMN k int DEFAULT 7",
    "a check": "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)",
    "a foreign key": "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES parent (id)",
}


class ConnectionDiedError(Exception):
    """It was cut behind a round trip: the server has done what it was told, and gets to hear no more."""


class Doomed(psycopg.Connection[Any]):
    """A connection that is cut behind its k-th round trip from now on."""

    left: int | None = None

    def wait(self, gen: Generator[Any, Any, Any], *given: Any, **named: Any) -> Any:
        answer = super().wait(gen, *given, **named)
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.close()
                raise ConnectionDiedError
        return answer


@pytest.fixture
def resting(database_url: str) -> Iterator[Driver]:
    """An engine that accepts jobs and leaves their steps to the test."""
    service = EngineService(database_url, IDENTITY, runs_jobs=False)
    service.start()
    yield Driver(service)
    service.close()


@pytest.fixture
def doomed(database_url: str) -> Iterator[Callable[[int], Doomed]]:
    """Connects as a runner does."""
    made: list[Doomed] = []

    def connect(left: int) -> Doomed:
        made.append(Doomed.connect(database_url, autocommit=True))
        session.settle(made[-1])
        made[-1].left = left
        return made[-1]

    yield connect
    for each in made:
        each.close()


def taken_over(db: Database, job: str) -> Job:
    """The job as a runner knows it that has just begun its epoch."""
    books.begin_epoch(db, job)
    found = books.load(db, job)
    assert found is not None
    return found


def execute(connection: psycopg.Connection[Any], job: Job, kept: KeptStep) -> None:
    if kept.step.kind is StepKind.DIRECT:
        attempt.run_direct(connection, job, kept, kept.step, budget_ms=2_000, hold_ms=2_000)
    else:
        attempt.run_validate(connection, job, kept, kept.step)


def traces(db: Database) -> tuple[Any, ...]:
    """All that a step of these changes leaves in the catalogue."""
    found = db.execute(
        "SELECT (SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass),"
        " (SELECT array_agg(convalidated ORDER BY oid) FROM pg_constraint WHERE conrelid = 't'::regclass)"
    ).fetchone()
    assert found is not None
    return tuple(found)


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_is_done_and_noted_or_neither_at_every_round_trip(
    db: Database, resting: Driver, table: str, doomed: Callable[[int], Doomed], change: str
) -> None:
    """G16: wherever the attempt is cut off, the next runner reads in the books what stands in the catalogue."""
    db.execute("CREATE TABLE parent (id int PRIMARY KEY)")
    db.execute("INSERT INTO parent SELECT a FROM t")
    job = taken_over(db, resting.apply(CHANGES[change]))
    for number, kept in enumerate(books.steps(db, job.id)):
        before, cut_at, is_noted = traces(db), -1, False
        while not is_noted:
            cut_at += 1
            with pytest.raises(ConnectionDiedError):
                execute(doomed(cut_at), job, kept)
            is_noted = books.steps(db, job.id)[number].status == "done"
            assert (traces(db) != before) is is_noted, f"{kept.step.sql}, cut behind round trip {cut_at}"
        assert cut_at > 3


def test_no_write_of_a_runner_that_was_replaced_counts(db: Database, resting: Driver, table: str) -> None:
    """G16, G12: it looked, froze, and somebody else took the job over; whatever it does next is refused."""
    job = taken_over(db, resting.apply(CHANGES["a check"]))
    direct, validation = books.steps(db, job.id)
    taken_over(db, job.id)
    before = (books.load(db, job.id), books.steps(db, job.id), traces(db))
    for write in (
        lambda: execute(db, job, direct),
        lambda: execute(db, job, validation),
        lambda: ending.tell_failure(db, job, direct, "it did not work"),
        lambda: ending.settle_stopped(db, job),
        lambda: ending.settle(db, job, State.COMPLETED),
    ):
        with pytest.raises(FencedOutError):
            write()
    assert (books.load(db, job.id), books.steps(db, job.id), traces(db)) == before
