"""Cutting over: only what waits, by its own sample, with its own id, once."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    Cut,
    WorkerDied,
    drive,
    engine_says,
    look,
    methods,
    open_wishes,
    running,
    settle,
    through,
    waiting,
    wishes,
)
from tests.world import World


def test_manual_cutovers_go_each_with_its_own_id(world: World) -> None:
    """CU4 (G2, G8): the wish completes after the last."""
    ids = waiting(world)
    world.ask(Verb.CUTOVER, "A", "B", "C")
    for name in "AB":
        drive(world, Verb.CUTOVER, name)
        look(world, name)
    assert open_wishes(world) == [("C", "cutover", "pending")]
    assert world.apply_row().state == "waiting_for_cutover"
    settle(world)
    assert {name: call.remote_id for name in ids for call in world.engines[name].calls("Cutover")} == ids
    assert world.apply_row().state == "completed"
    assert world.apply_row().external_id is None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_that_dies_around_cutover_leaves_one_effect(world: World, *, after: bool) -> None:
    """CU3: the engine is asked first; told again only when a later sample says that it still waits."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()
    cut = Cut(3, after=after)
    with pytest.raises(WorkerDied):
        drive(world, Verb.CUTOVER, "A", through(world.ports, cut.passing))
    assert "cutover" in cut.where
    world.pass_time(31)
    # the due wish alone decides nothing: nobody has looked since
    drive(world, Verb.CUTOVER, "A")
    assert len(world.engines["A"].calls("Cutover")) == int(after)
    settle(world, world.worker("worker-2"))
    assert len(world.engines["A"].calls("Cutover")) == 1
    assert world.state("A") == "completed"
    assert methods(world, "B") == ["Apply"]


def test_unanswered_cutover_is_not_repeated_on_a_sample_from_before_its_deadline(world: World) -> None:
    """CU3 (G10): the call may still be under way, and until then `waiting` proves nothing."""
    waiting(world, "A", "B")
    world.engines["A"].script("Cutover", fail("UNAVAILABLE"))
    world.ask(Verb.CUTOVER, "A")
    world.answer_bells()
    world.pass_time(9)
    look(world, "A")
    world.pass_time(30)
    drive(world, Verb.CUTOVER, "A")
    assert len(world.engines["A"].calls("Cutover")) == 1
    look(world, "A")
    world.pass_time(2)
    drive(world, Verb.CUTOVER, "A")
    assert len(world.engines["A"].calls("Cutover")) == 2
    settle(world)
    assert world.state("A") == "completed"


def test_unanswered_cutover_that_worked_is_not_repeated(world: World) -> None:
    """CU3 (G10)."""
    waiting(world, "A", "B")
    world.engines["A"].script("Cutover", lose_answer())
    world.ask(Verb.CUTOVER, "A")
    settle(world, step_s=15)
    assert len(world.engines["A"].calls("Cutover")) == 1
    assert world.state("A") == "completed"


def test_refused_cutover_is_visible_and_starves_nobody(world: World) -> None:
    """CU5: bounded, with the engine's words; the others go on."""
    waiting(world)
    world.engines["A"].always("Cutover", not_accepted("replicas lag"))
    world.ask(Verb.CUTOVER, "A", "B", "C")
    settle(world)
    for _ in range(3):
        world.pass_time(60)
        world.sweep()
    assert len(world.engines["A"].calls("Cutover")) == 1
    delivery = world.delivery("A", Verb.CUTOVER)
    assert delivery.state == "failed"
    assert "replicas lag" in delivery.engine_words
    assert [world.state(name) for name in "ABC"] == ["waiting_for_cutover", "completed", "completed"]
    # and it can be asked for again
    world.engines["A"].always("Cutover", None)
    world.ask(Verb.CUTOVER, "A")
    settle(world)
    assert world.apply_row().state == "completed"


def test_one_worker_is_enough_for_many_deployments(world: World) -> None:
    """CU6: nobody waits inside a tick, so fewer workers than deployments finish as well."""
    waiting(world)
    world.ask(Verb.CUTOVER, "A", "B", "C")
    settle(world, world.worker("the only one"))
    assert {world.state(name) for name in "ABC"} == {"completed"}


@pytest.mark.parametrize("way_out", [Verb.CUTOVER, Verb.CANCEL])
def test_a_halted_rollout_pauses_before_the_cutover_and_a_person_leads_out(
    world: World, way_out: Verb
) -> None:
    """CU7: A failed, B waits for its cutover."""
    running(world, "A", "B", policy=MANUAL)
    engine_says(world, "A", "failed", error="no space")
    engine_says(world, "B", "waiting_for_cutover")
    assert world.apply_row().state == "paused"
    assert world.outcomes(world.ask(way_out, "B")) == {"B": Receipt.ACCEPTED}
    settle(world)
    assert world.state("B") == ("completed" if way_out is Verb.CUTOVER else "cancelled")
    assert world.apply_row().state == "failed"
    assert methods(world, "B") == ["Apply", way_out.value.capitalize()]


def test_cutover_of_what_does_not_wait_is_refused_with_all_reasons(world: World) -> None:
    """§7: every unmet condition at once."""
    running(world, "A", "B", policy=MANUAL)
    world.ask(Verb.STOP, "A")
    receipt = world.ask(Verb.CUTOVER, "A", "B")
    reasons = {line.deployment: line.reason for line in receipt.lines}
    assert world.outcomes(receipt) == {"A": Receipt.REFUSED, "B": Receipt.REFUSED}
    assert "a stop covers it" in reasons["A"]
    assert "it is running, not waiting" in reasons["A"]
    assert "a stop covers it" not in reasons["B"]
    assert receipt.request_id is None


def test_cutover_of_what_cuts_over_already_is_answered_already(world: World) -> None:
    """§7: a second wish has no second effect."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    assert world.outcomes(world.ask(Verb.CUTOVER, "A")) == {"A": Receipt.ALREADY}
    engine_says(world, "A", "cutting_over")
    assert wishes(world) == [("A", "cutover", "acknowledged")]
    world.answer_bells()
    assert world.engines["A"].calls("Cutover") == []
    assert world.outcomes(world.ask(Verb.CUTOVER, "A")) == {"A": Receipt.ALREADY}


def test_cutover_waits_until_its_own_sample_of_this_attempt_says_so(world: World) -> None:
    """§7, CU3: what stands in the row was seen in an earlier attempt."""
    waiting(world, "A", "B")
    world.write(
        "UPDATE apply_operations SET attempt = attempt + 1, progress_revision = 0 WHERE deployment = 'A'"
    )
    world.ask(Verb.CUTOVER, "A")
    world.answer_bells()
    # the bell's tail looked, and only then the next tick sends
    drive(world, Verb.CUTOVER, "A")
    assert world.engines["A"].calls("Cutover") == []
    look(world, "A")
    world.pass_time(2)
    drive(world, Verb.CUTOVER, "A")
    assert len(world.engines["A"].calls("Cutover")) == 1


def test_a_sample_from_behind_opens_no_gate(world: World) -> None:
    """§7: the engine says running again, though we know that it waited; nothing is sent on that."""
    waiting(world, "A", "B")
    engine_says(world, "A", "running")
    assert world.state("A") == "waiting_for_cutover"
    world.ask(Verb.CUTOVER, "A")
    for _ in range(3):
        world.answer_bells()
        world.pass_time(2)
        world.sweep()
    assert world.engines["A"].calls("Cutover") == []
    engine_says(world, "A", "waiting_for_cutover")
    settle(world)
    assert world.state("A") == "completed"


def test_cutover_of_several_operations_needs_a_choice(world: World) -> None:
    """G7."""
    waiting(world)
    with pytest.raises(Refused) as refusal:
        world.ask(Verb.CUTOVER)
    assert refusal.value.reason == "SELECTION_MISSING"
    assert all(world.engines[name].calls("Cutover") == [] for name in "ABC")


def test_an_automatic_rollout_asks_nobody_for_its_cutover(world: World) -> None:
    """The engine is told at Apply whether it has to wait."""
    running(world, "A", policy=PARALLEL)
    assert world.engines["A"].calls("Apply")[0].request.options["defer_cutover"] == "false"


def test_stop_and_cutover_in_the_same_moment_stop_wins(world: World) -> None:
    """RA2 (G9): whichever is driven first."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    world.ask(Verb.STOP, "A")
    drive(world, Verb.CUTOVER, "A")
    settle(world)
    assert world.engines["A"].calls("Cutover") == []
    assert world.state("A") == "stopped"
