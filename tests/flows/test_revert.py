"""The revert window: back or for good, by its own sample, with its own id, once."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.selection import Selection
from tern.ports import Asked
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


HALTING = pytest.mark.parametrize("halt", [Verb.STOP, Verb.CANCEL])


@HALTING
def test_what_was_acknowledged_before_the_window_covers_nothing_in_it(world: World, halt: Verb) -> None:
    """§11: it came too late after all: an engine that said stopped shows the change live."""
    running(world, "A", "B")
    world.ask(halt, "A")
    world.forget_bells()
    world.write(
        "UPDATE control_deliveries SET state = 'acknowledged', closed_at = tern_clock(), next_attempt_at = NULL"
    )
    assert f"a {halt} covers it" in world.ask(Verb.VOLUME, "A", volume=3).lines[0].reason
    engine_says(world, "A", "revert_window")
    assert world.outcomes(world.ask(Verb.REVERT, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert world.state("A") == "reverted"


@BOTH
@HALTING
def test_a_stop_pressed_before_its_window_does_not_stand_in_the_way(
    world: World, verb: Verb, method: str, ends: str, halt: Verb
) -> None:
    """§11: the sample that shows the window ends every stop there, in the same transaction; the change is live."""
    running(world, "A", "B")
    world.engines["A"].always(halt.value.capitalize(), not_accepted("not now"))
    world.ask(halt, "A")
    world.answer_bells()
    assert world.delivery("A", halt).refusals == 1
    engine_says(world, "A", "revert_window")
    assert (world.state("A"), wishes(world)) == ("revert_window", [("A", halt.value, "too_late")])
    assert world.outcomes(world.ask(verb, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert world.state("A") == ends
    assert len(world.engines["A"].calls(method)) == 1


@BOTH
@HALTING
def test_a_stop_that_is_committed_in_its_window_ends_too_late(
    world: World, verb: Verb, method: str, ends: str, halt: Verb
) -> None:
    """§11: accepted on rows as they were a moment ago, beside a wish that takes the change back."""
    in_its_window(world)
    world.ask(verb, "A")
    committed_late(world, halt, "A")
    settle(world)
    assert wishes(world) == [("A", verb.value, "acknowledged"), ("A", halt.value, "too_late")]
    assert world.engines["A"].calls(halt.value.capitalize()) == []
    assert (world.state("A"), len(world.engines["A"].calls(method))) == (ends, 1)


@HALTING
def test_a_stop_in_the_window_is_refused_with_the_commands_that_help(world: World, halt: Verb) -> None:
    """§11: and both are taken there."""
    in_its_window(world)
    (line,) = world.ask(halt, "A").lines
    assert line.outcome is Receipt.REFUSED
    for verb in (Verb.REVERT, Verb.SKIP_REVERT):
        assert f"`tern {verb} {world.name('A')} --reason '…'`" in line.reason
        asked = Asked(verb, world.last, Selection(("A",)), "bob", "why", dry_run=True)
        assert world.store.accept_wish(asked).lines[0].outcome is Receipt.ACCEPTED
    engine_says(world, "A", "reverting")
    (line,) = world.ask(halt, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert "tern " not in line.reason
    assert ("revert was asked for" in line.reason, "skip-revert comes too late" in line.reason) == (
        True,
        True,
    )


@BOTH
def test_a_stop_of_all_does_not_block_the_way_back_of_one(
    world: World, verb: Verb, method: str, ends: str
) -> None:
    """§11, G8: A is in its window, B copies; whoever stops all stops B."""
    running(world, "A", "B")
    engine_says(world, "A", "revert_window")
    assert world.outcomes(world.ask(Verb.STOP)) == {"A": Receipt.REFUSED, "B": Receipt.ACCEPTED}
    assert world.outcomes(world.ask(verb, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert (world.state("A"), world.state("B")) == (ends, "stopped")
    assert len(world.engines["A"].calls(method)) == 1


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
