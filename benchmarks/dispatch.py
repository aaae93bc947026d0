"""How many operations one worker dispatches in a second, beside what the machine could do at all.

    python benchmarks/dispatch.py --operations 200

Starts its own PostgreSQL (fsync on), Valkey and a trivial engine in a process of its own. Prints a rate and two
ratios, each against a baseline measured in the same run:

- empty: the same worker running an empty Celery task;
- floor: the same durable commits and one RPC per operation in a bare loop of psycopg and grpcio, one thread.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
import psycopg
from celery import Celery

from tasks.config import celery_config
from tern.domain.model import Action, Capabilities, Deployment, PlannedChange
from tern.domain.policy import Copy, Policy
from tern.local.embedded import embedded_servers
from tern.ports import NewApply
from tern.settings import Settings
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.store import PostgresStore
from tern.wire.generated.tern.v1 import tern_pb2, tern_pb2_grpc
from tests.faults.fake_engine import wait_for_port

CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD COLUMN note text", Action.ALTER)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=200)
    parser.add_argument("--threads", type=int, default=8)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tern-bench-"))
    folder.chmod(0o755)
    with embedded_servers(folder / "home", databases=("tern",)) as servers:
        url, broker = servers.database("tern"), servers.broker_url
        migrate(connect(url))
        engine = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fake_engine", "--port-file", str(folder / "port")]
        )
        port = wait_for_port(folder / "port")
        worker = _worker(url, broker, given.threads, folder)
        try:
            empty = _empty_tasks(broker, given.operations)
            floor = _floor(url, port, given.operations)
            rate = _dispatch(url, broker, port, given.operations)
        finally:
            peak = _peak_memory(worker)
            worker.terminate()
            worker.wait()
            engine.terminate()
            engine.wait()
    print(f"dispatched   {rate:8.1f} operations/s, one worker, {given.threads} threads")
    print(f"empty task   {empty:8.1f} tasks/s          ratio {rate / empty:.2f}")
    print(f"bare loop    {floor:8.1f} operations/s     ratio {rate / floor:.2f}")
    print(f"worker       {peak:8.1f} MiB peak")
    print(f"this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.1f} MiB peak")


def _worker(url: str, broker: str, threads: int, folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "celery",
                    "-A",
                    "tasks.app",
                    "worker",
                    "-P",
                    "threads",
                    "-c",
                    str(threads),
                ),
                *("-Q", "control,sweep,dispatch,poll", "--without-mingle", "--without-gossip", "-E"),
                *("-I", "benchmarks.empty_task"),
            ],
            env={
                **os.environ,
                "TERN_DATABASE_URL": url,
                "TERN_BROKER_URL": broker,
                "TERN_POOL_SIZE": str(threads),
                "TERN_LOG_LEVEL": "WARNING",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _empty_tasks(broker: str, count: int) -> float:
    import redis  # noqa: PLC0415

    with Celery("bench", set_as_current=False) as app, redis.Redis.from_url(broker) as client:
        app.config_from_object({**celery_config(Settings(broker_url=broker)), "task_routes": None})
        for number in range(2):
            total = count if number else 20
            client.delete("empty-done")
            for _ in range(total):
                app.send_task("bench.empty", queue="dispatch")
            begun = time.perf_counter()
            while int(client.get("empty-done") or 0) < total:
                time.sleep(0.01)
            elapsed = time.perf_counter() - begun
    return count / elapsed


def _floor(url: str, port: int, count: int) -> float:
    """Claim with intent, RPC, id, state: three commits and one call, nothing else."""
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    stub = tern_pb2_grpc.TernStub(channel)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS floor (id int PRIMARY KEY, state text, remote text)")
        connection.execute("TRUNCATE floor")
        connection.execute("INSERT INTO floor SELECT g, 'pending' FROM generate_series(1, %s) g", (count,))
        connection.commit()
        begun = time.perf_counter()
        for number in range(1, count + 1):
            connection.execute("SELECT * FROM floor WHERE id = %s FOR UPDATE SKIP LOCKED", (number,))
            connection.execute("UPDATE floor SET state = 'running' WHERE id = %s", (number,))
            connection.commit()
            request = tern_pb2.ApplyRequest(database="shop", idempotency_key=f"floor-{number}")
            request.ddl_changes.add(table_name="orders", ddl=CHANGE.ddl)
            answer = stub.Apply(request, timeout=10)
            connection.execute("UPDATE floor SET remote = %s WHERE id = %s", (answer.apply_id, number))
            connection.commit()
            connection.execute("UPDATE floor SET state = 'dispatched' WHERE id = %s", (number,))
            connection.commit()
        elapsed = time.perf_counter() - begun
    channel.close()
    return count / elapsed


def _dispatch(url: str, broker: str, port: int, count: int) -> float:
    os.environ.update(TERN_DATABASE_URL=url, TERN_BROKER_URL=broker)
    from tasks.app import app  # noqa: PLC0415
    from tasks.bells import CeleryBells  # noqa: PLC0415

    database = connect(url)
    store = PostgresStore(database, owner="bench")
    names = [f"place-{number:05}" for number in range(count)]
    for number, name in enumerate(names):
        store.save_deployment(
            Deployment(
                name=name,
                environment="bench",
                database="shop",
                address=f"grpc://127.0.0.1:{port}",
                target=name,
                position=number,
                capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
                idempotent_dispatch=True,
            )
        )
    plan = store.save_plan(
        environment="bench", database="shop", database_type="postgres", changes=[CHANGE], caller="bench"
    )
    new = NewApply(
        plan.plan_id, "bench", tuple(names), Policy(copy=Copy.PARALLEL), "bench", "to measure", "bench"
    )
    bells = CeleryBells(app)
    begun = time.perf_counter()
    for due in store.accept_apply(new).first:
        bells.dispatch(due)
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT count(*) FROM apply_operations WHERE engine_resume_context IS NOT NULL AND claim_token IS NULL"
            ).fetchone()
            if row is not None and row[0] == count:
                break
            time.sleep(0.02)
    elapsed = time.perf_counter() - begun
    database.dispose()
    return count / elapsed


def _peak_memory(process: subprocess.Popen[bytes]) -> float:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
