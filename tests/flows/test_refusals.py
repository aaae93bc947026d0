"""Who said no: an engine that was asked, one that does not know the job, or we ourselves before anything was sent."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tern.domain.control import Verb
from tern.ports import Resolved
from tests.faults.behaviour import fail, hang, lose_answer, not_accepted
from tests.flows.steps import PARALLEL, drive, engine_says, look, open_wishes, running, settle, wishes
from tests.world import World

HALTING = pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])


def without_its_token(world: World, token: Path) -> None:
    """A's secret is named by a file that is not there."""
    world.write(
        "UPDATE deployments SET credentials = jsonb_build_object('token', CAST(:token AS text)) WHERE name = 'A'",
        token=f"file:{token}",
    )


@HALTING
def test_a_stop_that_can_not_be_sent_waits_until_it_can(world: World, verb: Verb, tmp_path: Path) -> None:
    """G9: a missing secret is no answer of the engine's, and the work goes on there until somebody mends it."""
    running(world, "A", "B")
    without_its_token(world, tmp_path / "token")
    world.ask(verb, "A")
    for _ in range(20):
        world.answer_bells()
        world.pass_time(4)
        world.sweep()
    delivery = world.delivery("A", verb)
    assert (delivery.state, delivery.attempts, delivery.refusals) == ("pending", 0, 0)
    assert "nothing was sent" in delivery.engine_words
    assert world.engines["A"].calls("Stop") + world.engines["A"].calls("Cancel") == []
    # told once, not every few seconds of an outage
    assert [event.event for event in world.events("A")].count(f"{verb}_unanswered") == 1
    (tmp_path / "token").write_text("secret")
    settle(world)
    assert world.state("A") == ("stopped" if verb is Verb.STOP else "cancelled")


def test_a_cutover_that_can_not_be_sent_fails_with_the_reason(world: World, tmp_path: Path) -> None:
    """CU5: a forward wish is no matter of life and death; it is visible, and asked again."""
    running(world, "A", "B")
    engine_says(world, "A", "waiting_for_cutover")
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()
    without_its_token(world, tmp_path / "token")
    drive(world, Verb.CUTOVER, "A")
    delivery = world.delivery("A", Verb.CUTOVER)
    assert delivery.state == "failed"
    assert "nothing was sent" in delivery.engine_words


def test_what_we_refuse_ourselves_spends_no_attempt_of_the_dispatch(world: World, tmp_path: Path) -> None:
    """G10, §5: the budget counts attempts made while the engine answers."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    without_its_token(world, tmp_path / "token")
    for _ in range(20):
        world.pass_time(61)
        world.sweep()
    assert world.operation("A").answered_attempts <= 1
    assert world.state("A") == "failed_retryable"
    (tmp_path / "token").write_text("secret")
    world.run(until=lambda: world.state("A") == "running", step_s=61)
    assert len(world.engines["A"].effects("apply")) == 1


@HALTING
def test_a_job_that_its_engine_does_not_know_is_ended_by_a_person(world: World, verb: Verb) -> None:
    """PO2: only somebody who looked leads out, and the refusal says so, with the command."""
    running(world, "A", "B")
    for method in ("Progress", "BatchProgress", "Stop", "Cancel"):
        world.engines["A"].always(method, fail("NOT_FOUND"))
    look(world, "A")
    assert world.state("A") == "uncertain"
    world.ask(verb, "A")
    world.run(until=lambda: world.delivery("A", verb).refusals > 2, step_s=30)
    delivery = world.delivery("A", verb)
    assert (delivery.state, world.state("A")) == ("pending", "uncertain")
    assert f"tern resolve {world.name('A')} --as ended" in delivery.engine_words
    world.store.resolve_uncertain(world.name("A"), Resolved.ENDED, None, "eve", "it is gone")
    settle(world)
    assert world.state("A") == "failed"
    assert wishes(world) == [("A", verb.value, "too_late")]


def test_when_the_engine_took_it_and_when_it_was_last_asked_are_two_times(world: World) -> None:
    """§2: sent_at is the engine's acceptance, called_at the last try."""
    running(world, "A", "B")
    world.engines["A"].script("Stop", fail("UNAVAILABLE"), not_accepted("busy"))
    world.engines["A"].ignore("Stop")
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert world.delivery("A", Verb.STOP).called_at is not None
    assert world.delivery("A", Verb.STOP).sent_at is None
    world.run(until=lambda: world.delivery("A", Verb.STOP).state == "sent")
    taken = world.delivery("A", Verb.STOP)
    assert taken.sent_at is not None
    world.pass_time(31)
    world.sweep()
    again = world.delivery("A", Verb.STOP)
    assert again.sent_at == taken.sent_at
    assert again.called_at > taken.called_at


def test_an_engine_that_swallows_a_revert_is_not_asked_twice_in_a_hurry(
    make_world: Callable[..., World],
) -> None:
    """CU3's twin, G10: no answer within the deadline, and the effect is there."""
    world = make_world("A", "B")
    running(world, "A", "B")
    engine_says(world, "A", "revert_window")
    world.engines["A"].script("Revert", hang(30))
    world.ask(Verb.REVERT, "A")
    world.answer_bells()
    settle(world)
    assert len(world.engines["A"].calls("Revert")) == 1
    assert world.state("A") == "reverted"
    assert open_wishes(world) == []
