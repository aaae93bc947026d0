"""A drained deployment takes no new work: no dispatch, no repetition, no start; what runs there goes on (§11)."""

from collections.abc import Callable

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.holds import HoldKind
from tern.domain.policy import Copy, Policy
from tern.domain.states import ApplyState
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    dispatch,
    drive,
    engine_says,
    holds_of,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    waiting,
    wishes,
)
from tests.invariants import assert_safe
from tests.world import World


def drain(world: World, *names: str) -> None:
    for name in names:
        world.store.set_drained(name, drained=True)


def undrain(world: World, *names: str) -> None:
    for name in names:
        world.store.set_drained(name, drained=False)


def pass_some_time(world: World) -> None:
    for _ in range(4):
        world.pass_time(20)
        world.sweep()


def test_drained_between_claim_and_apply_nothing_is_sent_and_nothing_is_undecided(world: World) -> None:
    """G9: the last look reads it, and the intent is withdrawn by its first sender; undrained, it goes."""
    world.apply("A", "B", policy=PARALLEL)
    dispatch(world, "A", meanwhile(world.ports, "may_go_forward", lambda: drain(world, "A")))
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key, operation.claim_token) == ("pending", None, None)
    pass_some_time(world)
    assert (world.state("A"), methods(world, "A")) == ("pending", [])
    assert holds_of(world, "A") == {HoldKind.DRAINED}
    undrain(world, "A")
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    assert len(world.engines["A"].effects("apply")) == 1


@pytest.mark.parametrize("when", ["before the claim", "between claim and call"])
def test_a_drain_under_an_unanswered_dispatch_that_never_arrived(world: World, when: str) -> None:
    """G4: its key is forbidden, it goes back to its place and has not failed; undrained, the next generation goes."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.pass_time(5)
    ports = world.ports
    if when == "before the claim":
        drain(world, "A")
    else:
        ports = meanwhile(ports, "may_go_forward", lambda: drain(world, "A"))
    dispatch(world, "A", ports)
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_generation, operation.dispatch_key) == ("pending", 2, None)
    assert len(world.engines["A"].effects("forbid")) == 1
    pass_some_time(world)
    assert (world.state("A"), methods(world, "A")) == ("pending", ["Apply"])
    assert holds_of(world, "A") == {HoldKind.DRAINED}
    undrain(world, "A")
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    assert len(world.engines["A"].effects("apply")) == 1
    assert world.operation("A").dispatch_key == world.engines["A"].effects("apply")[0].key


def test_a_drain_under_an_unanswered_dispatch_that_had_worked(world: World) -> None:
    """G4: its id is found and adopted; what runs goes on."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    drain(world, "A")
    world.run(until=lambda: world.remote_id("A") is not None, rounds=4)
    assert world.state("A") == "running"
    assert methods(world, "A") == ["Apply"]
    engine_says(world, "A", "completed")
    assert world.state("A") == "completed"


def test_a_drain_under_an_unanswered_dispatch_that_nobody_can_ask_about(
    make_world: Callable[..., World],
) -> None:
    """G10: an engine that deduplicates and offers no Resolve: it waits, and undrained it is repeated."""
    world = make_world("A", "B", offers_engine_service=False)
    world.write("UPDATE deployments SET idempotent_dispatch = true")
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    drain(world, "A")
    pass_some_time(world)
    assert (world.state("A"), methods(world, "A")) == ("failed_retryable", ["Apply"])
    # It is not claimed again and again for nothing.
    assert (world.operation("A").attempt, world.operation("A").next_attempt_at) == (1, None)
    assert HoldKind.DRAINED in holds_of(world, "A")
    undrain(world, "A")
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    assert len(world.engines["A"].effects("apply")) == 1


def test_a_worker_that_died_in_its_dispatch_is_no_reason_to_repeat_it_under_a_drain(world: World) -> None:
    """G4: its claim runs out, its intent stands."""
    world.apply("A", "B", policy=PARALLEL)
    claimed = world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    drain(world, "A")
    world.pass_time(31)
    world.forget_bells()
    pass_some_time(world)
    assert (world.state("A"), methods(world, "A")) == ("pending", [])
    assert world.operation("A").dispatch_generation == 2
    del claimed


@pytest.mark.parametrize("given", ["dispatched", "never dispatched"])
def test_a_start_accepted_before_a_drain_waits_and_goes_once_it_is_undrained(
    world: World, given: str
) -> None:
    """§11: nothing is lost, nobody is asked twice, and explain says why."""
    if given == "dispatched":
        stopped(world, "A", "B")
    else:
        world.apply("A", "B")
        world.ask(Verb.STOP)
        world.answer_bells()
    world.ask(Verb.START, "A")
    world.forget_bells()
    drain(world, "A")
    pass_some_time(world)
    assert (world.state("A"), open_wishes(world)) == ("stopped", [("A", "start", "pending")])
    assert world.engines["A"].calls("Start") == []
    assert holds_of(world, "A") == {HoldKind.DRAINED}
    # G14: whatever else is through, over an open wish no verdict is spoken.
    assert not ApplyState(world.apply_row().state).is_settled
    assert_safe(world)
    undrain(world, "A")
    world.run(until=lambda: world.state("A") == "running", rounds=4)
    assert wishes(world)[-1] == ("A", "start", "acknowledged")


def test_drained_between_look_and_start_the_claim_is_undone_and_the_start_stays_open(world: World) -> None:
    """G9."""
    stopped(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()
    drive(world, Verb.START, "A", meanwhile(world.ports, "may_go_forward", lambda: drain(world, "A")))
    operation = world.operation("A")
    assert (operation.state, operation.claim_token, operation.next_attempt_at) == ("stopped", None, None)
    assert world.delivery("A", Verb.START).attempts == 0
    assert open_wishes(world) == [("A", "start", "pending")]
    pass_some_time(world)
    assert world.engines["A"].calls("Start") == []
    undrain(world, "A")
    settle(world)
    assert (world.state("A"), len(world.engines["A"].calls("Start"))) == ("running", 1)


def test_an_unanswered_start_is_not_repeated_under_a_drain_but_what_runs_is_seen(world: World) -> None:
    """G10: it had worked; nobody sends it again, and the look takes it over."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", fail("UNAVAILABLE"))
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    assert world.state("A") == "resuming"
    world.forget_bells()
    drain(world, "A")
    pass_some_time(world)
    assert (world.state("A"), len(world.engines["A"].calls("Start"))) == ("resuming", 1)
    engine_says(world, "A", "running")
    world.run(until=lambda: world.state("A") == "running", rounds=4)
    assert len(world.engines["A"].calls("Start")) == 1


def test_a_start_asked_under_a_drain_is_refused_with_the_command(world: World) -> None:
    stopped(world, "A", "B")
    drain(world, "A")
    (line,) = world.ask(Verb.START, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert "`tern deployments undrain A`" in line.reason


def test_a_start_takes_a_stop_back_under_a_drain(world: World) -> None:
    """What runs goes on: that is no new work."""
    running(world, "A", "B")
    drain(world, "A")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert (world.state("A"), methods(world, "A")) == ("running", ["Apply"])


def test_what_runs_under_a_drain_goes_on_to_its_cutover_and_back(world: World) -> None:
    """§11: and halting verbs work."""
    waiting(world, "A", "B", policy=MANUAL)
    drain(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    settle(world)
    assert len(world.engines["A"].calls("Cutover")) == 1
    world.ask(Verb.STOP, "B")
    settle(world)
    assert world.state("B") == "stopped"
    world.ask(Verb.CANCEL, "B")
    settle(world)
    assert world.state("B") == "cancelled"


def test_a_drained_window_can_be_reverted(world: World) -> None:
    running(world, "A", "B")
    engine_says(world, "A", "revert_window")
    drain(world, "A")
    world.ask(Verb.REVERT, "A")
    settle(world)
    assert world.state("A") == "reverted"


def test_a_drained_one_keeps_the_order(world: World) -> None:
    """Drained after its turn had come: the ones behind it in a rolling rollout wait, and say for whom."""
    world.apply("A", "B", policy=Policy(copy=Copy.ROLLING))
    dispatch(world, "A", meanwhile(world.ports, "may_go_forward", lambda: drain(world, "A")))
    pass_some_time(world)
    assert [world.state(name) for name in "AB"] == ["pending", "pending"]
    undrain(world, "A")
    world.run(until=lambda: world.state("A") == "running", rounds=3)
