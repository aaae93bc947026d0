"""The store's tests live in the same world as the scenarios."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from tern.store.sql import Connection, text
from tests.flows.conftest import database, make_world, world
from tests.world import World

__all__ = ["database", "make_world", "queue_behind", "world"]

QueueBehind = Callable[..., list[Any]]


def waiting(world: World) -> int:
    """How many sessions wait for a lock of another one."""
    statement = (
        "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND state = 'active'"
    )
    return int(world.one(statement).n)


@contextmanager
def held(world: World, statement: str) -> Iterator[Connection]:
    """Somebody else's open transaction that has locked something."""
    with world.database.connect() as connection:
        connection.execute(text(statement))
        yield connection


@pytest.fixture
def queue_behind(world: World) -> QueueBehind:
    """Runs calls that all queue up behind one lock, in the order given, and lets them go at the same instant."""

    def run(lock: str, *calls: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(calls)) as threads:
            futures: list[Future[Any]] = []
            with held(world, lock):
                for number, call in enumerate(calls, start=1):
                    futures.append(threads.submit(call))
                    while waiting(world) < number and not futures[-1].done():
                        pass
            return [future.result(timeout=20) for future in futures]

    return run
