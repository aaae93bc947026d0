"""The demo's targets on a real server, with little data."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from tern.local import targets
from tern.local.discovery import Servers
from tern.local.postgres import drop_database
from tern.local.supervisor import Supervisor

NAMES = ("target_one", "target_two")


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(tmp_path) as programs:
        yield programs


@pytest.fixture
def cluster(postgres_server: Servers) -> Iterator[Servers]:
    yield postgres_server
    for name in NAMES:
        drop_database(postgres_server.database(name))


def fill(cluster: Servers, names: Sequence[str], programs: Supervisor) -> int:
    fillings = targets.start_filling(cluster, names, 1, programs)
    programs.wait_until_done(*fillings)
    return len(fillings)


def run_statement_by_statement(url: str, script: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in script.split(";\n"):
            if statement:
                connection.execute(statement.encode())


def test_targets_are_filled_by_pgbench_and_reused(cluster: Servers, programs: Supervisor) -> None:
    assert fill(cluster, NAMES, programs) == 2
    assert targets.read_catalogue(cluster.database(NAMES[0])).rows == targets.ROWS_PER_SCALE
    assert fill(cluster, NAMES, programs) == 0


def test_a_half_filled_target_is_filled_again(cluster: Servers, programs: Supervisor) -> None:
    fill(cluster, NAMES[:1], programs)
    with psycopg.connect(cluster.database(NAMES[0])) as connection:
        connection.execute("ALTER TABLE pgbench_accounts DROP CONSTRAINT pgbench_accounts_pkey")
    assert fill(cluster, NAMES[:1], programs) == 1


def test_the_catalogue_shows_the_change_and_the_next_run_takes_it_back(
    cluster: Servers, programs: Supervisor
) -> None:
    url = cluster.database(NAMES[0])
    fill(cluster, NAMES[:1], programs)
    assert not targets.read_catalogue(url).shows_the_change
    assert targets.take_back(url) is False

    run_statement_by_statement(url, targets.CHANGE)
    catalogue = targets.read_catalogue(url)
    assert catalogue.shows_the_change
    assert catalogue.column == "tier smallint NOT NULL DEFAULT 1"
    assert catalogue.check == "pgbench_accounts_tier_known CHECK (((tier >= 1) AND (tier <= 5))), validated"

    assert targets.take_back(url) is True
    assert not targets.read_catalogue(url).shows_the_change
    run_statement_by_statement(url, targets.CHANGE)


def test_an_unfinished_index_or_check_is_not_shown_as_done(cluster: Servers, programs: Supervisor) -> None:
    url = cluster.database(NAMES[0])
    fill(cluster, NAMES[:1], programs)
    run_statement_by_statement(url, targets.CHANGE.replace("5);", "5) NOT VALID;"))
    catalogue = targets.read_catalogue(url)
    assert (catalogue.check, catalogue.index is None) == (None, False)
    assert not catalogue.shows_the_change
