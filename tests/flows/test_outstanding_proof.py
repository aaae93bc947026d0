"""What ends, adopts or settles what is outstanding is about that very work, at the very engine it was sent to (G2, G4,
G10, G13).
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.moving import DeploymentChange
from tern.domain.selection import Selection
from tern.moving import change_deployment
from tern.settling import settle_outstanding
from tests.faults.behaviour import fail, lose_answer
from tests.faults.fake_engine import FakeEngine
from tests.flows.gone import comes_back, given_up, goes, kept_beside, lines, look_again, unsettled
from tests.flows.steps import PARALLEL, meanwhile, running
from tests.world import World

OpenEngine = Callable[..., FakeEngine]
FOREIGN = (("public", "invoices", "ALTER TABLE invoices DROP COLUMN vat"),)


@pytest.fixture
def open_engine() -> Iterator[OpenEngine]:
    opened: list[FakeEngine] = []

    def open_one(name: str, **options: Any) -> FakeEngine:
        opened.append(FakeEngine(name, **options))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.stop()


def back_with_other_work(world: World) -> str:
    """Its engine comes back without its memory, and has given the id to somebody else's work."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    world.engines["A"].job(remote_id).tables = FOREIGN
    return remote_id


def test_a_cancel_of_what_is_outstanding_never_ends_other_work(world: World) -> None:
    """G2: somebody else's job has that id by now; who wants ours ended has not asked for that one's end."""
    remote_id = back_with_other_work(world)
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    world.answer_bells()
    look_again(world)
    assert world.engines["A"].calls("Cancel") == []
    assert world.engines["A"].job(remote_id).state == "running"
    (line,) = lines(world)
    assert line.settled_at is None
    assert "other work" in line.last_seen


def test_other_work_under_a_kept_id_is_not_adopted(world: World) -> None:
    """An id that stands is never replaced, so none is taken over from a look that shows somebody else's work."""
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    remote_id = kept_beside(world, "A")
    world.engines["A"].job(remote_id).tables = FOREIGN
    look_again(world, 1)
    assert (world.state("A"), world.remote_id("A")) == ("uncertain", None)
    assert len(unsettled(world)) == 1


def test_what_is_found_at_an_old_address_is_not_followed_at_the_new_one(
    world: World, open_engine: OpenEngine
) -> None:
    """A person has said that the new one is the same engine, and the old one answers after all: what runs there is
    followed by nobody else, and holds the target for as long as it runs there.
    """
    world.engines["A"].always("Apply", lose_answer())
    for method in ("Resolve", "Health"):
        world.engines["A"].always(method, fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    job = next(iter(world.engines["A"].jobs.by_id))
    goes(world, "A")
    world.pass_time(61)
    new = open_engine("A-new")
    change_deployment(
        DeploymentChange("A", "bob", "a new machine", address=new.address, same_engine=True), world.ports
    )
    assert world.state("A") == "uncertain"
    comes_back(world, "A")
    look_again(world, 4)
    assert new.calls("Progress") == []
    assert [line.remote_id for line in unsettled(world)] == [job]
    assert world.state("A") == "uncertain"


def test_not_found_by_another_engine_at_the_same_address_settles_nothing(world: World) -> None:
    """Its answers name the database that it works at, errors too: another one knows nothing of our work."""
    world.engines["A"].identity = "1/1"
    running(world, "A", "B")
    world.sweep()
    assert world.operation("A").remote_identity == "1/1"
    given_up(world, "A")
    world.engines["A"].identity = "2/2"
    world.engines["A"].forget()
    comes_back(world, "A")
    look_again(world)
    assert len(unsettled(world)) == 1
    world.engines["A"].identity = "1/1"
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["not_found"]


def test_a_word_is_not_taken_against_a_look_that_comes_in_between(world: World) -> None:
    """G13: a worker's look finds it at work while a person's word is on its way."""
    running(world, "A", "B")
    given_up(world, "A")
    comes_back(world, "A")
    world.engines["A"].always("Progress", fail("UNAVAILABLE"))

    def is_seen() -> None:
        world.engines["A"].always("Progress", None)
        look_again(world, 1)

    with pytest.raises(Refused) as refused:
        settle_outstanding("A", "eve", "it burned down", meanwhile(world.ports, "settle_by_word", is_seen))
    assert refused.value.reason == "OUTSTANDING_LIVE"
    (line,) = lines(world)
    assert (line.settled_at, line.last_seen) == (None, "running")


def test_what_works_again_after_a_proven_move_is_outstanding_where_it_is_now(
    world: World, open_engine: OpenEngine
) -> None:
    """The old address is nobody's any more: there it could neither be looked at nor ended."""
    running(world, "A", "B")
    first = world.last
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    new = open_engine("A-new")
    new.jobs = world.engines["A"].jobs
    change_deployment(DeploymentChange("A", "bob", "elsewhere", address=new.address), world.ports)
    goes(world, "A")
    world.engines["A"].set_state(remote_id, "failed")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["failed"]
    world.engines["A"].set_state(remote_id, "running")
    look_again(world, 4)
    assert len(unsettled(world)) == 1
    world.ask_for(Verb.CANCEL, Selection(("A",)), apply_id=first, outstanding=True)
    world.answer_bells()
    look_again(world)
    assert [call.remote_id for call in new.calls("Cancel")] == [remote_id]
    assert unsettled(world) == []


def test_what_is_watched_is_looked_at_where_its_engine_was_proven_to_be(
    world: World, open_engine: OpenEngine
) -> None:
    """It was let go, and its engine moves within the ten minutes in which it is looked at all the same."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    world.engines["A"].set_state(remote_id, "failed")
    look_again(world, 1)
    assert [line.settled_as for line in lines(world)] == ["failed"]
    new = open_engine("A-new")
    new.jobs = world.engines["A"].jobs
    change_deployment(DeploymentChange("A", "bob", "elsewhere", address=new.address), world.ports)
    goes(world, "A")
    world.engines["A"].set_state(remote_id, "running")
    look_again(world, 4)
    assert len(unsettled(world)) == 1


def test_a_key_that_another_engine_forbids_is_not_settled(make_world: Callable[..., World]) -> None:
    """G4: another database stands behind the address, whose engine has never seen the key, and forbids whatever it is
    asked to.
    """
    world = make_world("A", "B", identity="1/1")
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    given_up(world, "A")
    jobs = world.engines["A"].jobs
    other = FakeEngine("other")
    try:
        world.engines["A"].identity = "2/2"
        world.engines["A"].jobs = other.jobs
        comes_back(world, "A")
        look_again(world)
        (line,) = lines(world)
        assert line.settled_at is None
        assert "another database" in line.last_seen
    finally:
        other.stop()
    world.engines["A"].identity = "1/1"
    world.engines["A"].jobs = jobs
    look_again(world)
    assert lines(world)[0].settled_as == "became_id"


def test_a_key_that_another_engine_forbids_is_not_sent_anew_under_the_next(
    make_world: Callable[..., World],
) -> None:
    """The same of an operation that is followed: the first engine may have taken it, and may come back."""
    world = make_world("A", "B", identity="1/1")
    world.undeclared()
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].script("Resolve", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    jobs = world.engines["A"].jobs
    other = FakeEngine("other")
    try:
        world.engines["A"].identity = "2/2"
        world.engines["A"].jobs = other.jobs
        for _ in range(4):
            world.pass_time(31)
            world.sweep()
        assert len(world.engines["A"].calls("Apply")) == 1
    finally:
        other.stop()
    world.engines["A"].identity = "1/1"
    world.engines["A"].jobs = jobs
    for _ in range(6):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") in {"running", "uncertain"}
    assert len(world.engines["A"].calls("Apply")) == 1


def test_another_database_is_not_accepted_while_something_is_outstanding(
    make_world: Callable[..., World],
) -> None:
    """What was sent to the one that was there could be asked of nobody any more, and any no would settle it."""
    world = make_world("A", "B", identity="1/1")
    running(world, "A", "B")
    given_up(world, "A")
    world.engines["A"].identity = "2/2"
    comes_back(world, "A")
    with pytest.raises(Refused) as refused:
        change_deployment(DeploymentChange("A", "bob", "restored", new_identity=True), world.ports)
    assert refused.value.reason == "DEPLOYMENT_IN_USE"
    assert f"{world.last}/A" in " ".join(refused.value.why)
    assert world.one("SELECT engine_identity AS found FROM deployments WHERE name = 'A'").found == "1/1"
    settle_outstanding("A", "eve", "restored from the dump of yesterday", world.ports)
    change_deployment(DeploymentChange("A", "bob", "restored", new_identity=True), world.ports)
