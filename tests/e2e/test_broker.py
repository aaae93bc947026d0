"""A broker that is killed, refuses, or holds rubbish: only latency changes, and no worker ends (G11)."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from tern.local.supervisor import Supervisor
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.faults.behaviour import delay, hang
from tests.faults.machines import Broker
from tests.world import World

QUEUES = ("control", "sweep", "dispatch", "poll")
RUBBISH = (
    b"\xff\xfe\x00",
    b"",
    b"null",
    b"[1, 2]",
    b"{}",
    b'"text"',
    b'{"body": "x", "properties": {}}',
    b'{"body": "%%%", "properties": {"delivery_tag": "1", "body_encoding": "base64"}}',
    b'{"__type__": "datetime", "__value__": "yesterday"}',
    b"[" * 100_000,
    b'{"properties": {"delivery_tag": "2", "delivery_info": {}}, "headers": [], "body": ""}',
    b'{"properties": {"delivery_tag": "3", "delivery_info": {}}, "headers": {"task": "os.system"}, "body": "bHM="}',
)


@pytest.fixture
def broker(embedded_home: Path, tmp_path: Path) -> Iterator[Broker]:
    """A Valkey of this test's own."""
    with Supervisor(tmp_path) as programs:
        machine = Broker(embedded_home / f"broker-{os.getpid()}-{time.monotonic_ns()}", programs)
        machine.start()
        yield machine


@pytest.fixture
def fleet(migrated_url: str, broker: Broker, tmp_path: Path) -> Iterator[Fleet]:
    environment = {
        "TERN_DATABASE_URL": migrated_url,
        "TERN_BROKER_URL": broker.url,
        "TERN_LEASE_SECONDS": "4",
        "TERN_RPC_DEADLINE_SECONDS": "3",
        "TERN_POLL_STEADY_SECONDS": "0.5",
        "PYTHONWARNINGS": "ignore",
    }
    with Fleet(environment, tmp_path) as processes:
        yield processes


@pytest.fixture
def keys(broker: Broker) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker.url) as client:
        yield client


def completed(world: World) -> bool:
    return bool(world.apply_row().state == "completed")


def is_heard(world: World, broker: Broker) -> Callable[[], bool]:
    """Whether a message that is sent now becomes a task; only a task sweeps under the name of a beat."""
    world.write("DELETE FROM sweep_leases")
    app = Celery("bell", broker=broker.url, set_as_current=False)

    def heard() -> bool:
        with contextlib.suppress(Exception):
            app.send_task("tern.sweep", queue="sweep", ignore_result=True, retry=False)
        time.sleep(0.2)
        return bool(world.one("SELECT count(*) AS n FROM sweep_leases WHERE owner LIKE 'beat@%'").n)

    return heard


def test_broker_killed_in_the_middle_of_ticks(fleet: Fleet, make_world: MakeWorld, broker: Broker) -> None:
    """Closing a connection whose server is gone, with messages unacknowledged on it, ended the whole worker."""
    world = make_world("A", "B", "C", complete_after_polls=40)
    for engine in world.engines.values():
        engine.always("BatchProgress", delay(0.7))
    workers = [fleet.worker(), fleet.worker()]
    fleet.beat()
    world.apply("A", "B", "C")
    wait_for(lambda: bool(world.engines["A"].calls("BatchProgress")), fleet.picture)

    for _ in range(6):
        broker.restart()
        wait_for(is_heard(world, broker), fleet.picture)
        time.sleep(0.5)  # a few polls are under way again
    for worker in workers:
        assert worker.is_running, worker.output()[-5000:]
        assert "Unrecoverable" not in worker.output()


def test_a_broker_that_is_away_does_not_fill_the_log_of_beat(fleet: Fleet, broker: Broker) -> None:
    """Bells ring every second, and Celery tells of each that it could not send with two tracebacks."""
    beat = fleet.beat()
    with redis.Redis.from_url(broker.url) as client:
        wait_for(lambda: client.llen("sweep") > 0, fleet.picture)
    broker.kill()
    wait_for(lambda: "a bell was not rung" in beat.output(), fleet.picture)
    time.sleep(5)
    assert beat.is_running
    told = beat.output()
    assert told.count("a bell was not rung") == 1
    assert "Traceback" not in told


def test_rubbish_in_the_queues(
    fleet: Fleet, make_world: MakeWorld, broker: Broker, keys: redis.Redis
) -> None:
    """Each is thrown away with a line in the log; what comes after it is heard."""
    world = make_world("A", complete_after_polls=2)
    worker = fleet.worker()
    wait_for(is_heard(world, broker), fleet.picture)

    for queue in QUEUES:
        for one in RUBBISH:
            keys.lpush(queue, one)
    for pattern in keys.pubsub_channels():
        keys.publish(pattern, b"[1, 2]")
    wait_for(is_heard(world, broker), fleet.picture)
    wait_for(lambda: not any(keys.llen(queue) for queue in QUEUES), fleet.picture)
    assert worker.is_running
    assert "can't be read" in worker.output()
    world.apply("A")
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())


def test_rubbish_that_waits_to_be_delivered_again(
    fleet: Fleet, make_world: MakeWorld, broker: Broker, keys: redis.Redis
) -> None:
    """It would break each new connection, for ever."""
    world = make_world("A", complete_after_polls=2)
    for number, one in enumerate(RUBBISH):
        keys.hset("unacked", f"tag-{number}", one)  # type: ignore[arg-type]  # any bytes
        keys.zadd("unacked_index", {f"tag-{number}": number + 1})
    fleet.worker()
    wait_for(is_heard(world, broker), fleet.picture)
    wait_for(lambda: not keys.exists("unacked_index"), fleet.picture)


@pytest.mark.parametrize("key", ["sweep", "unacked"])
def test_key_of_another_type(
    fleet: Fleet, make_world: MakeWorld, broker: Broker, keys: redis.Redis, key: str
) -> None:
    """The broker refuses what a worker asks of it: the rows are driven all the same, and bells are heard afterwards."""
    world = make_world("A", complete_after_polls=2)
    worker = fleet.worker()
    wait_for(is_heard(world, broker), fleet.picture)
    keys.delete(key)
    keys.set(key, "somebody else's")
    for _ in range(12):  # more than the worker has places
        with contextlib.suppress(redis.RedisError):
            keys.lpush("sweep", RUBBISH[-1])
    world.apply("A")
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())

    keys.delete(key)
    wait_for(is_heard(world, broker), fleet.picture)
    assert worker.is_running


def test_worker_ends_in_order_when_the_broker_is_gone(
    fleet: Fleet, make_world: MakeWorld, broker: Broker
) -> None:
    """A tick that runs is finished, its claim given back; the exit code is 0."""
    world = make_world("A")
    world.engines["A"].script("Apply", hang(2))
    worker = fleet.worker()
    wait_for(is_heard(world, broker), fleet.picture)
    world.apply("A")
    wait_for(lambda: bool(world.engines["A"].calls("Apply")), fleet.picture)
    broker.kill()
    assert worker.terminate() == 0, worker.output()
    assert world.remote_id("A") is not None
    assert world.operation("A").claim_token is None
