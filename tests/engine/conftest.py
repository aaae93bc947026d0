"""An engine on a real database, and a driver that talks to it as Tern would."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from tern.engine.identity import EngineIdentity
from tern.engine.keys import CallContext
from tern.engine.service import EngineService
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.v1 import tern_pb2 as contract

IDENTITY = EngineIdentity("prod", "orders", "eu-1")
WITHIN_SECONDS = 15.0
Database = psycopg.Connection[Any]
_keys = itertools.count(1)


def eventually(fact: Callable[[], Any], within: float = WITHIN_SECONDS) -> Any:
    """Polls until the fact holds; its value."""
    deadline = time.monotonic() + within
    while not (found := fact()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within} s; the last value was {found!r}")
        time.sleep(0.02)
    return found


@dataclass
class Driver:
    """The calls of one driver, in few words."""

    service: EngineService
    context: CallContext = field(default_factory=CallContext)

    def request(
        self, *ddl: str, table: str = "t", namespace: str = "public", **more: Any
    ) -> contract.ApplyRequest:
        changes = [contract.TableChange(namespace=namespace, table_name=table, ddl=each) for each in ddl]
        more.setdefault("idempotency_key", f"key-{next(_keys)}")
        return contract.ApplyRequest(ddl_changes=changes, **more)

    def apply(self, *ddl: str, **more: Any) -> str:
        return self.service.apply(self.request(*ddl, **more), self.context).apply_id

    def progress(self, job: str) -> contract.ProgressResponse:
        """Of each statement, as Tern asks for it; refused as a look of anybody's is."""
        cursor = ours.ProgressCursor(apply_id=job, operation=self.context.operation or "")
        (entry,) = self.service.batch_progress(
            ours.BatchProgressRequest(cursors=[cursor]), self.context
        ).entries
        return entry.progress if entry.WhichOneof("result") == "progress" else self.seen_by_clients(job)

    def seen_by_clients(self, job: str) -> contract.ProgressResponse:
        """As the public contract tells it: of each table."""
        return self.service.progress(contract.ProgressRequest(apply_id=job), self.context)

    def wait(self, job: str, *states: str, within: float = WITHIN_SECONDS) -> contract.ProgressResponse:
        """Waits for one of the states; fails at once if another final one comes."""
        wanted = {f"STATE_{state}" for state in states}
        final = {"STATE_COMPLETED", "STATE_FAILED", "STATE_CANCELLED"}
        deadline = time.monotonic() + within
        while True:
            seen = self.progress(job)
            name = contract.State.Name(seen.state)
            if name in wanted:
                return seen
            if name in final or time.monotonic() > deadline:
                pytest.fail(f"{name}, not {sorted(wanted)}: {seen}")
            time.sleep(0.02)

    def done(self, *ddl: str, **more: Any) -> contract.ProgressResponse:
        """Applies and waits for the end."""
        return self.wait(self.apply(*ddl, **more), "COMPLETED")

    def stop(self, job: str) -> contract.StopResponse:
        return self.service.stop(contract.StopRequest(apply_id=job), self.context)

    def start(self, job: str) -> contract.StartResponse:
        return self.service.start_again(contract.StartRequest(apply_id=job), self.context)

    def cancel(self, job: str) -> contract.CancelResponse:
        return self.service.cancel(contract.CancelRequest(apply_id=job), self.context)

    def cutover(self, job: str) -> contract.CutoverResponse:
        return self.service.cutover(contract.CutoverRequest(apply_id=job), self.context)

    def preview(self, *ddl: str, table: str = "t", namespace: str = "public") -> list[ours.ChangePreview]:
        changes = [ours.PreviewChange(namespace=namespace, table=table, ddl=each) for each in ddl]
        return list(self.service.preview(ours.PreviewRequest(changes=changes), self.context).changes)

    def resolve(self, key: str, *, forbid: bool = False) -> ours.ResolveResponse:
        return self.service.resolve(ours.ResolveRequest(idempotency_key=key, forbid=forbid), self.context)

    def as_operation(self, operation: str | None, fence: int | None = None) -> "Driver":
        return Driver(self.service, CallContext(operation, fence))

    def logs(self, job: str, limit: int = 0) -> list[contract.ApplyLog]:
        return list(self.service.logs(contract.LogsRequest(apply_id=job, limit=limit), self.context).logs)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A session of the application."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(database_url: str) -> Iterator[Database]:
    """Another one."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make_engine(database_url: str) -> Iterator[Callable[..., EngineService]]:
    """Starts engines on the test's database, closed at its end."""
    made: list[EngineService] = []

    def make(name: str = "engine") -> EngineService:
        service = EngineService(database_url, IDENTITY, name=name)
        made.append(service)
        service.start()
        return service

    yield make
    for service in made:
        service.close()


@pytest.fixture
def engine(make_engine: Callable[..., EngineService]) -> EngineService:
    """One engine."""
    return make_engine()


@pytest.fixture
def driver(engine: EngineService) -> Driver:
    """Its driver, without operation and fence."""
    return Driver(engine)


@pytest.fixture
def table(db: Database) -> str:
    """A table with rows; its name is t."""
    db.execute(
        "CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, a int, b text, n numeric(10,2),"
        "                v varchar(10), ts timestamp, tz timestamptz(3), j jsonb, i inet DEFAULT '10.0.0.1')"
    )
    db.execute("INSERT INTO t (a, b, v) SELECT g, 'b' || g, 'v' FROM generate_series(1, 1000) AS g")
    db.execute("ANALYZE t")
    return "t"


@pytest.fixture
def big_table(db: Database) -> str:
    """A table on which an index takes long enough to be interrupted; its name is t."""
    db.execute("CREATE TABLE t (id bigint, a int, b text)")
    db.execute("INSERT INTO t SELECT g, g, md5(g::text) FROM generate_series(1, 200000) AS g")
    db.execute("ANALYZE t")
    return "t"
