"""What can go wrong in a run goes wrong as it is named: clocks, engines without a memory, and who says that."""

from types import SimpleNamespace
from typing import Any

import pytest

from tern.domain.identity import ApplyId, DispatchKey, RemoteId, ScopeName
from tern.domain.model import Claim, Forbidden, RemoteCall, Started, Unsupported
from tern.domain.outcome import Ok, Refused
from tern.store.sql import text
from tests.faults.history import Asked, History
from tests.simulation.backend import Backend
from tests.simulation.checks import new_work_while_drained
from tests.simulation.clock import EPOCH, Clock
from tests.simulation.engines import EngineKind, SimEngine
from tests.simulation.mishaps import befall
from tests.simulation.plan import KINDS, NOT_YET, Point, read_plan, single_faults
from tests.simulation.run import play
from tests.simulation.scenarios import SCENARIOS


def _engine(kind: EngineKind | None = None) -> SimEngine:
    clock = Clock()
    return SimEngine("A", kind or EngineKind(), clock, lambda: clock.elapsed)


def _scope(apply_id: str) -> Any:
    name = ScopeName(ApplyId(apply_id), "A")
    return SimpleNamespace(name=name, policy=SimpleNamespace(defers_cutover=False), changes=())


def _apply(engine: SimEngine, apply_id: str) -> Any:
    return engine.apply(_scope(apply_id), _claim(apply_id))


def _claim(apply_id: str) -> Claim:
    return Claim(1, "token", 1, 1, 1, DispatchKey(f"key of {apply_id}"))


def _resolve(engine: SimEngine, apply_id: str) -> Any:
    claim = _claim(apply_id)
    return engine.resolve(_scope(apply_id), claim, claim.key, forbid=True)


def _look(engine: SimEngine, apply_id: str, remote_id: str) -> Any:
    name = ScopeName(ApplyId(apply_id), "A")
    return engine.progress(RemoteCall(name, RemoteId(remote_id), "test", 1))


def test_only_the_database_s_clock_is_set_back() -> None:
    clock = Clock()
    clock.pass_(10.0)
    clock.set_back(3_600.0)
    clock.jump_to(EPOCH + 12.0)
    assert (clock.elapsed, clock.now) == (EPOCH + 12.0, EPOCH - 3_588.0)


def test_tern_reads_the_clock_that_was_set_back_and_the_audit_does_not(backend: Backend) -> None:
    with backend.fresh():
        backend.clock.set_back(3_600.0)
        backend.clock.pass_(0.5)
        with backend.database.begin() as tx:
            found = tx.execute(
                text(
                    "SELECT extract(epoch FROM tern_clock())::float AS now, (current_setting('tern.now')::numeric"
                    " - current_setting('tern.ahead')::numeric)::float8 AS elapsed"
                )
            ).one()
    assert (found.now, found.elapsed) == (EPOCH - 3_599.5, EPOCH + 0.5)


def test_a_clock_that_goes_back_a_little_disturbs_nothing(backend: Backend) -> None:
    result = play(backend, SCENARIOS["single"], read_plan("5 clock-back-a-little, 18 clock-back-a-little"))
    assert not result.wrong, str(result)


def test_an_engine_that_starts_over_gives_its_ids_out_again() -> None:
    engine = _engine()
    assert _apply(engine, "apl-1") == Ok(RemoteId("A-1"))
    befall(engine, "starts-over")
    assert isinstance(_look(engine, "apl-1", "A-1"), Refused)
    assert _resolve(engine, "apl-1") == Ok(Forbidden())
    assert _apply(engine, "apl-2") == Ok(RemoteId("A-1"))
    assert [job.operation for job in engine.forgotten] == ["apl-1/A"]


def test_an_engine_that_took_another_s_place_knows_and_offers_nothing() -> None:
    engine = _engine()
    assert _apply(engine, "apl-1") == Ok(RemoteId("A-1"))
    assert _resolve(engine, "apl-1") == Ok(Started(RemoteId("A-1")))
    befall(engine, "replaced")
    assert _resolve(engine, "apl-1") == Ok(Unsupported())
    assert [_apply(engine, "apl-1") for _ in range(2)] == [Ok(RemoteId("A'-1")), Ok(RemoteId("A'-2"))]


@pytest.mark.parametrize("always", [False, True])
def test_an_engine_that_answers_with_a_taken_id(always: bool) -> None:  # noqa: FBT001
    engine = _engine(EngineKind(lends_ids=always))
    assert _apply(engine, "apl-1") == Ok(RemoteId("A-1"))
    if not always:
        befall(engine, "taken-id")
    assert _apply(engine, "apl-2") == Ok(RemoteId("A-1"))
    assert _apply(engine, "apl-3") == Ok(RemoteId("A-1" if always else "A-2"))


@pytest.mark.parametrize(("fences", "answers"), [(True, Refused), (False, Ok)])
def test_an_engine_without_fences_does_not_know_whose_job_it_is(fences: bool, answers: type) -> None:  # noqa: FBT001
    engine = _engine(EngineKind(fences=fences))
    _apply(engine, "apl-1")
    assert isinstance(_look(engine, "apl-2", "A-1"), answers)


def test_new_work_at_a_drained_deployment_is_told() -> None:
    calls = tuple(Asked(at, "A", "Apply", operation="apl-1/A") for at in (1.0, 3.0, 5.0))
    drains = [(2.0, "A", True), (2.5, "B", False), (4.0, "A", False)]
    assert len(list(new_work_while_drained(drains, History(calls=calls)))) == 1


def test_what_is_drained_is_opened_again(backend: Backend) -> None:
    result = play(backend, SCENARIOS["rolling"], read_plan("20 drain"))
    assert set(result.states.values()) == {"completed"}


def test_what_tern_does_not_stand_yet_is_played_when_asked_for_by_name() -> None:
    assert NOT_YET.keys() <= KINDS.keys()
    points = [Point(1, "dispatch", "engine", "apply")]
    assert not {fault.kind for fault in single_faults(points)} & NOT_YET.keys()
    for kind in NOT_YET:
        assert {fault.kind for fault in single_faults(points, only={kind})} == {kind}
