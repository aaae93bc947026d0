"""After a call without an answer its operation is looked at every second for a minute, whatever its state (G4)."""

from dataclasses import replace

import pytest

from tern.domain.control import Verb
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S, UNANSWERED_S
from tests.faults.behaviour import Behaviour, answer, behave, fail, hang, lose_answer, not_accepted
from tests.flows.evidence import MakeWorld, holders, looks, outstanding, world
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    dispatch,
    drive,
    engine_says,
    held_targets,
    look,
    methods,
    running,
    stopped,
)
from tests.invariants import assert_safe
from tests.world import World

__all__ = ["world"]


def look_for(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.pass_time(1.01)
        world.sweep()


def unanswered_cutover(world: World) -> None:
    running(world, "A", "B", policy=MANUAL)
    engine_says(world, "A", "waiting_for_cutover")
    world.engines["A"].script("Cutover", lose_answer())
    world.ask(Verb.CUTOVER, "A")
    drive(world, Verb.CUTOVER, "A")
    world.forget_bells()


def test_after_an_unanswered_cutover_it_is_looked_at_every_second_whatever_its_state(world: World) -> None:
    """A finished one too, and for a minute only."""
    unanswered_cutover(world)
    assert world.operation("A").unanswered_call == "cutover"
    look(world, "A")
    assert world.state("A") == "completed"
    before = looks(world, "A")
    look_for(world, 10)
    assert looks(world, "A") - before >= 8
    assert holders(world)["A-1"] == "A"
    world.pass_time(UNANSWERED_S)
    world.sweep()
    operation = world.operation("A")
    assert (operation.unanswered_call, operation.unanswered_since, operation.next_poll_at) == ("", None, None)
    assert "A-1" not in holders(world)
    before = looks(world, "A")
    look_for(world, 5)
    assert looks(world, "A") == before


@pytest.mark.parametrize("deadline_s", [10.0, 25.0])
def test_an_unanswered_cutover_is_tried_again_only_after_the_deadline_that_is_set(
    world: World, deadline_s: float
) -> None:
    """It may be answered until then, and the next try comes no sooner for an engine that was given more time."""
    world.ports = replace(world.ports, deadline_s=deadline_s)
    unanswered_cutover(world)
    row = world.one(
        "SELECT extract(epoch FROM next_attempt_at - called_at)::float AS wait_s FROM control_deliveries"
        " WHERE verb = 'cutover'"
    )
    assert deadline_s < row.wait_s < deadline_s + 10


@pytest.mark.parametrize("pace", ["what a person moves on", "what does not answer"])
def test_after_an_unanswered_cutover_no_other_pace_of_looks_counts(world: World, pace: str) -> None:
    """One that waits for a person is looked at rarely, and one out of contact ever more rarely: not this minute."""
    running(world, "A", "B", policy=MANUAL)
    engine_says(world, "A", "waiting_for_cutover")
    if pace == "what does not answer":
        for method in ("BatchProgress", "Progress"):
            world.engines["A"].always(method, fail("UNAVAILABLE"))
        world.write("UPDATE apply_operations SET poll_failures = 20 WHERE deployment = 'A'")
    world.write("UPDATE apply_operations SET unanswered_call = 'cutover', unanswered_since = tern_clock()")
    world.write("UPDATE apply_operations SET next_poll_at = tern_clock() + interval '30 s'")
    before = looks(world, "A")
    look_for(world, 10)
    assert looks(world, "A") - before >= 8
    world.pass_time(UNANSWERED_S)
    world.sweep()
    before = looks(world, "A")
    look_for(world, 10)
    assert looks(world, "A") - before <= 2


def test_what_is_finished_and_works_again_is_outstanding(world: World) -> None:
    """A call that acts late: its job is followed by no operation, and nobody is told that all is well."""
    unanswered_cutover(world)
    look(world, "A")
    assert world.state("A") == "completed"
    engine_says(world, "A", "running", looks=False)
    look_for(world, 3)
    assert world.state("A") == "completed"
    assert outstanding(world) == [("A", "A-1", "contradicted", True)]
    assert holders(world)["A-1"] == "A"
    assert [event.event for event in world.events("A")].count("contradicted") == 1


@pytest.mark.parametrize("verb", [Verb.CUTOVER, Verb.START])
@pytest.mark.parametrize(
    "said",
    [behave(), not_accepted("not now"), fail("FAILED_PRECONDITION")],
    ids=["taken", "not taken", "refused"],
)
def test_an_answered_call_leaves_nothing(world: World, verb: Verb, said: Behaviour) -> None:
    """G10: a refusal is an answer too. Nothing of the call acts late, so nobody waits for it and no target is kept."""
    if verb is Verb.CUTOVER:
        running(world, "A", "B", policy=MANUAL)
        engine_says(world, "A", "waiting_for_cutover")
    else:
        stopped(world, "A", "B")
    world.engines["A"].script(verb.value.capitalize(), said)
    world.ask(verb, "A")
    drive(world, verb, "A")
    assert methods(world, "A")[-1] == verb.value.capitalize()
    operation = world.operation("A")
    assert (operation.unanswered_call, operation.unanswered_since) == ("", None)
    engine_says(world, "A", "cancelled")
    assert (world.state("A"), held_targets(world)) == ("cancelled", {"B"})


def test_a_start_without_an_answer_is_not_forgotten_by_the_answer_to_the_next(world: World) -> None:
    """The first may still be on its way: what was said to the second says nothing about it."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", fail("UNAVAILABLE"))
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    assert world.operation("A").unanswered_call == "start"
    world.run(until=lambda: len(world.engines["A"].calls("Start")) == 2, rounds=5)
    assert world.operation("A").unanswered_call == "start"
    world.pass_time(UNANSWERED_S)
    world.run(until=lambda: world.operation("A").unanswered_call == "", rounds=5)


def test_a_crash_between_call_and_answer_is_an_unanswered_call(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    assert world.operation("A").unanswered_call == "apply"
    stopped_one = world.operation("B")
    assert stopped_one.unanswered_call == ""


def test_an_unanswered_dispatch_is_looked_at_by_its_key_and_nothing_is_forbidden(
    make_world: MakeWorld,
) -> None:
    """Its first call may still be on its way. Where a person declared deduplication the next send waits long."""
    world = make_world("A", "B")
    world.engines["A"].script("Apply", hang(5))
    world.apply("A", "B", policy=PARALLEL)
    world.write("UPDATE apply_operations SET attempt = 7")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    look_for(world, 3)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert len(world.engines["A"].calls("Apply")) == 1
    assert {call.request.forbid for call in world.engines["A"].calls("Resolve")} == {False}


@pytest.mark.parametrize("spent_by", ["tries", "age"])
def test_the_last_dispatch_without_an_answer_is_looked_at_by_its_key_too(
    make_world: MakeWorld, spent_by: str
) -> None:
    """G4: nothing is sent again and a person is asked; the job that it began is found all the same."""
    world = make_world("A", "B")
    world.apply("A", "B", policy=PARALLEL)
    if spent_by == "tries":
        world.write("UPDATE apply_operations SET answered_attempts = :tried", tried=ANSWERED_ATTEMPTS_MAX - 1)
    else:
        world.engines["A"].script("Apply", fail("UNAVAILABLE"))
        world.answer_bells()
        world.pass_time(FRESHNESS_S + 1)
    world.engines["A"].script("Apply", lose_answer())
    dispatch(world, "A")
    assert (world.state("A"), world.remote_id("A")) == ("uncertain", None)
    world.forget_bells()
    look_for(world, 3)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)


def test_a_dispatch_that_a_stop_found_unanswered_is_looked_at_by_its_key(world: World) -> None:
    """Its worker died between call and answer, and the engine's word about the key is empty: the call may still come
    through, and then the stop has something to stop.
    """
    world.apply("A", "B", policy=PARALLEL)
    world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.ask(Verb.STOP, "A")
    world.engines["A"].script("Resolve", answer())
    world.pass_time(31)
    drive(world, Verb.STOP, "A")
    assert world.state("A") == "uncertain"
    before = len(world.engines["A"].calls("Resolve"))
    look_for(world, 3)
    assert len(world.engines["A"].calls("Resolve")) > before


def test_what_a_person_is_asked_about_is_not_looked_at_once_its_key_is_dead(world: World) -> None:
    """Nothing can come of it any more."""
    world.apply("A", "B", policy=PARALLEL)
    world.write("UPDATE apply_operations SET answered_attempts = :tried", tried=ANSWERED_ATTEMPTS_MAX - 1)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    dispatch(world, "A")
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key_is_dead) == ("uncertain", True)
    assert (operation.next_poll_at, operation.unanswered_since) == (None, None)


def test_an_engine_without_resolve_is_not_looked_at_by_key(make_world: MakeWorld) -> None:
    """G4: a person declared that it deduplicates, so the key is sent again; it is asked once after each try."""
    world = make_world("A")
    world.engines["A"].offer(engine_service=False, deduplicates=True)
    world.write("UPDATE deployments SET capabilities = '{}'")
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.write("UPDATE apply_operations SET attempt = 7")
    world.answer_bells()
    look_for(world, 20)
    assert world.state("A") == "failed_retryable"
    assert len(world.engines["A"].calls("Resolve")) <= len(world.engines["A"].calls("Apply")) < 10
