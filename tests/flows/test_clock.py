"""The database's clock goes back, a tenth of a second or hours: nothing is taken over or lost, nothing stands still."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tern.domain.control import Verb
from tern.domain.policy import Copy, OnFailure, Policy, Wave
from tern.flows.sweep import PROGRESS, RECONCILE, reconcile, sweep_progress
from tern.ports import DeliveryClaimed, DispatchClaimed, Fenced, NotClaimed, Ports
from tern.store.clock import mend_what_lies_ahead
from tern.store.schema import migrate
from tests.faults.behaviour import fail, not_accepted
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    drive,
    engine_says,
    look,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    waiting,
)
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
HOUR = 3600.0
TENTH = 0.1


def claim(world: World, name: str, owner: str = "w1") -> DispatchClaimed | NotClaimed:
    return world.worker(owner).store.claim_dispatch(world.operation(name).id, world.name(name))


def beat(world: World, seconds: float, ports: Ports | None = None) -> None:
    """So many seconds of beat's ticks, each with all that it rings for."""
    for second in range(int(seconds)):
        world.pass_time(1.0)
        if second % 2:
            reconcile("beat", ports or world.ports)
        world.answer_bells(ports)
        sweep_progress("beat", ports or world.ports)
        world.answer_bells(ports)


def now(world: World) -> float:
    """What time the database says it is."""
    return float(world.one("SELECT extract(epoch FROM tern_clock())::float AS s").s)


def seconds(world: World, column: str, table: str = "apply_operations", where: str = "true") -> float:
    """How far a time of the only such row lies ahead of now."""
    row = world.one(
        f"SELECT extract(epoch FROM {column} - tern_clock())::float AS s FROM {table} WHERE {where}"
    )
    return float(row.s)


# Claims


@pytest.mark.parametrize("back_s", [TENTH, 60.0, HOUR])
def test_a_clock_that_goes_back_takes_no_claim_over(world: World, back_s: float) -> None:
    """G12: a claim that begins ahead of now runs, whatever the step was; its answer in flight is kept."""
    world.apply("A")
    world.forget_bells()
    claimed = claim(world, "A")
    assert isinstance(claimed, DispatchClaimed)
    world.pass_time(-back_s)
    assert world.store.may_go_forward(claimed.claim)
    assert isinstance(claim(world, "A", "w2"), NotClaimed)
    beat(world, 6, world.worker("w2"))
    assert world.engines["A"].calls("Apply") == []
    assert world.store.may_go_forward(claimed.claim)
    # two lease times after it went back the engine answers, and this is a good answer
    remote_id = "A-1"
    assert world.store.record_remote_id(claimed.claim, claimed.scope, remote_id) is Fenced.DONE  # type: ignore[arg-type]
    assert world.store.record_dispatched(claimed.claim) is Fenced.DONE
    assert (world.state("A"), world.remote_id("A"), world.operation("A").attempt) == ("running", "A-1", 1)


@pytest.mark.parametrize("back_s", [TENTH, 61.0, HOUR])
def test_a_claim_of_the_dead_is_taken_over_in_its_own_length(world: World, back_s: float) -> None:
    """reliability.md: a killed driver is followed up within forty seconds, wherever the clock went meanwhile."""
    world.apply("A")
    world.forget_bells()
    assert isinstance(claim(world, "A"), DispatchClaimed)
    world.pass_time(-back_s)
    began, went = now(world), 0.0
    while world.remote_id("A") is None and went < 60:
        beat(world, 2, world.worker("w2"))
        went = now(world) - began
    # A claim of thirty seconds, and the sweeps around its ends.
    assert 29 < went < 40
    assert_safe(world)


def test_a_wish_whose_driver_died_is_driven_within_its_claim(world: World) -> None:
    """reliability.md: the same of a control."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    claimed = world.worker("w1").store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    assert isinstance(claimed, DeliveryClaimed)
    world.pass_time(-HOUR)
    beat(world, 40)
    assert world.state("A") == "stopped"
    assert world.store.record_sent(claimed.claim, claimed.delivery_id) is Fenced.LOST


def test_only_a_sweep_writes_about_what_lies_ahead(world: World) -> None:
    """§11: every other reader counts it as now."""
    running(world, "A", "B")
    world.pass_time(-HOUR)
    before = world.operation("A")
    look(world, "B")
    assert world.operation("A") == before
    assert seconds(world, "claim_began_at", where="deployment = 'A'") > 0
    world.sweep()
    assert seconds(world, "state_changed_at", where="deployment = 'A'") <= 0


def test_a_worker_of_the_version_before_claims_beside_ours(world: World) -> None:
    """It writes an end and no beginning; it has one all the same, and loses nothing by a clock that goes back."""
    world.apply("A")
    world.forget_bells()
    world.write(
        "UPDATE apply_operations SET claim_token = 'old', claim_owner = 'old', state = 'running', attempt = 1,"
        " started_at = tern_clock(), claim_expires_at = tern_clock() + interval '30 s',"
        " next_attempt_at = tern_clock() + interval '30 s'"
    )
    assert -1 < seconds(world, "claim_began_at") <= 0
    world.pass_time(-HOUR)
    beat(world, 5)
    assert 20 < seconds(world, "claim_expires_at") <= 30
    assert world.operation("A").claim_token == "old"
    world.pass_time(5)
    # it takes over its own, still without a word about the beginning
    world.write(
        "UPDATE apply_operations SET claim_token = 'new', claim_expires_at = tern_clock() + interval '30 s'"
    )
    assert -1 < seconds(world, "claim_began_at") <= 0


def test_what_is_under_way_survives_the_way_down_and_up(world: World) -> None:
    """A migration meets claims, leases, waits and calls that are open, and rollouts end as if there had been none."""
    world.sweep()
    waiting(world, "A", "B")
    world.engines["A"].script("Cutover", fail("UNAVAILABLE"))
    world.ask(Verb.CUTOVER, "A")
    world.answer_bells()
    world.apply("C")
    world.forget_bells()
    assert isinstance(claim(world, "C"), DispatchClaimed)
    migrate(world.database, "0001")
    migrate(world.database)
    assert -1 < seconds(world, "claim_began_at", where="claim_token IS NOT NULL") <= 0
    beat(world, 45)
    assert world.remote_id("C") == "C-1"
    assert [methods(world, name).count("Apply") for name in "ABC"] == [1, 1, 1]
    assert methods(world, "A").count("Cutover") == 2


# Leases


def test_sweeps_go_on_after_the_clock_went_back(world: World) -> None:
    """reliability.md: nothing later than ten seconds; also if the sweeper has just died."""
    world.sweep()
    world.apply("A")
    world.forget_bells()
    world.pass_time(-HOUR)
    beat(world, 6)
    assert world.state("A") == "running"
    world.pass_time(2)
    assert world.store.begin_sweep(RECONCILE, "dead")
    world.pass_time(-HOUR)
    assert not reconcile("beat", world.ports)
    world.pass_time(9)
    assert not reconcile("beat", world.ports)
    world.pass_time(2)
    assert reconcile("beat", world.ports)
    assert world.store.seconds_since_sweep(RECONCILE)[1] == "beat"


def test_a_worker_sweeps_for_itself_after_the_clock_went_back(world: World) -> None:
    """G11: a sweep that seems to end in an hour keeps nobody from sweeping now."""
    world.sweep()
    world.pass_time(-HOUR)
    assert world.store.seconds_since_sweep(RECONCILE)[0] > 5


@pytest.mark.parametrize(("name", "period_s"), [(RECONCILE, 2.0), (PROGRESS, 1.0)])
def test_a_sweep_that_comes_too_soon_ends_at_once(world: World, name: str, period_s: float) -> None:
    """§11: a heap of old messages is one sweep; by the database's clock, and no message expires."""
    sweep = reconcile if name == RECONCILE else sweep_progress
    assert sweep("beat", world.ports)
    assert not sweep("beat", world.ports)
    world.pass_time(0.4 * period_s)
    assert not sweep("other", world.ports)
    world.pass_time(0.6 * period_s)
    assert sweep("other", world.ports)


def test_a_poll_goes_on_after_the_clock_went_back(world: World) -> None:
    """G11: a poller that died with its lease keeps nobody waiting for an hour."""
    running(world, "A", "B")
    world.pass_time(1)
    assert not isinstance(world.store.begin_poll("A"), NotClaimed)
    world.pass_time(-HOUR)
    assert isinstance(world.store.begin_poll("A"), NotClaimed)
    world.engines["A"].set_state(str(world.remote_id("A")), "completed")
    world.forget_bells()
    beat(world, 25)
    assert world.state("A") == "completed"


# Due times


def test_everything_that_was_due_goes_on_within_seconds(world: World) -> None:
    """§11: dispatches, looks, wishes and their bells, though each stands an hour ahead."""
    world.sweep()
    world.engines["B"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", "C", policy=MANUAL)
    world.answer_bells()
    assert (world.state("A"), world.state("B")) == ("running", "failed_retryable")
    world.engines["C"].always("Stop", fail("UNAVAILABLE"))
    world.ask(Verb.STOP, "C")
    world.answer_bells()
    world.engines["C"].always("Stop", None)
    world.engines["A"].set_state(str(world.remote_id("A")), "waiting_for_cutover")
    world.forget_bells()
    world.pass_time(-HOUR)
    beat(world, 15)
    assert (world.state("A"), world.state("B")) == ("waiting_for_cutover", "running")
    beat(world, 10)
    assert world.state("C") == "stopped"
    assert_safe(world)


@pytest.mark.parametrize("back_s", [TENTH, HOUR])
def test_a_rollout_ends_like_any_other_wherever_the_clock_goes(make_world: MakeWorld, back_s: float) -> None:
    """G11, G12: the clock goes back after every step of a whole rollout, and each engine is asked once."""
    world = make_world("A", "B", "C", complete_after_polls=3)
    world.apply("A", "B", "C", policy=Policy(copy=Copy.BARRIER))
    for number in range(200):
        if world.apply_row().state == "completed":
            break
        if number % 5 == 0:
            world.pass_time(-back_s)
        beat(world, 3)
    assert world.apply_row().state == "completed"
    assert [methods(world, name).count("Apply") for name in "ABC"] == [1, 1, 1]
    assert_safe(world)


def test_a_tick_that_can_be_meant_is_waited_for(world: World) -> None:
    """A pause that is as long as pauses are is no sign of anything."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    world.write("UPDATE apply_operations SET next_attempt_at = tern_clock() + interval '74 s'")
    assert world.store.due_work().dispatches == ()
    assert isinstance(claim(world, "A"), NotClaimed)
    world.write(
        "UPDATE apply_operations SET next_attempt_at = tern_clock() + interval '80 s', rung_at = NULL"
    )
    assert isinstance(claim(world, "A"), DispatchClaimed)


@pytest.mark.parametrize("missing", ["due_dispatch", "due_control", "due_poll"])
def test_what_lies_too_far_ahead_counts_as_due_before_anything_is_mended(
    world: World, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """§11: by the predicate itself, so that a sweep that can't mend a row rings for it all the same."""
    monkeypatch.setattr("tern.store.sweep.mend_what_lies_ahead", lambda *_: 0)
    if missing == "due_dispatch":
        world.apply("A")
        world.forget_bells()
        world.write("UPDATE apply_operations SET rung_at = NULL")
        world.pass_time(-HOUR)
        assert [due.operation_id for due in world.store.due_work().dispatches] == [world.operation("A").id]
        assert world.store.due_work().dispatches == ()
        world.pass_time(6)
        assert len(world.store.due_work().dispatches) == 1
        return
    running(world, "A", "B")
    if missing == "due_control":
        world.ask(Verb.STOP, "A")
        world.forget_bells()
        world.pass_time(-HOUR)
        assert [due.verb for due in world.store.due_work().controls] == [Verb.STOP]
        drive(world, Verb.STOP, "A")
        assert methods(world, "A") == ["Apply", "Stop"]
        return
    look(world, "A")
    world.write("UPDATE apply_operations SET next_poll_at = NULL WHERE deployment <> 'A'")
    world.pass_time(-HOUR)
    assert world.store.due_deployments() == ("A",)
    begun = world.store.begin_poll("A")
    assert not isinstance(begun, NotClaimed)
    assert len(begun.cursors) == 1


# Waits of hours


@pytest.fixture
def canary(make_world: MakeWorld) -> World:
    world = make_world("A", "B")
    for name, ring in zip("AB", ("first", "rest"), strict=True):
        world.write(
            "UPDATE deployments SET labels = jsonb_build_object('ring', CAST(:ring AS text)) WHERE name = :name",
            ring=ring,
            name=name,
        )
    return world


BAKING = replace(PARALLEL, waves=(Wave({"ring": "first"}, bake_s=7200.0), Wave()))


def baking(world: World) -> None:
    world.apply("A", "B", policy=BAKING)
    world.answer_bells()
    engine_says(world, "A", "completed")
    beat(world, 4)
    assert (world.state("A"), world.state("B")) == ("completed", "pending")


def test_a_bake_that_began_ahead_of_now_begins_again(canary: World) -> None:
    """§11: never over by a clock that goes back, and never longer than once more."""
    baking(canary)
    canary.pass_time(1800)
    canary.pass_time(-HOUR)
    beat(canary, 6)
    assert 7100 < seconds(canary, "next_advance_at", "applies") <= 7200
    assert seconds(canary, "completed_at", where="deployment = 'A'") <= 0
    canary.pass_time(7000)
    beat(canary, 6)
    assert canary.state("B") == "pending"
    canary.pass_time(200)
    beat(canary, 6)
    assert canary.state("B") == "running"


def test_a_bake_that_has_begun_goes_on_after_a_small_step(canary: World) -> None:
    """§11: what began before now just takes longer by the step."""
    baking(canary)
    canary.pass_time(5400)
    canary.pass_time(-60)
    beat(canary, 6)
    assert 1700 < seconds(canary, "next_advance_at", "applies") < 1900


def test_the_pause_after_a_refused_cutover_begins_again(world: World) -> None:
    """§11: Tern asks again, bounded, though the refusal lies ahead of now."""
    policy = Policy(copy=Copy.BARRIER)
    running(world, "A", "B", policy=policy)
    world.engines["A"].script("Cutover", not_accepted("replicas lag"))
    engine_says(world, "A", "waiting_for_cutover")
    world.answer_bells()
    assert world.delivery("A", Verb.CUTOVER).state == "failed"
    world.pass_time(-HOUR)
    beat(world, 20)
    assert world.state("A") in {"cutting_over", "completed"}


# Before and after


def test_a_cutover_is_repeated_on_a_look_after_it_though_the_clock_went_back(world: World) -> None:
    """CU3: a look that came before the call says nothing about it, though its stamp is an hour later."""
    waiting(world, "A", "B")
    world.pass_time(-HOUR)
    world.engines["A"].script("Cutover", fail("UNAVAILABLE"))
    world.ask(Verb.CUTOVER, "A")
    world.answer_bells()
    assert len(world.engines["A"].calls("Cutover")) == 1
    world.pass_time(31)
    drive(world, Verb.CUTOVER, "A")
    assert len(world.engines["A"].calls("Cutover")) == 1
    settle(world)
    assert world.state("A") == "completed"
    assert len(world.engines["A"].calls("Cutover")) == 2


def test_the_deadline_of_a_call_is_a_span_that_no_clock_cuts_short(world: World) -> None:
    """CU3: after the call the clock goes back; a look right after it is not one from after its deadline."""
    waiting(world, "A", "B")
    world.engines["A"].script("Cutover", fail("UNAVAILABLE"))
    world.ask(Verb.CUTOVER, "A")
    world.answer_bells()
    for back_s in (TENTH, HOUR, HOUR):
        world.pass_time(-back_s)
        look(world, "A")
        world.write("UPDATE control_deliveries SET next_attempt_at = tern_clock() WHERE state = 'pending'")
        drive(world, Verb.CUTOVER, "A")
        assert len(world.engines["A"].calls("Cutover")) == 1
        world.sweep()
    settle(world)
    assert world.state("A") == "completed"


def test_a_release_knows_its_failures_though_the_clock_went_back(world: World) -> None:
    """§6, §11: which failures it has seen, and whether it was heard, is told by numbers."""
    policy = Policy(copy=Copy.PARALLEL, max_parallel=1, on_failure=OnFailure.PAUSE)
    world.apply("A", "B", "C", policy=policy)
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    world.answer_bells()
    assert world.apply_row().state == "paused"
    world.pass_time(-HOUR)
    world.ask(Verb.RELEASE)
    beat(world, 6)
    assert world.state("B") == "running"
    assert [event.event for event in world.events()].count("released") == 1
    # and the next failure is one too many again, though it ends before the release by the clock
    world.pass_time(-HOUR)
    engine_says(world, "B", "failed", error="no space")
    beat(world, 6)
    assert world.apply_row().state == "paused"
    assert world.state("C") == "pending"


def test_a_start_has_its_grace_though_the_clock_went_back(world: World) -> None:
    """SA5: a Start that had no effect fails after its grace, not after an hour."""
    stopped(world, "A", "B")
    world.engines["A"].always("Start", None)
    world.ask(Verb.START, "A")
    world.answer_bells()
    remote_id = str(world.remote_id("A"))
    world.engines["A"].set_state(remote_id, "stopped")
    world.write("UPDATE apply_operations SET state = 'resuming' WHERE deployment = 'A'")
    world.write(
        "UPDATE control_deliveries SET state = 'sent', sent_at = tern_clock(), closed_at = NULL,"
        " next_attempt_at = tern_clock() WHERE verb = 'start'"
    )
    world.pass_time(-HOUR)
    beat(world, 45)
    assert world.state("A") == "stopped"
    assert world.delivery("A", Verb.START).state == "failed"


# The sweep that mends


def test_what_is_well_is_left_alone(world: World) -> None:
    """Nothing is written about rows while nothing lies ahead."""
    running(world, "A", "B")
    before = [world.operation(name) for name in "AB"]
    assert mend_what_lies_ahead(world.database, world.lease_s, world.store.deadline_s, world.store.pace) == 0
    assert [world.operation(name) for name in "AB"] == before


def test_a_row_that_somebody_works_on_is_mended_by_the_next_sweep(world: World) -> None:
    """A frozen worker keeps no sweep waiting, and what it held is not forgotten."""
    running(world, "A", "B")
    world.sweep()
    world.pass_time(-HOUR)
    world.write("UPDATE apply_operations SET next_poll_at = tern_clock()")
    store = world.store
    mend = lambda: mend_what_lies_ahead(world.database, store.lease_s, store.deadline_s, store.pace)  # noqa: E731
    with world.database.begin() as tx:
        from tern.store.sql import text  # noqa: PLC0415

        tx.execute(text("SELECT 1 FROM apply_operations WHERE deployment = 'A' FOR UPDATE"))
        assert mend() > 0
        assert mend() == 0
    assert seconds(world, "state_changed_at", where="deployment = 'B'") <= 0
    assert seconds(world, "state_changed_at", where="deployment = 'A'") > 0
    assert mend() == 1
    assert seconds(world, "state_changed_at", where="deployment = 'A'") <= 0


def test_mending_counts_no_look(world: World) -> None:
    """A stamp that becomes now is no sample: it proves nothing about a call."""
    waiting(world, "A", "B")
    before = world.operation("A")
    world.sweep()
    world.pass_time(-HOUR)
    assert mend_what_lies_ahead(world.database, world.lease_s, world.store.deadline_s, world.store.pace) > 0
    after = world.operation("A")
    assert after.sampled_at < before.sampled_at
    assert after.sampled_look == before.sampled_look


def test_what_is_held_or_outstanding_begins_now_as_well(world: World) -> None:
    """A target that a call may still reach is held once more as long; what may still act is looked at soon."""
    running(world, "A", "B")
    world.sweep()
    world.write(
        "UPDATE target_reservations SET held_since = tern_clock(), held_for_s = 60 WHERE deployment = 'A'"
    )
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id, fence,"
        " address, why, caller) SELECT apply_id, id, 'test', 'shop', deployment, 'R', 1, 'x', 'given_up', 'ann'"
        " FROM apply_operations WHERE deployment = 'A'"
    )
    world.write("UPDATE apply_operations SET unanswered_call = 'start', unanswered_since = tern_clock()")
    world.pass_time(-HOUR)
    world.sweep()
    assert -1 < seconds(world, "held_since", "target_reservations", "deployment = 'A'") <= 0
    assert -1 < seconds(world, "next_look_at", "outstanding_calls") <= 0
    assert -1 < seconds(world, "unanswered_since", where="deployment = 'A'") <= 0


# Claims of what is finished


def test_what_is_finished_is_claimed_by_nobody(world: World) -> None:
    """A look finishes it while a driver holds it; that driver dies, and nobody would ever take its claim over."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    claimed = world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    assert isinstance(claimed, DeliveryClaimed)
    engine_says(world, "A", "completed")
    assert (world.state("A"), world.operation("A").claim_token) == ("completed", None)
    assert open_wishes(world) == []
    assert not world.store.may_go_forward(claimed.claim)
    assert world.store.record_sent(claimed.claim, claimed.delivery_id) is Fenced.LOST


def test_a_sweep_ends_claims_that_nobody_would_take_over(world: World) -> None:
    """Number 7: of finished operations (workers of the version before leave such), and of wishes that looks fulfil."""
    waiting(world, "A", "B")
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()
    assert isinstance(
        world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.CUTOVER), DeliveryClaimed
    )
    engine_says(world, "A", "cutting_over")
    assert world.delivery("A", Verb.CUTOVER).state == "acknowledged"
    world.write(
        "UPDATE apply_operations SET state = 'cancelled', completed_at = tern_clock(), next_poll_at = NULL"
        " WHERE deployment = 'B'"
    )
    world.write(
        "UPDATE apply_operations SET claim_token = 'old', claim_owner = 'old',"
        " claim_expires_at = tern_clock() + interval '30 s' WHERE deployment = 'B'"
    )
    world.sweep()
    assert {bool(world.operation(name).claim_token) for name in "AB"} == {True}
    world.pass_time(31)
    world.sweep()
    assert {world.operation(name).claim_token for name in "AB"} == {None}


def test_an_expired_claim_with_something_to_do_is_left_to_who_takes_over(world: World) -> None:
    """The slow driver's good answer is still taken while nobody else has claimed."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    claimed = world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    assert isinstance(claimed, DeliveryClaimed)
    world.pass_time(31)
    reconcile("beat", world.ports)
    assert world.store.record_sent(claimed.claim, claimed.delivery_id) is Fenced.DONE
