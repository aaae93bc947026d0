"""Every round trip of an engine as the last one, for each kind of change, while an application writes and reads
(G16, D1-D5). `make crash-engine` (CRASH=all) plays all of them; every test run plays a share.
"""

import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, Self

import psycopg
import pytest
from psycopg import sql

from tern.engine.service import EngineService
from tern.local.discovery import Servers
from tern.local.postgres import drop_database, ensure_database
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import IDENTITY, eventually
from .doomed import DEAD, OPERATION
from .load import Load, left_behind
from .test_recipes import GROUND, catalogue

ALL = os.environ.get("CRASH") == "all"
SEED = 20_26
SHARE = 3
DOUBLES = 12 if ALL else 1
KEY = "the-key"

KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "metadata": (("t", "ALTER TABLE t ADD COLUMN k int NOT NULL DEFAULT 7"),),
    "metadata that goes": (("t", "ALTER TABLE t DROP COLUMN v, ALTER c SET DEFAULT 9"),),
    "type": (("t", "ALTER TABLE t ALTER v TYPE varchar(40)"),),
    "check": (("t", "ALTER TABLE t ADD CHECK (a > 0)"),),
    "foreign key": (("t", "ALTER TABLE t ADD FOREIGN KEY (parent_id) REFERENCES parent (id)"),),
    "not null": (("t", "ALTER TABLE t ALTER b SET NOT NULL"),),
    "index": (("t", "CREATE INDEX ON t (a)"),),
    "index that goes": (("t", "DROP INDEX t_b"),),
    "unique": (("t", "ALTER TABLE t ADD UNIQUE (a, b)"),),
    "primary key": (("t", "ALTER TABLE t ADD PRIMARY KEY (id)"),),
    "constraint that goes": (("t", "ALTER TABLE t DROP CONSTRAINT t_parent_id_fkey"),),
    "as it stands": (("t", "CREATE POLICY all_of_them ON t FOR SELECT TO PUBLIC USING (a > 0)"),),
    "new table": (("fresh", "CREATE TABLE fresh (id int PRIMARY KEY, p bigint REFERENCES parent)"),),
    "table that goes": (("leaf", "DROP TABLE leaf"),),
    "many parts": (("t", "ALTER TABLE t ADD k int CHECK (k > 0) UNIQUE, ADD l bigint REFERENCES parent"),),
    "several changes": (
        ("fresh", "CREATE TABLE fresh (id int PRIMARY KEY)"),
        ("t", "ALTER TABLE t ADD COLUMN fresh_id int REFERENCES fresh"),
        ("t", "DROP INDEX t_b"),
        ("t", "CREATE INDEX t_b ON t (b, a)"),
        ("t", "ALTER TABLE t ADD CHECK (a > 0) NOT VALID"),
        ("t", "ALTER TABLE t VALIDATE CONSTRAINT t_a_check"),
    ),
}

pytestmark = pytest.mark.timeout(1800 if ALL else 300)
each_kind = pytest.mark.parametrize("kind", KINDS)


def request_of(kind: str, **options: str) -> contract.ApplyRequest:
    changes = [
        contract.TableChange(namespace="public", table_name=table, ddl=ddl) for table, ddl in KINDS[kind]
    ]
    return contract.ApplyRequest(
        idempotency_key=KEY, ddl_changes=changes, options={"allow_unsafe": "true", **options}
    )


class Stage:
    """A cluster with a prepared database, copied for each performance, and a process that makes doomed engines."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._numbers = itertools.count(1)
        self._ground = self._new("crash_ground")
        with psycopg.connect(self._ground, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA app; {GROUND.partition('CREATE SCHEMA app;')[2]}")
        service = EngineService(self._ground, IDENTITY, runs_jobs=False)
        service.start()
        service.close()
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.doomed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.boundaries = cache(self._boundaries)
        self.plain = cache(self._plain)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zygote.communicate(timeout=10)
        drop_database(self._ground)

    def copy(self) -> str:
        """A database that nobody has touched yet."""
        name = f"crash_{next(self._numbers)}"
        with psycopg.connect(self._servers.database("postgres"), autocommit=True) as connection:
            made = sql.SQL("CREATE DATABASE {} TEMPLATE crash_ground")
            connection.execute(made.format(sql.Identifier(name)))
        return self._servers.database(name)

    def doom(
        self, dsn: str, request: contract.ApplyRequest | None, at: int | None, *, after: bool = True
    ) -> dict[str, Any]:
        """An engine that dies there, or lives until its job is over."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        asked = "" if request is None else request.SerializeToString().hex()
        order = {"dsn": dsn, "request": asked, "at": at, "after": after}
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        answer: dict[str, Any] = json.loads(self._zygote.stdout.readline())
        assert answer["status"] in {0, DEAD}, answer["error"]
        return answer

    def play(self, kind: str, *deaths: tuple[int, bool], cancels: bool = False) -> None:
        """One performance: the engines die one after the other, a last one finishes; then everything is checked."""
        dsn = self.copy()
        request = request_of(kind)
        try:
            with Load(dsn) as load:
                for at, after in deaths:
                    self.doom(dsn, request, at, after=after)
                final = finish(dsn, request, cancels=cancels)
                eventually(lambda: load.reads > 3 and load.writes > 3)
            found = load.violations() + left_behind(dsn) + self._differences(kind, dsn, final)
        finally:
            drop_database(dsn)
        assert found == [], f"{kind}, deaths {deaths}, cancels {cancels}: {found}"

    def _differences(self, kind: str, dsn: str, final: str) -> list[str]:
        """D2: the catalogue is that of a plain ALTER; of an unfinished job, that of some of its changes."""
        with psycopg.connect(dsn, autocommit=True) as connection:
            ours = catalogue(connection)
        full = len(KINDS[kind])
        wanted = [full] if final == "completed" else range(full + 1)
        nearest = min((self.plain(kind, number) ^ ours for number in wanted), key=len)
        # The parts of one statement are finished one by one, and what is whole stays.
        if nearest and not (final == "cancelled" and kind == "many parts"):
            return [f"D2: {final}, {sorted(nearest)}"]
        return []

    def _plain(self, kind: str, number: int) -> frozenset[str]:
        dsn = self.copy()
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _, ddl in KINDS[kind][:number]:
                connection.execute(ddl.encode())
            found = catalogue(connection)
        drop_database(dsn)
        return frozenset(found)

    def _boundaries(self, kind: str) -> list[str]:
        """The thread of each round trip."""
        dsn = self.copy()
        answer = self.doom(dsn, request_of(kind), None)
        drop_database(dsn)
        assert answer["status"] == 0, answer
        crossed: list[str] = answer["crossed"]
        return crossed

    def _new(self, name: str) -> str:
        url = self._servers.database(name)
        drop_database(url)
        ensure_database(url)
        return url


def finish(dsn: str, request: contract.ApplyRequest, *, cancels: bool) -> str:
    """Tern asks again under the same key, as it does after a lost answer, and the next engine carries on."""
    heir = EngineService(dsn, IDENTITY, name="heir")
    heir.start()
    try:
        job = heir.apply(request, OPERATION).apply_id
        if cancels:
            heir.cancel(contract.CancelRequest(apply_id=job), OPERATION)
        asked = contract.ProgressRequest(apply_id=job)
        over = {contract.STATE_COMPLETED, contract.STATE_FAILED, contract.STATE_CANCELLED}
        eventually(lambda: heir.progress(asked, OPERATION).state in over, within=45)
        seen = heir.progress(asked, OPERATION)
        assert seen.state != contract.STATE_FAILED, seen
        assert cancels or seen.state == contract.STATE_COMPLETED, seen
        return contract.State.Name(seen.state).removeprefix("STATE_").lower()
    finally:
        heir.close()


@pytest.fixture(scope="module")
def stage(postgres_server: Servers) -> Iterator[Stage]:
    with Stage(postgres_server) as one:
        yield one


def deaths_of(stage: Stage, kind: str, salt: str, share: int) -> list[tuple[int, bool]]:
    """All points behind a round trip, and some in front of one; or a draw of them that is the same in every run.

    An Apply is judged in a transaction that leaves nothing, so of its many round trips a tenth is tried, and the last
    twenty, in which the job is made.
    """
    crossed = stage.boundaries(kind)
    judging = [at for at, thread in enumerate(crossed) if thread == "MainThread"]
    points = sorted({*judging[::10], *judging[-20:]} | (set(range(len(crossed))) - set(judging)))
    draw = random.Random(f"{SEED} {kind} {salt}")  # noqa: S311 - a fixed draw
    if ALL:
        return [(at, True) for at in points] + [(at, False) for at in draw.sample(points, len(points) // 5)]
    return [(at, draw.random() < 0.7) for at in draw.sample(points, min(share, len(points)))]


@each_kind
def test_change_ends_well_without_any_fault(stage: Stage, kind: str) -> None:
    """Oracle sanity: nobody dies, nothing is found."""
    stage.play(kind)


@each_kind
def test_engine_dies_at_each_round_trip(stage: Stage, kind: str) -> None:
    """G16: the next one finishes what was begun, once, and the application notices nothing."""
    for death in deaths_of(stage, kind, "dies", SHARE):
        stage.play(kind, death)


@each_kind
def test_engine_dies_and_the_change_is_cancelled(stage: Stage, kind: str) -> None:
    """G16: what was half done is removed, what was whole stays."""
    points = deaths_of(stage, kind, "cancels", 1)
    for death in points[:: 4 if ALL else 1]:
        stage.play(kind, death, cancels=True)


@each_kind
def test_heir_dies_too(stage: Stage, kind: str) -> None:
    """A sample of double deaths: the second engine dies while it takes over from the first."""
    draw = random.Random(f"{SEED} {kind} twice")  # noqa: S311 - a fixed draw
    count = len(stage.boundaries(kind))
    for _ in range(DOUBLES):
        stage.play(kind, (draw.randrange(count), True), (draw.randrange(count), draw.random() < 0.5))
