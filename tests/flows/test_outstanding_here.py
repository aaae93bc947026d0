"""What is outstanding, where the engine that serves its target by now goes on with it: nothing proves that it is the
same one, so a person names the job, and the printed command ends it (G2, G10, G13, G15).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.selection import Selection
from tern.settling import SaidOfJobs, settle_outstanding
from tests.faults.behaviour import fail, lose_answer
from tests.faults.fake_engine import FakeEngine
from tests.flows.gone import give_up, given_up, goes, lines, pass_long, unsettled
from tests.flows.steps import PARALLEL, meanwhile, running, stopped
from tests.flows.test_moving import OpenEngine, change, open_engine  # noqa: F401
from tests.world import World

MakeWorld = Callable[..., World]


def moves(world: World, how: str, new: FakeEngine) -> None:
    """The deployment's engine has another machine by now, by a person's word."""
    if how == "replaced":
        (before,) = world.store.load_deployments(["A"])
        world.store.replace_deployment(replace(before, address=new.address))
    else:
        change(world, address=new.address, same_engine=True)


def refused(world: World, said: SaidOfJobs | None = None) -> Refused:
    with pytest.raises(Refused) as found:
        settle_outstanding("A", "eve", "it burned down", world.ports, said or SaidOfJobs())
    return found.value


def printed(way: str, option: str) -> SaidOfJobs:
    """What the printed command with that option says."""
    found = re.search(rf"tern deployments settle A {option} (\S+) --reason '…'", way)
    assert found is not None, way
    return SaidOfJobs(**{option.strip("-").removesuffix("-job"): found[1]})


def ends(engine: FakeEngine) -> list[Any]:
    return [call for call in engine.calls() if call.method == "Cancel"]


@pytest.fixture(params=["replaced", "moved"])
def served_again(
    request: pytest.FixtureRequest,
    make_world: MakeWorld,
    open_engine: OpenEngine,  # noqa: F811
) -> tuple[World, FakeEngine]:
    """Of another make: it names no database, its storage outlived its machine, and the job is stopped, which never ends
    by itself.
    """
    world = make_world("A", "B", offers_engine_service=False)
    stopped(world, "A", "B")
    given_up(world, "A")
    new = open_engine("A-new", offers_engine_service=False)
    new.jobs = world.engines["A"].jobs
    moves(world, request.param, new)
    return world, new


def test_the_printed_command_ends_it_there(served_again: tuple[World, FakeEngine]) -> None:
    """The person who looked says that it is this job; before that nothing is sent to an engine that nobody knows."""
    world, new = served_again
    first = refused(world)
    assert first.reason == "OUTSTANDING_LIVE"
    assert ends(new) == []
    settled = settle_outstanding("A", "eve", "I looked", world.ports, printed(first.next_step, "--same-job"))
    assert settled.count == 1
    (cancel,) = ends(new)
    (line,) = lines(world)
    assert (cancel.remote_id, line.settled_as, line.settled_by) == (line.remote_id, "said", "eve")
    assert int(cancel.fence) == world.operation("A").fence
    told = [(event.event, event.who) for event in world.events("A")]
    assert ("outstanding_same_job", "eve") in told
    assert ("outstanding_cancel_sent", "eve") in told


def test_a_cancel_that_was_asked_for_is_sent_nowhere_without_that_word(
    served_again: tuple[World, FakeEngine],
) -> None:
    world, new = served_again
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    assert "--same-job" in refused(world).next_step
    assert ends(new) == []


def test_it_is_not_settled_before_a_look_shows_that_it_is_over(
    served_again: tuple[World, FakeEngine],
) -> None:
    """Nobody's answer to a cancel is believed; said again, it is sent again."""
    world, new = served_again
    new.ignore("Cancel")
    said = printed(refused(world).next_step, "--same-job")
    assert "--same-job" in refused(world, said).next_step
    assert len(unsettled(world)) == 1
    new.ignore()
    settle_outstanding("A", "eve", "I looked", world.ports, said)
    assert unsettled(world) == []


def test_a_slip_in_the_id_ends_nothing(served_again: tuple[World, FakeEngine]) -> None:
    world, new = served_again
    refused(world, SaidOfJobs(same="A-77"))
    assert (ends(new), len(unsettled(world))) == ([], 1)


def test_the_other_printed_command_says_that_it_is_other_work(served_again: tuple[World, FakeEngine]) -> None:
    """Engines count their ids: the one there may be somebody else's, and is left alone."""
    world, new = served_again
    said = printed(refused(world).next_step, "--other-job")
    settle_outstanding("A", "eve", "I looked", world.ports, said)
    (line,) = lines(world)
    assert ends(new) == []
    assert (line.settled_as, line.settled_reason) == (
        "said",
        f"I looked (the job {said.other} there is other work)",
    )


def test_against_the_very_database_nobody_says_that_it_is_other_work(
    make_world: MakeWorld,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    world = make_world("A", "B", identity="1/1")
    ids = running(world, "A", "B")
    world.pass_time(60)
    world.sweep()
    given_up(world, "A")
    new = open_engine("A-new", identity="1/1")
    new.jobs = world.engines["A"].jobs
    moves(world, "moved", new)
    assert "--outstanding" in refused(world, SaidOfJobs(other=ids["A"])).next_step
    assert len(unsettled(world)) == 1


def test_what_its_key_has_started_is_ended_there_as_well(
    make_world: MakeWorld,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """Its Apply was never answered, and the engine at the new machine knows its key."""
    world = make_world("A", "B")
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    (job,) = world.engines["A"].jobs.by_id
    pass_long(world)
    give_up(world, "A")
    new = open_engine("A-new")
    new.jobs = world.engines["A"].jobs
    moves(world, "moved", new)
    # No word is needed for whose it is: nobody else knows that key.
    assert refused(world).next_step.startswith(f"tern cancel {world.name('A')} --outstanding")
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    settle_outstanding("A", "eve", "I looked", world.ports)
    assert [call.remote_id for call in ends(new)] == [job]
    assert unsettled(world) == []


def test_an_engine_that_says_nothing_is_asked_again(served_again: tuple[World, FakeEngine]) -> None:
    world, new = served_again
    new.always("Progress", fail("UNAVAILABLE"))
    assert refused(world).next_step == "once it does: tern deployments settle A --reason '…'"


def test_what_an_operation_follows_there_is_no_contradiction(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """It moved while it ran, by a person's word: what it does at the new machine is its own, and holds its target; the
    second word is about the old one.
    """
    running(world, "A", "B")
    new = open_engine("A-new")
    new.jobs = world.engines["A"].jobs
    goes(world, "A")
    moves(world, "moved", new)
    world.sweep()
    assert (world.state("A"), len(unsettled(world))) == ("running", 1)
    settle_outstanding("A", "eve", "the old machine burned down", world.ports)
    assert (unsettled(world), world.state("A"), ends(new)) == ([], "running", [])


def test_a_job_of_another_operation_is_never_ended_by_that_word(
    served_again: tuple[World, FakeEngine],
) -> None:
    """G2: the engine there has given that id to an operation of its own since."""
    world, new = served_again
    said = printed(refused(world).next_step, "--same-job")
    (line,) = unsettled(world)

    def is_anothers() -> None:
        world.write(
            "INSERT INTO remote_ids (engine_number, remote_id, operation_id) SELECT d.engine_number, :id, o.id"
            " FROM deployments d, apply_operations o WHERE d.name = 'A' AND o.deployment = 'B'"
            " ON CONFLICT (engine_number, remote_id) DO UPDATE SET operation_id = excluded.operation_id",
            id=line.remote_id,
        )

    settle_outstanding("A", "eve", "I looked", meanwhile(world.ports, "end_here", is_anothers), said)
    assert ends(new) == []
