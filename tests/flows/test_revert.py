"""The revert window: back or for good, by its own sample, with its own id, once."""

import pytest

from tern.domain.control import Receipt, Verb
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.steps import (
    committed_late,
    drive,
    engine_says,
    look,
    methods,
    running,
    settle,
    waiting,
    wishes,
)
from tests.world import World

BOTH = pytest.mark.parametrize(
    ("verb", "method", "ends"),
    [(Verb.REVERT, "Revert", "reverted"), (Verb.SKIP_REVERT, "SkipRevert", "completed")],
)


def in_its_window(world: World, *names: str) -> dict[str, str]:
    """Every operation has been cut over and can be taken back."""
    ids = running(world, *(names or ("A", "B")))
    for name in ids:
        engine_says(world, name, "revert_window")
    return ids


@BOTH
def test_each_goes_with_its_own_id(world: World, verb: Verb, method: str, ends: str) -> None:
    """G2, G8."""
    ids = in_its_window(world)
    assert world.outcomes(world.ask(verb, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert [call.remote_id for call in world.engines["A"].calls(method)] == [ids["A"]]
    assert world.engines["B"].calls(method) == []
    assert (world.state("A"), world.state("B")) == (ends, "revert_window")
    assert wishes(world) == [("A", verb.value, "acknowledged")]


@BOTH
def test_a_single_rollout_needs_no_choice(world: World, verb: Verb, method: str, ends: str) -> None:
    """G1, G7."""
    in_its_window(world, "A")
    world.ask(verb)
    settle(world)
    assert [call.remote_id for call in world.engines["A"].calls(method)] == [world.apply_row().external_id]
    assert world.apply_row().state == ends


@BOTH
def test_unanswered_is_repeated_only_on_a_sample_from_after_its_deadline(
    world: World, verb: Verb, method: str, ends: str
) -> None:
    """CU3's twin (G10): until the deadline is over, `in its window` proves nothing."""
    in_its_window(world)
    world.engines["A"].script(method, fail("UNAVAILABLE"))
    world.ask(verb, "A")
    world.answer_bells()
    assert len(world.engines["A"].calls(method)) == 1
    world.pass_time(9)
    look(world, "A")
    world.pass_time(30)
    drive(world, verb, "A")
    assert len(world.engines["A"].calls(method)) == 1
    look(world, "A")
    world.pass_time(2)
    drive(world, verb, "A")
    assert len(world.engines["A"].calls(method)) == 2
    settle(world)
    assert world.state("A") == ends


@BOTH
def test_an_answer_that_got_lost_has_one_effect(world: World, verb: Verb, method: str, ends: str) -> None:
    """S14 (G10)."""
    in_its_window(world)
    world.engines["A"].script(method, lose_answer())
    world.ask(verb, "A")
    settle(world, step_s=15)
    assert len(world.engines["A"].calls(method)) == 1
    assert world.state("A") == ends
    assert wishes(world) == [("A", verb.value, "acknowledged")]


@BOTH
def test_refused_is_visible_and_bounded(world: World, verb: Verb, method: str, ends: str) -> None:
    """CU5's twin: with the engine's words; it is still in its window, and can be asked again."""
    in_its_window(world)
    world.engines["A"].script(method, not_accepted("a replica lags"))
    world.ask(verb, "A")
    settle(world)
    assert len(world.engines["A"].calls(method)) == 1
    assert "a replica lags" in world.delivery("A", verb).engine_words
    assert world.state("A") == "revert_window"
    world.ask(verb, "A")
    settle(world)
    assert world.state("A") == ends


@BOTH
def test_an_engine_that_does_not_offer_it_fails_it_in_plain_words(
    world: World, verb: Verb, method: str, ends: str
) -> None:
    """UNIMPLEMENTED is a definite answer."""
    in_its_window(world)
    world.engines["A"].script(method, fail("UNIMPLEMENTED"))
    world.ask(verb, "A")
    settle(world)
    delivery = world.delivery("A", verb)
    assert delivery.state == "failed"
    assert f"the engine does not offer {method}" in delivery.engine_words
    assert world.state("A") != ends


@BOTH
def test_outside_its_window_it_is_refused_with_all_reasons(
    world: World, verb: Verb, method: str, ends: str
) -> None:
    """§7: every unmet condition at once."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    (line,) = world.ask(verb, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert "a stop covers it" in line.reason
    assert "it is running, not in its revert window" in line.reason
    assert methods(world, "A", [method]) == []
    del ends


@BOTH
def test_a_stop_before_the_call_goes_first(world: World, verb: Verb, method: str, ends: str) -> None:
    """G9: a forward call is not begun under a stop."""
    in_its_window(world)
    world.ask(verb, "A")
    world.ask(Verb.STOP, "A")
    drive(world, verb, "A")
    settle(world)
    assert methods(world, "A", [method, "Stop"]) == ["Stop"]
    assert world.state("A") != ends


def test_of_two_that_exclude_each_other_the_first_counts(world: World) -> None:
    """§7: refused while the other is on its way."""
    in_its_window(world)
    world.ask(Verb.REVERT, "A")
    world.forget_bells()
    (line,) = world.ask(Verb.SKIP_REVERT, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert "a revert is on its way" in line.reason


def test_of_two_that_were_accepted_together_one_call_is_made(world: World) -> None:
    """S14: neither saw the other; the earlier one goes, the later one fails with the reason."""
    in_its_window(world)
    world.ask(Verb.REVERT, "A")
    world.forget_bells()
    committed_late(world, Verb.SKIP_REVERT, "A")
    drive(world, Verb.SKIP_REVERT, "A")
    assert "a revert was asked for first" in world.delivery("A", Verb.SKIP_REVERT).engine_words
    settle(world)
    assert methods(world, "A", ["Revert", "SkipRevert"]) == ["Revert"]
    assert world.state("A") == "reverted"


def test_what_waits_for_its_cutover_can_not_be_taken_back(world: World) -> None:
    """Nothing is to be seen yet that could be reverted."""
    waiting(world, "A", "B")
    assert world.outcomes(world.ask(Verb.REVERT, "A")) == {"A": Receipt.REFUSED}


def test_too_late_when_the_window_has_closed(world: World) -> None:
    """ST4's twin: the truth is that it is completed."""
    in_its_window(world)
    world.ask(Verb.REVERT, "A")
    world.forget_bells()
    engine_says(world, "A", "completed")
    settle(world)
    assert wishes(world) == [("A", "revert", "too_late")]
    assert methods(world, "A", ["Revert"]) == []
    assert world.outcomes(world.ask(Verb.REVERT, "A")) == {"A": Receipt.TOO_LATE}
