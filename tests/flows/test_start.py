"""Starting again: targets, places in the order, the grace for stale samples, and nobody else disturbed."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.identity import ApplyId
from tern.domain.model import Claim
from tern.domain.policy import Copy, Policy
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.steps import (
    PARALLEL,
    drive,
    engine_says,
    held_targets,
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


def never_sent(world: World, *names: str) -> ApplyId:
    """One apply that is stopped before anything of it reached an engine."""
    apply_id = world.apply(*names, policy=PARALLEL)
    world.forget_bells()
    world.ask(Verb.STOP, apply_id=apply_id)
    world.answer_bells()
    assert {world.state(name) for name in names} == {"stopped"}
    return apply_id


def test_start_of_a_fully_stopped_rollout_finds_its_targets_and_resumes_all(world: World) -> None:
    """SA1 (G2, G13): each with its own id; what is stopped at its engine may be started there, and holds its target."""
    ids = stopped(world)
    assert world.apply_row().state == "stopped"
    assert held_targets(world) == {"A", "B", "C"}
    world.ask(Verb.START, "A", "B", "C")
    settle(world)
    assert held_targets(world) == {"A", "B", "C"}
    for name, remote_id in ids.items():
        assert world.state(name) == "running"
        assert [call.remote_id for call in world.engines[name].calls("Start")] == [remote_id]
    assert world.apply_row().state == "running"


def test_start_of_a_never_dispatched_operation_waits_for_its_turn(world: World) -> None:
    """SA2: back to pending, and through the gates in order."""
    world.apply("A", "B", "C", policy=Policy(copy=Copy.ROLLING))
    world.answer_bells()
    world.ask(Verb.STOP, "B")
    settle(world)
    assert (world.state("B"), tables(world, "B")) == ("stopped", {"pending"})
    world.ask(Verb.START, "B")
    settle(world)
    assert (world.state("B"), tables(world, "B")) == ("pending", {"pending"})
    assert methods(world, "B") == []
    engine_says(world, "A", "completed")
    world.run(until=lambda: world.state("B") == "running", rounds=3)
    assert methods(world, "B") == ["Apply"]


def test_start_is_refused_and_names_who_holds_the_target(world: World) -> None:
    """SA3 (G13): nothing was ever sent of it, so it held nothing."""
    first = never_sent(world, "A", "B")
    second = world.apply("A", policy=PARALLEL)
    world.answer_bells()
    receipt = world.ask(Verb.START, "A", apply_id=first)
    assert receipt.lines[0].outcome is Receipt.REFUSED
    assert second in receipt.lines[0].reason
    assert methods(world, "A", ["Start"]) == []


def test_start_whose_target_is_taken_in_between_fails_with_the_name(world: World) -> None:
    """SA3 (G13): accepted, and then another rollout was faster."""
    first = never_sent(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()
    second = world.apply("A", policy=PARALLEL)
    world.forget_bells()
    world.last = first
    drive(world, Verb.START, "A")
    delivery = world.delivery("A", Verb.START)
    assert delivery.state == "failed"
    assert second in delivery.engine_words
    assert world.state("A") == "stopped"
    assert methods(world, "A", ["Start"]) == []
    assert world.state("B") == "stopped"


def test_start_that_failed_supersedes_no_stop(world: World) -> None:
    """G9, G7: it fails while its first driver is at the last look, which finds the stop in force and sends nothing."""
    stopped(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()

    def fails() -> None:
        # its statements are gone, so whoever hears the bell next writes that down
        world.write("DELETE FROM table_changes WHERE operation_id = :id", id=world.operation("A").id)
        drive(world, Verb.START, "A", world.worker("w2"))
        assert world.delivery("A", Verb.START).state == "failed"

    drive(world, Verb.START, "A", meanwhile(world.worker("w1"), "may_go_forward", fails))
    assert methods(world, "A") == ["Apply", "Stop"]
    assert world.engines["A"].job(str(world.remote_id("A"))).state == "stopped"


def test_start_of_what_runs_already_calls_nobody(world: World) -> None:
    """SA4: somebody started it at the engine."""
    stopped(world, "A", "B")
    world.engines["A"].set_state(str(world.remote_id("A")), "running")
    world.ask(Verb.START, "A")
    settle(world)
    assert world.state("A") == "running"
    assert world.engines["A"].calls("Start") == []
    assert wishes(world)[-1] == ("A", "start", "acknowledged")


def test_start_of_what_is_seen_running_is_no_reason_to_stop_it_first(world: World) -> None:
    """SA4: the look comes before the start is driven."""
    stopped(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()
    engine_says(world, "A", "running")
    settle(world)
    assert methods(world, "A", ["Stop", "Start"]) == ["Stop"]
    assert world.state("A") == "running"


def test_start_of_a_running_operation_is_answered_already(world: World) -> None:
    """SA4."""
    running(world, "A", "B")
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ALREADY}
    assert open_wishes(world) == []


def test_start_that_has_no_effect_ends_stopped_with_the_reason(world: World) -> None:
    """SA5: the grace is over and it still says stopped."""
    stopped(world, "A", "B")
    world.engines["A"].ignore("Start")
    world.ask(Verb.START, "A")
    world.answer_bells()
    assert world.state("A") == "resuming"
    world.pass_time(29)
    look(world, "A")
    assert world.state("A") == "resuming"
    world.pass_time(2)
    # the sweeps see the due wish before they see the sample: a start that was taken is not sent again
    world.sweep()
    assert world.state("A") == "stopped"
    assert methods(world, "A") == ["Apply", "Stop", "Start"]
    delivery = world.delivery("A", Verb.START)
    assert (delivery.state, delivery.engine_words) == ("failed", "still stopped after Start")
    assert [event.event for event in world.events("A")][-2:] == ["resume_refused", "start_failed"]
    assert world.apply_row().state == "stopped"
    assert held_targets(world) == {"A", "B"}


def test_start_that_is_refused_ends_stopped_with_the_words(world: World) -> None:
    """SA5 (G10): a definite answer is always written."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", not_accepted("the source is gone"))
    world.ask(Verb.START, "A")
    settle(world)
    assert world.state("A") == "stopped"
    assert "the source is gone" in world.delivery("A", Verb.START).engine_words
    assert "the source is gone" in world.operation("A").error_message
    assert held_targets(world) == {"A", "B"}


def test_unanswered_start_is_asked_about_before_it_is_repeated(world: World) -> None:
    """SA4 (G10): the answer got lost, the effect did not."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", lose_answer())
    world.ask(Verb.START, "A")
    settle(world, step_s=12)
    assert world.state("A") == "running"
    assert len(world.engines["A"].calls("Start")) == 1


def test_start_survives_an_engine_that_is_down(world: World) -> None:
    """SA5 (G10): Unknown is repeated, and never failed."""
    stopped(world, "A", "B")
    for method in ("Start", "Progress"):
        world.engines["A"].script(method, *[fail("UNAVAILABLE")] * 3)
    world.ask(Verb.START, "A")
    settle(world, step_s=20)
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("start")) == 1


def test_a_start_is_not_sent_on_a_word_that_nobody_knows(world: World) -> None:
    """§11, G10: ten such answers fail the start with what was seen; it is stopped as before, and can be asked again."""
    stopped(world, "A", "B")
    word = "no_active_change"
    world.engines["A"].set_state(str(world.remote_id("A")), word)
    world.ask(Verb.START, "A")
    settle(world, rounds=80, step_s=9)
    delivery = world.delivery("A", Verb.START)
    assert (world.state("A"), delivery.state, delivery.looks) == ("stopped", "failed", 9)
    assert word.upper() in delivery.engine_words.upper()
    assert world.engines["A"].calls("Start") == []
    assert "resuming" not in {event.after for event in world.events("A")}
    world.engines["A"].set_state(str(world.remote_id("A")), "stopped")
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ACCEPTED}
    settle(world)
    assert world.state("A") == "running"


def test_a_start_is_not_sent_after_a_look_that_failed_and_stays_open(world: World) -> None:
    """§11, G10: no answer counts for nothing, however often, and the operation is not `resuming` by it."""
    stopped(world, "A", "B")
    world.engines["A"].always("Progress", fail("UNAVAILABLE"))
    world.engines["A"].always("BatchProgress", fail("UNAVAILABLE"))
    world.ask(Verb.START, "A")
    for _ in range(30):
        world.answer_bells()
        world.pass_time(10)
        world.sweep()
    delivery = world.delivery("A", Verb.START)
    assert (world.state("A"), delivery.state, delivery.looks, delivery.attempts) == (
        "stopped",
        "pending",
        0,
        0,
    )
    looks = len(world.engines["A"].calls("Progress"))
    assert looks > 10
    assert world.engines["A"].calls("Start") == []
    assert [event.event for event in world.events("A")].count("start_looked") == 1
    world.engines["A"].always("Progress", None)
    world.engines["A"].always("BatchProgress", None)
    settle(world, step_s=30)
    assert (world.state("A"), len(world.engines["A"].calls("Start"))) == ("running", 1)


def test_an_engine_that_refuses_to_be_looked_at_answers(world: World) -> None:
    """§11: refused ten times, the start fails with its words; a person mends that, and asks again."""
    stopped(world, "A", "B")
    world.engines["A"].always("Progress", fail("PERMISSION_DENIED", message="the token is old"))
    world.ask(Verb.START, "A")
    settle(world, rounds=80, step_s=9)
    delivery = world.delivery("A", Verb.START)
    assert (world.state("A"), delivery.state) == ("stopped", "failed")
    assert "the token is old" in delivery.engine_words


def test_a_start_that_may_have_left_is_never_called_failed_by_looks(world: World) -> None:
    """G10: unanswered, and then ten words that nobody knows: uncertain, and a definite sample settles it."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", lose_answer())
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    world.engines["A"].set_state(str(world.remote_id("A")), "no_active_change")
    world.run(until=lambda: world.state("A") == "uncertain", rounds=80, step_s=9)
    assert open_wishes(world) == [("A", "start", "pending")]
    engine_says(world, "A", "running")
    assert (world.state("A"), wishes(world)[-1]) == ("running", ("A", "start", "acknowledged"))
    assert len(world.engines["A"].calls("Start")) == 1


def test_resuming_is_written_with_the_claim_that_sends(world: World) -> None:
    """§11: whoever dies at the look leaves a stopped operation, and nothing to be explained."""
    stopped(world, "A", "B")
    world.ask(Verb.START, "A")
    world.forget_bells()
    seen: list[str] = []
    ports = meanwhile(world.ports, "progress", lambda: seen.append(world.state("A")))
    drive(world, Verb.START, "A", meanwhile(ports, "start", lambda: seen.append(world.state("A"))))
    assert seen == ["stopped", "resuming"]


def test_a_start_that_nobody_answered_leaves_when_it_was_begun(world: World) -> None:
    """§11: whoever gives the target away afterwards sees that it may still act, whatever became of the start."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", fail("UNAVAILABLE"))
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    world.ask(Verb.STOP, "A")
    settle(world)
    delivery = world.delivery("A", Verb.START)
    assert (world.state("A"), delivery.state) == ("stopped", "moot")
    assert delivery.attempts != delivery.refused_attempt
    assert (delivery.sent_at, delivery.called_at is not None) == (None, True)


def test_start_leaves_running_siblings_alone(world: World) -> None:
    """SA6 (G8): A runs, B is stopped."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "B")
    settle(world)
    receipt = world.ask(Verb.START, "A", "B")
    settle(world)
    assert world.outcomes(receipt) == {"A": Receipt.ALREADY, "B": Receipt.ACCEPTED}
    assert methods(world, "A") == ["Apply"]
    assert methods(world, "B") == ["Apply", "Stop", "Start"]
    assert (world.state("A"), world.state("B")) == ("running", "running")


def test_start_of_several_operations_needs_a_choice(world: World) -> None:
    """G7: a forward verb without a selection fails closed, names the operations and writes nothing."""
    stopped(world)
    with pytest.raises(Refused) as refusal:
        world.ask(Verb.START)
    assert refusal.value.reason == "SELECTION_MISSING"
    assert "A (stopped), B (stopped), C (stopped)" in refusal.value.why[0]
    assert [verb for _, verb, _ in wishes(world)] == ["stop"] * 3


def test_start_of_a_single_rollout_needs_no_choice(world: World) -> None:
    """G1, G7: one operation is all that can be meant; its id is the apply's."""
    stopped(world, "A")
    world.ask(Verb.START)
    settle(world)
    assert world.state("A") == "running"
    assert [call.remote_id for call in world.engines["A"].calls("Start")] == [world.apply_row().external_id]


def test_start_supersedes_a_stop_that_has_not_left(world: World) -> None:
    """§7: stop and start before anybody drove either; nothing happens to the work."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.ACCEPTED}
    world.sweep()
    settle(world)
    assert wishes(world) == [("A", "stop", "moot"), ("A", "start", "acknowledged")]
    assert methods(world, "A") == ["Apply"]
    assert world.state("A") == "running"


def test_start_after_a_stop_that_has_left_waits_for_it(world: World) -> None:
    """§7: the stop's effect comes first, then the start."""
    running(world, "A", "B")
    world.engines["A"].script("Stop", lose_answer())
    world.ask(Verb.STOP, "A")
    drive(world, Verb.STOP, "A")
    world.forget_bells()
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    assert methods(world, "A", ["Start"]) == []
    settle(world)
    assert world.state("A") == "running"
    assert wishes(world) == [("A", "stop", "acknowledged"), ("A", "start", "acknowledged")]


def test_start_after_a_cancel_is_refused(world: World) -> None:
    """§7: cancelling is permanent."""
    running(world, "A", "B")
    world.ask(Verb.CANCEL, "A")
    receipt = world.ask(Verb.START, "A")
    assert world.outcomes(receipt) == {"A": Receipt.REFUSED}
    assert "permanent" in receipt.lines[0].reason
    settle(world)
    assert world.outcomes(world.ask(Verb.START, "A")) == {"A": Receipt.TOO_LATE}


def test_a_stopped_operation_can_be_resumed_while_others_wait_for_their_cutover(world: World) -> None:
    """CU8: a resumed operation needs no slot, and one that waits holds none."""
    policy = Policy.from_json({**PARALLEL.as_json(), "cutover": "manual", "max_parallel": 2})
    world.apply("A", "B", "C", policy=policy)
    world.run(until=lambda: world.state("B") == "running", rounds=2)
    world.ask(Verb.STOP, "A")
    settle(world)
    engine_says(world, "B", "waiting_for_cutover")
    world.run(until=lambda: world.state("C") == "running", rounds=3)
    engine_says(world, "C", "waiting_for_cutover")
    world.ask(Verb.START, "A")
    settle(world)
    assert [world.state(name) for name in "ABC"] == ["running", "waiting_for_cutover", "waiting_for_cutover"]


def test_start_of_a_stopped_waiter_comes_back_to_where_the_engine_says(world: World) -> None:
    """SA4: stopped while waiting for its cutover, and back there."""
    waiting(world, "A", "B")
    world.ask(Verb.STOP, "A")
    settle(world)
    world.ask(Verb.START, "A")
    settle(world)
    engine_says(world, "A", "waiting_for_cutover")
    assert world.state("A") == "waiting_for_cutover"
    assert methods(world, "B") == ["Apply"]


def test_a_stop_after_the_start_that_the_engine_refuses_for_being_stopped(world: World) -> None:
    """G9: some engines refuse to stop what is stopped; the person's last word was stop all the same."""
    world.apply("A", "B")
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    world.run(until=lambda: world.state("A") == "stopped")
    world.ask(Verb.START, "A")
    last_look = world.store.may_go_forward

    def asked_to_stop_first(claim: Claim, **named: bool) -> bool:
        world.store.may_go_forward = last_look  # type: ignore[method-assign]
        world.ask(Verb.STOP, "A")
        return last_look(claim, **named)

    world.store.may_go_forward = asked_to_stop_first  # type: ignore[method-assign]
    world.engines["A"].always("Stop", not_accepted("it is stopped already"))
    world.answer_bells()
    assert world.state("A") == "stopped"
    assert world.delivery("A", Verb.STOP).state == "acknowledged"
    assert world.delivery("A", Verb.START).state == "moot"
    assert not world.engines["A"].calls("Start")


def test_when_work_began_is_stamped_once(world: World) -> None:
    """§3: how long a change has been at work counts from its beginning, not from its last resumption."""
    running(world, "A", "B")
    began = world.operation("A").started_at
    assert began is not None
    world.pass_time(60)
    world.ask(Verb.STOP, "A")
    settle(world)
    world.ask(Verb.START, "A")
    settle(world)
    assert world.state("A") == "running"
    assert world.operation("A").started_at == began


def test_what_is_put_back_in_line_begins_with_a_full_budget(world: World) -> None:
    """What was counted, and what was said, was about the tries before: a person has mended something since."""
    world.apply("A", "B", policy=PARALLEL)
    world.ask(Verb.STOP)
    settle(world)
    assert world.state("A") == "stopped"
    world.write(
        "UPDATE apply_operations SET answered_attempts = 9, error_message = 'no', error_reason = 'NO',"
        " rung_at = tern_clock()"
    )
    world.write("UPDATE table_changes SET state = 'failed', error = 'no'")
    world.ask(Verb.START, "A", "B")
    world.forget_bells()
    world.store.settle_uncalled(world.last, 10)
    row = world.operation("A")
    assert (row.state, row.answered_attempts, row.error_message, row.error_reason) == ("pending", 0, "", "")
    assert tables(world, "A") == {"pending"}
    assert world.one("SELECT count(*) AS n FROM table_changes WHERE error <> ''").n == 0


def test_the_one_that_is_named_to_be_chosen_is_one_that_is_taken(world: World) -> None:
    """G7: A has completed, so a start of it would come too late; where none is taken, none is named."""
    running(world, "A", "B")
    engine_says(world, "A", "completed")
    world.ask(Verb.STOP, "B")
    settle(world)
    assert (world.state("A"), world.state("B")) == ("completed", "stopped")
    with pytest.raises(Refused) as refusal:
        world.ask(Verb.START)
    assert "--deployment B" in refusal.value.next_step
    assert "--deployment A" not in refusal.value.next_step
    with pytest.raises(Refused) as refusal:
        world.ask(Verb.RETRY)
    assert "--deployment" not in refusal.value.next_step
    assert f"tern explain {world.last}" in refusal.value.next_step
