"""Two numbers that turn out to be one engine: an operation, its ids and its lines stay together (G2)."""

from typing import Any

import pytest

from tern.store.sql import text
from tests.flows.evidence import MakeWorld, holders
from tests.flows.gone import comes_back, given_up, lines, look_again, unsettled
from tests.flows.steps import running
from tests.store.test_engines import numbers
from tests.world import World


def let_go(make_world: MakeWorld) -> tuple[World, str, str]:
    """One that was given up at the younger engine, and has completed there since: it is watched for a while."""
    world = make_world("A", "B")
    found = numbers(world)
    name = max(found, key=lambda each: found[each])
    running(world, "A", "B")
    remote_id = given_up(world, name)
    comes_back(world, name)
    world.engines[name].set_state(remote_id, "completed")
    look_again(world, 1)
    assert [(line.settled_as, line.next_look_at is None) for line in lines(world)] == [("completed", False)]
    world.store.unite_engines(*found.values())
    return world, name, remote_id


def test_what_was_let_go_is_watched_under_the_older_number(make_world: MakeWorld) -> None:
    world, name, remote_id = let_go(make_world)
    world.engines[name].set_state(remote_id, "running")
    look_again(world)
    assert [line.remote_id for line in unsettled(world)] == [remote_id]


def test_its_id_is_free_again_after_that(make_world: MakeWorld) -> None:
    world, _, remote_id = let_go(make_world)
    look_again(world, 30)
    assert remote_id not in holders(world)
    assert [line.next_look_at for line in lines(world)] == [None]


def rows(world: World, statement: str) -> list[Any]:
    with world.database.begin() as tx:
        return [tuple(row) for row in tx.execute(text(statement))]


KEEP = (
    "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id, fence,"
    " engine_number, address, why, caller) SELECT o.apply_id, o.id, 'test', 'shop', o.deployment, '{id}', 1,"
    " o.engine_number, 'x', 'not_stored', 'w' FROM apply_operations o WHERE o.deployment = '{name}'"
)
GUARD = (
    "INSERT INTO remote_ids (engine_number, remote_id, operation_id)"
    " SELECT engine_number, '{id}', id FROM apply_operations WHERE deployment = '{name}'"
)


@pytest.mark.parametrize("twice", ["its own", "the kept one"])
def test_an_operation_with_two_ids_of_which_one_stands_twice_keeps_its_number_with_both(
    world: World, twice: str
) -> None:
    """A line without its id's row at the same number is asked about by nobody, and is never settled."""
    found = numbers(world)
    older, younger = sorted(("A", "B"), key=lambda each: found[each])
    if twice == "its own":
        world.engines[younger].jobs.name = older
    running(world, older, younger)
    own = str(world.remote_id(younger))
    kept = "kept" if twice == "its own" else str(world.remote_id(older))
    for remote_id in (own, kept):
        world.write(KEEP.format(id=remote_id, name=younger))
    world.write(GUARD.format(id=kept, name=younger))
    world.store.unite_engines(found["A"], found["B"])
    number = world.operation(younger).engine_number
    operation_id = world.operation(younger).id
    assert number == found[younger]
    assert rows(world, "SELECT DISTINCT engine_number FROM outstanding_calls") == [(number,)]
    assert sorted(
        rows(world, f"SELECT engine_number, remote_id FROM remote_ids WHERE operation_id = {operation_id}")
    ) == sorted([(number, own), (number, kept)])
    assert {world.operation(name).doubt for name in "AB"} == {"taken"}


def test_an_operation_that_has_one_id_at_both_is_in_no_doubt(world: World) -> None:
    """It was kept under the number that its deployment had by then, and is its own all the same."""
    found = numbers(world)
    older, younger = sorted(("A", "B"), key=lambda each: found[each])
    remote_id = running(world, older, younger)[younger]
    world.write(
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id)"
        f" SELECT {found[older]}, '{remote_id}', id FROM apply_operations WHERE deployment = '{younger}'"
    )
    world.store.unite_engines(found["A"], found["B"])
    assert (world.state(younger), world.operation(younger).engine_number) == ("running", found[older])
    assert holders(world)[remote_id] == younger


def test_whoever_is_added_at_the_address_of_the_younger_one_has_the_older_number(world: World) -> None:
    found = numbers(world)
    world.store.unite_engines(found["A"], found["B"])
    younger = max("AB", key=lambda each: found[each])
    world.add("D", world.engines[younger].address, 9, offers=True)
    assert numbers(world)["D"] == min(found["A"], found["B"])
