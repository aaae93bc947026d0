"""The same job as durable workflows on DBOS, the nearest thing that one could build it on instead.

    python -m benchmarks.durable_workflows --url URL --port PORT --operations 2000 --threads 8

One workflow an operation, from a queue; a step for the claim, one for the call, one for the id, one for the state. The
steps that write do so in transactions that DBOS records together with them. Prints operations a second.
"""

import argparse
import time
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import grpc
import psycopg
from dbos import DBOS, SQLAlchemyDatasource
from sqlalchemy import text

from benchmarks.ground import CHANGE
from tern.wire.generated.tern.v1 import tern_pb2, tern_pb2_grpc

PATIENCE_S = 120.0
_TABLE = "CREATE TABLE IF NOT EXISTS durable (id int PRIMARY KEY, state text, remote text)"


def prepare(url: str, count: int) -> None:
    """A row an operation."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLE)
        connection.execute("TRUNCATE durable")
        connection.execute("INSERT INTO durable SELECT g, 'pending' FROM generate_series(1, %s) g", (count,))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=8)
    given = parser.parse_args()
    prepare(given.url, given.operations)
    address = urlunsplit(urlsplit(given.url)._replace(scheme="postgresql+psycopg"))
    DBOS(
        config={
            "name": "bench",
            "system_database_url": address,
            "sys_db_pool_size": given.threads + 4,
            "max_executor_threads": given.threads,
            "log_level": "ERROR",
        }
    )
    source: Any = SQLAlchemyDatasource.create(address, engine_kwargs={"pool_size": given.threads})
    channel = grpc.insecure_channel(f"127.0.0.1:{given.port}")
    stub = tern_pb2_grpc.TernStub(channel)

    @source.transaction()
    def write(statement: str, number: int, remote: str) -> None:
        source.sql_session().execute(text(statement), {"id": number, "remote": remote})

    @DBOS.step()
    def call(number: int) -> str:
        request = tern_pb2.ApplyRequest(database="shop", idempotency_key=f"durable-{number}")
        request.ddl_changes.add(table_name="orders", ddl=CHANGE.ddl)
        return str(stub.Apply(request, timeout=10).apply_id)

    @DBOS.workflow()
    def dispatch(number: int) -> None:
        write("UPDATE durable SET state = 'running' WHERE id = :id", number, "")
        remote = call(number)
        write("UPDATE durable SET remote = :remote WHERE id = :id", number, remote)
        write("UPDATE durable SET state = 'dispatched' WHERE id = :id", number, "")

    DBOS.launch()
    DBOS.register_queue("dispatch", worker_concurrency=given.threads, polling_interval_sec=0.05)
    for number in range(1, given.operations + 1):
        DBOS.enqueue_workflow("dispatch", dispatch, number)
    begun = time.perf_counter()
    with psycopg.connect(given.url, autocommit=True) as connection:
        counting = "SELECT count(*) FROM durable WHERE state = 'dispatched'"
        before = done = int((connection.execute(counting).fetchone() or (0,))[0])
        while done < given.operations:
            assert time.perf_counter() - begun < PATIENCE_S, "the workflows do not end"
            time.sleep(0.05)
            done = int((connection.execute(counting).fetchone() or (0,))[0])
    print((done - before) / (time.perf_counter() - begun))
    # The last workflow is still writing down its own end.
    time.sleep(1)
    DBOS.destroy()
    channel.close()


if __name__ == "__main__":
    main()
