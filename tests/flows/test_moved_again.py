"""An engine that moves more than once, and one of two deployments that moves away from the engine which both have (G2,
G4, G13).
"""

from typing import Any

import pytest

from tern.domain.errors import Refused, TryAgain
from tern.domain.model import Deployment
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Resolved
from tests.faults.behaviour import fail, lose_answer
from tests.faults.fake_jobs import FakeJobs
from tests.flows.evidence import MakeWorld, one_engine  # noqa: F401
from tests.flows.gone import comes_back, give_up, given_up, goes, lines, look_again, pass_long, unsettled
from tests.flows.steps import PARALLEL, Frozen, dispatch, running
from tests.flows.test_moving import OpenEngine, change, moved, open_engine  # noqa: F401
from tests.store.test_engines import numbers
from tests.world import World


def two_moves(world: World, open_engine: OpenEngine) -> tuple[Any, Any]:  # noqa: F811
    """A's engine has moved by proof, and then by a person's word: at the first address another one listens by now."""
    old = world.engines["A"]
    second = moved(world, "A", open_engine)
    change(world, address=second.address)
    old.jobs = FakeJobs(
        "fresh", old.ledger, deduplicates=True, complete_after_s=None, complete_after_polls=None
    )
    third = open_engine("third")
    for method in ("Resolve", "Progress", "BatchProgress"):
        second.always(method, fail("UNAVAILABLE"))
    change(world, address=third.address, same_engine=True)
    return second, third


def test_what_was_moved_by_proof_and_then_by_word_is_outstanding_where_it_was_last(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    remote_id = running(world, "A", "B")["A"]
    second, _ = two_moves(world, open_engine)
    (line,) = unsettled(world)
    assert (line.remote_id, line.address) == (remote_id, second.address)
    assert world.operation("A").dispatched_to == second.address


def test_what_nobody_could_ask_about_keeps_its_target(world: World, open_engine: OpenEngine) -> None:  # noqa: F811
    """G13: whoever listens at an address that the engine left long ago knows nothing of its job."""
    running(world, "A", "B")
    second, third = two_moves(world, open_engine)
    world.answer_bells()
    look_again(world)
    assert world.state("A") == "uncertain"
    world.resolve("A", Resolved.ENDED)
    world.apply("A")
    world.answer_bells()
    look_again(world)
    assert [job.state for job in second.jobs.by_id.values()] == ["running"]
    assert third.effects("apply") == [], "nobody has asked the machine where the job is"


def test_an_intent_is_outstanding_where_it_was_last_as_well(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    world.undeclared()
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.engines["A"].script("Resolve", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    second, _ = two_moves(world, open_engine)
    (line,) = unsettled(world)
    assert line.address == second.address


def there_and_back(world: World, open_engine: OpenEngine) -> tuple[str, str, str]:  # noqa: F811
    """A's engine was said to have moved, and to be where it was again; the id, and both addresses."""
    remote_id = running(world, "A", "B")["A"]
    first = world.engines["A"].address
    second = moved(world, "A", open_engine)
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    change(world, address=second.address, same_engine=True)
    second.always("Resolve", fail("UNAVAILABLE"))
    world.engines["A"].always("Resolve", None)
    change(world, address=first, same_engine=True)
    return remote_id, first, second.address


def test_there_and_back_by_word(world: World, open_engine: OpenEngine) -> None:  # noqa: F811
    """What was followed at the address in between may act there."""
    remote_id, first, second = there_and_back(world, open_engine)
    look_again(world, 1)
    assert {(line.remote_id, line.address, line.settled_as) for line in lines(world)} == {
        (remote_id, first, "followed"),
        (remote_id, second, ""),
    }


def test_a_line_that_has_moved_away_does_not_stand_for_the_address_it_was_written_for(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """There and back by word; then the engine, and what is outstanding there, moves by proof, and back by word: what is
    left behind at the first address the second time is written down too.
    """
    remote_id, first, second = there_and_back(world, open_engine)
    world.engines["A"].always("Progress", fail("UNAVAILABLE"))
    third = moved(world, "A", open_engine)
    third.always("Progress", fail("UNAVAILABLE"))
    change(world, address=third.address)
    third.always("Resolve", fail("UNAVAILABLE"))
    change(world, address=first, same_engine=True)
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    last = moved(world, "A", open_engine)
    change(world, address=last.address, same_engine=True)
    found = {(line.remote_id, line.proven_address or line.address) for line in unsettled(world)}
    assert found == {(remote_id, each) for each in (first, second, third.address)}
    # What a proof brings together at one address is one line again.
    last.always("Resolve", fail("UNAVAILABLE"))
    world.engines["A"].always("Resolve", None)
    change(world, address=first, same_engine=True)
    third.always("Resolve", None)
    change(world, address=third.address)
    found = sorted(line.proven_address or line.address for line in unsettled(world))
    assert found == sorted([second, third.address, last.address])
    assert [line.settled_as for line in lines(world) if line.settled_at is not None] == ["moved"]


def test_one_is_given_up_where_a_line_was_that_has_moved_away(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """The engine at the first address may have its job, whatever is said of the engine that was there before."""
    remote_id, first, second = there_and_back(world, open_engine)
    third = moved(world, "A", open_engine)
    change(world, address=third.address)
    for method in ("Resolve", "Progress"):
        third.always(method, fail("UNAVAILABLE"))
    change(world, address=first, same_engine=True)
    goes(world, "A")
    pass_long(world)
    give_up(world, "A")
    found = {(line.remote_id, line.proven_address or line.address) for line in unsettled(world)}
    assert found == {(remote_id, each) for each in (first, second, third.address)}


def test_a_look_that_was_begun_before_the_proof_settles_nothing(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """Whoever listens at the old address by then has never known the job (G4, G13)."""
    running(world, "A", "B")
    remote_id = given_up(world, "A")
    comes_back(world, "A")
    new = moved(world, "A", open_engine)
    old = world.engines["A"]
    world.store.make_outstanding_due("A")
    (line,) = unsettled(world)
    with Frozen(world.worker("w1"), "progress", lambda ports: look_at_outstanding(line.id, ports)):
        change(world, address=new.address)
        old.jobs = FakeJobs(
            "fresh", old.ledger, deduplicates=True, complete_after_s=None, complete_after_polls=None
        )
    assert [line.remote_id for line in unsettled(world)] == [remote_id]
    look_again(world)
    assert [line.last_seen for line in unsettled(world)] == ["running"]


def test_an_id_that_comes_late_from_an_engine_that_moves_is_kept_at_both_addresses(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """Whether it was called before the move or after it, nobody can tell."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    old, new = world.engines["A"].address, moved(world, "A", open_engine)
    with Frozen(world.worker("w1"), "record_remote_id", lambda ports: dispatch(world, "A", ports)):
        change(world, address=new.address)
    assert {line.address for line in lines(world)} == {old, new.address}
    look_again(world, 1)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert len(world.engines["A"].effects("apply")) == 1


def test_a_proven_move_of_one_of_two_at_one_engine_keeps_its_intent(
    one_engine: World,  # noqa: F811
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """G4: that its engine is the same was proven by a key."""
    world = one_engine
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].script("Resolve", fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    change(world, address=moved(world, "A", open_engine).address)
    look_again(world)
    assert world.state("A") == "running", world.operation("A").error_message


@pytest.mark.parametrize("how", ["by proof", "by word"])
def test_a_move_of_one_of_two_at_one_engine_keeps_the_guard(
    one_engine: World,  # noqa: F811
    open_engine: OpenEngine,  # noqa: F811
    how: str,
) -> None:
    """G2: the moved one is the same engine still, which gives each id once."""
    world = one_engine
    first = world.apply("B")
    world.answer_bells()
    if how == "by word":
        world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    change(world, address=moved(world, "A", open_engine).address, same_engine=how == "by word")
    world.engines["A"].always("Resolve", None)
    world.engines["A"].forget()
    second = world.apply("A")
    world.answer_bells()
    assert world.remote_id("A", second) != world.remote_id("B", first)
    assert len(set(numbers(world).values())) == 1


def test_a_proven_move_to_an_address_that_another_has_keeps_its_intent(
    make_world: MakeWorld,
) -> None:
    """Two databases of one engine that were reached by two addresses: the key proves that there is one engine."""
    world = make_world("B", "A")
    world.undeclared()
    world.engines["A"].jobs = world.engines["B"].jobs
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    world.engines["A"].always("Resolve", None)
    assert world.state("A") == "failed_retryable"
    change(world, address=world.engines["B"].address)
    look_again(world)
    assert world.state("A") == "running", world.operation("A").error_message
    assert len(set(numbers(world).values())) == 1


def test_who_is_added_at_the_new_address_while_engines_are_asked_is_seen(
    world: World,
    open_engine: OpenEngine,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two would be one engine under two numbers, and each of them would take the same id once (G2)."""
    new = moved(world, "A", open_engine)
    before = numbers(world)
    right = world.store.unite_engines_at

    def unite(name: str, address: str) -> None:
        right(name, address)
        world.store.save_deployment(Deployment("D", "test", "shop", new.address, "elsewhere"))
        monkeypatch.undo()

    monkeypatch.setattr(world.store, "unite_engines_at", unite)
    with pytest.raises(TryAgain):
        change(world, address=new.address)
    assert {name: number for name, number in numbers(world).items() if name != "D"} == before
    change(world, address=new.address)
    found = numbers(world)
    assert found["A"] == found["D"]


def test_where_another_engine_was_long_ago_it_keeps_its_own_number(world: World) -> None:
    """Nobody is reached there any more, and a person says who is: whoever is added after that has the same engine."""
    found = numbers(world)
    older, younger = sorted("AB", key=lambda each: found[each])
    address = world.engines[older].address
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:9' WHERE name = :name", name=older)
    before = found[younger]
    world.engines[younger].always("Resolve", fail("UNAVAILABLE"))
    change(world, younger, address=address, same_engine=True)
    world.add("D", address, 5, offers=True)
    found = numbers(world)
    assert found[younger] == found["D"] == before


def test_whoever_is_said_to_be_where_another_is_has_that_one_s_engine(make_world: MakeWorld) -> None:
    """G2: at one address ids are given once, whatever was there before."""
    world = make_world("A", "B", offers_engine_service=False)
    change(world, "A", address=world.engines["B"].address, same_engine=True)
    change(world, "B", position=7)
    found = numbers(world)
    assert found["A"] == found["B"]


def test_whoever_is_added_where_one_of_two_still_is_has_its_engine(
    one_engine: World,  # noqa: F811
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """An engine may be reached at several addresses."""
    world = one_engine
    first = world.engines["A"].address
    new = moved(world, "A", open_engine)
    change(world, address=new.address)
    world.add("C", first, 2, offers=True)
    world.add("D", new.address, 3, offers=True)
    assert len(set(numbers(world).values())) == 1


def test_an_address_where_something_was_left_behind_is_not_given_to_a_sibling(
    make_world: MakeWorld,
    open_engine: OpenEngine,  # noqa: F811
) -> None:
    """G2, G13: what B's engine may still do there would be asked of, and answered by, A's."""
    world = make_world("A", "B", offers_engine_service=False)
    running(world, "B")
    second = moved(world, "B", open_engine)
    change(world, "B", address=second.address, same_engine=True)
    change(world, "B", address=moved(world, "B", open_engine).address, same_engine=True)
    with pytest.raises(Refused) as refused:
        change(world, "A", address=second.address, same_engine=True)
    assert refused.value.reason == "ADDRESSES_EXCHANGED"
