"""Trying a failed operation once more: only without an id, with its target, in its turn, under the right key."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.identity import ScopeName, dispatch_key
from tern.domain.policy import Copy, OnFailure, Policy
from tern.ports import Resolved
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import (
    PARALLEL,
    drive,
    engine_says,
    held_targets,
    methods,
    open_wishes,
    running,
    settle,
    tables,
    wishes,
)
from tests.invariants import assert_safe
from tests.world import World

GOES_ON = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)


def refused(world: World, *names: str, policy: Policy = GOES_ON) -> None:
    """A's engine says no to the first Apply; nothing was ever started there."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply(*(names or ("A", "B")), policy=policy)
    world.answer_bells()
    assert (world.state("A"), world.remote_id("A")) == ("failed", None)


def test_a_refused_operation_goes_back_in_line_under_the_same_key(world: World) -> None:
    """G4, §5: its only sender heard the refusal, so the same key starts it for the first time."""
    refused(world)
    before = world.engines["A"].calls("Apply")[0].key
    assert tables(world, "A") == {"skipped"}
    assert world.outcomes(world.ask(Verb.RETRY, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert (world.state("A"), tables(world, "A")) == ("running", {"running"})
    assert [call.key for call in world.engines["A"].calls("Apply")] == [before, before]
    assert world.operation("A").dispatch_generation == 1
    assert world.operation("A").error_message == ""
    assert wishes(world) == [("A", "retry", "acknowledged")]
    assert_safe(world)


def test_a_retry_under_a_dead_key_is_of_the_next_generation(world: World) -> None:
    """G4, S5: what Resolve has forbidden can never be used again."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"), fail("PERMISSION_DENIED"))
    world.apply("A", "B", policy=GOES_ON)
    world.run(until=lambda: world.state("A") == "failed", rounds=4)
    assert world.operation("A").dispatch_key_is_dead
    world.ask(Verb.RETRY, "A")
    settle(world)
    assert world.state("A") == "running"
    assert world.operation("A").dispatch_generation == 2
    name = ScopeName(world.last, "A")
    assert [call.key for call in world.engines["A"].calls("Apply")] == [
        dispatch_key(name, generation) for generation in (1, 1, 2)
    ]


def test_a_retry_of_what_a_person_called_ended_settles_its_old_intent_first(world: World) -> None:
    """G4: nobody knows what that key started, so an engine that deduplicates is asked with the same key."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=GOES_ON)
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', next_attempt_at = NULL WHERE deployment = 'A'"
    )
    world.pass_time(11)
    world.store.resolve_uncertain(world.name("A"), Resolved.ENDED, None, "eve", "I looked")
    assert world.state("A") == "failed"
    world.ask(Verb.RETRY, "A")
    settle(world)
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("apply")) == 1
    assert world.remote_id("A") == world.engines["A"].effects("apply")[0].remote_id


def test_a_retry_makes_the_rollout_live_again_and_takes_the_target_again(world: World) -> None:
    """§2, G13: in the transaction that puts it back in line."""
    refused(world)
    engine_says(world, "B", "completed")
    world.sweep()
    assert world.apply_row().state == "failed"
    assert held_targets(world) == set()
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    assert held_targets(world) == {"A"}
    assert world.apply_row().state == "running"
    assert world.apply_row().completed_at is None
    engine_says(world, "A", "completed")
    world.answer_bells()
    assert world.apply_row().state == "completed"
    assert held_targets(world) == set()
    world.sweep()
    assert [event.after for event in world.events() if event.event == "summary"] == ["failed", "completed"]


def test_d18_one_with_an_id_is_refused_with_the_command_for_its_rest(world: World) -> None:
    """D18, G5: an id is never replaced."""
    running(world, "A", "B")
    engine_says(world, "A", "failed", error="disk full")
    receipt = world.ask(Verb.RETRY, "A")
    (line,) = receipt.lines
    assert line.outcome is Receipt.REFUSED
    assert f"tern apply --rest-of {world.name('A')}" in line.reason
    assert receipt.request_id is None
    settle(world)
    assert methods(world, "A") == ["Apply"]


def test_a_retry_whose_target_another_rollout_holds_is_refused_by_name(world: World) -> None:
    """SA3's twin (G13)."""
    refused(world, "A")
    first = world.last
    second = world.apply("A", policy=PARALLEL)
    world.answer_bells()
    receipt = world.ask(Verb.RETRY, apply_id=first)
    assert world.outcomes(receipt) == {"A": Receipt.REFUSED}
    assert second in receipt.lines[0].reason


def test_a_retry_whose_target_is_taken_in_between_fails_with_the_name(world: World) -> None:
    """SA3's twin (G13): accepted, and then another rollout was faster."""
    refused(world, "A")
    first = world.last
    world.ask(Verb.RETRY, "A")
    world.forget_bells()
    second = world.apply("A", policy=PARALLEL)
    world.forget_bells()
    world.last = first
    settle(world)
    delivery = world.delivery("A", Verb.RETRY)
    assert delivery.state == "failed"
    assert second in delivery.engine_words
    assert (world.state("A"), world.apply_row().state) == ("failed", "failed")


def test_a_retried_operation_waits_for_its_turn(world: World) -> None:
    """§3: through the gates in order, like any other."""
    refused(world, "A", "B", policy=Policy(copy=Copy.ROLLING, on_failure=OnFailure.CONTINUE))
    world.run(until=lambda: world.state("B") == "running", rounds=3)
    world.ask(Verb.RETRY, "A")
    settle(world)
    world.sweep()
    assert world.state("A") == "pending"
    engine_says(world, "B", "completed")
    world.run(until=lambda: world.state("A") == "running", rounds=3)


def test_a_halted_rollout_goes_on_with_what_is_tried_again(world: World) -> None:
    """§3, PR4: what never started was skipped with the verdict, and stays so."""
    refused(world, "A", "B", "C", policy=Policy(copy=Copy.ROLLING))
    assert world.apply_row().state == "failed"
    world.ask(Verb.RETRY, "A")
    settle(world)
    engine_says(world, "A", "completed")
    world.answer_bells()
    assert [world.state(name) for name in "ABC"] == ["completed", "skipped", "skipped"]
    assert world.apply_row().state == "completed"


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
def test_a_later_stop_overtakes_a_retry_that_was_not_driven(world: World, verb: Verb) -> None:
    """G9: the person's last word was stop, though there was nothing to stop yet."""
    refused(world)
    world.ask(Verb.RETRY, "A")
    world.forget_bells()
    assert world.outcomes(world.ask(verb, "A")) == {"A": Receipt.ACCEPTED}
    world.forget_bells()
    settle(world)
    assert world.state("A") == "failed"
    assert wishes(world) == [("A", "retry", "moot"), ("A", verb.value, "too_late")]
    assert methods(world, "A") == ["Apply"]
    assert world.outcomes(world.ask(verb, "A")) == {"A": Receipt.TOO_LATE}
    world.ask(Verb.RETRY, "A")
    settle(world)
    assert world.state("A") == "running"


def test_many_are_put_back_in_line_at_once(world: World) -> None:
    """G8: one statement for all that need no call; what another rollout holds is named by its own driver."""
    for engine in world.engines.values():
        engine.script("Apply", fail("FAILED_PRECONDITION"))
    first = world.apply("A", "B", "C", policy=GOES_ON)
    world.answer_bells()
    assert world.apply_row().state == "failed"
    world.ask(Verb.RETRY, "A", "B", "C")
    world.forget_bells()
    second = world.apply("C", policy=PARALLEL)
    world.forget_bells()
    world.last = first
    assert world.store.settle_uncalled(first, 100) == 2
    assert [world.state(name) for name in "ABC"] == ["pending", "pending", "failed"]
    assert open_wishes(world) == [("C", "retry", "pending")]
    drive(world, Verb.RETRY, "C")
    assert second in world.delivery("C", Verb.RETRY).engine_words
    assert_safe(world)


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("pending", Receipt.ALREADY),
        ("running", Receipt.ALREADY),
        ("uncertain", Receipt.REFUSED),
        ("stopped", Receipt.REFUSED),
        ("completed", Receipt.TOO_LATE),
        ("cancelled", Receipt.TOO_LATE),
        ("skipped", Receipt.TOO_LATE),
    ],
)
def test_only_what_failed_is_tried_again(world: World, state: str, outcome: Receipt) -> None:
    """§7: one answer for each state."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.write(
        "UPDATE apply_operations SET state = CAST(:state AS text), completed_at ="
        " CASE WHEN CAST(:state AS text) IN ('completed', 'cancelled', 'skipped') THEN now() END"
        " WHERE deployment = 'A'",
        state=state,
    )
    assert world.outcomes(world.ask(Verb.RETRY, "A")) == {"A": outcome}
