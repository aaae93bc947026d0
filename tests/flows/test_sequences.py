"""Event sequences in which an answer, a person's word or an upgrade comes between two steps (G2, G4, G8, G10, G15)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import tern.store.outstanding_look as looking
from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.selection import Selection
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Resolved
from tern.settling import SaidOfJobs, settle_outstanding
from tern.store.database import Database
from tern.store.record import Record
from tern.store.schema import migrate
from tests.faults.behaviour import fail, lose_answer
from tests.flows.evidence import MakeWorld, one_engine, resolve
from tests.flows.gone import comes_back, give_up, goes, key_given_up, lines, look_again, pass_long, unsettled
from tests.flows.steps import PARALLEL, Frozen, dispatch, engine_says, methods, running
from tests.flows.test_moved_again import there_and_back
from tests.flows.test_moving import OpenEngine, change, moved, open_engine
from tests.flows.test_tried_again import GOES_ON, ended, tried_again_as_of_old, until_uncertain
from tests.store.test_engines import numbers
from tests.store.test_migrations import below
from tests.world import World

__all__ = ["one_engine", "open_engine"]


def test_a_cancel_goes_along_when_two_lines_become_one(world: World, open_engine: OpenEngine) -> None:
    """It was asked of the line at one address, and a proof leads that to where another line stands."""
    remote_id = running(world, "A", "B")["A"]
    first = world.engines["A"]
    second = moved(world, "A", open_engine)
    first.always("Resolve", fail("UNAVAILABLE"))
    change(world, address=second.address, same_engine=True)
    everything = ("Resolve", "Stop", "Cancel", "Progress", "BatchProgress", "Health")
    for engine in (first, second):
        for method in everything:
            engine.always(method, fail("UNAVAILABLE"))
    world.ask(Verb.CANCEL, "A")
    pass_long(world)
    give_up(world, "A")
    asked = {(line.address, line.cancel_asked_at is not None) for line in unsettled(world)}
    assert asked == {(first.address, False), (second.address, True)}
    for engine in (first, second):
        for method in everything:
            engine.always(method, fail("UNAVAILABLE") if method == "Progress" else None)
    change(world, address=first.address)
    for engine in (first, second):
        engine.always("Progress", None)
    look_again(world, 5)
    assert first.job(remote_id).state == "cancelled"


def test_a_cancel_goes_along_when_what_a_word_has_settled_works_again(world: World) -> None:
    """Who cancelled it was told that it would be ended, should its engine come back."""
    remote_id = running(world, "A", "B")["A"]
    goes(world, "A")
    world.ask(Verb.CANCEL, "A")
    pass_long(world)
    give_up(world, "A")
    assert "should its engine come back" in world.delivery("A", Verb.CANCEL).engine_words
    world.engines["A"].always("Health", None)
    settle_outstanding("A", "eve", "nothing runs", world.ports)
    assert unsettled(world) == []
    comes_back(world, "A")
    look_again(world, 4)
    assert world.engines["A"].job(remote_id).state == "cancelled"


def between(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """It happens after a look has seen that its line is followed, and before it holds the locks."""
    right = looking.lock_line

    def late(*given: object, **named: object) -> object:
        monkeypatch.setattr(looking, "lock_line", right)
        happens()
        return right(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(looking, "lock_line", late)


def test_what_is_given_up_while_a_look_begins_stays_outstanding(
    world: World, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_id, first, _ = there_and_back(world, open_engine)
    goes(world, "A")
    world.write("UPDATE outstanding_calls SET next_look_at = NULL")
    pass_long(world)
    line = next(each for each in unsettled(world) if each.address == first)
    between(monkeypatch, lambda: give_up(world, "A"))
    world.write("UPDATE outstanding_calls SET next_look_at = tern_clock() WHERE id = :id", id=line.id)
    look_at_outstanding(line.id, world.ports)
    assert world.state("A") == "failed"
    assert (remote_id, first) in {(each.remote_id, each.address) for each in unsettled(world)}


def test_what_is_left_behind_by_a_word_while_a_look_begins_stays_outstanding(
    world: World, open_engine: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_id, first, _ = there_and_back(world, open_engine)
    third = moved(world, "A", open_engine)
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    line = next(each for each in unsettled(world) if each.address == first)
    between(monkeypatch, lambda: change(world, address=third.address, same_engine=True))
    world.write("UPDATE outstanding_calls SET next_look_at = tern_clock() WHERE id = :id", id=line.id)
    look_at_outstanding(line.id, world.ports)
    assert (remote_id, first) in {(each.remote_id, each.address) for each in unsettled(world)}


def called_ended_at_an_engine_without_keys(make_world: MakeWorld, policy: Policy) -> World:
    """It was declared to deduplicate; A's Apply was never answered, and a person called it ended."""
    world = make_world("A", "B", offers_engine_service=False)
    world.write("UPDATE deployments SET idempotent_dispatch = true, deduplicates = true")
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=policy)
    world.answer_bells()
    until_uncertain(world, 80)
    world.resolve("A", Resolved.ENDED)
    world.engines["A"].always("Apply", None)
    return world


def test_a_retry_at_an_engine_without_keys_is_not_sent_out_of_turn(make_world: MakeWorld) -> None:
    """Nobody can be asked what its key started, and its place is another's by now: a person decides."""
    world = called_ended_at_an_engine_without_keys(make_world, GOES_ON)
    world.run(until=lambda: world.state("B") == "running", rounds=5)
    world.ask(Verb.RETRY, "A")
    look_again(world)
    assert (world.state("A"), world.state("B")) == ("uncertain", "running")


def test_a_retry_at_an_engine_without_keys_is_not_sent_while_its_rollout_is_paused(
    make_world: MakeWorld,
) -> None:
    world = called_ended_at_an_engine_without_keys(
        make_world, Policy(copy=Copy.PARALLEL, on_failure=OnFailure.PAUSE)
    )
    engine_says(world, "B", "failed", error="disk full")
    look_again(world, 1)
    before = methods(world, "A").count("Apply")
    world.ask(Verb.RETRY, "A")
    look_again(world)
    assert methods(world, "A").count("Apply") == before


def test_what_came_late_and_completed_is_not_run_under_the_next_generation(world: World) -> None:
    """A person said that it never started; its answer was only late, and its job is through before the next is sent."""
    world.undeclared()
    world.apply("A", "B", policy=PARALLEL)
    world.engines["A"].always("Resolve", fail("UNIMPLEMENTED"))
    with Frozen(world.ports, "record_remote_id", lambda ports: dispatch(world, "A", ports)):
        world.pass_time(31)
        dispatch(world, "A", world.worker("worker-2"))
        assert world.state("A") == "uncertain"
        world.pass_time(61)
        world.store.set_drained("A", drained=True)
        world.resolve("A", Resolved.NOT_STARTED)
        assert world.state("A") == "pending"
    assert [line.why for line in lines(world)] == ["not_stored"]
    world.engines["A"].always("Resolve", None)
    look_again(world)
    world.engines["A"].set_state("A-1", "completed")
    look_again(world)
    world.store.set_drained("A", drained=False)
    look_again(world)
    assert len(world.engines["A"].effects("apply")) == 1
    assert (world.state("A"), world.operation("A").error_reason) == ("failed", "REST_CHANGED")


def test_a_retry_of_one_whose_id_is_in_doubt_is_refused_and_spends_nothing(one_engine: World) -> None:
    """What it had started was ended; then its engine lost its memory, and gave the id to another."""
    world = one_engine
    first = key_given_up(world, "A")
    look_again(world, 2)
    world.ask_for(Verb.CANCEL, Selection(("A",)), apply_id=first, outstanding=True)
    for _ in range(4):
        world.pass_time(5)
        world.sweep()
    assert unsettled(world) == []
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    assert (world.operation("A", first).doubt, world.operation("B", second).doubt) == ("taken", "taken")
    world.last = first
    before = len(world.events("A"))
    (line,) = world.ask(Verb.RETRY, "A").lines
    assert line.outcome is not Receipt.ACCEPTED
    assert f"tern resolve {world.name('A', first)} --as same-work" in line.reason
    look_again(world, 3)
    assert len(world.events("A")) == before
    resolve(world, Resolved.SAME_WORK, world.name("A", first))
    world.ask(Verb.RETRY, "A")
    look_again(world, 3)
    assert world.state("A", first) == "running"


def test_one_id_is_the_same_work_of_one_operation(make_world: MakeWorld) -> None:
    """G2: one engine under two numbers lost its memory and gave one id to two; then a key shows that it is one."""
    world = make_world("A", "B")
    world.engines["B"].jobs = world.engines["A"].jobs
    first = world.apply("A")
    world.answer_bells()
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    assert world.remote_id("A", first) == world.remote_id("B", second) == "A-1"
    world.store.unite_engines(*numbers(world).values())
    resolve(world, Resolved.SAME_WORK, world.name("A", first))
    with pytest.raises(Refused) as caught:
        resolve(world, Resolved.SAME_WORK, world.name("B", second))
    assert caught.value.reason == "REMOTE_ID_TAKEN"


def test_no_word_is_taken_against_an_engine_that_knows_the_very_key(
    make_world: MakeWorld, open_engine: OpenEngine
) -> None:
    """Its database has outlived its machine; a person takes the job there for other work."""
    world = make_world("A", "B", identity="7/7")
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.apply("A")
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    world.pass_time(61)
    world.sweep()
    new = open_engine("A-new", identity="7/7")
    new.jobs = world.engines["A"].jobs
    (before,) = world.store.load_deployments(["A"])
    world.store.replace_deployment(replace(before, address=new.address))
    for said in (SaidOfJobs(), SaidOfJobs(other="A-1")):
        with pytest.raises(Refused) as caught:
            settle_outstanding("A", "eve", "it burned down", world.ports, said)
        assert "--other-job" not in caught.value.next_step
    assert unsettled(world) != []


@pytest.mark.parametrize("is_before", [False, True])
def test_the_record_tells_what_an_old_worker_puts_back_in_line(
    world: World,
    database: Database,
    is_before: bool,  # noqa: FBT001
) -> None:
    """G15: beside this version, and before the upgrade to it."""
    ended(world)
    if is_before:
        migrate(world.database, below("0017"))
    tried_again_as_of_old(world)
    migrate(world.database)
    assert Record(database).verify(world.last).findings == ()
    world.engines["A"].always("Resolve", None)
    look_again(world)
    assert world.state("A") == "running"
    assert Record(database).verify(world.last).findings == ()
