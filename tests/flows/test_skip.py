"""Leaving a deployment behind: only what was never at its engine, for good, and so that the order goes on."""

from collections.abc import Callable

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.policy import Copy, Policy
from tern.flows.dispatch import dispatch
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import (
    PARALLEL,
    committed_late,
    drive,
    engine_says,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    tables,
    wishes,
)
from tests.invariants import assert_safe
from tests.world import World

ROLLING = Policy(copy=Copy.ROLLING)


def rolling(world: World) -> None:
    """A runs, B and C wait for their turn."""
    world.apply("A", "B", "C", policy=ROLLING)
    world.answer_bells()
    assert [world.state(name) for name in "ABC"] == ["running", "pending", "pending"]


def test_a_skipped_operation_is_left_behind_and_the_next_one_goes(world: World) -> None:
    """§7, G8: with its statements, an event that names who and why, and no call."""
    rolling(world)
    assert world.outcomes(world.ask(Verb.SKIP, "B")) == {"B": Receipt.ACCEPTED}
    world.answer_bells()
    assert (world.state("B"), tables(world, "B")) == ("skipped", {"skipped"})
    event = next(event for event in world.events("B") if event.event == "skip")
    assert (event.who, event.before, event.after) == ("bob", "pending", "skipped")
    assert "the night is long" in event.why
    engine_says(world, "A", "completed")
    world.run(until=lambda: world.state("C") == "running", rounds=3)
    assert methods(world, "B") == []
    assert wishes(world) == [("B", "skip", "acknowledged")]
    assert world.outcomes(world.ask(Verb.SKIP, "B")) == {"B": Receipt.ALREADY}
    assert_safe(world)


def test_skipping_a_stopped_one_that_blocks_the_order_leads_out_of_the_pause(world: World) -> None:
    """§3: paused because nobody goes around a stopped one; a person leaves it behind."""
    rolling(world)
    world.ask(Verb.STOP, "B")
    settle(world)
    engine_says(world, "A", "completed")
    world.sweep()
    assert (world.state("B"), world.apply_row().state) == ("stopped", "paused")
    world.ask(Verb.SKIP, "B")
    world.run(until=lambda: world.state("C") == "running", rounds=3)
    assert world.state("B") == "skipped"
    assert_safe(world)


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "heard"])
def test_the_last_ones_skipped_end_the_rollout(world: World, *, lost: bool) -> None:
    """BR1: with the bells and without."""
    rolling(world)
    engine_says(world, "A", "completed")
    world.write("UPDATE apply_operations SET next_attempt_at = NULL WHERE state = 'pending'")
    world.forget_bells()
    world.ask(Verb.SKIP, "B", "C")
    if lost:
        world.forget_bells()
        world.sweep()
    world.answer_bells()
    assert [world.state(name) for name in "ABC"] == ["completed", "skipped", "skipped"]
    assert world.apply_row().state == "completed"


def lost_answer(world: World) -> None:
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()


def at_its_engine(world: World) -> None:
    running(world, "A", "B")


def stopped_there(world: World) -> None:
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    settle(world)


def uncertain(world: World) -> None:
    lost_answer(world)
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL WHERE deployment = 'A'"
    )


@pytest.mark.parametrize("given", [lost_answer, at_its_engine, stopped_there, uncertain])
def test_what_may_be_at_its_engine_is_refused_with_the_command_that_ends_it(
    world: World, given: Callable[[World], None]
) -> None:
    """G10: nobody leaves work behind that may be going on."""
    given(world)
    (line,) = world.ask(Verb.SKIP, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert f"tern cancel {world.name('A')}" in line.reason


def test_a_failed_one_is_behind_already(world: World) -> None:
    """§7: nothing of it is left to leave behind; what helps is named."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    (line,) = world.ask(Verb.SKIP, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert f"tern retry {world.name('A')}" in line.reason


def test_an_accepted_skip_is_not_overtaken_by_a_dispatch(world: World) -> None:
    """G9's twin: what was promised to be left behind is not begun."""
    world.apply("A", "B", policy=PARALLEL)
    world.ask(Verb.SKIP, "A")
    dispatch(world.operation("A").id, str(world.name("A")), world.ports)
    assert methods(world, "A") == []
    assert world.state("A") == "pending"
    settle(world)
    assert world.state("A") == "skipped"


def test_a_skip_between_claim_and_call_is_heard(world: World) -> None:
    """ST7's twin: nothing was sent, so it is taken back and left behind."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    ports = meanwhile(world.ports, "may_go_forward", lambda: committed_late(world, Verb.SKIP, "A"))
    dispatch(world.operation("A").id, str(world.name("A")), ports)
    assert methods(world, "A") == []
    settle(world)
    assert world.state("A") == "skipped"


def test_a_skip_that_comes_after_the_call_fails_with_the_way_out(world: World) -> None:
    """G10: it was accepted on what the rows said, and then the dispatch was faster."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    dispatch(world.operation("A").id, str(world.name("A")), world.ports)
    committed_late(world, Verb.SKIP, "A")
    settle(world)
    assert world.delivery("A", Verb.SKIP).state == "failed"
    assert "cancel ends that" in world.delivery("A", Verb.SKIP).engine_words
    assert world.state("A") == "running"


def test_a_start_does_not_undo_a_skip(world: World) -> None:
    """§7: skipping is permanent, and says so."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.ask(Verb.SKIP, "A")
    world.forget_bells()
    receipt = world.ask(Verb.START, "A")
    assert world.outcomes(receipt) == {"A": Receipt.REFUSED}
    assert "permanent" in receipt.lines[0].reason


@pytest.mark.parametrize("first", [Verb.STOP, Verb.CANCEL])
def test_skip_and_stop_both_open(world: World, first: Verb) -> None:
    """RA3: cancel before skip before stop, and each wish has its end."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.ask(Verb.SKIP, "A")
    world.ask(first, "A")
    world.forget_bells()
    settle(world)
    assert world.state("A") == ("cancelled" if first is Verb.CANCEL else "skipped")
    assert open_wishes(world) == []


def test_a_single_driver_skips_as_well(world: World) -> None:
    """CL4: where the bell for all was lost, each finds its own."""
    world.apply("A", "B", policy=PARALLEL)
    world.ask(Verb.SKIP, "A")
    world.forget_bells()
    drive(world, Verb.SKIP, "A")
    assert world.state("A") == "skipped"
    assert wishes(world) == [("A", "skip", "acknowledged")]
    assert_safe(world)
