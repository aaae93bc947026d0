"""Breaks something every now and then, and puts it back."""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis

from tern.store.database import Database as Tables
from tern.store.sql import text
from tests.e2e.processes import Process
from tests.faults.crew import Crew
from tests.faults.machines import Broker, Database
from tests.faults.place import Place


@dataclass
class Monkey:
    """All faults. `freeze_s` is longer than a lease."""

    database: Database
    broker: Broker
    tables: Tables
    places: list[Place]
    crew: Crew
    draw: random.Random
    figures: Counter[str]
    freeze_s: float
    frozen: list[tuple[float, Any]] = field(default_factory=list)
    deaths: list[tuple[float, int]] = field(default_factory=list)
    """When a worker was killed, and its process id, which its claims are signed with."""

    def act(self) -> None:
        """One fault."""
        self.thaw(time.monotonic())
        faults: list[tuple[int, Callable[[], None]]] = [
            (10, self.swallow_answer),
            (4, self.cut),
            (2, self.kill_worker),
            (1, self.freeze_worker),
            (1, self.send_worker_off),
            (2, self.kill_engine),
            (1, self.freeze_engine),
            (2, self.flush_broker),
            (2, self.rubbish_in_the_queues),
            (2, self.cut_the_broker_off),
            (1, self.restart_broker),
            (1, self.freeze_broker),
            (2, self.cut_the_database_off),
            (1, self.restart_database),
            (1, self.freeze_database),
            (1, self.kill_beat),
        ]
        fault = self.draw.choices([act for _, act in faults], [weight for weight, _ in faults])[0]
        self.figures[f"fault: {fault.__name__.replace('_', ' ')}"] += 1
        fault()

    def swallow_answer(self) -> None:
        """An engine acts, and nobody hears of it."""
        relay = self.draw.choice(self.places).relay
        assert relay is not None
        relay.swallow_next_answer()

    def cut(self) -> None:
        """All calls that are under way to an engine."""
        relay = self.draw.choice(self.places).relay
        assert relay is not None
        relay.cut()

    def kill_worker(self) -> None:
        """SIGKILL, and a new one."""
        worker = self.draw.choice(self.crew.workers)
        self.deaths.append((time.time(), worker.pid))
        worker.kill()
        self._forget(worker)
        self.crew.replace(worker)

    def freeze_worker(self) -> None:
        """Beyond its claims."""
        self._freeze(self.draw.choice(self.crew.workers))

    def send_worker_off(self) -> None:
        """A deploy."""
        worker = self.draw.choice(self.crew.workers)
        if all(worker is not frozen for _, frozen in self.frozen):
            self.crew.send_off(worker)

    def kill_engine(self) -> None:
        """SIGKILL, and back with the jobs that its ledger knows."""
        place = self.draw.choice(self.places)
        self._forget(place)
        place.kill()
        place.start()

    def freeze_engine(self) -> None:
        """A black hole."""
        self._freeze(self.draw.choice(self.places))

    def flush_broker(self) -> None:
        """It forgets every message."""
        with self._broker() as client:
            client.flushall()

    def rubbish_in_the_queues(self) -> None:
        """Bytes that are no messages."""
        with self._broker() as client:
            for queue in ("control", "sweep", "dispatch", "poll"):
                client.rpush(queue, self.draw.randbytes(self.draw.randrange(40)), b"{}", b"[1, 2]")

    def cut_the_broker_off(self) -> None:
        """Each second of its connections."""
        with self._broker() as client:
            for connection in client.client_list():
                if self.draw.random() < 0.5:
                    with contextlib.suppress(redis.RedisError):
                        client.client_kill_filter(_id=connection["id"])

    def restart_broker(self) -> None:
        """Killed, empty, and away for a moment."""
        self._forget(self.broker)
        self.broker.restart(self.draw.choice((0.0, 0.3, 1.0)))

    def freeze_broker(self) -> None:
        """It takes connections and says nothing: longer than anybody's patience with it."""
        self._freeze(self.broker)

    def cut_the_database_off(self) -> None:
        """The connections of one process, in the middle of whatever they do."""
        with contextlib.suppress(psycopg.Error), self.tables.begin() as tx:
            tx.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND application_name = 'tern' AND random() < 0.5"
                )
            )

    def restart_database(self) -> None:
        """Shut down at once, and back."""
        self.database.restart()

    def freeze_database(self) -> None:
        """Everybody hangs in the middle of a statement, people too; so somebody else thaws it."""
        self.database.freeze()
        threading.Timer(self.freeze_s, self.database.thaw).start()

    def kill_beat(self) -> None:
        """SIGKILL, and a new one."""
        beat = self.crew.beats[0]
        beat.kill()
        self.crew.replace(beat)

    def thaw(self, now: float) -> None:
        """Those that have been frozen for long enough."""
        for until, frozen in list(self.frozen):
            if until <= now:
                frozen.thaw()
                self.frozen.remove((until, frozen))

    def _freeze(self, what: "Process | Place | Broker") -> None:
        if all(what is not frozen for _, frozen in self.frozen):
            what.freeze()
            self.frozen.append((time.monotonic() + self.freeze_s, what))

    def _forget(self, what: "Process | Place | Broker") -> None:
        """Whoever is killed is not thawed."""
        self.frozen = [(until, frozen) for until, frozen in self.frozen if frozen is not what]

    @contextlib.contextmanager
    def _broker(self) -> Any:
        with (
            contextlib.suppress(redis.RedisError),
            redis.Redis.from_url(self.broker.url, socket_timeout=1) as client,
        ):
            yield client
