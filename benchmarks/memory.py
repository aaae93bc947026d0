"""Whether a worker grows: `python -m benchmarks.memory [--ticks 100000]`.

One worker takes ticks as they come in a quiet hour: polls of a deployment where nothing is due, advances of an apply
that is over, sweeps. Its memory is looked at from the end of a warm-up on; the slope is that of a straight line through
it.
"""

import argparse
import time
from statistics import linear_regression

import psycopg
from celery import Celery

from benchmarks.dispatch import app_of
from benchmarks.figure import Figure, table
from benchmarks.ground import CHANGE, add_deployments, ground
from tern.domain.policy import Policy
from tern.ports import NewApply
from tern.store.store import PostgresStore

TICKS = 24_000
PORTION = 500


def measure(ticks: int = TICKS) -> list[Figure]:
    """MiB at the beginning and at the end, and by how much 100,000 ticks would add."""
    with ground() as here:
        url, database = here.database("tern")
        _, port = here.engine()
        store = PostgresStore(database, owner="bench")
        add_deployments(store, ["here"], port)
        plan = store.save_plan(
            environment="bench", database="shop", database_type="postgres", changes=[CHANGE], caller="bench"
        )
        new = NewApply(plan.plan_id, "bench", ("here",), Policy(), "bench", "to tick", "memory")
        apply_id = store.accept_apply(new).apply_id
        worker = here.worker("worker", "control,sweep,dispatch,poll", 4)
        seen: list[tuple[float, float]] = []
        begun = time.perf_counter()
        with app_of(here) as app, psycopg.connect(url, autocommit=True):
            done = 0
            while done < ticks:
                _ring(app, apply_id, PORTION)
                _wait_for_silence(app)
                done += PORTION
                # Connections, caches and threads come with the first ticks, and what they fill settles for a while.
                if done > ticks // 2:
                    seen.append((done, worker.resident_mib()))
        elapsed = time.perf_counter() - begun
    slope = linear_regression(*zip(*seen, strict=True)).slope
    return [
        Figure("ticks", done, "", beside=f"{done / elapsed:.0f} a second"),
        Figure("memory after the warm-up", seen[0][1], "MiB"),
        Figure("memory at the end", seen[-1][1], "MiB"),
        Figure("growth over 100,000 ticks, by the slope", slope * 100_000, "MiB", at_most=10.0),
    ]


def _ring(app: Celery, apply_id: str, count: int) -> None:
    with app.producer_or_acquire() as producer:
        for number in range(count):
            if number % 4:
                app.send_task("tern.deployment.poll", kwargs={"deployment": "here"}, producer=producer)
            elif number % 8:
                app.send_task("tern.apply.advance", kwargs={"apply_id": apply_id}, producer=producer)
            else:
                app.send_task("tern.sweep", producer=producer)


def _wait_for_silence(app: Celery) -> None:
    """Until every queue is empty."""
    with app.connection_for_read() as connection:
        client = connection.default_channel.client
        while sum(client.llen(queue) for queue in ("control", "sweep", "dispatch", "poll")):
            time.sleep(0.02)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ticks", type=int, default=TICKS)
    print(table("memory", measure(parser.parse_args().ticks)))


if __name__ == "__main__":
    main()
