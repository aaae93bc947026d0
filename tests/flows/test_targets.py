"""What is finished holds nothing: whose a target is, from acceptance until nothing of it can act any more (G13)."""

from collections.abc import Callable

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.identity import ApplyId
from tern.domain.policy import Copy, Policy
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.steps import (
    PARALLEL,
    dispatch,
    engine_says,
    held_targets,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
)
from tests.invariants import assert_safe
from tests.world import World


def call_without_answer(world: World, name: str, call: str = "cutover", *, s_ago: float = 0.0) -> None:
    """The operation's newest call was begun so long ago, and nothing came back."""
    world.write(
        "UPDATE apply_operations SET unanswered_call = :call,"
        " unanswered_since = tern_clock() - make_interval(secs => :s_ago) WHERE id = :id",
        call=call,
        s_ago=s_ago,
        id=world.operation(name).id,
    )


def refusal_of(world: World, *names: str) -> Refused:
    with pytest.raises(Refused) as refused:
        world.apply(*names, policy=PARALLEL)
    assert refused.value.reason == "TARGET_HELD"
    return refused.value


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_a_finished_sibling_gives_its_target_back_while_the_others_go_on(world: World, state: str) -> None:
    """In the transaction that finishes it: another rollout may go there, whatever its own apply still does."""
    running(world, "A", "B")
    engine_says(world, "A", state)
    assert (world.state("A"), world.apply_row().completed_at) == (state, None)
    assert held_targets(world) == {"B"}
    first = world.last
    world.apply("A", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "running"
    world.last = first
    refusal_of(world, "B")
    assert_safe(world)


@pytest.mark.parametrize("state", ["revert_window", "reverting"])
def test_what_may_still_be_undone_holds_its_target(world: World, state: str) -> None:
    running(world, "A", "B")
    engine_says(world, "A", state)
    engine_says(world, "B", "completed")
    assert held_targets(world) == {"A"}
    assert world.last in refusal_of(world, "A").why[0]
    engine_says(world, "A", "reverted")
    assert held_targets(world) == set()


def test_what_nobody_can_tell_holds_its_target(make_world: Callable[..., World]) -> None:
    """G10: an engine that neither deduplicates nor resolves."""
    world = make_world("A", "B", offers_engine_service=False, deduplicates=False)
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "uncertain"
    assert "A" in held_targets(world)
    refusal_of(world, "A")


def test_skipped_ones_hold_nothing(world: World) -> None:
    world.apply("A", "B", policy=Policy(copy=Copy.ROLLING))
    world.answer_bells()
    world.ask(Verb.SKIP, "B")
    settle(world)
    assert (world.state("A"), world.state("B")) == ("running", "skipped")
    assert held_targets(world) == {"A"}


def test_what_is_stopped_at_its_engine_holds_its_target_after_the_verdict(world: World) -> None:
    """It may be started there; the refusal names it with the commands that lead out, and they do."""
    stopped(world, "A", "B")
    first = world.last
    assert world.apply_row().state == "stopped"
    refused = refusal_of(world, "A")
    assert refused.why == (f"A is held by {first}/A (stopped); {first} is stopped, 0 of 2 completed",)
    assert refused.next_step == (
        f"Go on with it: tern start {first}/A --reason '…'; or end it: tern cancel {first}/A --reason '…'"
    )
    world.ask(Verb.CANCEL, "A", apply_id=first)
    settle(world)
    world.run(until=lambda: world.state("A") == "cancelled", rounds=5)
    world.apply("A", policy=PARALLEL)
    assert held_targets(world) == {"A", "B"}


def test_a_stopped_one_with_a_live_key_holds_its_target(world: World) -> None:
    """Its unanswered dispatch may have worked: only the engine's word, or a dead key, frees the target."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].always("Resolve", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.ask(Verb.STOP)
    for _ in range(3):
        world.pass_time(4)
        world.sweep()
    assert world.state("A") != "stopped"
    refusal_of(world, "A")
    world.engines["A"].always("Resolve", None)
    settle(world)
    world.run(until=lambda: world.state("A") == "stopped", rounds=5)
    assert world.remote_id("A") is not None
    assert "A" in held_targets(world)


def test_a_stopped_one_that_was_never_sent_holds_nothing_and_its_start_takes_the_target(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert held_targets(world) == {"B"}
    world.ask(Verb.START, "A")
    settle(world)
    assert held_targets(world) == {"A", "B"}


def test_a_start_of_many_leaves_nothing_taken_where_it_is_refused(world: World) -> None:
    """Half of what it needs is not kept from others: A's target is another rollout's, B's is free."""
    first = world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.ask(Verb.STOP)
    world.answer_bells()
    world.ask(Verb.START, "A", "B")
    world.forget_bells()
    second = world.apply("A", policy=PARALLEL)
    world.answer_bells()
    world.last = first
    settle(world)
    assert world.state("A") == "stopped"
    assert world.state("A", second) == "running"
    assert world.delivery("A", Verb.START).state == "failed"
    assert_safe(world)


# A call that may still act


def test_a_call_that_may_still_act_keeps_the_target_of_a_finished_operation(world: World) -> None:
    running(world, "A", "B")
    call_without_answer(world, "A", s_ago=20)
    engine_says(world, "A", "completed")
    assert held_targets(world) == {"A", "B"}
    refused = refusal_of(world, "A")
    assert "a call there may act for" in refused.why[0]
    assert refused.next_step.startswith("Ask again in ")
    world.pass_time(41)
    # Whoever takes it clears it away; no sweep was here.
    world.apply("A", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "running"
    assert_safe(world)


def test_the_sweep_gives_back_what_nobody_takes(world: World) -> None:
    running(world, "A", "B")
    call_without_answer(world, "A")
    engine_says(world, "A", "completed")
    world.pass_time(50)
    world.sweep()
    assert held_targets(world) == {"A", "B"}
    world.pass_time(15)
    world.sweep()
    assert held_targets(world) == {"B"}


def test_a_call_of_more_than_a_minute_ago_keeps_nothing(world: World) -> None:
    running(world, "A", "B")
    call_without_answer(world, "A", s_ago=61)
    engine_says(world, "A", "completed")
    assert held_targets(world) == {"B"}


def test_an_apply_whose_key_is_dead_can_not_act(world: World) -> None:
    """A forbidden key: nothing of it comes late, so nothing is waited for."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    call_without_answer(world, "A", "apply")
    world.write(
        "UPDATE apply_operations SET dispatch_key_is_dead = true WHERE id = :id", id=world.operation("A").id
    )
    world.ask(Verb.STOP, "A")
    world.answer_bells()
    assert world.state("A") == "stopped"
    assert held_targets(world) == {"B"}


def test_a_clock_that_went_back_an_hour_ends_no_wait(world: World) -> None:
    """It begins again, at most: the call was begun by no clock that we still have."""
    running(world, "A", "B")
    call_without_answer(world, "A")
    engine_says(world, "A", "completed")
    world.pass_time(-3600)
    refusal_of(world, "A")
    world.sweep()
    held = world.one(
        "SELECT extract(epoch FROM tern_clock() - held_since) AS s FROM target_reservations"
        " WHERE held_since IS NOT NULL"
    )
    assert 0 <= held.s < 5
    world.pass_time(61)
    world.apply("A", policy=PARALLEL)


def test_a_clock_that_goes_back_a_tenth_of_a_second_ends_no_wait_and_begins_none_anew(world: World) -> None:
    running(world, "A", "B")
    call_without_answer(world, "A", s_ago=-0.1)
    engine_says(world, "A", "completed")
    held = world.one(
        "SELECT held_since <= tern_clock() AS is_past, held_for_s FROM target_reservations"
        " WHERE deployment = 'A'"
    )
    assert (held.is_past, held.held_for_s) == (True, 60)


def test_who_is_put_back_in_line_within_the_wait_holds_its_target_for_itself(world: World) -> None:
    """What is live waits for nobody, and no time takes its target from it."""
    world.engines["A"].script("Apply", not_accepted("no"))
    world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL, max_failures=1))
    world.answer_bells()
    assert world.state("A") == "failed"
    world.write(
        "INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id, held_since,"
        " held_for_s) SELECT 'test', 'shop', 'A', apply_id, id, tern_clock(), 60 FROM apply_operations"
        " WHERE deployment = 'A'"
    )
    assert "A" in held_targets(world)
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    assert world.state("A") == "running"
    world.pass_time(100)
    world.sweep()
    assert held_targets(world) == {"A", "B"}
    assert world.one("SELECT count(*) AS n FROM target_reservations WHERE held_since IS NOT NULL").n == 0
    refusal_of(world, "A")


# The version before, side by side


def test_the_version_before_frees_nothing_that_is_held_and_takes_what_is_free(world: World) -> None:
    """It deletes by apply at the verdict, and inserts without an operation."""
    stopped(world, "A", "B")
    first = world.last
    world.write("DELETE FROM target_reservations WHERE apply_id = (SELECT id FROM applies)")
    assert held_targets(world) == {"A", "B"}
    world.ask(Verb.CANCEL)
    settle(world)
    world.run(until=lambda: world.apply_row().state == "cancelled", rounds=5)
    assert held_targets(world) == set()
    second = world.apply("A", policy=PARALLEL)
    world.forget_bells()
    world.write("TRUNCATE target_reservations")
    world.write(
        "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
        " SELECT environment, database, 'A', id FROM applies WHERE apply_identifier = :apply",
        apply=second,
    )
    assert world.one("SELECT operation_id FROM target_reservations").operation_id == world.operation("A").id
    assert first != second
    dispatch(world, "A")
    assert world.state("A") == "running"


def test_the_version_before_waits_for_what_may_still_act_too(world: World) -> None:
    running(world, "A", "B")
    first = world.last
    call_without_answer(world, "A")
    engine_says(world, "A", "completed")
    engine_says(world, "B", "completed")
    world.write("DELETE FROM target_reservations WHERE apply_id = (SELECT id FROM applies)")
    assert held_targets(world) == {"A"}
    world.pass_time(61)
    other = world.one(
        "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
        " SELECT environment, database, 'A', id FROM applies ON CONFLICT DO NOTHING RETURNING held_since"
    )
    assert (other.held_since, world.last) == (None, first)


def test_a_lost_reservation_is_taken_again_by_the_claim(world: World) -> None:
    """Whoever finds its target free takes it: a row that somebody cleared away stops nothing for ever."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.write("TRUNCATE target_reservations")
    dispatch(world, "A")
    assert world.state("A") == "running"
    assert held_targets(world) == {"A"}


def test_a_claim_whose_target_somebody_else_has_sends_nothing(world: World) -> None:
    first = world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    world.write("TRUNCATE target_reservations")
    second = world.apply("A", policy=PARALLEL)
    world.forget_bells()
    world.last = first
    dispatch(world, "A")
    assert (world.state("A"), methods(world, "A")) == ("pending", [])
    dispatch(world, "B")
    assert world.state("B") == "running"
    world.last = second
    dispatch(world, "A")
    engine_says(world, "A", "completed")
    world.last = first
    engine_says(world, "B", "completed")
    world.run(until=lambda: world.state("A") == "running", rounds=5)
    assert_safe(world)


def test_a_retry_takes_the_target_again_and_is_refused_by_name_where_it_is_gone(world: World) -> None:
    first = _refused_once(world)
    second = world.apply("A", policy=PARALLEL)
    world.forget_bells()
    line = world.ask(Verb.RETRY, "A", apply_id=first).lines[0]
    assert (line.outcome, f"{second}/A" in line.reason) == (Receipt.REFUSED, True)
    world.ask(Verb.CANCEL, "A", apply_id=second)
    world.answer_bells()
    world.ask(Verb.RETRY, "A", apply_id=first)
    world.answer_bells()
    world.last = first
    assert world.state("A") == "running"
    assert open_wishes(world) == []


def _refused_once(world: World) -> ApplyId:
    world.engines["A"].script("Apply", not_accepted("no"))
    apply_id = world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL, max_failures=1))
    world.answer_bells()
    assert world.state("A") == "failed"
    assert held_targets(world) == {"B"}
    return apply_id


# An engine that tries again by itself


@pytest.fixture
def plain(make_world: Callable[..., World]) -> World:
    """Engines that offer no Resolve, and so nothing by which a change that failed is known to be over."""
    return make_world("A", "B", offers_engine_service=False)


def looks_for(world: World, seconds: float) -> None:
    """Sweeps and polls, for so long."""
    for _ in range(int(seconds // 5)):
        world.pass_time(5)
        world.sweep()


def test_what_an_engine_without_resolve_calls_failed_keeps_its_target_until_looks_have_confirmed_it(
    plain: World,
) -> None:
    running(plain, "A", "B")
    engine_says(plain, "A", "failed", error="no space")
    assert (plain.state("A"), held_targets(plain)) == ("failed", {"A", "B"})
    refusal_of(plain, "A")
    before = len(plain.engines["A"].calls("Progress"))
    looks_for(plain, 50)
    assert "A" in held_targets(plain)
    assert len(plain.engines["A"].calls("Progress")) - before >= 5
    looks_for(plain, 20)
    assert held_targets(plain) == {"B"}
    # Ten minutes long somebody looks all the same, far less often; and then nobody.
    asked = len(plain.engines["A"].calls("Progress"))
    looks_for(plain, 30)
    assert len(plain.engines["A"].calls("Progress")) - asked < 5
    for _ in range(12):
        plain.pass_time(61)
        plain.sweep()
    asked = len(plain.engines["A"].calls("Progress"))
    looks_for(plain, 30)
    assert len(plain.engines["A"].calls("Progress")) == asked
    plain.apply("A", policy=PARALLEL)
    assert_safe(plain)


def test_what_an_engine_tries_again_after_its_target_was_given_back_is_outstanding(plain: World) -> None:
    """Some do so by themselves; whoever has the target by then, nothing else begins there."""
    ids = running(plain, "A", "B")
    engine_says(plain, "A", "failed", error="no space")
    looks_for(plain, 70)
    assert held_targets(plain) == {"B"}
    plain.engines["A"].set_state(ids["A"], "running")
    plain.pass_time(61)
    plain.sweep()
    left = plain.one("SELECT * FROM outstanding_calls WHERE settled_at IS NULL")
    assert (left.remote_id, left.why) == (ids["A"], "contradicted")
    second = plain.apply("A", policy=PARALLEL, accept_drift=True)
    plain.answer_bells()
    assert plain.state("A", second) == "pending"


def test_what_runs_again_keeps_its_target_and_is_written_down(plain: World) -> None:
    """Failed stays failed in the books; what its engine does all the same is outstanding, and the wait begins anew."""
    ids = running(plain, "A", "B")
    engine_says(plain, "A", "failed", error="no space")
    looks_for(plain, 40)
    plain.engines["A"].set_state(ids["A"], "running")
    looks_for(plain, 60)
    assert plain.state("A") == "failed"
    left = plain.one("SELECT * FROM outstanding_calls")
    assert (left.why, left.remote_id, left.deployment) == ("contradicted", ids["A"], "A")
    assert [event.event for event in plain.events("A")].count("contradicted") == 1
    refusal_of(plain, "A")
    plain.engines["A"].set_state(ids["A"], "failed")
    looks_for(plain, 50)
    assert "A" in held_targets(plain)
    looks_for(plain, 30)
    assert held_targets(plain) == {"B"}


def test_what_turns_out_completed_frees_its_target_at_once(plain: World) -> None:
    ids = running(plain, "A", "B")
    engine_says(plain, "A", "failed", error="no space")
    plain.engines["A"].set_state(ids["A"], "completed")
    looks_for(plain, 10)
    assert (plain.state("A"), held_targets(plain)) == ("failed", {"B"})


def test_an_engine_that_says_nothing_more_keeps_it_for_ten_minutes_and_not_for_ever(plain: World) -> None:
    running(plain, "A", "B")
    engine_says(plain, "A", "failed", error="no space")
    plain.engines["A"].always("Progress", fail("UNAVAILABLE"))
    for _ in range(9):
        plain.pass_time(60)
        plain.sweep()
    assert "A" in held_targets(plain)
    plain.pass_time(61)
    plain.sweep()
    assert held_targets(plain) == {"B"}


def test_an_engine_with_resolve_is_believed_at_once(world: World) -> None:
    running(world, "A", "B")
    engine_says(world, "A", "failed", error="no space")
    assert held_targets(world) == {"B"}
    assert world.operation("A").next_poll_at is None
