"""A world whose operations are driven by real worker processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tern.store.schema import migrate
from tern.store.session import connect
from tests.e2e.processes import Fleet
from tests.faults.fake_engine import FakeEngine
from tests.world import World

MakeWorld = Callable[..., World]


@pytest.fixture
def fleet(migrated_url: str, broker_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Workers with short leases, so that a killed one is replaced within the patience of a test."""
    environment = {
        "TERN_DATABASE_URL": migrated_url,
        "TERN_BROKER_URL": broker_url,
        "TERN_LEASE_SECONDS": "4",
        "TERN_RPC_DEADLINE_SECONDS": "3",
        "PYTHONWARNINGS": "ignore",
    }
    with Fleet(environment, tmp_path) as processes:
        yield processes


@pytest.fixture
def make_world(migrated_url: str) -> Iterator[MakeWorld]:
    database = connect(migrated_url)
    migrate(database)
    made: list[World] = []
    engines: list[FakeEngine] = []

    def make(*names: str, **options: object) -> World:
        fakes = {name: FakeEngine(name, **options) for name in names}  # type: ignore[arg-type]
        engines.extend(fakes.values())
        made.append(World(database, fakes))
        return made[-1]

    yield make
    for world in made:
        world.directory.close()
    for engine in engines:
        engine.stop()
    database.dispose()
