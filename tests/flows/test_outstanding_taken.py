"""An id that was given out twice, one of whose operations is over while its work is outstanding: nothing is sent with
it before a person has said whose it is, and that word settles it (G2, G5, G13).
"""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.selection import Selection
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Resolved
from tern.settling import settle_outstanding
from tests.faults.behaviour import lose_answer
from tests.flows.evidence import holders, resolve
from tests.flows.gone import (
    comes_back,
    commands,
    give_up,
    given_up,
    goes,
    key_given_up,
    lines,
    look_again,
    pass_long,
    unsettled,
)
from tests.flows.steps import engine_says, meanwhile, methods
from tests.world import World

MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A and B, two deployments of one engine of another make, which knows nothing of operations."""
    world = make_world("A")
    world.engines["B"] = world.engines["A"]
    world.add("B", world.engines["A"].address, 1, offers=True)
    world.undeclared()
    world.engines["A"].jobs._check_operation = lambda *_: None  # type: ignore[method-assign]
    return world


def given_out_again(world: World) -> tuple[Any, Any]:
    """A was given up and seen at work again; then its engine lost its memory and gave the same id to B."""
    first = world.apply("A")
    world.answer_bells()
    goes(world, "A")
    pass_long(world)
    give_up(world, "A")
    comes_back(world, "A")
    look_again(world)
    assert [line.last_seen for line in unsettled(world)] == ["running"]
    return first, taken_by_b(world)


def taken_by_b(world: World) -> Any:
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    assert (world.state("B"), world.operation("B").doubt) == ("uncertain", "taken")
    return second


def end(world: World, apply_id: Any) -> Any:
    return world.ask_for(Verb.CANCEL, Selection(("A",)), apply_id=apply_id, outstanding=True)


def carry_out(world: World, command: str) -> None:
    """A printed answer, as it is copied."""
    found = re.fullmatch(
        r"tern resolve (\S+)/(\S+) --as (same-work|remote-id=(\S+) --taken-from (\S+)/(\S+)) --reason '…'",
        command,
    )
    assert found is not None, command
    name = world.name(found[2], found[1])  # type: ignore[arg-type]
    if found[4] is None:
        resolve(world, Resolved.SAME_WORK, name)
    else:
        resolve(world, Resolved.REMOTE_ID, name, found[4], taken_from=world.name(found[6], found[5]))  # type: ignore[arg-type]


def asked_of(world: World, apply_id: Any) -> int:
    """So many calls were about that apply's operation at A."""
    return len([call for call in world.engines["A"].calls() if call.operation == f"{apply_id}/A"])


def told(world: World, name: str, apply_id: Any) -> list[str]:
    world.last = apply_id
    return [event.event for event in world.events(name)]


def test_a_cancel_of_it_is_held_and_goes_out_after_the_word_that_it_is_its_own(world: World) -> None:
    """G2: under that id is B's job by now, for all that anybody here can tell."""
    first, _ = given_out_again(world)
    receipt = end(world, first)
    assert world.outcomes(receipt) == {"A": Receipt.ACCEPTED}
    assert f"tern resolve {first}/A --as same-work --reason '…'" in receipt.lines[0].reason
    before = asked_of(world, first)
    look_again(world)
    assert methods(world, "A", ("Cancel",)) == []
    assert asked_of(world, first) == before
    assert world.engines["A"].job("A-1").state == "running"
    carry_out(world, f"tern resolve {first}/A --as same-work --reason '…'")
    look_again(world)
    assert methods(world, "A", ("Cancel",)) == ["Cancel"]
    assert [line.settled_as for line in lines(world)] == ["cancelled"]
    assert (world.state("A", first), world.operation("A", first).error_reason) == ("failed", "ENGINE_GONE")


def test_a_look_that_was_under_way_sends_nothing_either(world: World) -> None:
    """The id is given out again between the look and the cancel that follows it."""
    first = world.apply("A")
    world.answer_bells()
    given_up(world, "A")
    comes_back(world, "A")
    look_again(world)
    end(world, first)
    (line,) = unsettled(world)
    look_at_outstanding(line.id, meanwhile(world.ports, "refuting_outstanding", lambda: taken_by_b(world)))
    assert methods(world, "A", ("Cancel",)) == []


def test_no_sample_settles_it(world: World) -> None:
    """G10: what is done under that id may be B's."""
    first = world.apply("A")
    world.answer_bells()
    given_up(world, "A")
    comes_back(world, "A")
    look_again(world)
    (line,) = unsettled(world)

    def is_taken() -> None:
        taken_by_b(world)
        world.write("UPDATE outstanding_calls SET next_look_at = tern_clock()")

    world.engines["A"].set_state("A-1", "completed")
    world.store.make_outstanding_due("A")
    look_at_outstanding(line.id, meanwhile(world.ports, "record_outstanding", is_taken))
    world.engines["A"].set_state("A-1", "completed")
    look_again(world)
    assert [line.settled_at for line in lines(world)] == [None]
    carry_out(world, f"tern resolve {first}/A --as same-work --reason '…'")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["completed"]


def test_a_second_word_is_not_taken_before_somebody_has_said_whose_it_is(world: World) -> None:
    """What is printed instead works."""
    first, _ = given_out_again(world)
    with pytest.raises(Refused) as refused:
        settle_outstanding("A", "eve", "its memory is gone", world.ports)
    assert refused.value.reason == "REMOTE_ID_TAKEN"
    assert refused.value.next_step in commands(world, first)
    carry_out(world, refused.value.next_step)
    assert world.operation("A", first).doubt == ""


def test_by_the_word_whose_it_is_it_is_settled_and_its_target_is_free(world: World) -> None:
    """G13: nothing of A's can act under an id that is B's; what waited goes, and all of it stands in the record."""
    first, second = given_out_again(world)
    third = world.apply("A", accept_drift=True)
    world.answer_bells()
    assert world.state("A", third) == "pending"
    assert world.outcomes(end(world, first)) == {"A": Receipt.ACCEPTED}
    commanded = re.findall(
        r"tern resolve \S+ --as remote-id=.*? --reason '…'", world.operation("B", second).error_message
    )
    carry_out(world, commanded[0])
    (line,) = lines(world)
    assert (line.settled_as, line.settled_by, line.next_look_at) == ("id_taken", "eve", None)
    assert f"the work of {second}/B" in line.settled_reason
    assert world.operation("A", first).doubt == ""
    look_again(world, 1)
    assert (world.state("A", third), world.state("B", second)) == ("running", "running")
    assert methods(world, "A", ("Cancel",)) == []
    assert holders(world)["A-1"] == "B"
    assert not [
        command for command in commands(world, first) if "outstanding" in command or "settle" in command
    ]
    assert told(world, "A", first)[-1] == "outstanding_settled"


def test_each_printed_command_works(world: World) -> None:
    _, second = given_out_again(world)
    printed = re.findall(
        r"tern resolve \S+ --as .*? --reason '…'", world.operation("B", second).error_message
    )
    assert len(printed) == 2
    for command in printed:
        carry_out(world, command)
    assert world.state("B", second) == "running"
    assert unsettled(world) == []


def test_an_id_that_only_something_outstanding_has_is_taken_from_it(world: World) -> None:
    """A's operation never had it: a look at its key has found it."""
    first = key_given_up(world, "A")
    look_again(world)
    assert world.remote_id("A", first) is None
    assert [line.remote_id for line in unsettled(world)] == ["A-1"]
    second = taken_by_b(world)
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1")
    assert f"--taken-from {first}/A" in refused.value.next_step
    printed = re.findall(
        r"tern resolve \S+ --as .*? --reason '…'", world.operation("B", second).error_message
    )
    assert len(printed) == 2
    for command in printed:
        carry_out(world, command)
    assert (world.state("B", second), unsettled(world)) == ("running", [])
    world.pass_time(61)
    world.ask_for(Verb.RETRY, Selection(("A",)), apply_id=first)
    look_again(world, 2)
    assert world.state("A", first) == "running"


def test_a_holder_that_follows_another_id_goes_on_with_it(world: World) -> None:
    """What is taken from it is something outstanding beside its own work."""
    first = world.apply("A")
    world.answer_bells()
    operation = world.operation("A", first)
    world.write(
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id) VALUES (:engine, 'A-2', :id)",
        engine=operation.engine_number,
        id=operation.id,
    )
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id,"
        " fence, engine_number, address, why, caller) VALUES (:apply, :id, 'test', 'shop', 'A', 'A-2', 1, :engine,"
        " :address, 'not_stored', 'w')",
        apply=operation.apply_id,
        id=operation.id,
        engine=operation.engine_number,
        address=world.engines["A"].address,
    )
    second = world.apply("B")
    world.answer_bells()
    assert (world.state("A", first), world.state("B", second)) == ("uncertain", "uncertain")
    resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-2", taken_from=world.name("A", first))
    assert unsettled(world) == []
    look_again(world, 1)
    assert (world.state("A", first), world.remote_id("A", first)) == ("running", "A-1")
    assert (world.state("B", second), world.remote_id("B", second)) == ("running", "A-2")


def test_a_key_that_is_found_to_have_started_another_s_work_is_no_answer(world: World) -> None:
    """G2: what is given up asks by its key, and is told the id that B has: whose the job is only a person can tell."""
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    first = world.apply("A")
    world.answer_bells()
    (key,) = world.engines["A"].jobs.by_key
    pass_long(world)
    give_up(world, "A")
    comes_back(world, "A")
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    assert (world.state("B", second), world.remote_id("B", second)) == ("running", "A-1")
    world.engines["A"].jobs.by_key[key] = world.engines["A"].job("A-1")
    look_again(world)
    assert (world.state("B", second), world.operation("B", second).doubt) == ("uncertain", "taken")
    assert holders(world) == {"A-1": "B"}
    printed = re.findall(
        r"tern resolve \S+ --as .*? --reason '…'", world.operation("B", second).error_message
    )
    assert printed == [f"tern resolve {second}/B --as same-work --reason '…'"]
    assert world.outcomes(end(world, first)) == {"A": Receipt.REFUSED}
    carry_out(world, printed[0])
    settle_outstanding("A", "eve", "that job is B's", world.ports)
    look_again(world)
    assert world.state("B", second) == "running"
    assert methods(world, "A", ("Cancel",)) == []


def test_what_is_only_watched_is_watched_no_longer(world: World) -> None:
    """It was let go already; its id is B's from now on."""
    first = world.apply("A")
    world.answer_bells()
    given_up(world, "A")
    comes_back(world, "A")
    engine_says(world, "A", "completed", looks=False)
    look_again(world, 1)
    assert [line.settled_as for line in lines(world)] == ["completed"]
    second = taken_by_b(world)
    resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1", taken_from=world.name("A", first))
    assert [line.next_look_at for line in lines(world)] == [None]
    look_again(world)
    assert len(lines(world)) == 1
    assert world.state("B", second) == "running"
