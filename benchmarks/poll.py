"""What it costs to look at ten thousand operations: `python -m benchmarks.poll`.

100 deployments with 100 live operations each, all due, one in a hundred changed since the last look. A round is what
the progress sweep and the polls that it rings do, in this process, one after the other; the engine is a process of its
own. Beside it: a bare loop of grpcio and psycopg that asks the same questions and writes what changed.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import grpc
import psycopg

from benchmarks.figure import Figure, table
from benchmarks.filling import fill
from benchmarks.ground import Ground, add_deployments, ground
from tern.domain.policy import Copy, Policy
from tern.flows.poll import poll
from tern.flows.sweep import sweep_progress
from tern.ports import Ports
from tern.store.sql import Connection, TextClause, text
from tern.store.store import PostgresStore
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.routing import EngineDirectory
from tern.wiring import Dice, Silent

DEPLOYMENTS = 100
ROUNDS = 5


class _Collected(Silent):
    """Bells that note whom to poll."""

    def __init__(self) -> None:
        self.deployments: list[str] = []

    def poll(self, deployment: str) -> None:
        self.deployments.append(deployment)


def measure() -> list[Figure]:
    """Seconds of one core a round, and statements a round for few and for many operations."""
    with ground() as here:
        _, port = here.engine("engine", "--busy", "--changing", "100")
        many, many_statements = _rounds(here, port, 100)
        _, few_statements = _rounds(here, port, 10)
        bare = _bare(here, port)
    return [
        Figure("a round over 10,000 live operations", many, "s of one core", at_most=2.0),
        Figure("a bare loop that asks and writes the same", bare, "s of one core"),
        Figure("round / bare loop", many / bare),
        Figure("statements a round, 10,000 live", many_statements),
        Figure("statements a round, 1,000 live", few_statements),
        Figure("many / few statements", many_statements / few_statements, at_most=1.02),
    ]


def _rounds(here: Ground, port: int, applies: int) -> tuple[float, float]:
    """Processor seconds and statements a round, medians. A deployment has as many operations as there are applies."""
    _, database = here.database(f"poll_{applies}")
    store = PostgresStore(database, owner="bench")
    names = [f"d{number:04}" for number in range(DEPLOYMENTS)]
    add_deployments(store, names, port)
    policy = json.dumps(Policy(copy=Copy.PARALLEL).as_json())
    fill(database, applies=applies, each=DEPLOYMENTS, policy=policy, is_over=False)
    bells, directory = _Collected(), EngineDirectory()
    ports = Ports(store, directory, bells, Dice())
    seconds, statements = [], []
    for number in range(ROUNDS + 1):
        with database.begin() as tx:
            tx.execute(
                text("UPDATE apply_operations SET next_poll_at = tern_clock(), sampled_at = tern_clock()")
            )
            tx.execute(text("UPDATE sweep_leases SET expires_at = tern_clock()"))
        bells.deployments.clear()
        with _counted() as counted:
            begun = time.process_time()
            assert sweep_progress("bench", ports)
            for deployment in bells.deployments:
                poll(deployment, ports)
            spent = time.process_time() - begun
        assert len(bells.deployments) == DEPLOYMENTS
        if number:
            # The first one plans the statements and opens the channel.
            seconds.append(spent)
            statements.append(len(counted))
    directory.close()
    return median(seconds), median(statements)


@contextmanager
def _counted() -> Iterator[list[str]]:
    seen: list[str] = []
    execute = Connection.execute

    def note(self: Connection, statement: TextClause, *values: Any) -> Any:
        seen.append(statement.text)
        return execute(self, statement, *values)

    with patch.object(Connection, "execute", note):
        yield seen


def _bare(here: Ground, port: int) -> float:
    url, _ = here.database("poll_100")
    asking = "SELECT id, engine_resume_context, progress_revision::bigint FROM apply_operations WHERE deployment = %s"
    writing = (
        "UPDATE apply_operations o SET sampled_at = now(), next_poll_at = now() + interval '5 s',"
        " progress_revision = coalesce(s.revision, o.progress_revision)"
        " FROM jsonb_to_recordset(%s::jsonb) AS s(id bigint, revision numeric) WHERE o.id = s.id"
    )
    seconds = []
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        ask = channel.unary_unary(
            "/tern.engine.v1.EngineService/BatchProgress",
            request_serializer=engine_v1.BatchProgressRequest.SerializeToString,
            response_deserializer=engine_v1.BatchProgressResponse.FromString,
        )
        for _ in range(ROUNDS):
            begun = time.process_time()
            for number in range(DEPLOYMENTS):
                rows = connection.execute(asking, (f"d{number:04}",)).fetchall()
                cursors = [engine_v1.ProgressCursor(apply_id=row[1], revision=int(row[2])) for row in rows]
                answer = ask(engine_v1.BatchProgressRequest(environment="bench", cursors=cursors), timeout=10)
                found = {entry.apply_id: entry.revision for entry in answer.entries}
                lines = [{"id": row[0], "revision": found.get(row[1])} for row in rows]
                connection.execute(writing, (json.dumps(lines),))
            seconds.append(time.process_time() - begun)
    return median(seconds)


if __name__ == "__main__":
    print(table("poll", measure()))
