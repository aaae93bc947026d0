"""Who checks the checks: each complaint of a run can be provoked, and a run without a fault has none."""

from dataclasses import replace
from typing import Any

import pytest

from tern.ports import DueWork
from tern.store.store import PostgresStore
from tests.faults.history import Asked, Done, History
from tests.simulation import checks
from tests.simulation.backend import Backend
from tests.simulation.clock import Clock
from tests.simulation.engines import EngineKind, Job, SimEngine
from tests.simulation.plan import read_plan
from tests.simulation.run import Run, play
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.shrink import shrink


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_is_wrong_when_nothing_goes_wrong(name: str, backend: Backend) -> None:
    result = play(backend, SCENARIOS[name])
    assert not result.wrong, str(result)


def test_the_same_plan_is_the_same_run(backend: Backend) -> None:
    plan = read_plan("17 unanswered, 31 freeze, 44 stop-first")
    first, second = (play(backend, SCENARIOS["rolling"], plan) for _ in range(2))
    assert first.trace == second.trace
    assert first.told == second.told


def test_another_end_than_expected_is_told(backend: Backend) -> None:
    other = replace(SCENARIOS["single"], ends={"A": "failed"})
    assert any("control run" in line for line in play(backend, other).wrong)


def test_a_rollout_that_never_ends_is_told(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    monkeypatch.setattr(PostgresStore, "due_work", lambda _self: DueWork())
    monkeypatch.setattr(PostgresStore, "due_deployments", lambda _self: ())
    assert any("never comes to rest" in line for line in play(backend, SCENARIOS["single"]).wrong)


def test_rest_that_comes_too_late_is_told(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    monkeypatch.setattr(checks, "REST_S", 1.0)
    assert any("at rest" in line for line in play(backend, SCENARIOS["single"]).wrong)


def test_an_error_that_nobody_expects_is_told(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(PostgresStore, "record_dispatched", broken)
    assert any("ZeroDivisionError" in line for line in play(backend, SCENARIOS["single"]).wrong)


def test_an_acknowledged_rollout_that_is_gone_is_told(
    monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    with backend.fresh():
        one = Run(backend, SCENARIOS["single"])
        one.acknowledged.append(("apply", "apl-77"))
        assert any(line.startswith("S13") for line in one.play().wrong)


def test_a_storage_error_ends_the_tick_and_nothing_else(backend: Backend) -> None:
    result = play(backend, SCENARIOS["single"], read_plan("4 database-down"))
    assert not result.wrong, str(result)


def test_a_statement_that_a_follow_up_does_again_is_told() -> None:
    clock = Clock()
    engine = SimEngine("A", EngineKind(), clock, lambda: clock.elapsed)
    done = (("apl-1/A", "one"), ("apl-1/A", "two"), ("apl-2/A", "two"), ("apl-3/A", "one"))
    engine.statements += [(Job("A-1", "key", name, False, ()), ddl) for name, ddl in done]  # noqa: FBT003
    chains = {"apl-1/A": "apl-1/A", "apl-2/A": "apl-1/A", "apl-3/A": "apl-3/A"}
    assert list(checks.done_twice(chains, {"A": engine})) == [
        "carried on: at A 'two' of apl-1/A was done 2 times"
    ]
    denied = [job for job, _ in engine.statements if job.operation == "apl-2/A"]
    assert list(checks.done_twice(chains, {"A": engine}, denied)) == []


@pytest.mark.parametrize(
    ("declares", "is_known", "is_dead", "is_denied"),
    [
        (True, True, False, True),
        (False, True, False, False),
        (True, False, False, False),
        (False, False, True, True),
    ],
)
def test_only_what_its_engine_denies_is_no_work_that_was_started(
    declares: bool,  # noqa: FBT001
    is_known: bool,  # noqa: FBT001
    is_dead: bool,  # noqa: FBT001
    is_denied: bool,  # noqa: FBT001
) -> None:
    """It forgot the job. That it ran the key again is its fault only where a person had said that it does not; and
    work that is merely forgotten stays work.
    """
    clock = Clock()
    engine = SimEngine("A", EngineKind(), clock, lambda: clock.elapsed)
    first = Job("A-1", "key", "apl-1/A", False, ())  # noqa: FBT003
    engine.forgotten.append(first)
    engine.effects += [Done(number, "A", "apply", "A-1", "key", "apl-1/A") for number in (1.0, 2.0)]
    if is_known:
        engine.jobs["A-1"] = replace(first)
    if is_dead:
        engine.effects.append(Done(3.0, "A", "forbid", "", "key", "apl-1/A"))
    denied = engine.disowned(declares=declares)
    assert denied == [first] * is_denied
    assert [one.is_duplicate for one in checks.judged(engine.effects, denied)][:2] == [is_denied, False]


def test_a_failing_plan_shrinks_to_what_makes_it_fail() -> None:
    plan = read_plan("3 lose, 9 yield, 14 freeze, 20 away, 31 stop")
    found = shrink(plan, lambda candidate: any(fault.kind in {"away", "lost"} for fault in candidate))
    assert [fault.kind for fault in found] == ["lost"]


def test_a_key_that_is_sent_again_unasked_is_told() -> None:
    def call(at: float, method: str, engine: str = "A") -> Asked:
        return Asked(at, engine, method, key="key", operation=f"apl-1/{engine}")

    asked = (call(1.0, "Apply"), call(3.0, "Apply"), call(2.0, "Resolve"))
    unasked = (call(1.0, "Resolve"), call(2.0, "Apply"), call(3.0, "Apply"), call(2.5, "Resolve", "B"))
    assert not list(checks.sent_again_unasked({"A"}, History(calls=asked)))
    assert not list(checks.sent_again_unasked({"B"}, History(calls=unasked)))
    assert len(list(checks.sent_again_unasked({"A"}, History(calls=unasked)))) == 1
