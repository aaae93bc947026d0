"""Looking at real rows: complete, consistent, in a constant number of statements, and without writing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from tern.domain.control import Verb
from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.model import Deployment
from tern.domain.policy import Copy, Policy
from tern.domain.states import ApplyState, State
from tern.ports import StorageUnavailable
from tern.store.database import Database
from tern.store.reading import Reading, snapshot
from tern.store.sql import Connection, TextClause, text
from tests.flows.conftest import database, make_world, world
from tests.world import World

__all__ = ["database", "make_world", "world"]


@pytest.fixture
def reading(database: Database) -> Reading:
    return Reading(database)


@contextmanager
def counted() -> Iterator[list[str]]:
    seen: list[str] = []
    execute = Connection.execute

    def note(self: Connection, statement: TextClause, *values: Any) -> Any:
        seen.append(statement.text)
        return execute(self, statement, *values)

    with patch.object(Connection, "execute", note):
        yield seen


def many(world: World, number: int) -> ApplyId:
    """An apply over so many deployments that nobody drives."""
    names = [f"many-{number}-{each}" for each in range(number)]
    for place, name in enumerate(names):
        world.store.save_deployment(Deployment(name, "test", "shop", f"grpc://h{number}:{place + 1}", "t"))
    return world.apply(*names, policy=Policy(copy=Copy.PARALLEL))


def test_an_apply_is_read_with_its_operations_tables_and_wishes(world: World, reading: Reading) -> None:
    apply_id = world.apply()
    world.answer_bells()
    world.ask(Verb.STOP, "B")
    facts = reading.apply(apply_id)
    assert [each.deployment for each in facts.operations] == ["A", "B", "C"]
    a, b, c = facts.operations
    assert (a.state, a.remote_id) == (State.RUNNING, world.remote_id("A"))
    assert a.sampled_age_s is not None
    assert a.tables[0].table_name == "orders"
    assert b.stop_in_force == "stop"
    assert [(wish.verb, wish.reason) for wish in b.open_wishes] == [(Verb.STOP, "the night is long")]
    assert (c.state, c.remote_id, c.is_admitted) == (State.PENDING, None, False)
    assert {each.blocked_by for each in facts.operations} == {None}
    assert facts.observed_at.tzinfo is not None


def test_the_remote_id_of_a_single_apply_is_found_where_it_lives(world: World, reading: Reading) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    assert reading.apply(apply_id).operations[0].remote_id == world.apply_row().external_id is not None


def test_ages_are_by_the_database_s_clock(world: World, reading: Reading) -> None:
    apply_id = world.apply()
    world.pass_time(3_600)
    facts = reading.apply(apply_id)
    assert 3_600 <= facts.age_s < 3_700
    assert facts.operations[0].due_for_s is not None
    assert facts.operations[0].due_for_s >= 3_600


def test_statements_don_t_grow_with_the_operations(
    world: World, reading: Reading, database: Database
) -> None:
    few, lots = many(world, 2), many(world, 200)
    numbers = []
    for apply_id in (few, lots):
        with counted() as statements:
            assert reading.apply(apply_id).operations
            reading.applies()
            reading.events(apply_id)
            reading.held_targets()
        numbers.append(len(statements))
    assert numbers[0] == numbers[1]


def test_looking_can_t_write(world: World) -> None:
    with pytest.raises(StorageUnavailable, match="read-only"), snapshot(world.database) as tx:
        tx.execute(text("DELETE FROM deployments"))


def test_what_is_not_there_is_said_so(world: World, reading: Reading) -> None:
    apply_id = world.apply()
    for look in (reading.apply, reading.events):
        with pytest.raises(NotFound, match="apl-0"):
            look(ApplyId("apl-0"))
    with pytest.raises(NotFound, match="nowhere"):
        reading.operation(ScopeName(apply_id, "nowhere"))


def test_the_list_is_newest_first_and_can_be_narrowed(world: World, reading: Reading) -> None:
    first = world.apply("A")
    world.ask(Verb.CANCEL)
    world.run(until=lambda: world.apply_row(first).state == "cancelled")
    second = world.apply("B", "C")
    assert [line.apply_id for line in reading.applies()] == [second, first]
    assert [line.apply_id for line in reading.applies(states=[ApplyState.CANCELLED])] == [first]
    assert reading.applies(environment="elsewhere") == ()
    assert [line.apply_id for line in reading.applies(limit=1)] == [second]
    assert reading.applies(limit=1)[0].counts == {State.PENDING: 2}


def test_the_record_of_one_operation_holds_its_own_and_the_apply_s(world: World, reading: Reading) -> None:
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    everything = reading.events(apply_id)
    of_a = reading.events(apply_id, deployment="A")
    assert {each.deployment for each in everything} == {"", "A", "B", "C"}
    assert {each.deployment for each in of_a} == {"", "A"}
    assert [each.event_id for each in everything] == sorted(each.event_id for each in everything)
    newest = reading.events(apply_id, limit=2)
    assert [each.event_id for each in newest] == [each.event_id for each in everything[-2:]]
    assert reading.events(apply_id, after=everything[-1].event_id) == ()


def test_held_targets_name_their_apply(world: World, reading: Reading) -> None:
    apply_id = world.apply("A", "B")
    assert [(held.deployment, held.apply_id) for held in reading.held_targets()] == [
        ("A", apply_id),
        ("B", apply_id),
    ]


def test_a_key_is_known_once_it_was_used(world: World, reading: Reading) -> None:
    world.apply("A", key="mine")
    assert reading.knows_key("mine")
    assert not reading.knows_key("yours")


def test_a_claim_that_begins_ahead_of_now_has_its_whole_length(world: World, reading: Reading) -> None:
    apply_id = world.apply("A")
    world.write(
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w',"
        " claim_expires_at = tern_clock() + interval '20 s'"
    )
    assert 10 < reading.apply(apply_id).operations[0].claimed_for_s <= 20
    world.pass_time(-3600)
    assert 19 < reading.apply(apply_id).operations[0].claimed_for_s <= 20


def test_finished_sweeps_are_listed_newest_first(world: World, reading: Reading) -> None:
    assert reading.sweeps() == ()
    world.sweep()
    found = reading.sweeps()
    assert {who for _, who, _ in found} == {"sweeper"}
    assert [age_s for _, _, age_s in found] == sorted(age_s for _, _, age_s in found)
    assert reading.clock().tzinfo is not None
