"""Migrations on a database in which rollouts are live: up, down and up again, and nothing is lost."""

from collections.abc import Callable, Iterator

import pytest
from alembic.script import ScriptDirectory

from tern.domain.control import Verb
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.states import State
from tern.store.database import Database
from tern.store.schema import alembic_config, migrate
from tern.store.session import connect
from tern.store.sql import text
from tests.faults.behaviour import not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.flows.steps import engine_says, running, settle, stopped
from tests.flows.test_effect import STATEMENTS, told
from tests.invariants import assert_safe
from tests.world import World


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    engine = connect(migrated_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def make_world(database: Database) -> Iterator[Callable[..., World]]:
    engines: list[FakeEngine] = []
    worlds: list[World] = []

    def make(*names: str) -> World:
        fakes = {name: FakeEngine(name) for name in names}
        engines.extend(fakes.values())
        worlds.append(World(database, fakes))
        return worlds[-1]

    yield make
    for world in worlds:
        world.directory.close()
    for engine in engines:
        engine.stop()


def below(revision: str) -> str:
    """How far down it is to the schema without this migration."""
    history = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return f"-{[each.revision for each in history].index(revision) + 1}"


def reservations(world: World) -> list[tuple[str, str, bool]]:
    """Deployment, apply, and whether it is known which operation of it holds the target."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT t.deployment, a.apply_identifier, to_jsonb(t) ->> 'operation_id' AS operation"
                " FROM target_reservations t JOIN applies a ON a.id = t.apply_id ORDER BY 1"
            )
        )
        return [(row.deployment, row.apply_identifier, row.operation is not None) for row in rows]


def test_targets_belong_to_operations_and_to_applies_again(make_world: Callable[..., World]) -> None:
    """A completed sibling's is free afterwards, a stopped one's is held; going down, each apply has its own again."""
    world = make_world("A", "B", "C", "D")
    stopped(world, "C", "D")
    before = world.last
    running(world, "A", "B")
    engine_says(world, "A", "completed")
    live = world.last
    assert reservations(world) == [("B", live, True), ("C", before, True), ("D", before, True)]
    migrate(world.database, below("0008"))
    assert reservations(world) == [("A", live, True), ("B", live, True)]
    # A worker of the version before: a sibling's target is held until the verdict, a stopped one's is not.
    migrate(world.database)
    assert reservations(world) == [("B", live, True), ("C", before, True), ("D", before, True)]
    assert_safe(world)
    engine_says(world, "B", "completed")
    world.last = before
    world.ask(Verb.START, "C", "D")
    settle(world)
    assert {world.state("C"), world.state("D")} == {"running"}
    assert_safe(world)


def statements(world: World, name: str) -> list[str]:
    """The states of an operation's statements."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text("SELECT state FROM table_changes WHERE operation_id = :id ORDER BY ordinal"),
            {"id": world.operation(name).id},
        )
        return [row.state for row in rows]


def test_what_nobody_can_know_of_an_older_statement_is_unknown(make_world: Callable[..., World]) -> None:
    """Until 0010 an operation's end was written over every statement that was not done; live ones lose nothing."""
    world = make_world("A", "B", "C", "D")
    world.engines["B"].script("Apply", not_accepted())
    world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE), changes=STATEMENTS)
    world.ask(Verb.STOP, "D")
    world.answer_bells()
    assert {name: world.state(name) for name in "ABCD"} == {
        "A": "running",
        "B": "failed",
        "C": "running",
        "D": "stopped",
    }
    told(world, State.FAILED, "completed", "failed", "pending")
    told(world, State.RUNNING, "completed", "running", "pending", name="C")
    assert statements(world, "A") == ["completed", "failed", "skipped"]
    migrate(world.database, below("0010"))
    assert statements(world, "A") == ["completed", "failed", "failed"]
    assert statements(world, "B") == ["failed"] * 3
    assert statements(world, "D") == ["stopped"] * 3
    migrate(world.database)
    assert statements(world, "A") == ["completed", "unknown", "unknown"]
    assert statements(world, "B") == ["skipped"] * 3
    assert statements(world, "C") == ["completed", "running", "pending"]
    assert statements(world, "D") == ["pending"] * 3
    told(world, State.COMPLETED, *["completed"] * 3, name="C")
    world.ask(Verb.START, "D")
    settle(world)
    assert (world.state("C"), world.state("D")) == ("completed", "running")
    assert_safe(world)
