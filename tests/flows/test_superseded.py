"""What takes a stop or a cancel back, and until when each covers: the last word of a person counts (G9, §11)."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import UsageError
from tern.domain.policy import Copy, Policy
from tern.domain.selection import Selection
from tern.ports import Asked, WishReceipt
from tern.store.gauge import read_gauges
from tests.faults.behaviour import fail, not_accepted
from tests.flows.steps import (
    committed_late,
    drive,
    engine_says,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    waiting,
    wishes,
)
from tests.world import World

BARRIER = Policy(copy=Copy.BARRIER)


def start_although(world: World, name: str) -> WishReceipt:
    return world.ask_for(Verb.START, Selection((name,)), although_cancel_refused=True)


def refused_once(world: World, verb: Verb, name: str = "A") -> None:
    """The wish was sent, and the engine's last answer was a refusal."""
    world.engines[name].always(verb.value.capitalize(), not_accepted("not now"))
    world.ask(verb, name)
    world.answer_bells()
    assert world.delivery(name, verb).refusals == 1


def test_a_stop_refused_once_while_terns_own_cutover_is_due(world: World) -> None:
    """G9: it goes on covering Tern's own cutover at a barrier, until a person's start takes it back."""
    running(world, "A", "B", policy=BARRIER)
    world.ask(Verb.STOP, "A")
    world.engines["A"].always("Stop", not_accepted("not now"))
    engine_says(world, "B", "waiting_for_cutover")
    engine_says(world, "A", "waiting_for_cutover")
    for _ in range(30):
        world.answer_bells()
        world.pass_time(30)
        world.sweep()
    assert world.delivery("A", Verb.STOP).refusals > 10
    assert methods(world, "A", ["Cutover"]) == methods(world, "B", ["Cutover"]) == []
    (line,) = world.ask(Verb.CUTOVER, "A").lines
    assert f"`tern start {world.name('A')} --reason '…'`" in line.reason
    world.ask(Verb.START, "A")
    world.run(until=lambda: world.state("B") == "completed")
    assert methods(world, "A", ["Cutover"]) == ["Cutover"]
    assert world.delivery("A", Verb.STOP).state == "moot"


def test_a_stop_refused_while_terns_own_cutover_is_claimed_already(world: World) -> None:
    """G9: the cutover of a barrier is at its last look when the stop comes: it is never sent."""
    running(world, "A", "B", policy=BARRIER)
    world.engines["A"].always("Stop", not_accepted("not now"))
    engine_says(world, "B", "waiting_for_cutover")
    engine_says(world, "A", "waiting_for_cutover")
    world.forget_bells()
    drive(
        world, Verb.CUTOVER, "A", meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A"))
    )
    for _ in range(10):
        world.answer_bells()
        world.pass_time(30)
        world.sweep()
    assert world.delivery("A", Verb.STOP).refusals > 3
    assert methods(world, "A", ["Cutover"]) == methods(world, "B", ["Cutover"]) == []
    world.ask(Verb.START, "A")
    world.run(until=lambda: world.state("B") == "completed")
    assert methods(world, "A", ["Cutover"]) == ["Cutover"]


def test_a_cancel_that_its_engine_refuses_keeps_no_stop_waiting(world: World) -> None:
    """G9, §11: it is repeated with growing pauses; what can be had in the meantime is had, and it stays open."""
    running(world, "A", "B")
    refused_once(world, Verb.CANCEL)
    world.ask(Verb.STOP, "A")
    world.run(until=lambda: world.state("A") == "stopped", rounds=5)
    assert methods(world, "A").count("Stop") == 1
    assert wishes(world) == [("A", "cancel", "pending"), ("A", "stop", "acknowledged")]
    world.engines["A"].always("Cancel", None)
    world.run(until=lambda: world.state("A") == "cancelled")
    assert wishes(world)[0] == ("A", "cancel", "acknowledged")


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
def test_what_was_acknowledged_covers_all_the_same(world: World, verb: Verb) -> None:
    """§11: acknowledged ends only the repeating; and a wish that it covers ends, instead of being tried for ever."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()
    world.ask(verb, "A")
    world.write(
        "UPDATE control_deliveries SET state = 'acknowledged', closed_at = tern_clock(), next_attempt_at = NULL"
        " WHERE verb = :verb",
        verb=verb.value,
    )
    settle(world)
    assert world.delivery("A", Verb.CUTOVER).state == "failed"
    assert world.engines["A"].calls("Cutover") == []
    (line,) = world.ask(Verb.CUTOVER, "A").lines
    assert f"a {verb} covers it" in line.reason


def test_a_start_takes_back_a_stop_whose_last_answer_was_a_refusal(world: World) -> None:
    """§11: and the stop is never driven again."""
    running(world, "A", "B")
    refused_once(world, Verb.STOP)
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert wishes(world) == [("A", "stop", "moot"), ("A", "start", "acknowledged")]
    calls = len(world.engines["A"].calls("Stop"))
    for _ in range(5):
        world.pass_time(61)
        world.sweep()
    assert (world.state("A"), len(world.engines["A"].calls("Stop"))) == ("running", calls)


def test_a_start_waits_for_a_stop_whose_answer_is_missing(world: World) -> None:
    """§11, G10: refused at first, and then unanswered: it may have worked. That it still runs says nothing."""
    running(world, "A", "B")
    refused_once(world, Verb.STOP)
    world.engines["A"].always("Stop", fail("UNAVAILABLE"))
    world.pass_time(5)
    drive(world, Verb.STOP, "A")
    world.forget_bells()
    world.ask(Verb.START, "A")
    for _ in range(3):
        world.pass_time(4)
        engine_says(world, "A", "running")
        world.sweep()
    assert open_wishes(world) == [("A", "stop", "pending"), ("A", "start", "pending")]
    assert "a stop covers it" in world.ask(Verb.VOLUME, "A", volume=3).lines[0].reason
    world.engines["A"].always("Stop", None)
    settle(world)
    assert wishes(world) == [("A", "stop", "acknowledged"), ("A", "start", "acknowledged")]
    assert world.state("A") == "running"


def test_a_start_that_waits_for_a_stop_is_no_work_that_nobody_takes(world: World) -> None:
    """Its engine answers nothing, and every try of the stop is made: no alarm rings for the start behind it."""
    running(world, "A", "B")
    for method in ("Stop", "Progress", "BatchProgress"):
        world.engines["A"].always(method, fail("UNAVAILABLE"))
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    world.ask(Verb.START, "A")
    for _ in range(20):
        world.pass_time(31)
        world.sweep()
    assert open_wishes(world) == [("A", "stop", "pending"), ("A", "start", "pending")]
    assert read_gauges(world.database).oldest_due_s["control"] < 60
    world.pass_time(600)
    assert read_gauges(world.database).oldest_due_s["control"] > 500, "and now nobody is there"


def test_a_worker_that_died_at_the_stop_leaves_its_answer_missing(world: World) -> None:
    """§11: it was begun, and nobody knows what it came to."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    world.ask(Verb.START, "A")
    world.forget_bells()
    world.pass_time(31)
    drive(world, Verb.START, "A")
    assert world.delivery("A", Verb.START).state == "pending"
    settle(world)
    assert wishes(world) == [("A", "stop", "acknowledged"), ("A", "start", "acknowledged")]


def test_a_stop_after_a_start_that_waits_for_an_earlier_stop_is_the_last_word(world: World) -> None:
    """G9: stop, start and stop again, and the first stop's answer is missing."""
    running(world, "A", "B")
    world.engines["A"].always("Stop", fail("UNAVAILABLE"))
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    world.ask(Verb.START, "A")
    assert world.outcomes(world.ask(Verb.STOP, "A")) == {"A": Receipt.ACCEPTED}
    assert world.outcomes(world.ask(Verb.STOP, "A")) == {"A": Receipt.ALREADY}
    world.engines["A"].always("Stop", None)
    settle(world)
    assert world.state("A") == "stopped"
    assert world.engines["A"].calls("Start") == []
    assert wishes(world) == [
        ("A", "stop", "acknowledged"),
        ("A", "start", "moot"),
        ("A", "stop", "acknowledged"),
    ]


def test_a_start_after_a_stop_that_overtook_an_earlier_start_is_the_last_word(world: World) -> None:
    """G9's twin: start, stop and start again, before anybody drove one of them."""
    stopped(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ACCEPTED}
    world.forget_bells()
    settle(world)
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("start")) == 1


def test_a_failed_start_takes_no_refused_stop_back(world: World) -> None:
    """G9: the stop is repeated as if nobody had asked."""
    stopped(world, "A", "B")
    world.engines["A"].set_state(str(world.remote_id("A")), "running")
    engine_says(world, "A", "running")
    world.engines["A"].always("Stop", not_accepted("not now"))
    world.sweep()
    assert world.delivery("A", Verb.STOP).refusals == 1
    world.engines["A"].set_state(str(world.remote_id("A")), "stopped")
    world.engines["A"].script("Start", not_accepted("the source is gone"))
    world.ask(Verb.START, "A")
    world.run(until=lambda: world.delivery("A", Verb.START).state == "failed")
    settle(world)
    assert world.state("A") == "stopped"
    assert "a stop covers it" in world.ask(Verb.VOLUME, "A", volume=3).lines[0].reason


def test_no_start_takes_a_cancel_back_but_a_refused_one_by_name(world: World) -> None:
    """§11: only its engine's refusal makes that possible, and only a person who knows of it does it."""
    running(world, "A", "B")
    world.ask(Verb.CANCEL, "A")
    world.forget_bells()
    (line,) = start_although(world, "A").lines
    assert (line.outcome, "permanent" in line.reason) == (Receipt.REFUSED, True)
    world.engines["A"].always("Cancel", not_accepted("not now"))
    world.sweep()
    assert world.delivery("A", Verb.CANCEL).refusals == 1
    (line,) = world.ask(Verb.START, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert f"`tern start {world.name('A')} --although-cancel-refused --reason '…'`" in line.reason
    assert world.outcomes(start_although(world, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert wishes(world) == [("A", "cancel", "moot"), ("A", "start", "acknowledged")]
    assert world.state("A") == "running"
    assert world.ask(Verb.VOLUME, "A", volume=3).lines[0].outcome is Receipt.ACCEPTED


def test_a_start_over_a_refused_cancel_waits_for_its_next_answer(world: World) -> None:
    """§11, G10: refused when the start was accepted, and sent again since; then it was taken, and is final."""
    running(world, "A", "B")
    refused_once(world, Verb.CANCEL)
    world.pass_time(5)
    world.engines["A"].always("Cancel", None)

    def committed() -> None:
        committed_late(world, Verb.START, "A")
        world.write("UPDATE control_deliveries SET overrides_cancel = true WHERE verb = 'start'")

    drive(world, Verb.CANCEL, "A", meanwhile(world.ports, "cancel", committed))
    settle(world)
    assert world.state("A") == "cancelled"
    assert wishes(world) == [("A", "cancel", "acknowledged"), ("A", "start", "too_late")]
    assert world.engines["A"].calls("Start") == []


def test_only_a_start_takes_back() -> None:
    with pytest.raises(UsageError, match="only a start"):
        Asked(Verb.RETRY, "apl-1", Selection(), "bob", "why", although_cancel_refused=True)  # type: ignore[arg-type]


def test_a_cutover_that_was_never_sent_is_no_attempt_at_the_engine(world: World) -> None:
    """CU5: a stop at the last look does not use up what Tern asks by itself."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    stops = meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A"))
    drive(world, Verb.CUTOVER, "A", stops)
    assert (world.delivery("A", Verb.CUTOVER).state, world.delivery("A", Verb.CUTOVER).attempts) == (
        "pending",
        0,
    )
