"""A deployment whose engine runs inside the workers, without gRPC, under the same rules (G1, G3, G4)."""

from urllib.parse import urlsplit

import pytest

from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.model import Action, Capabilities, Credentials, Deployment, PlannedChange
from tern.domain.policy import Cutover, Policy
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.world import World

INDEX = PlannedChange("public", "orders", "CREATE INDEX orders_by_amount ON orders (amount)", Action.CREATE)
COLUMN = PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER)


def local_world(make_world: MakeWorld, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """Tern's own database is the target too: the engine keeps to its schema."""
    parts = urlsplit(migrated_url)
    monkeypatch.setenv("TARGET_PASSWORD", parts.password or "")
    world = make_world()
    world.write("CREATE TABLE orders (id bigint PRIMARY KEY, amount int)")
    world.write("INSERT INTO orders SELECT g, g FROM generate_series(1, 20000) g")
    world.store.save_deployment(
        Deployment(
            name="here",
            environment="test",
            database="shop",
            address=f"local:postgresql://{parts.username}@{parts.hostname}:{parts.port}{parts.path}",
            target="here",
            credentials=Credentials(password="env:TARGET_PASSWORD"),
            capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
            idempotent_dispatch=True,
        )
    )
    return world


def index_is_valid(world: World) -> bool:
    return bool(
        world.one(
            "SELECT count(*) AS n FROM pg_index WHERE indexrelid = to_regclass('orders_by_amount') AND indisvalid"
        ).n
    )


def test_change_runs_inside_the_worker(
    fleet: Fleet, make_world: MakeWorld, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = local_world(make_world, migrated_url, monkeypatch)
    fleet.worker()
    fleet.worker()
    world.apply("here", changes=[COLUMN, INDEX])
    wait_for(lambda: bool(world.apply_row().state == "completed"), lambda: world.picture() + fleet.picture())
    assert index_is_valid(world)
    assert world.apply_row().external_id == world.remote_id("here")
    assert world.one("SELECT count(*) AS n FROM _tern.job").n == 1


def test_killed_worker_leaves_its_engine_to_the_next(
    fleet: Fleet, make_world: MakeWorld, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = local_world(make_world, migrated_url, monkeypatch)
    first = fleet.worker()
    apply_id: ApplyId = world.apply("here", changes=[INDEX, COLUMN], policy=Policy(cutover=Cutover.MANUAL))
    wait_for(lambda: world.state("here") == "waiting_for_cutover", lambda: world.picture() + fleet.picture())
    first.kill()
    fleet.worker()
    world.ask(Verb.CUTOVER, "here", apply_id=apply_id)
    wait_for(lambda: bool(world.apply_row().state == "completed"), lambda: world.picture() + fleet.picture())
    assert index_is_valid(world)
    assert world.one("SELECT count(*) AS n FROM _tern.job").n == 1
