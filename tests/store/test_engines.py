"""Engines by number and whose an id is, as the database keeps them whoever writes (G2, G4, G13)."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg import Error

from tern.domain.model import Deployment
from tern.store.database import Database
from tern.store.revision import MIGRATIONS
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.sql import text
from tests.faults.fake_engine import FakeEngine
from tests.world import World

MakeWorld = Callable[..., World]


def rows(world: World, statement: str, **values: Any) -> list[Any]:
    with world.database.begin() as tx:
        return tx.execute(text(statement), values).all()


def numbers(world: World) -> dict[str, int]:
    return {row.name: row.engine_number for row in rows(world, "SELECT name, engine_number FROM deployments")}


def at(name: str, address: str, environment: str = "test") -> Deployment:
    return Deployment(name, environment, "shop", address, f"target-{name}")


def test_an_engine_is_an_address_in_an_environment(world: World) -> None:
    address = world.engines["A"].address
    world.store.save_deployment(at("A2", address))
    world.store.save_deployment(at("A3", address, "staging"))
    found = numbers(world)
    assert found["A2"] == found["A"]
    assert len({found[name] for name in ("A", "B", "A3")}) == 3


def test_two_that_are_added_at_the_same_instant_have_one_engine(world: World) -> None:
    """Else the guard of ids would have a hole: each of its numbers would take the same id once."""
    meet = threading.Barrier(4)

    def add(number: int) -> None:
        meet.wait(20)
        world.store.save_deployment(at(f"N{number}", "grpc://127.0.0.1:9"))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = numbers(world)
    assert len({found[f"N{number}"] for number in range(4)}) == 1


def test_another_address_is_another_engine_unless_that_one_has_moved(world: World) -> None:
    before = numbers(world)
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:9' WHERE name = 'A'")
    assert numbers(world)["A"] not in before.values()
    world.write(
        "UPDATE engines SET address = 'grpc://127.0.0.1:10' WHERE number = :number", number=before["B"]
    )
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:10' WHERE name = 'B'")
    assert numbers(world)["B"] == before["B"]


def test_what_workers_of_the_version_before_write_is_guarded_as_well(world: World) -> None:
    """They know neither engines nor guards: the number comes with the intent, and the second id is refused."""
    world.write(
        "UPDATE deployments SET address = :address WHERE name = 'B'", address=world.engines["A"].address
    )
    world.apply("A", "B")
    world.apply("C")
    world.forget_bells()
    found = numbers(world)
    world.write("UPDATE apply_operations SET dispatch_key = 'k' || id, dispatch_intent_at = now()")
    for row in rows(world, "SELECT * FROM apply_operations"):
        assert row.engine_number == found[row.deployment]
        assert row.dispatched_to
    store = "UPDATE apply_operations SET engine_resume_context = 'R1' WHERE deployment = :name"
    world.write(store, name="A")
    with pytest.raises(Error) as refused:
        world.write(store, name="B")
    assert refused.value.diag.constraint_name == "remote_ids_belong_to_one_operation"
    # Another engine's id is another one, whatever it is called.
    world.write("UPDATE applies SET external_id = 'R1' WHERE operation_count = 1")
    assert len(rows(world, "SELECT * FROM remote_ids WHERE remote_id = 'R1'")) == 2
    world.write(
        "UPDATE apply_operations SET state = 'completed', completed_at = now() WHERE deployment IN ('A', 'C')"
    )
    assert rows(world, "SELECT * FROM remote_ids") == []


@pytest.mark.parametrize(
    ("written", "capabilities", "declared"),
    [
        ("true", '{"resolve": true}', False),
        ("true", '{"resolve": false}', True),
        ("true", "{}", True),
        ("false", '{"resolve": true}', False),
    ],
)
def test_what_the_version_before_writes_of_an_engine(
    world: World,
    written: str,
    capabilities: str,
    declared: bool,  # noqa: FBT001
) -> None:
    """It wrote one word for what was declared and what was found; only the first counts."""
    world.write(
        "INSERT INTO deployments (name, environment, database, address, target, capabilities, idempotent_dispatch)"
        f" VALUES ('old', 'test', 'shop', 'grpc://127.0.0.1:9', 't', '{capabilities}', {written})"
    )
    found = world.one("SELECT * FROM deployments WHERE name = 'old'")
    assert found.deduplicates is declared
    world.write("UPDATE deployments SET deduplicates = false, idempotent_dispatch = false WHERE name = 'old'")
    world.write(f"UPDATE deployments SET idempotent_dispatch = {written} WHERE name = 'old'")
    assert world.one("SELECT deduplicates FROM deployments WHERE name = 'old'").deduplicates is declared


def test_what_was_given_up_is_append_only(world: World) -> None:
    """G15: only what was seen of it and how it was settled are written to it, and the second once."""
    world.apply("A")
    world.forget_bells()
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id, fence,"
        " address, why, caller) SELECT apply_id, id, 'test', 'shop', deployment, 'R1', 1, 'x', 'given_up', 'eve'"
        " FROM apply_operations"
    )
    world.write("UPDATE outstanding_calls SET last_seen = 'running', last_seen_at = now(), looks = looks + 1")
    for statement in (
        "UPDATE outstanding_calls SET remote_id = 'R2'",
        "UPDATE outstanding_calls SET fence = 2",
        "UPDATE outstanding_calls SET address = 'y'",
        "UPDATE outstanding_calls SET caller = 'bob'",
        "DELETE FROM outstanding_calls",
    ):
        with pytest.raises(Error) as refused:
            world.write(statement)
        assert refused.value.diag.constraint_name == "outstanding_calls_are_kept", statement
    world.write("UPDATE outstanding_calls SET settled_at = now(), settled_by = 'eve', settled_as = 'ended'")
    with pytest.raises(Error):
        world.write("UPDATE outstanding_calls SET settled_at = NULL")


@pytest.fixture
def before(database_url: str) -> Iterator[World]:
    """A world whose database can go to an older schema and back."""
    database = connect(database_url, pool_size=4)
    migrate(database)
    engines = [FakeEngine("A"), FakeEngine("C")]
    world = World(database, {"A": engines[0], "B": engines[0], "C": engines[1]})
    yield world
    world.directory.close()
    for engine in engines:
        engine.stop()
    database.dispose()


def down_to_the_tables(database: Database) -> None:
    """The schema as it is before anything keeps the rules of evidence."""
    above = [path for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py") if path.name[:4] > "0005"]
    migrate(database, f"-{len(above)}")


def test_the_migration_goes_up_on_live_applies_and_down_again(before: World) -> None:
    """Ids in use are guarded; of one that stands twice at an engine only a person can say whose it is."""
    world, database = before, before.database
    applies = {name: world.apply(name) for name in "ABC"}
    world.forget_bells()
    down_to_the_tables(database)
    for name, state in (("A", "running"), ("B", "stopped"), ("C", "completed")):
        world.write(
            "UPDATE apply_operations SET state = :state, next_attempt_at = NULL,"
            " completed_at = CASE WHEN :state = 'completed' THEN now() END WHERE deployment = :name",
            state=state,
            name=name,
        )
        world.write("UPDATE applies SET external_id = 'R-1' WHERE apply_identifier = :id", id=applies[name])
    migrate(database)
    found = {row.deployment: row for row in rows(world, "SELECT * FROM apply_operations")}
    assert {name: row.state for name, row in found.items()} == {
        "A": "uncertain",
        "B": "uncertain",
        "C": "completed",
    }
    assert {name: row.doubt for name, row in found.items()} == {"A": "taken", "B": "taken", "C": ""}
    assert found["A"].engine_number == numbers(world)["A"] == numbers(world)["B"]
    assert found["B"].engine_number not in numbers(world).values()
    guarded = {row.operation_id for row in rows(world, "SELECT * FROM remote_ids")}
    assert guarded == {found["A"].id, found["B"].id}
    # The sweep computes what that makes of their applies.
    world.sweep()
    states = {row.state for row in rows(world, "SELECT state FROM applies WHERE state <> 'completed'")}
    assert states == {"running"}
    down_to_the_tables(database)
    assert {row.external_id for row in rows(world, "SELECT external_id FROM applies")} == {"R-1"}
    migrate(database)
    assert {row.doubt for row in rows(world, "SELECT doubt FROM apply_operations")} == {"taken", ""}


def test_the_migration_says_what_was_declared(before: World) -> None:
    """What was found until now is no declaration, for old readers of the column either."""
    database: Database = before.database
    down_to_the_tables(database)
    before.write(
        "UPDATE deployments SET idempotent_dispatch = true, deduplicates = (name = 'B'),"
        """ capabilities = CASE WHEN name = 'B' THEN '{"resolve": false}' ELSE '{"resolve": true}' END::jsonb"""
    )
    migrate(database)
    told = {row.name: row.idempotent_dispatch for row in rows(before, "SELECT * FROM deployments")}
    assert told == {"A": False, "B": True, "C": False}
    down_to_the_tables(database)
    told = {row.name: row.idempotent_dispatch for row in rows(before, "SELECT * FROM deployments")}
    assert told == {"A": True, "B": True, "C": True}
