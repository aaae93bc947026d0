"""The floor: three durable commits and one RPC an operation, in a bare loop of psycopg and grpcio.

    python -m benchmarks.bare_loop --url URL --port PORT --operations 2000 --threads 8

No policy, no scope, no fence, no event, no parent; nobody could operate it. Prints operations a second.
"""

import argparse
import queue
import threading
import time

import grpc
import psycopg

from benchmarks.ground import CHANGE
from tern.wire.generated.tern.v1 import tern_pb2, tern_pb2_grpc


def work(url: str, stub: tern_pb2_grpc.TernStub, numbers: "queue.SimpleQueue[int | None]") -> None:
    """Takes operations until there are no more."""
    with psycopg.connect(url) as connection:
        while (number := numbers.get()) is not None:
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


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=8)
    given = parser.parse_args()
    with psycopg.connect(given.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS floor (id int PRIMARY KEY, state text, remote text)")
        connection.execute("TRUNCATE floor")
        connection.execute(
            "INSERT INTO floor SELECT g, 'pending' FROM generate_series(1, %s) g", (given.operations,)
        )
    numbers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for number in range(1, given.operations + 1):
        numbers.put(number)
    for _ in range(given.threads):
        numbers.put(None)
    with grpc.insecure_channel(f"127.0.0.1:{given.port}") as channel:
        stub = tern_pb2_grpc.TernStub(channel)
        threads = [
            threading.Thread(target=work, args=(given.url, stub, numbers)) for _ in range(given.threads)
        ]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(given.operations / (time.perf_counter() - begun))


if __name__ == "__main__":
    main()
