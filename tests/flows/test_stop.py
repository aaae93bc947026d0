"""Stopping: who calls whom, what is said when, and that a stop outruns everything that goes forward (G8, G9)."""

from collections.abc import Callable

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.policy import Copy, Policy
from tern.store.sql import text
from tests.faults.behaviour import answer, fail, lose_answer, not_accepted
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    Frozen,
    dispatch,
    drive,
    engine_says,
    look,
    meanwhile,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    tables,
    waiting,
    wishes,
)
from tests.world import World


def test_stop_of_a_claimed_undispatched_operation_settles_it_alone(world: World) -> None:
    """ST1 (G8): B is claimed, the stop is seen before the call."""
    world.apply("A", "B", "C", policy=PARALLEL)
    dispatch(world, "A")
    before = world.apply_row()
    # B's driver has its claim; the operator stops B and C before it calls
    dispatch(world, "B", meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "B", "C")))
    assert world.state("B") == "stopped"
    assert tables(world, "B") == {"pending"}
    assert methods(world, "B") == []
    assert world.operation("B").dispatch_key is None
    after = world.apply_row()
    assert (after.state, after.external_id, after.revision) == (before.state, None, before.revision)
    # the wish stays open for the sibling
    assert wishes(world) == [("B", "stop", "acknowledged"), ("C", "stop", "pending")]
    (event,) = [event for event in world.events("B") if event.after == "stopped"]
    assert event.who == "bob"
    assert event.detail == {"deployment": "B", "operation": world.operation("B").id}


@pytest.mark.parametrize(
    ("earlier", "meanwhile_asked", "after", "who"),
    [
        pytest.param(
            [("stop", "ann"), ("start", "carol")], [("stop", "bob")], "stopped", "bob", id="a later stop"
        ),
        pytest.param(
            [("stop", "ann"), ("start", "carol")], [("cancel", "bob")], "cancelled", "bob", id="a cancel"
        ),
        pytest.param(
            [], [("cancel", "ann"), ("stop", "bob")], "cancelled", "ann", id="a stop beside the cancel"
        ),
        pytest.param(
            [], [("stop", "bob"), ("cancel", "ann")], "cancelled", "ann", id="a cancel beside the stop"
        ),
    ],
)
def test_what_is_withdrawn_is_recorded_under_the_name_of_whose_wish_it_was(
    world: World,
    earlier: list[tuple[str, str]],
    meanwhile_asked: list[tuple[str, str]],
    after: str,
    who: str,
) -> None:
    """G15: of several wishes for one operation the one that is in force, and not another person's."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    for verb, asks in earlier:
        world.ask(Verb(verb), "A", who=asks)
        world.do("advance", world.last)
        world.forget_bells()

    def people_ask() -> None:
        for verb, asks in meanwhile_asked:
            world.ask(Verb(verb), "A", who=asks)

    dispatch(world, "A", meanwhile(world.ports, "may_go_forward", people_ask))
    assert (world.state("A"), methods(world, "A")) == (after, [])
    event = [event for event in world.events("A") if event.before == "running"][-1]
    assert (event.after, event.who) == (after, who)
    assert who in event.why


def test_stop_completes_when_each_operation_has_acknowledged_for_itself(world: World) -> None:
    """ST2 (G2, G8): A has an id, B was never dispatched."""
    world.apply("A", "B")
    world.answer_bells()
    assert world.outcomes(world.ask(Verb.STOP)) == {"A": Receipt.ACCEPTED, "B": Receipt.ACCEPTED}
    drive(world, Verb.STOP, "B")
    assert wishes(world) == [("A", "stop", "pending"), ("B", "stop", "acknowledged")]
    assert world.apply_row().state == "running"
    drive(world, Verb.STOP, "A")
    assert wishes(world)[0] == ("A", "stop", "sent")
    look(world, "A")
    assert open_wishes(world) == []
    assert [call.remote_id for call in world.engines["A"].calls("Stop")] == [world.remote_id("A")]
    assert methods(world, "B") == []
    assert (world.state("A"), world.state("B"), world.apply_row().state) == ("stopped", "stopped", "stopped")


def test_stop_after_a_lost_answer_finds_the_remote_work_and_stops_it(world: World) -> None:
    """ST3 (G3, G10): the answer to Apply got lost, the work runs."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert (world.state("A"), world.remote_id("A")) == ("failed_retryable", None)
    world.ask(Verb.STOP, "A")
    settle(world)
    assert world.state("A") == "stopped"
    assert methods(world, "A") == ["Apply", "Stop"]
    assert world.engines["A"].calls("Resolve")[0].request.forbid
    assert world.engines["A"].job(str(world.remote_id("A"))).state == "stopped"


def test_stop_after_an_unsent_apply_kills_the_key_for_ever(world: World) -> None:
    """ST3 (G4, S17): nothing was started; nothing can be under that key any more."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    settle(world)
    assert (world.state("A"), world.remote_id("A")) == ("stopped", None)
    assert methods(world, "A") == ["Apply"]
    dead = world.operation("A").dispatch_key
    assert dead in world.engines["A"].jobs.forbidden
    # and a later start goes under a new key
    world.ask(Verb.START, "A")
    settle(world)
    world.run(until=lambda: world.state("A") == "running")
    assert world.engines["A"].calls("Apply")[-1].key != dead
    assert world.operation("A").dispatch_generation == 2


def test_stop_without_resolve_is_held_for_a_person_and_never_applies(
    make_world: Callable[..., World],
) -> None:
    """ST3 (G4, G10): the engine can't say what became of the dispatch."""
    world = make_world("A", "B", offers_engine_service=False, deduplicates=False)
    world.write("UPDATE deployments SET idempotent_dispatch = true WHERE name = 'A'")
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.ask(Verb.STOP, "A")
    for _ in range(5):
        world.answer_bells()
        world.pass_time(40)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert open_wishes(world) == [("A", "stop", "pending")]
    assert methods(world, "A") == ["Apply"]


def test_stop_of_a_finished_operation_is_too_late(world: World) -> None:
    """ST4 (G10): A finishes before Stop arrives."""
    running(world, "A", "B")
    engine_says(world, "A", "completed", looks=False)
    world.ask(Verb.STOP, "A")
    settle(world)
    assert world.state("A") == "completed"
    assert wishes(world) == [("A", "stop", "too_late")]
    assert world.outcomes(world.ask(Verb.STOP, "A")) == {"A": Receipt.TOO_LATE}


def test_apply_is_not_settled_while_a_sibling_of_a_stopped_operation_runs(world: World) -> None:
    """ST5 (G14)."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    settle(world)
    assert (world.state("A"), world.state("B")) == ("stopped", "running")
    assert world.apply_row().state == "running"
    assert methods(world, "B") == ["Apply"]


def test_stop_is_sent_although_the_driver_died(world: World) -> None:
    """ST6 (G11, G12): B's driver is dead, its claim still runs, and all bells are lost."""
    ids = running(world, "A", "B")
    world.write(
        "UPDATE apply_operations SET claim_token = 'dead', claim_owner = 'dead',"
        " claim_expires_at = tern_clock() + interval '30 s' WHERE deployment = 'B'"
    )
    world.ask(Verb.STOP)
    world.forget_bells()
    world.sweep()
    assert methods(world, "B") == ["Apply"]
    world.pass_time(31)
    settle(world, world.worker("worker-2"))
    assert [call.remote_id for call in world.engines["B"].calls("Stop")] == [ids["B"]]
    assert world.apply_row().state == "stopped"


def test_stop_between_claim_and_apply_sends_nothing(world: World) -> None:
    """ST7 (G9, S16)."""
    world.apply("A")
    dispatch(world, "A", meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP)))
    world.answer_bells()
    assert world.state("A") == "stopped"
    assert world.engines["A"].calls("Apply") == []
    assert open_wishes(world) == []


def test_stop_before_a_repeated_apply_is_not_taken_for_undispatched(world: World) -> None:
    """ST7 (G8, S17): an earlier tick may have sent something, so the key is asked about first."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.pass_time(5)
    # The first call is still on its way when the question comes that is asked before each repetition.
    world.engines["A"].script("Resolve", answer())
    dispatch(world, "A", meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A")))
    assert (world.state("A"), world.remote_id("A") is not None) == ("running", True)
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop"]
    assert world.state("A") == "stopped"


def test_stop_before_a_repeated_apply_that_never_arrived_stops_it_without_a_call(world: World) -> None:
    """S17: the key is dead at the engine before anything is said, and nothing failed."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.pass_time(5)
    dispatch(world, "A", meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A")))
    assert (world.state("A"), world.operation("A").dispatch_generation) == ("pending", 2)
    settle(world)
    assert (world.state("A"), methods(world, "A")) == ("stopped", ["Apply"])
    assert wishes(world) == [("A", "stop", "acknowledged")]


def test_stop_between_cutover_claim_and_cutover_sends_no_cutover(world: World) -> None:
    """ST8 (G9)."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    drive(
        world, Verb.CUTOVER, "A", meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A"))
    )
    settle(world)
    assert world.engines["A"].calls("Cutover") == []
    assert world.state("A") == "stopped"
    assert wishes(world) == [("A", "cutover", "too_late"), ("A", "stop", "acknowledged")]


def test_accepted_stop_stays_open_until_a_stopped_sample(world: World) -> None:
    """ST9 (G10): the engine says yes and goes on."""
    running(world, "A", "B")
    world.engines["A"].ignore("Stop")
    world.ask(Verb.STOP, "A")
    for _ in range(3):
        world.answer_bells()
        world.pass_time(2)
        world.sweep()
    assert world.state("A") == "running"
    assert open_wishes(world) == [("A", "stop", "sent")]
    engine_says(world, "A", "stopped")
    assert world.state("A") == "stopped"
    assert open_wishes(world) == []


def test_stop_without_effect_is_sent_again(world: World) -> None:
    """ST9 (G8): a stop that got lost inside the engine."""
    running(world, "A", "B")
    world.engines["A"].ignore("Stop")
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    world.engines["A"].ignore()
    world.pass_time(31)
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop", "Stop"]
    assert world.state("A") == "stopped"


def test_stop_committed_while_a_claim_is_open_leads_to_no_apply(world: World) -> None:
    """ST10 (G9): the claim has read its gates; the stop commits before the claim does."""
    world.apply("A", "B", policy=PARALLEL)
    with world.database.begin() as tx:
        # a claimer in the middle of its transaction: apply and operation locked, gates read
        tx.execute(text("SELECT 1 FROM applies FOR NO KEY UPDATE"))
        tx.execute(text("SELECT 1 FROM apply_operations FOR NO KEY UPDATE"))
        receipt = world.ask(Verb.STOP, "A")
        tx.execute(
            text(
                "UPDATE apply_operations SET state = 'running', claim_token = 't', claim_owner = 'w', fence = 1,"
                " claim_expires_at = tern_clock() + interval '30 s', dispatch_key = 'k',"
                " dispatch_intent_at = tern_clock() WHERE deployment = 'A'"
            )
        )
    assert world.outcomes(receipt) == {"A": Receipt.ACCEPTED}
    world.pass_time(31)
    settle(world)
    assert world.engines["A"].calls("Apply") == []
    assert world.state("A") == "stopped"


def test_stop_is_accepted_while_a_frozen_worker_holds_the_rows(world: World) -> None:
    """ST11 (G9): locks of a driver never keep an operator from stopping."""
    running(world, "A", "B")
    with world.database.begin() as tx:
        tx.execute(text("SELECT 1 FROM applies FOR NO KEY UPDATE"))
        tx.execute(text("SELECT 1 FROM apply_operations FOR NO KEY UPDATE"))
        receipt = world.ask(Verb.STOP)
        assert world.outcomes(receipt) == {"A": Receipt.ACCEPTED, "B": Receipt.ACCEPTED}
        assert len(open_wishes(world)) == 2


@pytest.mark.parametrize(("verb", "call"), [(Verb.START, "start"), (Verb.CUTOVER, "cutover")])
def test_a_worker_that_wakes_after_a_stop_is_refused_by_the_engine(
    world: World, verb: Verb, call: str
) -> None:
    """ST12 (G12): frozen just before a forward call; another worker stops the operation; the first one wakes."""
    given = stopped if verb is Verb.START else waiting
    given(world, "A", "B")
    world.ask(verb, "A")
    world.forget_bells()
    with Frozen(world.worker("frozen"), call, lambda ports: drive(world, verb, "A", ports)) as worker:
        world.pass_time(31)
        world.ask(Verb.STOP, "A")
        drive(world, Verb.STOP, "A")
        world.forget_bells()
        worker.wake()
    settle(world)
    assert world.engines["A"].effects("start") == []
    assert world.engines["A"].effects("cutover") == []
    assert world.engines["A"].job(str(world.remote_id("A"))).state == "stopped"
    assert world.state("A") == "stopped"


def test_a_running_sample_of_a_stopped_operation_sends_stop_again(world: World) -> None:
    """ST12 (G9): somebody, or a late Start, made it go on."""
    stopped(world, "A", "B")
    engine_says(world, "A", "running")
    assert world.state("A") == "stopped"
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop", "Stop"]
    assert world.engines["A"].job(str(world.remote_id("A"))).state == "stopped"
    assert world.state("A") == "stopped"


def test_a_running_sample_sends_stop_once_and_not_until_somebody_looks_again(world: World) -> None:
    """What was said before the Stop says nothing about what came of it."""
    stopped(world, "A", "B")
    engine_says(world, "A", "running")
    for method in ("Progress", "BatchProgress"):
        world.engines["A"].always(method, fail("UNAVAILABLE"))
    for _ in range(20):
        world.answer_bells()
        world.pass_time(15)
        world.sweep()
    assert methods(world, "A", ["Stop"]) == ["Stop", "Stop"]


def test_an_operation_that_stopped_by_itself_and_runs_again_is_stopped(world: World) -> None:
    """ST12 (G13): its target may be another apply's by now, so it must not run behind our back."""
    running(world, "A", "B")
    engine_says(world, "A", "stopped")
    engine_says(world, "B", "stopped")
    assert world.apply_row().state == "stopped"
    engine_says(world, "A", "running")
    settle(world)
    world.run(until=lambda: "Stop" in methods(world, "A"))
    settle(world)
    assert world.engines["A"].job(str(world.remote_id("A"))).state == "stopped"


def test_refused_stop_stays_open_and_is_repeated_ever_more_rarely_until_it_is_taken(world: World) -> None:
    """ST9 (G9, G10, G15): an engine that will not stop is no reason to hammer it, nor to call it stopped, nor to give
    up: the person's last word was stop.
    """
    running(world, "A", "B")
    world.engines["A"].always("Stop", not_accepted("the lid is shut"))
    world.ask(Verb.STOP, "A")
    counted = []
    for _ in range(2):
        for _ in range(75):
            world.pass_time(4)
            world.sweep()
        counted.append(len(world.engines["A"].calls("Stop")))
    first, second = counted[0], counted[1] - counted[0]
    assert 300 / 75 <= second < first
    delivery = world.delivery("A", Verb.STOP)
    assert (delivery.state, delivery.refusals) == ("pending", counted[1])
    assert "the lid is shut" in delivery.engine_words
    assert [event.event for event in world.events("A")].count("stop_refused") == 1
    assert "a stop covers it" in world.ask(Verb.VOLUME, "A", volume=3).lines[0].reason
    world.engines["A"].always("Stop", None)
    settle(world, step_s=61)
    assert world.state("A") == "stopped"


def test_unanswered_stop_is_repeated_and_never_failed(world: World) -> None:
    """ST9 (G10): an Unknown answer leaves the wish open."""
    running(world, "A", "B")
    world.engines["A"].script("Stop", *[fail("UNAVAILABLE")] * 3)
    world.ask(Verb.STOP, "A")
    settle(world, step_s=15)
    assert methods(world, "A") == ["Apply", "Stop", "Stop", "Stop", "Stop"]
    assert world.state("A") == "stopped"
    # An outage says the same every few seconds, and the record says it once.
    assert [event.event for event in world.events("A")].count("stop_unanswered") == 1


def test_second_stop_is_answered_already(world: World) -> None:
    """G8, S14: one effect per wish."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    assert world.outcomes(world.ask(Verb.STOP)) == {"A": Receipt.ALREADY, "B": Receipt.ACCEPTED}
    settle(world)
    assert world.outcomes(world.ask(Verb.STOP)) == {"A": Receipt.ALREADY, "B": Receipt.ALREADY}
    assert methods(world, "A") == ["Apply", "Stop"]


def test_stop_of_a_whole_waiting_rollout_calls_nobody(world: World) -> None:
    """G8: a thousand undispatched operations are settled in one statement, not by a thousand bells."""
    world.apply("A", "B", "C")
    world.ask(Verb.STOP)
    world.do("advance", world.last)
    assert {world.state(name) for name in "ABC"} == {"stopped"}
    assert open_wishes(world) == []
    assert all(methods(world, name) == [] for name in "ABC")
    assert world.apply_row().state == "stopped"


def test_stop_during_a_rolling_rollout_holds_the_later_ones(world: World) -> None:
    """G9: who is stopped before its turn does not get one."""
    world.apply("A", "B", "C", policy=Policy(copy=Copy.ROLLING))
    world.answer_bells()
    world.ask(Verb.STOP, "B")
    settle(world)
    engine_says(world, "A", "completed")
    world.run(until=lambda: world.apply_row().state == "paused", rounds=5)
    assert (world.state("B"), world.state("C")) == ("stopped", "pending")
    assert methods(world, "B") == methods(world, "C") == []


def test_stop_asked_while_a_start_is_open_is_not_answered_by_the_old_stop(world: World) -> None:
    """G9: stopped, started, and stopped again before the start was driven."""
    stopped(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()
    assert world.outcomes(world.ask(Verb.STOP, "A")) == {"A": Receipt.ACCEPTED}
    world.forget_bells()
    world.sweep()
    settle(world)
    assert world.engines["A"].calls("Start") == []
    assert world.state("A") == "stopped"
    assert wishes(world)[-2:] == [("A", "start", "moot"), ("A", "stop", "acknowledged")]


@pytest.mark.parametrize("answer", ["never sent", "unanswered", "taken"])
def test_stop_after_a_start_ends_stopped_at_once(world: World, answer: str) -> None:
    """G9, S16: a stop that was sent after Start is no stale sample's matter; it is not held up by the grace."""
    stopped(world, "A", "B")
    if answer == "unanswered":
        world.engines["A"].script("Start", lose_answer())
    world.ask(Verb.START, "A")
    ports = world.ports
    if answer == "never sent":
        ports = meanwhile(ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A"))
    drive(world, Verb.START, "A", ports)
    assert world.state("A") == ("stopped" if answer == "never sent" else "resuming")
    world.forget_bells()
    world.ask(Verb.STOP, "A")
    settle(world, rounds=3, step_s=2)
    assert world.state("A") == "stopped"
    assert world.engines["A"].job(str(world.remote_id("A"))).state == "stopped"
    assert wishes(world)[-2:] == [("A", "start", "moot"), ("A", "stop", "acknowledged")]


def test_stop_at_the_last_look_over_an_earlier_start_is_sent_to_the_engine(world: World) -> None:
    """G9, S16: that Start was never answered and may act yet, so nothing is called stopped before a Stop behind it."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", fail("UNAVAILABLE"))
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    world.forget_bells()
    world.pass_time(5)
    ports = meanwhile(world.ports, "may_go_forward", lambda: world.ask(Verb.STOP, "A"))
    drive(world, Verb.START, "A", ports)
    assert (world.state("A"), world.delivery("A", Verb.START).attempts) == ("resuming", 1)
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop", "Start", "Stop"]
    assert wishes(world)[-2:] == [("A", "start", "moot"), ("A", "stop", "acknowledged")]


def test_stop_of_a_deferring_rollout_is_possible_while_it_waits(world: World) -> None:
    """G9: waiting for a cutover is a state like any other."""
    waiting(world, "A", "B", policy=MANUAL)
    world.ask(Verb.STOP)
    settle(world)
    assert world.apply_row().state == "stopped"


def test_stop_of_an_operation_that_contradicts_itself_sends_nothing_and_says_why(world: World) -> None:
    """G7, G15: its statements are gone, so nobody can say what a call would be about; the sibling's stop goes on."""
    running(world, "A", "B")
    world.write("DELETE FROM table_changes WHERE operation_id = :id", id=world.operation("A").id)
    world.ask(Verb.STOP)
    settle(world)
    assert wishes(world) == [("A", "stop", "failed"), ("B", "stop", "acknowledged")]
    assert methods(world, "A") == ["Apply"]
    assert "no table changes" in world.delivery("A", Verb.STOP).engine_words
    assert "no table changes" in next(
        event.why for event in world.events("A") if event.event == "stop_failed"
    )


def test_what_is_stopped_is_not_even_claimed(world: World) -> None:
    """ST10 (G9): the gate at the claim comes before the look at the call; no intent is left to be asked about."""
    world.apply("A", "B", policy=PARALLEL)
    world.ask(Verb.STOP, "A")
    dispatch(world, "A")
    operation = world.operation("A")
    assert (operation.state, operation.attempt, operation.dispatch_key) == ("pending", 0, None)


def test_a_wish_has_one_driver_at_a_time(world: World) -> None:
    """G12: while one worker is at the call, another one that hears the same bell does nothing."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    with Frozen(world.worker("frozen"), "stop", lambda ports: drive(world, Verb.STOP, "A", ports)):
        fence = world.operation("A").fence
        drive(world, Verb.STOP, "A", world.worker("eager"))
        world.pass_time(29)
        world.sweep(world.worker("eager"))
        assert (methods(world, "A"), world.operation("A").fence) == (["Apply"], fence)
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop"]


def test_another_wish_has_to_wait_for_the_one_driver_at_the_call(world: World) -> None:
    """G12: a cancel comes first and is due, and still its driver goes away while a stop of the operation is out."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    with Frozen(world.worker("frozen"), "stop", lambda ports: drive(world, Verb.STOP, "A", ports)):
        fence = world.operation("A").fence
        world.ask(Verb.CANCEL, "A")
        drive(world, Verb.CANCEL, "A", world.worker("eager"))
        assert (methods(world, "A"), world.operation("A").fence) == (["Apply"], fence)
        assert world.delivery("A", Verb.CANCEL).state == "pending"
        world.forget_bells()
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop", "Cancel"]
    assert world.state("A") == "cancelled"


def test_stop_waits_for_a_dispatch_that_is_under_way(world: World) -> None:
    """S17 (G12): its driver is at the call; the stop neither asks about the key nor settles anything meanwhile."""
    world.apply("A", "B", policy=PARALLEL)
    with Frozen(world.worker("frozen"), "apply", lambda ports: dispatch(world, "A", ports)):
        world.ask(Verb.STOP, "A")
        world.answer_bells(world.worker("eager"))
        assert world.engines["A"].calls("Resolve") == []
        assert (world.state("A"), open_wishes(world)) == ("running", [("A", "stop", "pending")])
    settle(world)
    assert methods(world, "A") == ["Apply", "Stop"]
    assert world.state("A") == "stopped"
