"""How many operations one worker dispatches in a second, beside what the machine could do at all.

    python -m benchmarks.dispatch --operations 2000 --threads 8 [--profile]

One apply, parallel order, on as many deployments, all served by one trivial engine in a process of its own. The
processes are the normal set: a worker for control and sweep, one for dispatch and poll, beat; PostgreSQL with fsync
on; Valkey.
Each baseline is measured before and after, and the mean is taken:

- (a) the very worker that dispatches runs as many empty Celery tasks;
- (b) the same durable commits and one RPC in a bare loop of psycopg and grpcio, with as many threads;
- (c) the same job as durable workflows on DBOS, where it is installed (`make bench` installs it).
"""

import argparse
import importlib.util
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from celery import Celery

from benchmarks.figure import Figure, table
from benchmarks.ground import CHANGE, Ground, add_deployments, ground, wait_until
from tasks.bells import CeleryBells
from tasks.config import celery_config
from tasks.routing import route
from tern.domain.policy import Copy, Policy
from tern.flows.sweep import PROGRESS, RECONCILE
from tern.ports import NewApply
from tern.settings import Settings
from tern.store.store import PostgresStore

WARM_UP = 50
_DONE = (
    "SELECT count(*) FROM apply_operations WHERE engine_resume_context IS NOT NULL AND claim_token IS NULL"
)
_SETTLED = "SELECT count(*) FROM apply_operations WHERE completed_at IS NOT NULL"


def measure(*, operations: int = 2000, threads: int = 8, profile: Path | None = None) -> list[Figure]:
    """All three ratios, and where the processor time goes."""
    with ground() as here:
        url, engine = here.database("tern")
        store = PostgresStore(engine, owner="bench")
        _, port = here.engine()
        names = [f"place-{number:05}" for number in range(operations)]
        add_deployments(store, names, port)
        done = here.folder / "empty-done"
        modules = "benchmarks.empty_task" + (",benchmarks.profiler" if profile else "")
        settings = {"BENCH_EMPTY_DONE": str(done), **({"BENCH_PROFILE": str(profile)} if profile else {})}
        here.worker("control", "control,sweep", 4)
        here.worker("worker", "dispatch,poll", threads, "-I", modules, **settings)
        here.start("beat", "celery", "-A", "tasks.app", "beat", "--scheduler", "celery.beat:Scheduler")
        # Until a sweep has finished, each worker sweeps for itself: that is how Tern starts, not how it goes on.
        wait_until(lambda: all(has_swept(store, name) for name in (RECONCILE, PROGRESS)), "beat has swept")
        with app_of(here) as app:
            dispatch_once(store, url, names[:WARM_UP], app, "warm-up")
            empty = [empty_tasks(app, done, operations)]
            bare = [bare_loop(url, port, operations, threads)]
            before = here.cpu_s()
            dispatched, completed = dispatch_once(store, url, names, app, "measured")
            after = here.cpu_s()
            bare.append(bare_loop(url, port, operations, threads))
            empty.append(empty_tasks(app, done, operations))
        durable = durable_workflows(here, port, min(operations, 400), threads)
    a, b = sum(empty) / 2, sum(bare) / 2
    return [
        Figure("dispatched", dispatched, "operations/s"),
        Figure("dispatched and seen completed", completed, "operations/s"),
        Figure("(a) empty Celery tasks, same worker", a, "tasks/s", beside=_both(empty)),
        Figure("(b) bare psycopg and grpcio loop", b, "operations/s", beside=_both(bare)),
        Figure("(c) durable workflows on DBOS", durable, "operations/s"),
        Figure("dispatched / (a)", dispatched / a, at_least=0.5),
        Figure("dispatched / (b)", dispatched / b, at_least=0.4),
        Figure("dispatched / (c)", dispatched / durable if durable else None, at_least=4.0),
        *_cpu(before, after, operations),
    ]


def dispatch_once(
    store: PostgresStore, url: str, names: Sequence[str], app: Celery, key: str
) -> tuple[float, float]:
    """Operations a second from the first bell to the last stored id, and to the last one seen completed."""
    plan = store.save_plan(
        environment="bench", database="shop", database_type="postgres", changes=[CHANGE], caller="bench"
    )
    policy = Policy(copy=Copy.PARALLEL)
    with psycopg.connect(url, autocommit=True) as connection:

        def counted(question: str) -> int:
            row = connection.execute(question).fetchone()
            return int(row[0]) if row else 0

        dispatched, settled = counted(_DONE) + len(names), counted(_SETTLED) + len(names)
        accepted = store.accept_apply(
            NewApply(plan.plan_id, "bench", tuple(names), policy, "bench", "to measure", key)
        )
        bells = CeleryBells(app)
        begun = time.perf_counter()
        for due in accepted.first:
            bells.dispatch(due)
        wait_until(lambda: counted(_DONE) >= dispatched, "all are dispatched", every_s=0.02)
        sent = time.perf_counter() - begun
        wait_until(lambda: counted(_SETTLED) >= settled, "all are seen completed", every_s=0.02)
        return len(names) / sent, len(names) / (time.perf_counter() - begun)


def has_swept(store: PostgresStore, name: str) -> bool:
    """A sweep of that name has finished."""
    return store.seconds_since_sweep(name)[0] < math.inf


def empty_tasks(app: Celery, done: Path, count: int) -> float:
    """Empty tasks a second: all wait in the queue before the worker is let at them."""
    done.unlink(missing_ok=True)
    with app.connection_for_write() as connection, app.amqp.Producer(connection.default_channel) as producer:
        begun = time.perf_counter()
        for _ in range(count):
            app.send_task(
                "bench.empty", kwargs={"last": count}, queue="dispatch", producer=producer, retry=False
            )
        published = time.perf_counter() - begun
    wait_until(done.exists, "the empty tasks are done", every_s=0.005)
    elapsed = time.perf_counter() - begun
    # The worker began while others were still being published: it never had to wait for them.
    assert published < elapsed, "the publisher was slower than the worker"
    return count / elapsed


def bare_loop(url: str, port: int, count: int, threads: int) -> float:
    """See benchmarks/bare_loop.py."""
    return _printed("benchmarks.bare_loop", url, port, count, threads)


def durable_workflows(here: Ground, port: int, count: int, threads: int) -> float | None:
    """See benchmarks/durable_workflows.py; None where DBOS is not installed."""
    if importlib.util.find_spec("dbos") is None:
        return None
    url, _ = here.database("durable")
    return _printed("benchmarks.durable_workflows", url, port, count, threads)


def _printed(module: str, url: str, port: int, count: int, threads: int) -> float:
    command = [sys.executable, "-m", module, "--url", url, "--port", str(port)]
    command += ["--operations", str(count), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return float(done.stdout.split()[-1])


def app_of(here: Ground) -> Celery:
    """An app of this process for the servers of this run."""
    app = Celery("bench", set_as_current=False)
    settings = Settings(broker_url=here.settings["TERN_BROKER_URL"])
    # Tern's own router refuses tasks that Tern does not have; rings name their queue all the same.
    app.config_from_object({**celery_config(settings), "task_routes": (_route,)})
    return app


def _route(name: str, *given: Any, **named: Any) -> dict[str, str]:
    return {"queue": "dispatch"} if name == "bench.empty" else route(name, *given, **named)


def _cpu(before: Mapping[str, float], after: Mapping[str, float], operations: int) -> list[Figure]:
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    return [
        Figure(f"processor time of {name}", seconds * 1000 / operations, "ms/operation")
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]


def _both(rates: Sequence[float]) -> str:
    return "measured " + " and ".join(f"{rate:.0f}" for rate in rates)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--operations", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--profile", type=Path, help="write here what the worker's threads were seen doing")
    given = parser.parse_args()
    figures = measure(operations=given.operations, threads=given.threads, profile=given.profile)
    print(table("dispatch", figures))


if __name__ == "__main__":
    main()
