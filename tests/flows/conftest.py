"""A migrated database and three fake engines for every scenario."""

from collections.abc import Callable, Iterator

import pytest

from tern.store.database import Database
from tern.store.session import connect
from tests.faults.fake_engine import FakeEngine
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

    def make(*names: str, **options: object) -> World:
        fakes = {name: FakeEngine(name, **options) for name in names or ("A", "B", "C")}  # type: ignore[arg-type]
        engines.extend(fakes.values())
        worlds.append(World(database, fakes))
        return worlds[-1]

    yield make
    for world in worlds:
        world.directory.close()
    for engine in engines:
        engine.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
