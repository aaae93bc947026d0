"""Opening a paused rollout: one pause, once, by a person's word that only inserts."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.selection import Selection
from tests.faults.behaviour import fail
from tests.flows.steps import engine_says, settle
from tests.invariants import assert_safe
from tests.store.conftest import held
from tests.world import World

PAUSES = Policy(copy=Copy.ROLLING, on_failure=OnFailure.PAUSE)


def paused(world: World, policy: Policy = PAUSES) -> None:
    """A's engine refused; B and C wait for somebody."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", "C", policy=policy)
    world.answer_bells()
    world.sweep()
    assert world.apply_row().state == "paused"
    assert [world.state(name) for name in "ABC"] == ["failed", "pending", "pending"]


def answer(world: World) -> Receipt:
    """What a release is answered."""
    (line,) = world.ask(Verb.RELEASE).lines
    assert line.deployment == ""
    return line.outcome


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "heard"])
def test_a_released_rollout_goes_on(world: World, *, lost: bool) -> None:
    """§3, §7, BR1: with the bell and without it."""
    paused(world)
    assert answer(world) is Receipt.ACCEPTED
    if lost:
        world.forget_bells()
        world.sweep()
    world.answer_bells()
    assert world.apply_row().state == "running_degraded"
    assert world.state("B") == "running"
    (event,) = [event for event in world.events() if event.event == "released"]
    assert (event.who, event.why) == ("bob", "the night is long")
    assert world.one("SELECT failures_released FROM control_requests").failures_released == 1
    assert_safe(world)


def test_a_release_that_nobody_heard_is_found_while_others_still_work(world: World) -> None:
    """G11: with the broker gone; the rest does not wait for the end of a copy that takes all night."""
    policy = Policy(copy=Copy.PARALLEL, max_parallel=2, on_failure=OnFailure.PAUSE)
    world.apply("A", "B", "C", policy=policy)
    world.answer_bells()
    engine_says(world, "A", "failed", error="disk full")
    world.sweep()
    assert [world.state(name) for name in "ABC"] == ["failed", "running", "pending"]
    assert world.apply_row().state == "running_degraded"
    assert answer(world) is Receipt.ACCEPTED
    world.forget_bells()
    world.sweep()
    assert [world.state(name) for name in "ABC"] == ["failed", "running", "running"]
    assert_safe(world)


def test_one_pause_is_opened_once(world: World) -> None:
    """§7: the next failure is one too many again, and asking twice opens nothing more."""
    paused(world)
    assert answer(world) is Receipt.ACCEPTED
    assert answer(world) is Receipt.ALREADY
    world.answer_bells()
    assert answer(world) is Receipt.ALREADY
    engine_says(world, "B", "failed", error="disk full")
    world.sweep()
    assert world.apply_row().state == "paused"
    assert world.state("C") == "pending"
    assert answer(world) is Receipt.ACCEPTED
    world.answer_bells()
    assert world.state("C") == "running"
    engine_says(world, "C", "completed")
    world.sweep()
    # the verdict is honest: going on decides nothing about whether it failed
    assert world.apply_row().state == "failed"
    assert answer(world) is Receipt.TOO_LATE
    assert world.one("SELECT count(*) AS n FROM control_requests").n == 2
    assert_safe(world)


def test_a_rollout_that_no_failure_holds_is_not_released(world: World) -> None:
    """A release is written down only where it opens something, or it would open a pause that nobody has seen."""
    world.apply("A", "B", policy=PAUSES)
    world.answer_bells()
    (line,) = world.ask(Verb.RELEASE).lines
    assert line.outcome is Receipt.REFUSED
    assert "no failure holds it" in line.reason
    assert world.one("SELECT count(*) AS n FROM control_requests").n == 0


def test_what_a_stopped_one_holds_is_not_opened_by_a_release(world: World) -> None:
    """§3: paused, and not by a failure; start, skip or cancel lead out."""
    world.apply("A", "B", policy=PAUSES)
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    settle(world)
    world.sweep()
    assert world.apply_row().state == "paused"
    assert answer(world) is Receipt.REFUSED


def test_failures_that_are_borne_need_no_release(world: World) -> None:
    """§6: max_failures of them."""
    policy = Policy(copy=Copy.ROLLING, on_failure=OnFailure.PAUSE, max_failures=1)
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", "C", policy=policy)
    world.run(until=lambda: world.state("B") == "running", rounds=3)
    assert answer(world) is Receipt.REFUSED


def test_a_rollout_that_goes_on_whatever_fails_says_so(world: World) -> None:
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", policy=Policy(copy=Copy.ROLLING, on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    (line,) = world.ask(Verb.RELEASE).lines
    assert line.outcome is Receipt.REFUSED
    assert "its policy says continue" in line.reason


def test_a_release_is_about_the_whole_rollout(world: World) -> None:
    """G7: a selection would promise something that it does not do."""
    paused(world)
    for selection, expected in (
        (Selection(("B",)), None),
        (Selection(everywhere=True), None),
        (Selection(), 3),
    ):
        with pytest.raises(Refused, match="about the whole apply"):
            world.ask_for(Verb.RELEASE, selection, expected=expected)
    assert world.apply_row().state == "paused"


def test_a_dry_run_opens_nothing(world: World) -> None:
    paused(world)
    receipt = world.ask_for(Verb.RELEASE, Selection(), dry_run=True)
    assert (receipt.request_id, receipt.lines[0].outcome) == (None, Receipt.ACCEPTED)
    world.sweep()
    assert world.apply_row().state == "paused"


def test_a_frozen_worker_keeps_nobody_from_releasing(world: World) -> None:
    """ST11's twin: accepting only inserts."""
    paused(world)
    with held(world, "SELECT 1 FROM applies FOR NO KEY UPDATE"):
        assert answer(world) is Receipt.ACCEPTED


def test_a_sweep_rings_once_for_a_release_that_changes_nothing(world: World) -> None:
    """§8: cost follows what is due; a stopped one still blocks the order after the release."""
    paused(world)
    world.ask(Verb.STOP, "B")
    settle(world)
    assert answer(world) is Receipt.ACCEPTED
    world.answer_bells()
    world.sweep()
    assert world.apply_row().state == "paused"
    assert world.last not in world.store.due_work().applies
