"""One database for all runs of a test process; each run empties it."""

from collections.abc import Iterator

import pytest

from tern.local.discovery import Servers
from tern.local.postgres import ensure_database
from tests.simulation.backend import Backend


@pytest.fixture(scope="session")
def backend(postgres_server: Servers) -> Iterator[Backend]:
    url = postgres_server.database("simulation")
    ensure_database(url)
    backend = Backend(url)
    yield backend
    backend.close()
