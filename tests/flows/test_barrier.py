"""The barrier: copies overlap, cutovers follow one another in the order, and Tern asks for each when its turn comes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.domain.timing import CUTOVER_REFUSALS_MAX
from tests.faults.behaviour import lose_answer, not_accepted
from tests.flows.steps import (
    Cut,
    WorkerDied,
    drive,
    engine_says,
    look,
    methods,
    open_wishes,
    settle,
    through,
    wishes,
)
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
BARRIER = Policy(Copy.BARRIER)
MANUAL = Policy(Copy.BARRIER, cutover=Cutover.MANUAL)


def states(world: World, names: str = "ABC") -> list[str]:
    return [world.state(name) for name in names]


def copied(world: World, *names: str, policy: Policy = BARRIER) -> None:
    """All run, and those named have copied; nobody has answered a bell since."""
    world.apply("A", "B", "C", policy=policy)
    world.answer_bells()
    assert states(world) == ["running"] * 3
    for name in names:
        engine_says(world, name, "waiting_for_cutover")


def cutovers(world: World) -> list[str]:
    """The deployments whose engines were told to cut over, in the order in which they were told."""
    calls = [(call.at, name) for name in "ABC" for call in world.engines[name].calls("Cutover")]
    return [name for _, name in sorted(calls)]


def test_copies_overlap_and_cutovers_follow_the_order(world: World) -> None:
    """CU1: the last has copied first; each cuts over after the one before it is completed, by Tern's own wish."""
    copied(world, "C", "B")
    settle(world)
    assert cutovers(world) == []
    engine_says(world, "A", "waiting_for_cutover")
    for _ in range(6):
        settle(world)
        world.pass_time(3)
        world.sweep()
    assert cutovers(world) == ["A", "B", "C"]
    ends = [event for event in world.events() if event.event == "observe_completed"]
    asked = [event for event in world.events() if event.event == "cutover_sent"]
    for earlier, later in zip(ends, asked[1:], strict=False):
        assert earlier.id < later.id
    assert world.apply_row().state == "completed"
    row = world.one("SELECT count(*) AS n, max(reason) AS why, max(caller) AS who FROM control_requests")
    assert (row.n, row.who) == (3, "tern")
    assert "its turn" in row.why
    assert_safe(world)


def test_the_wish_is_written_in_the_transaction_that_brings_the_turn(world: World) -> None:
    """§6: no bell and no sweep has to come between; the engine was told to wait."""
    copied(world, "A")
    assert wishes(world) == [("A", "cutover", "pending")]
    assert world.engines["A"].calls("Apply")[0].request.options["defer_cutover"] == "true"
    world.forget_bells()
    world.pass_time(3)
    world.sweep()
    assert cutovers(world) == ["A"]


@pytest.mark.parametrize("state", ["revert_window", "cutting_over"])
def test_what_is_not_completed_yet_keeps_the_next_one_waiting(world: World, state: str) -> None:
    """CU1: a revert window still blocks."""
    copied(world, "B")
    engine_says(world, "A", state)
    for _ in range(5):
        world.pass_time(6)
        world.sweep()
    assert cutovers(world) == []
    engine_says(world, "A", "completed")
    settle(world)
    assert cutovers(world) == ["B"]


@pytest.mark.parametrize(
    ("policy", "after"),
    [
        (BARRIER, ("paused", "waiting_for_cutover")),
        (replace(BARRIER, on_failure=OnFailure.PAUSE), ("paused", "waiting_for_cutover")),
        (replace(BARRIER, on_failure=OnFailure.CONTINUE), ("failed", "completed")),
        (replace(BARRIER, max_failures=1), ("failed", "completed")),
    ],
    ids=["halt", "pause", "continue", "borne"],
)
def test_what_a_failure_does_to_those_behind_it(world: World, policy: Policy, after: tuple[str, str]) -> None:
    """CU2: under halt B never cuts over; under continue it does."""
    copied(world, "B", "C", policy=policy)
    engine_says(world, "A", "failed", error="no space")
    for _ in range(8):
        settle(world)
        world.pass_time(3)
        world.sweep()
    assert (world.apply_row().state, world.state("B")) == after
    assert_safe(world)


def test_a_failure_between_the_wish_and_its_call_takes_the_wish_back(world: World) -> None:
    """CU2: it is A's turn and Tern has asked; then C fails, and A is not cut over any more."""
    copied(world, "A")
    engine_says(world, "C", "failed", error="no space")
    engine_says(world, "B", "waiting_for_cutover")
    settle(world)
    assert cutovers(world) == []
    delivery = world.delivery("A", Verb.CUTOVER)
    assert delivery.state == "failed"
    assert "a failure since then" in delivery.engine_words
    assert world.apply_row().state == "paused"
    # a person who has seen the failure may say so all the same (CU7)
    assert world.outcomes(world.ask(Verb.CUTOVER, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert world.state("A") == "completed"
    assert cutovers(world) == ["A"]
    assert_safe(world)


@pytest.mark.parametrize("way_out", [Verb.CUTOVER, Verb.CANCEL])
def test_a_halted_rollout_pauses_and_a_person_leads_out(world: World, way_out: Verb) -> None:
    """CU7: A failed, B and C wait for their cutovers."""
    copied(world, "B", "C")
    engine_says(world, "A", "failed", error="no space")
    assert world.apply_row().state == "paused"
    assert world.outcomes(world.ask(way_out, "B", "C")) == {"B": Receipt.ACCEPTED, "C": Receipt.ACCEPTED}
    for _ in range(4):
        settle(world)
    assert world.state("B") == world.state("C") == ("completed" if way_out is Verb.CUTOVER else "cancelled")
    assert world.apply_row().state == "failed"
    assert_safe(world)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_that_dies_around_a_cutover_leaves_one_effect(world: World, *, after: bool) -> None:
    """CU3: the engine is asked first; told again only when a later sample says that it still waits."""
    copied(world, "A")
    world.forget_bells()
    look(world, "A")
    cut = Cut(3, after=after)
    with pytest.raises(WorkerDied):
        drive(world, Verb.CUTOVER, "A", through(world.ports, cut.passing))
    assert "cutover" in cut.where
    world.pass_time(31)
    settle(world, world.worker("worker-2"))
    assert cutovers(world) == ["A"]
    assert world.state("A") == "completed"


def test_an_unanswered_cutover_keeps_those_behind_it_waiting(world: World) -> None:
    """CU3 (G10): B's turn comes when A is completed, not when A was asked."""
    copied(world, "A", "B", "C")
    world.engines["A"].script("Cutover", lose_answer())
    settle(world, step_s=15)
    for _ in range(4):
        world.pass_time(3)
        world.sweep()
        settle(world)
    assert cutovers(world) == ["A", "B", "C"]
    assert world.apply_row().state == "completed"


def test_one_worker_is_enough_for_many_deployments(world: World) -> None:
    """CU6: nobody waits inside a tick, so fewer workers than deployments finish as well."""
    copied(world, "A", "B", "C")
    only = world.worker("the only one")
    for _ in range(6):
        settle(world, only)
        world.pass_time(3)
        world.sweep(only)
    assert cutovers(world) == ["A", "B", "C"]
    assert world.apply_row().state == "completed"


def test_what_waits_for_its_cutover_holds_no_slot(world: World) -> None:
    """CL2, §6: copies overlap within max_parallel and begin in order."""
    world.apply("A", "B", "C", policy=replace(BARRIER, max_parallel=1))
    world.answer_bells()
    assert states(world) == ["running", "pending", "pending"]
    world.engines["A"].script("Cutover", *[not_accepted("not now")] * CUTOVER_REFUSALS_MAX)
    engine_says(world, "A", "waiting_for_cutover")
    world.answer_bells()
    assert states(world) == ["waiting_for_cutover", "running", "pending"]
    engine_says(world, "B", "waiting_for_cutover")
    world.answer_bells()
    assert states(world) == ["waiting_for_cutover", "waiting_for_cutover", "running"]
    assert_safe(world)


def test_a_stopped_one_can_be_resumed_past_all_slots(world: World) -> None:
    """CU8: max_parallel 2, A stopped, B and C wait for their cutovers: A goes on, and then the turns come."""
    world.apply("A", "B", "C", policy=replace(BARRIER, max_parallel=2))
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    settle(world)
    for name in "BC":
        settle(world)
        engine_says(world, name, "waiting_for_cutover")
    assert states(world) == ["stopped", "waiting_for_cutover", "waiting_for_cutover"]
    assert world.apply_row().state == "paused"
    world.ask(Verb.START, "A")
    settle(world)
    assert world.state("A") == "running"
    assert world.apply_row().state == "running"
    engine_says(world, "A", "waiting_for_cutover")
    for _ in range(6):
        settle(world)
        world.pass_time(3)
        world.sweep()
    assert cutovers(world) == ["A", "B", "C"]
    assert world.apply_row().state == "completed"
    assert_safe(world)


def test_a_cutover_that_is_refused_for_ever_is_bounded_visible_and_starves_nobody(
    make_world: MakeWorld,
) -> None:
    """CU5: another rollout goes on beside it, and after a few tries a person decides."""
    world = make_world("A", "B", "C", "D")
    copied(world, "A", "B", "C")
    first = world.last
    world.engines["A"].always("Cutover", not_accepted("replicas lag"))
    other = world.apply("D", policy=BARRIER)
    world.answer_bells()
    engine_says(world, "D", "waiting_for_cutover")
    world.last = first
    for _ in range(30):
        world.pass_time(16)
        world.sweep()
        settle(world)
    assert world.state("D", other) == "completed"
    assert len(world.engines["A"].calls("Cutover")) == CUTOVER_REFUSALS_MAX
    assert "replicas lag" in world.delivery("A", Verb.CUTOVER).engine_words
    assert states(world) == ["waiting_for_cutover"] * 3
    assert world.apply_row().state == "waiting_for_cutover"
    world.engines["A"].always("Cutover", None)
    assert world.outcomes(world.ask(Verb.CUTOVER, "A")) == {"A": Receipt.ACCEPTED}
    for _ in range(6):
        settle(world)
        world.pass_time(3)
        world.sweep()
    assert cutovers(world)[-3:] == ["A", "B", "C"]
    assert world.apply_row().state == "completed"


def test_with_manual_cutover_nothing_goes_without_a_person(world: World) -> None:
    """§6: and out of order it is refused, with everything that comes before."""
    copied(world, "A", "C", policy=MANUAL)
    for _ in range(3):
        world.pass_time(6)
        world.sweep()
    assert wishes(world) == []
    receipt = world.ask(Verb.CUTOVER, "B", "C")
    reasons = {line.deployment: line.reason for line in receipt.lines}
    assert set(world.outcomes(receipt).values()) == {Receipt.REFUSED}
    assert "before it come A (waiting_for_cutover)" in reasons["B"]
    assert "it is running, not waiting" in reasons["B"]
    assert "before it come A (waiting_for_cutover), B (running)" in reasons["C"]
    assert world.outcomes(world.ask(Verb.CUTOVER, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert cutovers(world) == ["A"]


def test_several_in_one_wish_go_one_after_the_other(world: World) -> None:
    """CU1, CU4: a person says `all` once; each waits for its turn without being asked about all the time."""
    copied(world, "A", "B", "C", policy=MANUAL)
    assert set(world.outcomes(world.ask(Verb.CUTOVER, "A", "B", "C")).values()) == {Receipt.ACCEPTED}
    drive(world, Verb.CUTOVER, "C")
    assert world.delivery("C", Verb.CUTOVER).next_attempt_at is None
    for _ in range(6):
        world.answer_bells()
        world.pass_time(3)
        world.sweep()
    assert cutovers(world) == ["A", "B", "C"]
    assert world.delivery("C", Verb.CUTOVER).attempts == 1
    assert open_wishes(world) == []
    assert world.apply_row().state == "completed"
    assert_safe(world)


@pytest.mark.parametrize("order", ["ABC", "CBA", "BCA"])
def test_whoever_is_driven_first_the_order_holds(world: World, order: Sequence[str]) -> None:
    """CU1, G11: bells in any order."""
    copied(world, "A", "B", "C", policy=MANUAL)
    world.ask(Verb.CUTOVER, "A", "B", "C")
    world.forget_bells()
    for name in [*order, *order, *order]:
        drive(world, Verb.CUTOVER, name)
        look(world, name)
        world.pass_time(2)
    assert cutovers(world) == sorted(cutovers(world))
    settle(world)
    assert cutovers(world) == ["A", "B", "C"]


def test_a_wish_that_waits_for_its_turn_is_no_life(world: World) -> None:
    """§3, G14: A is stopped, B was asked for: nothing moves, so it reads paused; a start leads out."""
    copied(world, "A", "B", "C", policy=MANUAL)
    world.ask(Verb.CUTOVER, "A", "B", "C")
    world.forget_bells()
    world.ask(Verb.STOP, "A")
    for _ in range(4):
        world.answer_bells()
        world.pass_time(6)
        world.sweep()
    assert states(world) == ["stopped", "waiting_for_cutover", "waiting_for_cutover"]
    assert world.apply_row().state == "paused"
    assert ("B", "cutover", "pending") in wishes(world)
    world.ask(Verb.START, "A")
    settle_somewhat(world)
    engine_says(world, "A", "waiting_for_cutover")
    world.ask(Verb.CUTOVER, "A")
    settle_somewhat(world)
    assert cutovers(world) == ["A", "B", "C"]
    assert_safe(world)


def test_a_failure_overtakes_those_who_wait_for_their_turn(world: World) -> None:
    """CU2: all were asked for; B fails at its cutover, and C is not cut over on the strength of the old wish."""
    copied(world, "A", "B", "C", policy=MANUAL)
    world.engines["B"].always("Cutover", not_accepted("not now"))
    world.ask(Verb.CUTOVER, "A", "B", "C")
    settle_somewhat(world)
    engine_says(world, "B", "failed", error="lock timeout")
    settle_somewhat(world)
    assert cutovers(world) == ["A", "B"]
    assert world.delivery("C", Verb.CUTOVER).state == "failed"
    assert world.apply_row().state == "paused"
    assert_safe(world)


def settle_somewhat(world: World) -> None:
    """Some rounds, whatever is left open."""
    for _ in range(8):
        world.answer_bells()
        world.pass_time(3)
        world.sweep()


def test_nothing_is_asked_of_what_a_stop_covers(world: World) -> None:
    """G9: it is A's turn, and somebody has stopped it before Tern could ask."""
    world.apply("A", "B", policy=BARRIER)
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    engine_says(world, "A", "waiting_for_cutover")
    assert [wish for wish in wishes(world) if wish[1] == "cutover"] == []
    settle(world)
    assert world.state("A") == "stopped"
    assert methods(world, "A") == ["Apply", "Stop"]


def test_copies_begin_in_order_and_nobody_goes_around_one_that_is_held(make_world: MakeWorld) -> None:
    """CL2: C's deployment is drained, so D waits although slots are free, and both go when it is open again."""
    world = make_world("A", "B", "C", "D")
    world.apply("A", "B", "C", "D", policy=replace(MANUAL, max_parallel=2))
    world.answer_bells()
    world.store.set_drained("C", drained=True)
    for name in "AB":
        engine_says(world, name, "waiting_for_cutover")
    settle_somewhat(world)
    assert states(world, "CD") == ["pending", "pending"]
    world.store.set_drained("C", drained=False)
    settle_somewhat(world)
    assert states(world, "CD") == ["running", "running"]
