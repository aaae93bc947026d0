"""What was sent and may still act although no operation follows it: ended by its own id, settled by a second word, and
asked about nowhere but where it was sent (G2, G4, G13, G15).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused, UsageError
from tern.domain.holds import HoldKind
from tern.domain.moving import DeploymentChange
from tern.domain.selection import Selection
from tern.moving import change_deployment
from tern.settling import settle_outstanding
from tests.faults.behaviour import fail, lose_answer
from tests.faults.fake_engine import FakeEngine
from tests.flows.gone import (
    comes_back,
    commands,
    given_up,
    goes,
    kept_beside,
    lines,
    look_again,
    unsettled,
    view,
)
from tests.flows.steps import PARALLEL, holds_of, methods, running
from tests.world import World

OpenEngine = Callable[..., FakeEngine]


@pytest.fixture
def open_engine() -> Iterator[OpenEngine]:
    opened: list[FakeEngine] = []

    def open_one(name: str, **options: Any) -> FakeEngine:
        opened.append(FakeEngine(name, **options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.stop()


def live_again(world: World) -> tuple[str, str, str]:
    """Given up, and back with its job running, while another apply waits: both applies, and the id."""
    running(world, "A", "B")
    first = world.last
    remote_id = given_up(world, "A")
    second = world.apply("A", accept_drift=True)
    comes_back(world, "A")
    look_again(world)
    assert [line.last_seen for line in unsettled(world)] == ["running"]
    return first, second, remote_id


def end(world: World, apply_id: str, *names: str, **more: Any) -> Any:
    """A person wants it ended."""
    selection = Selection(names or ("A",))
    return world.ask_for(Verb.CANCEL, selection, apply_id=apply_id, outstanding=True, **more)  # type: ignore[arg-type]


def cancels(world: World, name: str = "A") -> list[Any]:
    return [call for call in world.engines[name].calls() if call.method == "Cancel"]


# Ended by its own id


def test_a_live_one_is_ended_by_its_own_id_and_a_look_acknowledges_it(world: World) -> None:
    """Under a fence that is higher than any before, and the one that waits goes."""
    first, second, remote_id = live_again(world)
    fence = world.operation("A", first).fence  # type: ignore[arg-type]
    receipt = end(world, first)
    assert world.outcomes(receipt) == {"A": Receipt.ACCEPTED}
    world.answer_bells()
    (call,) = cancels(world)
    assert (call.remote_id, call.operation) == (remote_id, f"{first}/A")
    assert int(call.fence) > fence
    assert world.operation("A", first).fence == int(call.fence)  # type: ignore[arg-type]
    (line,) = lines(world)
    assert (line.settled_as, line.cancel_caller, line.cancel_reason) == (
        "cancelled",
        "bob",
        "the night is long",
    )
    look_again(world)
    assert world.state("A", second) == "running"  # type: ignore[arg-type]


def test_it_is_repeated_until_a_look_shows_it(world: World) -> None:
    """Nobody's answer is believed: an engine may take it and go on, refuse it, or say nothing."""
    first, _, _ = live_again(world)
    world.engines["A"].ignore("Cancel")
    world.engines["A"].script("Cancel", fail("UNAVAILABLE"), fail("FAILED_PRECONDITION"))
    end(world, first)
    world.answer_bells()
    for _ in range(4):
        world.pass_time(4)
        world.sweep()
    assert len(cancels(world)) >= 3
    assert len(unsettled(world)) == 1
    world.engines["A"].ignore()
    world.pass_time(4)
    world.sweep()
    assert [line.settled_as for line in lines(world)] == ["cancelled"]
    world.last = first  # type: ignore[assignment]
    told = [event.event for event in world.events("A")]
    assert told.count("outstanding_cancel_sent") == 3, "the same words once"


def test_a_second_wish_is_linked_to_the_first_and_none_without_anything_to_end(world: World) -> None:
    first, second, _ = live_again(world)
    world.engines["A"].always("Cancel", fail("UNAVAILABLE"))
    end(world, first)
    assert world.outcomes(end(world, first)) == {"A": Receipt.ALREADY}
    assert world.outcomes(end(world, second)) == {"A": Receipt.REFUSED}
    assert world.outcomes(end(world, first, "B")) == {"B": Receipt.REFUSED}


def test_a_dry_run_and_an_unexpected_number_write_nothing(world: World) -> None:
    first, _, _ = live_again(world)
    assert world.outcomes(end(world, first, dry_run=True)) == {"A": Receipt.ACCEPTED}
    with pytest.raises(Refused):
        end(world, first, "A", "B", expected=2)
    assert unsettled(world)[0].cancel_asked_at is None


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.CANCEL])
def test_only_a_cancel_is_about_what_is_outstanding(world: World, verb: Verb) -> None:
    with pytest.raises(UsageError):
        world.ask_for(verb, Selection(("A",)), outstanding=True, volume=3 if verb is Verb.VOLUME else None)


def test_who_asked_and_why_stands_in_the_record(world: World) -> None:
    """G15."""
    first, _, remote_id = live_again(world)
    end(world, first)
    world.answer_bells()
    request = world.one("SELECT * FROM control_requests ORDER BY id DESC LIMIT 1")
    assert (request.verb, request.caller, request.reason) == ("cancel", "bob", "the night is long")
    assert remote_id in request.outcomes[0]["reason"]
    world.last = first  # type: ignore[assignment]
    told = [event.event for event in world.events("A")]
    assert told[-3:] == ["outstanding_cancel_sent", "statements_told", "outstanding_settled"]


def test_a_key_that_is_to_end_hands_that_on_to_what_it_started(world: World) -> None:
    """Its id is known only later, and is cancelled as soon as it is."""
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    first = world.last
    job = next(iter(world.engines["A"].jobs.by_id))
    given_up(world, "A")
    assert world.outcomes(end(world, first)) == {"A": Receipt.ACCEPTED}
    comes_back(world, "A")
    look_again(world)
    assert [call.remote_id for call in cancels(world)] == [job]
    assert [line.settled_as for line in lines(world)] == ["became_id", "cancelled"]


# Settled by a second word


def test_a_second_word_is_taken_only_once_an_engine_answers_at_that_target(world: World) -> None:
    running(world, "A", "B")
    given_up(world, "A")
    with pytest.raises(Refused) as refused:
        settle_outstanding("A", "eve", "it burned down", world.ports)
    assert refused.value.unchanged.startswith("It stays outstanding")
    assert len(unsettled(world)) == 1


def test_and_never_against_an_answer(world: World) -> None:
    """It is at work there, says its engine; a cancel ends it."""
    first, _, _ = live_again(world)
    with pytest.raises(Refused) as refused:
        settle_outstanding("A", "eve", "it burned down", world.ports)
    assert refused.value.reason == "OUTSTANDING_LIVE"
    assert refused.value.next_step == f"tern cancel {first}/A --outstanding --reason '…'"
    assert len(unsettled(world)) == 1


def test_a_second_word_frees_the_target_and_stands_in_both_records(
    world: World, open_engine: OpenEngine
) -> None:
    """The old machine is gone for good; a new engine serves the same target at another address."""
    running(world, "A", "B")
    first = world.last
    given_up(world, "A")
    second = world.apply("A", accept_drift=True)
    world.answer_bells()
    new = open_engine("A-new")
    change = DeploymentChange("A", "bob", "a new machine", address=new.address, same_engine=True)
    change_deployment(change, world.ports)
    assert world.state("A", second) == "pending"
    settled = settle_outstanding("A", "eve", "it burned down", world.ports)
    assert settled.count == 1
    world.answer_bells()
    look_again(world, 1)
    assert world.state("A", second) == "running"
    assert [call.method for call in new.calls("Apply")] == ["Apply"]
    (line,) = lines(world)
    assert (line.settled_as, line.settled_by, line.settled_reason) == ("said", "eve", "it burned down")
    for apply_id in (first, second):
        world.last = apply_id
        (told,) = [event for event in world.events("A") if event.event == "outstanding_settled"]
        assert told.who == "eve"
        assert "it burned down" in told.why


@pytest.fixture
def served_again(world: World, open_engine: OpenEngine) -> FakeEngine:
    """The machine is gone and its database is not: a new engine there goes on with the job."""
    world.engines["A"].identity = "1/1"
    running(world, "A", "B")
    world.pass_time(60)
    world.sweep()
    given_up(world, "A")
    new = open_engine("A-new", identity="1/1")
    new.jobs = world.engines["A"].jobs
    change_deployment(
        DeploymentChange("A", "bob", "a new machine", address=new.address, same_engine=True), world.ports
    )
    return new


def test_a_word_does_not_stand_against_the_engine_that_serves_the_target_now(
    world: World, served_again: FakeEngine
) -> None:
    """G13: it goes on with the job, so nobody else may begin there, whatever a person believes."""
    with pytest.raises(Refused) as refused:
        settle_outstanding("A", "eve", "it burned down", world.ports)
    assert refused.value.reason == "OUTSTANDING_LIVE"
    assert served_again.address in refused.value.why[0]
    assert len(unsettled(world)) == 1
    world.apply("A", accept_drift=True)
    world.answer_bells()
    assert world.state("A") == "pending"
    assert served_again.calls("Apply") == []


def test_what_goes_on_at_the_new_address_is_ended_there_and_then_settled(
    world: World, served_again: FakeEngine
) -> None:
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    assert settle_outstanding("A", "eve", "it burned down", world.ports).count == 1
    (cancel,) = served_again.calls("Cancel")
    assert cancel.remote_id == lines(world)[0].remote_id
    assert unsettled(world) == []


def test_the_same_id_at_another_engine_is_nobody_s_to_end(world: World, open_engine: OpenEngine) -> None:
    """G2: engines count their ids; another one's may be the same."""
    running(world, "A", "B")
    given_up(world, "A")
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    new = open_engine("A-new")
    new.jobs = world.engines["A"].jobs
    change_deployment(
        DeploymentChange("A", "bob", "a new machine", address=new.address, same_engine=True), world.ports
    )
    with pytest.raises(Refused):
        settle_outstanding("A", "eve", "it burned down", world.ports)
    assert new.calls("Cancel") == []


def test_nothing_outstanding_is_nothing_to_settle(world: World) -> None:
    with pytest.raises(Refused) as refused:
        settle_outstanding("A", "eve", "it burned down", world.ports)
    assert refused.value.reason == "NOTHING_OUTSTANDING"


# Where it is asked about


def test_it_is_asked_about_only_at_the_address_that_it_was_sent_to(
    world: World, open_engine: OpenEngine
) -> None:
    """A person's word about an address is no proof: another engine there knows nothing of it, and says so in vain."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    new = open_engine("A-new")
    change_deployment(
        DeploymentChange("A", "bob", "elsewhere", address=new.address, same_engine=True), world.ports
    )
    look_again(world, 4)
    assert new.calls("Progress") == []
    assert len(unsettled(world)) == 1
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "completed")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["completed"]


def test_where_a_key_proves_the_engine_it_is_asked_at_the_new_address(
    world: World, open_engine: OpenEngine
) -> None:
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    new = open_engine("A-new")
    new.jobs = world.engines["A"].jobs
    change_deployment(DeploymentChange("A", "bob", "elsewhere", address=new.address), world.ports)
    goes(world, "A")
    world.engines["A"].set_state(remote_id, "completed")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["completed"]
    assert any(call.method == "Progress" for call in new.calls())


def test_an_id_that_is_another_operations_is_not_asked_about(world: World) -> None:
    """G2: whatever stands in the line, nothing is sent with an id that is not its own."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    world.write(
        "UPDATE remote_ids SET operation_id = (SELECT id FROM apply_operations WHERE deployment = 'B')"
        " WHERE remote_id = :id",
        id=remote_id,
    )
    asked = len(world.engines["A"].calls())
    look_again(world)
    assert len(world.engines["A"].calls()) == asked
    assert len(unsettled(world)) == 1


def test_other_work_under_its_id_settles_nothing(world: World) -> None:
    """An engine that lost its memory gives its ids out again: what that one does is no evidence."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    job = world.engines["A"].jobs.by_id[remote_id]
    job.tables = (("public", "invoices", "ALTER TABLE invoices DROP COLUMN vat"),)
    job.state = "completed"
    look_again(world)
    (line,) = lines(world)
    assert line.settled_at is None
    assert "other work" in line.last_seen
    assert "tern deployments settle A --reason '…'" in [blocker.command for blocker in view(world).blockers]


# The register


def test_a_deployment_is_not_removed_while_something_is_outstanding_there(world: World) -> None:
    """Who comes to its target is held by its name, and its engine is reached by what stands there."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    with pytest.raises(Refused) as refused:
        world.store.remove_deployment("A")
    assert f"{world.last}/A" in str(refused.value)
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "completed")
    look_again(world)
    world.store.remove_deployment("A")


def test_one_that_is_gone_is_replaced_for_the_same_target_and_for_no_other(
    world: World, open_engine: OpenEngine
) -> None:
    running(world, "A", "B")
    given_up(world, "A")
    (before,) = world.store.load_deployments(["A"])
    new = open_engine("A-new")
    with pytest.raises(Refused):
        world.store.replace_deployment(replace(before, address=new.address, target="another"))
    world.store.replace_deployment(replace(before, address=new.address))
    second = world.apply("A", accept_drift=True)
    look_again(world)
    assert (world.state("A", second), holds_of(world, "A")) == ("pending", {HoldKind.OUTSTANDING})
    settle_outstanding("A", "eve", "it burned down", world.ports)
    look_again(world, 1)
    assert world.state("A", second) == "running"


def test_a_target_of_two_names_is_held_under_both(world: World) -> None:
    """What is outstanding at one name holds whoever comes by the other."""
    world.write("INSERT INTO same_targets (one, other, finding, identity) VALUES ('A', 'C', 'same', 'x')")
    running(world, "A", "B")
    first = world.last
    remote_id = given_up(world, "A")
    world.apply("C", accept_drift=True)
    look_again(world)
    assert (world.state("C"), holds_of(world, "C")) == ("pending", {HoldKind.OUTSTANDING})
    assert methods(world, "C") == []
    assert "tern deployments check A" in commands(world)
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "completed")
    look_again(world)
    assert world.state("C") == "running"
    assert first != world.last


# Its own operation


def test_its_own_operation_waits_too_if_it_is_tried_again(world: World) -> None:
    """A retry sends nothing before its own first key is settled, and then goes under another one."""
    goes(world, "A")
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    given_up(world, "A")
    key = lines(world)[0].dispatch_key
    world.pass_time(61)
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    asked = len(world.engines["A"].calls("Apply"))
    look_again(world)
    assert world.state("A") == "failed_retryable"
    assert HoldKind.OUTSTANDING in holds_of(world, "A")
    assert len(world.engines["A"].calls("Apply")) == asked
    comes_back(world, "A")
    look_again(world, 5)
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("apply")) == 1
    assert world.operation("A").dispatch_key != key


def test_an_id_that_its_own_operation_misses_is_adopted_by_a_look(world: World) -> None:
    """It was kept because nobody could ask then; the engine knows it, and nothing was sent since."""
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    remote_id = kept_beside(world, "A")
    look_again(world, 1)
    assert (world.state("A"), world.remote_id("A")) == ("running", remote_id)
    assert [line.settled_as for line in lines(world)] == ["adopted"]
