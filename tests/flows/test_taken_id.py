"""A taken id is no answer: no two operations have one, whichever deployment they are at (G2, G10)."""

import threading
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.ports import Resolved
from tests.faults.behaviour import altered, answer, fail, lose_answer
from tests.flows.evidence import holders, looks, one_engine, resolve, rows, world
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    drive,
    engine_says,
    look,
    meanwhile,
    methods,
    running,
    stopped,
    wishes,
)
from tests.world import World

__all__ = ["one_engine", "world"]

# A taken id is no answer


def test_an_id_that_a_live_operation_has_is_not_stored(one_engine: World) -> None:
    """G2: an engine that lost its memory gives its ids out again. Both are uncertain; nothing of either goes on."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    assert world.remote_id("A") == "A-1"
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    assert (world.state("A", first), world.state("B", second)) == ("uncertain", "uncertain")
    assert (world.remote_id("A", first), world.remote_id("B", second)) == ("A-1", None)
    assert {world.operation("A", first).doubt, world.operation("B", second).doubt} == {"taken"}
    assert holders(world) == {"A-1": "A"}
    for name, apply_id in (("A", first), ("B", second)):
        told = world.operation(name, apply_id)
        assert told.error_reason == "REMOTE_ID_TAKEN"
        assert f"tern resolve {first}/A --as same-work" in told.error_message
        assert f"tern resolve {second}/B --as remote-id=A-1 --taken-from {first}/A" in told.error_message


def test_no_sample_ends_it(one_engine: World) -> None:
    """G10: whatever the engine says of that id may be about the other's work."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    # An engine that binds a job to nobody: whoever asks about the id is answered.
    world.engines["A"].job("A-1").operation = str(world.name("A", first))
    world.engines["A"].set_state("A-1", "completed")
    before = looks(world, "A")
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    assert looks(world, "A") > before
    assert world.state("A", first) == "uncertain"
    assert world.state("B") == "uncertain"


def test_nothing_goes_forward_while_it_is_in_doubt(one_engine: World) -> None:
    """G2, G9: a cutover that was asked for waits, and is not sent to a job that may be another's."""
    world = one_engine
    first = world.apply("A", policy=MANUAL)
    world.answer_bells()
    engine_says(world, "A", "waiting_for_cutover")
    world.engines["A"].forget()
    world.apply("B", policy=MANUAL)
    world.answer_bells()
    world.last = first
    world.ask(Verb.CUTOVER, "A")
    world.ask(Verb.START, "A")
    world.ask(Verb.VOLUME, "A", volume=3)
    for _ in range(3):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert methods(world, "A", ("Start", "Cutover", "Volume")) == []


def test_a_person_says_that_the_holder_has_its_own_work(one_engine: World) -> None:
    """After that its samples count again; the other stays with a person."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    job = world.engines["A"].job("A-1")
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    world.engines["A"].jobs.by_id["A-1"] = job
    resolve(world, Resolved.SAME_WORK, world.name("A", first))
    world.run(until=lambda: world.state("A", first) == "running", rounds=3)
    assert (world.state("B"), world.operation("B").doubt) == ("uncertain", "taken")
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.SAME_WORK, world.name("A", first))
    assert refused.value.reason == "NOT_UNCERTAIN"


def test_a_person_takes_the_id_from_its_holder(one_engine: World) -> None:
    """G2, G5: the guard moves and the holder ends in one transaction; its id stays in its home and is never sent."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    world.last = first
    world.ask(Verb.CUTOVER, "A")
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1")
    assert refused.value.reason == "REMOTE_ID_TAKEN"
    assert f"--taken-from {first}/A" in refused.value.next_step
    resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1", taken_from=world.name("A", first))
    holder = world.operation("A", first)
    assert (holder.state, holder.error_reason, world.remote_id("A", first)) == ("failed", "ID_LOST", "A-1")
    assert all(fate in {"failed", "acknowledged"} for _, _, fate in wishes(world))
    assert (world.state("B", second), world.remote_id("B", second)) == ("running", "A-1")
    assert holders(world) == {"A-1": "B"}
    before = len(world.engines["A"].calls("Progress"))
    look(world, "A")
    assert len(world.engines["A"].calls("Progress")) == before
    world.last = second
    engine_says(world, "B", "completed")
    assert world.state("B", second) == "completed"
    assert holders(world) == {}


def test_an_id_is_taken_only_from_whoever_has_it(one_engine: World) -> None:
    """A slip in a name moves nothing."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["B"].script("Apply", lose_answer())
    world.engines["B"].script("Resolve", answer())
    second = world.apply("B")
    world.answer_bells()
    world.pass_time(11)
    # The engine says that the job is B's, as one does that gives its ids out again.
    world.engines["A"].job("A-1").operation = f"{second}/B"
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1", taken_from=world.name("A", first))
    assert refused.value.reason == "REMOTE_ID_NOT_THERE"
    assert world.state("A", first) == "running"
    assert world.state("B", second) == "uncertain"


def test_two_drivers_answered_with_one_id_at_the_same_instant(one_engine: World) -> None:
    """G2, G12: the database refuses the second, and both become uncertain, whoever was first."""
    world = one_engine
    world.engines["A"].always("Apply", altered(apply_id="R-1"))
    world.apply("A", "B", policy=PARALLEL)
    bells = [given for kind, given in world.bells.queue if kind == "dispatch"]
    world.forget_bells()
    meet = threading.Barrier(2)

    def go(number: int, given: tuple[Any, ...]) -> None:
        worker = world.worker(f"w{number}")
        world.do("dispatch", *given, ports=meanwhile(worker, "record_remote_id", lambda: meet.wait(20)))

    threads = [threading.Thread(target=go, args=(n, given)) for n, given in enumerate(bells)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [world.state(name) for name in "AB"] == ["uncertain", "uncertain"]
    assert {world.operation(name).doubt for name in "AB"} == {"taken"}
    assert sorted(filter(None, (world.remote_id(name) for name in "AB"))) == ["R-1"]
    assert len(holders(world)) == 1


def test_its_own_id_is_never_taken(world: World) -> None:
    """Whatever generation asked: the same id for the same operation is its own."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.run(until=lambda: world.state("A") == "running", rounds=5)
    claimed = world.operation("A")
    assert claimed.dispatch_generation == 2
    assert holders(world)["A-1"] == "A"
    assert claimed.doubt == ""


def test_a_stopped_holder_is_in_doubt_as_well(one_engine: World) -> None:
    """What is stopped may be started, so its id is in use."""
    world = one_engine
    stopped(world, "A")
    first = world.last
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    assert (world.state("A", first), world.state("B")) == ("uncertain", "uncertain")


def test_a_finished_holder_lets_its_id_go(one_engine: World) -> None:
    """Its work is over and nothing of it may act: the id is nobody's."""
    world = one_engine
    world.apply("A")
    world.answer_bells()
    engine_says(world, "A", "completed")
    assert holders(world) == {}
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    assert (world.state("B"), world.remote_id("B")) == ("running", "A-1")


def test_without_its_row_in_the_guard_nothing_is_sent_with_an_id(world: World) -> None:
    """G2: neither a look nor a stop."""
    running(world, "A", "B")
    world.write("DELETE FROM remote_ids WHERE remote_id = 'A-1'")
    calls = len(world.engines["A"].calls())
    world.ask(Verb.STOP, "A")
    drive(world, Verb.STOP, "A")
    world.forget_bells()
    for _ in range(3):
        world.pass_time(5)
        world.sweep()
    sent = [call for call in world.engines["A"].calls()[calls:] if call.method != "Health"]
    assert [call.method for call in sent if call.remote_id] == []
    assert [c for call in sent if call.method == "BatchProgress" for c in call.request.cursors] == []


# Engine numbers


def test_deployments_of_one_address_have_one_engine(one_engine: World) -> None:
    numbers = {row.engine_number for row in rows(one_engine, "SELECT engine_number FROM deployments")}
    assert len(numbers) == 1


def test_the_number_is_that_of_the_dispatch(world: World) -> None:
    """It never follows the deployment."""
    running(world, "A", "B")
    before = world.operation("A")
    assert before.dispatched_to == world.engines["A"].address
    world.write(
        "UPDATE deployments SET address = 'grpc://127.0.0.1:9', target = 'elsewhere' WHERE name = 'A'"
    )
    moved = world.one("SELECT engine_number FROM deployments WHERE name = 'A'").engine_number
    assert moved != before.engine_number
    after = world.operation("A")
    assert (after.engine_number, after.dispatched_to) == (before.engine_number, before.dispatched_to)


def test_two_numbers_turn_out_to_be_one_engine(world: World) -> None:
    """The younger's rows get the older number; an id that stands in both keeps its number, and both are uncertain."""
    world.engines["B"].jobs.name = "A"
    running(world, "A", "B", "C")
    assert world.remote_id("B") == world.remote_id("A") == "A-1"
    numbers = {
        row.name: row.engine_number for row in rows(world, "SELECT name, engine_number FROM deployments")
    }
    world.store.unite_engines(numbers["A"], numbers["C"])
    assert world.operation("C").engine_number == numbers["A"]
    assert world.state("C") == "running"
    world.store.unite_engines(numbers["B"], numbers["A"])
    assert {row.engine_number for row in rows(world, "SELECT engine_number FROM deployments")} == {
        numbers["A"]
    }
    assert world.operation("B").engine_number == numbers["B"]
    assert [world.state(name) for name in "ABC"] == ["uncertain", "uncertain", "running"]
    assert {world.operation(name).doubt for name in "AB"} == {"taken"}
