"""Cancelling is permanent, legal in every state that is not finished, and never guesses (G8, G10)."""

from collections.abc import Callable

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.identity import RemoteId
from tern.ports import Resolved
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import (
    PARALLEL,
    drive,
    engine_says,
    held_targets,
    look,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    tables,
    waiting,
    wishes,
)
from tests.world import World


def pending(world: World) -> None:
    """Nobody has dispatched it."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()


def dispatched(world: World) -> None:
    running(world, "A", "B")


def before_cutover(world: World) -> None:
    waiting(world, "A", "B")


def stopped_with_id(world: World) -> None:
    stopped(world, "A", "B")


def stopped_without_id(world: World) -> None:
    pending(world)
    world.ask(Verb.STOP)
    settle(world)


def unanswered_and_there(world: World) -> None:
    """The answer got lost, the work runs."""
    for engine in world.engines.values():
        engine.script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"


def unanswered_and_not_there(world: World) -> None:
    for engine in world.engines.values():
        engine.script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"


def uncertain(world: World) -> None:
    """Nobody got an answer, ten times."""
    unanswered_and_there(world)
    world.write("UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL")


GIVEN = (
    (pending, []),
    (dispatched, ["Apply", "Cancel"]),
    (before_cutover, ["Apply", "Cancel"]),
    (stopped_with_id, ["Apply", "Stop", "Cancel"]),
    (stopped_without_id, []),
    (unanswered_and_there, ["Apply", "Cancel"]),
    (unanswered_and_not_there, ["Apply"]),
    (uncertain, ["Apply", "Cancel"]),
)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "one"])
@pytest.mark.parametrize(("given", "calls"), GIVEN, ids=[given.__name__ for given, _ in GIVEN])
def test_cancel_ends_cancelled(
    world: World, given: Callable[[World], None], calls: list[str], *, whole: bool
) -> None:
    """§7, S17: in every state, of one operation and of all."""
    given(world)
    before = methods(world, "B"), world.state("B")
    world.ask(Verb.CANCEL, *(() if whole else ("A",)))
    settle(world)
    # What its engine was never told of was never begun there.
    word = "cancelled" if calls[1:] else "skipped"
    assert (world.state("A"), tables(world, "A")) == ("cancelled", {word})
    assert methods(world, "A") == calls
    if calls[1:]:
        assert world.engines["A"].job(str(world.remote_id("A"))).state == "cancelled"
    if whole:
        assert world.apply_row().state == "cancelled"
        assert held_targets(world) == set()
    elif before[1] in {"running", "waiting_for_cutover", "stopped"}:
        assert (methods(world, "B"), world.state("B")) == before
    assert world.outcomes(world.ask(Verb.CANCEL, "A")) == {"A": Receipt.ALREADY}


@pytest.mark.parametrize("given", [unanswered_and_there, uncertain])
def test_cancel_without_resolve_waits_for_a_person(
    make_world: Callable[..., World], given: Callable[[World], None]
) -> None:
    """G10: nothing terminal is written as long as nobody can know; a person's answer lets it go on."""
    world = make_world("A", "B", offers_engine_service=False, deduplicates=False)
    world.write("UPDATE deployments SET idempotent_dispatch = true")
    given(world)
    world.ask(Verb.CANCEL, "A")
    for _ in range(3):
        world.answer_bells()
        world.pass_time(60)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert open_wishes(world) == [("A", "cancel", "pending")]
    assert methods(world, "A") == ["Apply"]
    remote_id = RemoteId(next(iter(world.engines["A"].jobs.by_id)))
    world.resolve("A", Resolved.REMOTE_ID, remote_id, why="I looked")
    settle(world)
    assert world.state("A") == "cancelled"
    assert [call.remote_id for call in world.engines["A"].calls("Cancel")] == [remote_id]


def test_cancel_of_a_finished_operation_is_too_late(world: World) -> None:
    """ST4's twin: the truth is that it finished."""
    running(world, "A", "B")
    engine_says(world, "A", "completed", looks=False)
    world.ask(Verb.CANCEL, "A")
    settle(world)
    assert world.state("A") == "completed"
    assert wishes(world) == [("A", "cancel", "too_late")]


def test_cancel_and_stop_open_cancel_goes_first(world: World) -> None:
    """RA3: precedence, whatever came first."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.ask(Verb.CANCEL, "A")
    drive(world, Verb.STOP, "A")
    assert methods(world, "A") == ["Apply"]
    settle(world)
    assert methods(world, "A") == ["Apply", "Cancel"]
    assert world.state("A") == "cancelled"
    assert wishes(world) == [("A", "stop", "too_late"), ("A", "cancel", "acknowledged")]


def test_cancel_of_all_is_acknowledged_by_each_for_itself(world: World) -> None:
    """G8: one wish, three fates."""
    running(world)
    engine_says(world, "A", "completed", looks=False)
    world.engines["B"].ignore("Cancel")
    world.ask(Verb.CANCEL)
    world.answer_bells()
    look(world, "A")
    assert wishes(world) == [
        ("A", "cancel", "too_late"),
        ("B", "cancel", "sent"),
        ("C", "cancel", "acknowledged"),
    ]
    assert world.apply_row().state == "running_degraded"


def test_cancel_the_engine_did_not_ask_us_for_is_taken_as_said(world: World) -> None:
    """§8: with an event that names the engine."""
    running(world, "A", "B")
    engine_says(world, "A", "cancelled")
    assert world.state("A") == "cancelled"
    assert world.events("A")[-1].who == "engine:A"


def test_a_cancel_of_what_its_engine_forgot_leads_to_a_person(world: World) -> None:
    """G10: the engine refuses it for ever, so the way out that the refusal names must be one that is taken."""
    stopped(world, "A", "B")
    world.engines["A"].forget()
    look(world, "A")
    assert world.state("A") == "stopped"
    world.ask(Verb.CANCEL, "A")
    world.run(until=lambda: world.state("A") == "uncertain", rounds=8, step_s=8)
    assert f"tern resolve {world.name('A')} --as ended" in world.delivery("A", Verb.CANCEL).engine_words
    world.pass_time(61)
    world.resolve("A", Resolved.ENDED)
    settle(world)
    assert (world.state("A"), open_wishes(world)) == ("failed", [])
