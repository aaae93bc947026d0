"""Real servers for every test that wants them: one PostgreSQL cluster and one Valkey per test process."""

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tern.local.discovery import Servers
from tests.simulation.share import share

if TYPE_CHECKING:
    from tests.shelf import Shelf

# The cluster is thrown away, so nothing has to survive a power cut.
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
# Off by default, and a holder of locks like any other where somebody has turned it on.
TWO_PHASES = {"max_prepared_transactions": "4"}

# The same examples in every run, so that what is red once is red again; HYPOTHESIS=new draws others. A slow machine is
# no bug.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS", "same"))

_database_numbers = itertools.count(1)


def pytest_report_header() -> str:
    """Which share of the simulation this test run plays."""
    return str(share())


@pytest.fixture(scope="session")
def embedded_home() -> Iterator[Path]:
    """A short directory of our own that an unprivileged account may enter (pytest's own are closed to it)."""
    home = Path(tempfile.mkdtemp(prefix="tern-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def embedded(embedded_home: Path) -> Iterator[Servers]:
    """Both servers, started when the first test asks for one of them."""
    from tern.local.embedded import embedded_servers  # noqa: PLC0415 - most test runs need no servers

    with embedded_servers(
        embedded_home / "home", options={**THROWAWAY, **TWO_PHASES}, databases=()
    ) as servers:
        yield servers


@pytest.fixture(scope="session")
def postgres_server(embedded: Servers) -> Servers:
    """The PostgreSQL cluster; `postgres_server.database("name")` is a URL in it."""
    return embedded


@pytest.fixture
def database_url(postgres_server: Servers) -> Iterator[str]:
    """A fresh, empty database."""
    from tern.local.postgres import drop_database, ensure_database  # noqa: PLC0415

    url = postgres_server.database(f"test_{next(_database_numbers)}")
    ensure_database(url)
    yield url
    with contextlib.suppress(Exception):  # a test may have killed the server
        drop_database(url)


@pytest.fixture(scope="session")
def shelf(postgres_server: Servers) -> "Shelf":
    """The migrated databases that tests use one after the other."""
    from tests.shelf import Shelf  # noqa: PLC0415

    return Shelf(postgres_server)


@pytest.fixture
def migrated_url(shelf: "Shelf") -> Iterator[str]:
    """A migrated database without a row."""
    with shelf.lend() as url:
        yield url


@pytest.fixture
def valkey_server(embedded: Servers) -> Servers:
    """The Valkey, emptied."""
    import redis  # noqa: PLC0415

    with redis.Redis.from_url(embedded.broker_url) as client:
        client.flushall()
    return embedded


@pytest.fixture
def broker_url(valkey_server: Servers) -> str:
    """The URL of the emptied Valkey."""
    return valkey_server.broker_url
