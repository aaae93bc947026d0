"""One database for all runs of a test process; each run empties it."""

from collections.abc import Iterator

import pytest

from tern.local.discovery import Servers
from tern.local.postgres import ensure_database
from tests.simulation.postgres import PostgresBackend


@pytest.fixture(scope="session")
def postgres(postgres_server: Servers) -> Iterator[PostgresBackend]:
    url = postgres_server.database("simulation")
    ensure_database(url)
    backend = PostgresBackend(url)
    yield backend
    backend.close()
