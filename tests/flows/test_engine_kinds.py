"""The same rollout with engines of three kinds: with the second service, without it, and without deduplication (G4)."""

from collections.abc import Callable

import pytest

from tern.domain.control import Verb
from tern.domain.policy import Copy, Policy
from tern.ports import Resolved
from tests.faults.behaviour import fail, lose_answer
from tests.faults.cut import Killed, interrupted, kill
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
PARALLEL = Policy(copy=Copy.PARALLEL)
KINDS = ("resolves", "deduplicates", "plain")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def of_kind(make_world: MakeWorld, kind: str) -> World:
    """A and B, at engines of this kind, registered as a person would who knows them: only of the second kind is
    anything declared.
    """
    world = make_world("A", "B", offers_engine_service=kind == "resolves", deduplicates=kind != "plain")
    if kind == "deduplicates":
        world.write("UPDATE deployments SET idempotent_dispatch = true")
    else:
        world.undeclared()
    return world


def settle(world: World, rounds: int = 3) -> None:
    for _ in range(rounds):
        world.answer_bells()
        world.pass_time(31)
        world.sweep()


def finish(world: World) -> None:
    for name, engine in world.engines.items():
        engine.set_state(str(world.remote_id(name)), "completed")
    world.run(until=lambda: world.apply_row().state == "completed", step_s=6)
    assert_safe(world)


def asked(world: World) -> int:
    return len(world.engines["A"].calls("Apply"))


def test_a_rollout_without_faults(of_kind: World) -> None:
    """The control run: the second service is a help, never a need."""
    of_kind.apply(policy=PARALLEL)
    settle(of_kind)
    finish(of_kind)
    assert [len(engine.calls("Apply")) for engine in of_kind.engines.values()] == [1, 1]


def test_the_answer_is_lost(of_kind: World, kind: str) -> None:
    """K2, G4: the same key again only where that was declared; else its engine is asked, or a person."""
    of_kind.engines["A"].script("Apply", lose_answer())
    of_kind.apply(policy=PARALLEL)
    settle(of_kind)
    if kind == "plain":
        assert of_kind.state("A") == "uncertain"
        assert asked(of_kind) == 1
        of_kind.resolve("A", Resolved.REMOTE_ID, "A-1", why="found")
    else:
        assert of_kind.state("A") == "running"
        assert asked(of_kind) == (2 if kind == "deduplicates" else 1)
    assert len(of_kind.engines["A"].effects("apply")) == 1
    finish(of_kind)


def test_the_worker_dies_between_call_and_id(of_kind: World, kind: str) -> None:
    """K1-K3, D16: another worker goes on where it can know, and asks where it can't."""
    of_kind.apply(policy=PARALLEL)
    with pytest.raises(Killed):
        of_kind.answer_one(interrupted(of_kind.worker("w1"), "apply", after=kill))
    of_kind.forget_bells()
    settle(of_kind)
    assert of_kind.state("A") == ("uncertain" if kind == "plain" else "running")
    assert asked(of_kind) == (2 if kind == "deduplicates" else 1)
    assert len(of_kind.engines["A"].effects("apply")) == 1
    assert_safe(of_kind)


def test_a_stop_meets_an_unanswered_dispatch(of_kind: World, kind: str) -> None:
    """ST3, S17: resolved where the engine can tell; else it is uncertain and the stop stays open, without an Apply."""
    of_kind.engines["A"].script("Apply", lose_answer())
    of_kind.apply(policy=PARALLEL)
    of_kind.answer_bells()
    of_kind.ask(Verb.STOP, "A")
    settle(of_kind)
    assert asked(of_kind) == 1
    if kind == "resolves":
        assert of_kind.state("A") == "stopped"
        assert of_kind.engines["A"].job("A-1").state == "stopped"
    else:
        assert of_kind.state("A") == "uncertain"
        assert of_kind.delivery("A", Verb.STOP).state == "pending"
        of_kind.resolve("A", Resolved.REMOTE_ID, "A-1", why="found")
        settle(of_kind)
        assert of_kind.state("A") == "stopped"
        assert of_kind.engines["A"].job("A-1").state == "stopped"
    assert_safe(of_kind)


def test_a_refusal_after_a_lost_answer(of_kind: World, kind: str) -> None:
    """D17: never failed over live work, whatever the engine can tell."""
    of_kind.engines["A"].script("Apply", lose_answer(), fail("UNAUTHENTICATED"))
    of_kind.apply(policy=PARALLEL)
    settle(of_kind)
    assert of_kind.state("A") == ("running" if kind == "resolves" else "uncertain")
    assert len(of_kind.engines["A"].effects("apply")) == 1
    assert "failed" not in {event.after for event in of_kind.events("A")}


def test_a_first_refusal_is_definite_for_all(of_kind: World) -> None:
    """G10: a definite answer is always written."""
    of_kind.engines["A"].script("Apply", fail("FAILED_PRECONDITION", message="not here"))
    of_kind.apply(policy=PARALLEL)
    settle(of_kind, 1)
    assert of_kind.state("A") == "failed"
    assert asked(of_kind) == 1


def test_what_a_person_declared_is_what_counts(make_world: MakeWorld) -> None:
    """G4: an engine without the second service repeats nothing until somebody says that it deduplicates."""
    world = make_world("A", "B", offers_engine_service=False)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply(policy=PARALLEL)
    settle(world)
    assert world.state("A") == "uncertain"
    assert asked(world) == 1
