"""Batches, their matching, and the way without them."""

import time
from collections.abc import Callable, Sequence

import pytest

from tern.domain.identity import ApplyId, ScopeName
from tern.domain.model import Deployment, RemoteCall
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.samples import Sample
from tern.domain.silence import CALLS_AT_ONCE
from tern.domain.states import State
from tern.ports import Cursor, Engine
from tern.wire.channels import Channels, GrpcTransport
from tern.wire.credentials import parse_address
from tern.wire.engine_client import EngineClient
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.outcomes import About
from tern.wire.polling import Polling
from tern.wire.routing import EngineDirectory
from tests.faults.behaviour import answer, delay, fail, hang
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import claim_on, cursor_for, deployment_at, scope_at


@pytest.fixture
def jobs(fake: FakeEngine, engine: Engine, deployment: Deployment) -> list[Cursor]:
    """Twenty jobs of twenty applies at one engine."""
    cursors = []
    for number in range(20):
        name = ScopeName(ApplyId(f"apl-{number}"), deployment.name)
        scope = scope_at(deployment, name=name)
        outcome = engine.apply(scope, claim_on(scope))
        assert isinstance(outcome, Ok)
        cursors.append(cursor_for(number, outcome.value, name=name))
    return cursors


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_call_serves_all_and_each_answer_finds_its_cursor(
    fake: FakeEngine, engine: Engine, jobs: list[Cursor]
) -> None:
    fake.set_state(jobs[3].call.remote_id, "completed")
    looks = engine.batch_progress(jobs)
    assert len(fake.calls("BatchProgress")) == 1
    assert not fake.calls("Progress")
    states = {look.cursor: look.outcome.value.state for look in looks if isinstance(look.outcome, Ok)}
    assert states == {cursor: State.COMPLETED if cursor is jobs[3] else State.RUNNING for cursor in jobs}
    assert all(
        look.outcome.value.remote_id == look.cursor.call.remote_id
        for look in looks
        if isinstance(look.outcome, Ok)
    )


def test_what_has_not_changed_has_no_answer(engine: Engine, fake: FakeEngine, jobs: list[Cursor]) -> None:
    seen = [
        Cursor(look.cursor.operation_id, look.cursor.call, look.outcome.value.revision)
        for look in engine.batch_progress(jobs)
        if isinstance(look.outcome, Ok)
    ]
    assert engine.batch_progress(seen) == ()
    fake.set_state(seen[5].call.remote_id, "stopped")
    (look,) = engine.batch_progress(seen)
    assert look.cursor == seen[5]


def test_a_cursor_at_zero_that_is_left_out_was_not_seen(
    fake: FakeEngine, engine: Engine, jobs: list[Cursor]
) -> None:
    fake.script("BatchProgress", answer())
    seen = Cursor(jobs[1].operation_id, jobs[1].call, 7)
    (look,) = engine.batch_progress([jobs[0], seen])
    assert look.cursor == jobs[0]
    assert isinstance(look.outcome, Unknown)
    assert look.outcome.reason == "LEFT_OUT"


def test_each_cursor_names_its_operation(fake: FakeEngine, engine: Engine, jobs: list[Cursor]) -> None:
    wrong = Cursor(99, RemoteCall(jobs[0].call.name, jobs[1].call.remote_id, "production", 4), 0)
    (look,) = engine.batch_progress([wrong])
    assert isinstance(look.outcome, Refused)
    assert look.outcome.reason == "OPERATION_MISMATCH"


def test_not_found_in_a_batch_keeps_its_code(engine: Engine, jobs: list[Cursor]) -> None:
    looks = engine.batch_progress([*jobs, cursor_for(99, "R-404")])
    (lost,) = [look for look in looks if look.cursor.operation_id == 99]
    assert isinstance(lost.outcome, Refused)
    assert (lost.outcome.code, lost.outcome.reason) == ("NOT_FOUND", "APPLY_NOT_FOUND")
    assert "remote id R-404" in lost.outcome.message


def test_strangers_and_repetitions_are_dropped(fake: FakeEngine, engine: Engine) -> None:
    def entry(apply_id: str, state: int, inner: str | None = None) -> engine_v1.ProgressEntry:
        progress = tern_v1.ProgressResponse(
            apply_id=apply_id if inner is None else inner, state=tern_v1.State.ValueType(state)
        )
        return engine_v1.ProgressEntry(apply_id=apply_id, revision=5, progress=progress)

    entries = [entry("R-9", 6), entry("R-1", 2), entry("R-1", 7), entry("R-2", 6, inner="R-1"), entry("", 6)]
    fake.script("BatchProgress", answer(entries=entries))
    first, second = engine.batch_progress([cursor_for(1, "R-1"), cursor_for(2, "R-2")])
    assert isinstance(first.outcome, Ok)
    assert (first.outcome.value.state, first.outcome.value.revision) == (State.RUNNING, 5)
    assert isinstance(second.outcome, Unknown)
    assert second.outcome.reason == "STRANGER"


def test_an_entry_without_a_word_is_unknown_and_a_huge_revision_is_kept(
    fake: FakeEngine, engine: Engine
) -> None:
    silent = engine_v1.ProgressEntry(apply_id="R-1")
    huge = engine_v1.ProgressEntry(
        apply_id="R-2",
        revision=2**64 - 1,
        progress=tern_v1.ProgressResponse(apply_id="R-2", state=tern_v1.STATE_RUNNING),
    )
    fake.script("BatchProgress", answer(entries=[silent, huge]))
    first, second = engine.batch_progress([cursor_for(1, "R-1"), cursor_for(2, "R-2")])
    assert isinstance(first.outcome, Unknown)
    assert isinstance(second.outcome, Ok)
    assert second.outcome.value.revision == 2**64 - 1
    engine.batch_progress([cursor_for(2, "R-2", revision=second.outcome.value.revision)])
    assert fake.calls("BatchProgress")[1].request.cursors[0].revision == 2**64 - 1


def test_at_most_five_hundred_cursors_go_in_one_request(fake: FakeEngine, engine: Engine) -> None:
    looks = engine.batch_progress([cursor_for(number, f"R-{number}") for number in range(1, 1202)])
    assert len(looks) == 1201
    assert [len(call.request.cursors) for call in fake.calls("BatchProgress")] == [500, 500, 201]


def test_the_same_id_twice_is_never_in_one_request(
    fake: FakeEngine, engine: Engine, jobs: list[Cursor]
) -> None:
    doubled = Cursor(77, RemoteCall(jobs[1].call.name, jobs[0].call.remote_id, "production", 4), 0)
    looks = {look.cursor.operation_id: look.outcome for look in engine.batch_progress([jobs[0], doubled])}
    assert isinstance(looks[0], Ok)
    assert isinstance(looks[77], Refused)
    assert len(fake.calls("BatchProgress")) == 2


def test_a_failed_batch_is_an_answer_about_each(fake: FakeEngine, engine: Engine, jobs: list[Cursor]) -> None:
    fake.script("BatchProgress", fail("UNAVAILABLE"))
    looks = engine.batch_progress(jobs)
    assert len(looks) == len(jobs)
    assert {type(look.outcome) for look in looks} == {Unknown}


def test_a_batch_that_the_engine_cannot_bear_is_asked_one_by_one(
    fake: FakeEngine, engine: Engine, jobs: list[Cursor]
) -> None:
    """In batches of one, which tell more than the public contract; and by that where even one is too much."""
    fake.script("BatchProgress", fail("INVALID_ARGUMENT"), fail("INVALID_ARGUMENT"))
    assert all(isinstance(look.outcome, Ok) for look in engine.batch_progress(jobs))
    assert len(fake.calls("Progress")) == 1
    assert len(fake.calls("BatchProgress")) == 1 + len(jobs)
    engine.batch_progress(jobs)
    assert len(fake.calls("BatchProgress")) == 2 + len(jobs)


def test_without_batches_looks_are_single_and_few_at_a_time(directory: EngineDirectory) -> None:
    with FakeEngine("old", offers_engine_service=False) as fake:
        deployment = deployment_at(fake.address)
        engine = directory.of(deployment)
        fake.always("Progress", delay(0.02))
        cursors = [cursor_for(number, f"old-{number}") for number in range(1, 41)]
        looks = engine.batch_progress(cursors)
        assert {look.cursor for look in looks} == set(cursors)
        assert 1 < fake.max_concurrent <= CALLS_AT_ONCE


def test_the_lack_of_batches_is_remembered_for_an_hour(fake: FakeEngine, deployment: Deployment) -> None:
    clock = Clock()
    fake.always("BatchProgress", fail("UNIMPLEMENTED"))
    engine = client_of(deployment, clock)
    for _ in range(3):
        engine.batch_progress([cursor_for(1, "R-1")])
    assert (len(fake.calls("BatchProgress")), len(fake.calls("Progress"))) == (1, 3)
    clock.now += 3_601
    engine.batch_progress([cursor_for(1, "R-1")])
    assert len(fake.calls("BatchProgress")) == 2


def test_a_probe_ends_the_memory(fake: FakeEngine, deployment: Deployment) -> None:
    engine = client_of(deployment, Clock())
    fake.script("BatchProgress", fail("UNIMPLEMENTED"))
    engine.batch_progress([cursor_for(1, "R-1")])
    assert isinstance(engine.probe(), Ok)
    engine.batch_progress([cursor_for(1, "R-1")])
    assert len(fake.calls("BatchProgress")) == 3


def test_a_poll_of_an_engine_that_swallows_everything_ends(impatient: EngineDirectory) -> None:
    with FakeEngine("old", offers_engine_service=False) as fake:
        engine = impatient.of(deployment_at(fake.address))
        fake.always("Progress", hang(60, after_effect=False))
        begun = time.monotonic()
        looks = engine.batch_progress([cursor_for(number, f"old-{number}") for number in range(1, 101)])
        assert len(looks) == 100
        assert time.monotonic() - begun < 3  # thirteen rounds of a deadline each would be four seconds
        assert len(fake.calls("Progress")) <= 4 * CALLS_AT_ONCE
        assert {look.outcome.code for look in looks if isinstance(look.outcome, Unknown)} == {
            "DEADLINE_EXCEEDED"
        }


def test_the_time_of_a_poll_bounds_its_batches_too() -> None:
    clock = Clock()
    asked: list[int] = []

    def ask_batch(
        _: str, cursors: Sequence[Cursor], timeout_s: float
    ) -> Outcome[engine_v1.BatchProgressResponse]:
        asked.append(len(cursors))
        clock.now += timeout_s
        return About("BatchProgress", "us-east").unknown("", "", "DEADLINE_EXCEEDED")

    def ask_one(_: RemoteCall, __: float) -> Outcome[Sample]:
        raise AssertionError

    looks = Polling("us-east", ask_batch, ask_one, 10.0, clock).look(
        [cursor_for(number, f"R-{number}") for number in range(2_000)]
    )
    assert asked == [500, 500]
    assert len(looks) == 2_000


def client_of(deployment: Deployment, clock: Callable[[], float]) -> EngineClient:
    transport = GrpcTransport(Channels(), parse_address(deployment.address), deployment.credentials)
    return EngineClient(deployment, transport, deadline_s=5, monotonic=clock)


def test_no_cursors_mean_no_call(fake: FakeEngine, engine: Engine) -> None:
    assert engine.batch_progress([]) == ()
    assert not fake.calls()


def test_a_single_look_has_no_revision(engine: Engine, jobs: list[Cursor]) -> None:
    outcome = engine.progress(jobs[0].call)
    assert isinstance(outcome, Ok)
    assert outcome.value.revision == 0
    assert outcome.value.remote_id == jobs[0].call.remote_id
