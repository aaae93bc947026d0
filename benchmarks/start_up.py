"""How long a person waits for a command, and whether a worker grows: `python -m benchmarks.start_up`.

`tern get` and `tern ls` as whole processes, beside an interpreter that does nothing; an apply of 10,000 operations.
"""

import os
import subprocess
import sys
import time
from statistics import median

from benchmarks.figure import Figure, table
from benchmarks.ground import CHANGE, add_deployments, ground
from tern.domain.policy import Copy, Policy
from tern.ports import NewApply
from tern.store.store import PostgresStore

OPERATIONS = 10_000
TIMES = 7


def measure(operations: int = OPERATIONS) -> list[Figure]:
    """Seconds from the start of a process to its end, medians, and the least of them."""
    with ground() as here:
        _, database = here.database("tern")
        store = PostgresStore(database, owner="bench")
        names = [f"place-{number:05}" for number in range(operations)]
        add_deployments(store, names, 1)
        plan = store.save_plan(
            environment="bench", database="shop", database_type="postgres", changes=[CHANGE], caller="bench"
        )
        new = NewApply(
            plan.plan_id, "bench", tuple(names), Policy(copy=Copy.PARALLEL), "bench", "to look at", "start-up"
        )
        apply_id = store.accept_apply(new).apply_id
        environment = {**os.environ, **here.settings}
        tern = (sys.executable, "-m", "tern")
        waits = {
            "tern get": _seconds(environment, *tern, "get", apply_id),
            "tern ls": _seconds(environment, *tern, "ls"),
            "python -c pass": _seconds(environment, sys.executable, "-c", "pass"),
        }
    figures = []
    for name, (usual, least) in waits.items():
        target = 0.5 if name.startswith("tern") else None
        figures.append(
            Figure(
                f"{name}, {operations:,} operations", usual, "s", at_most=target, beside=f"least {least:.2f}"
            )
        )
    return figures


def _seconds(environment: dict[str, str], *command: str) -> tuple[float, float]:
    taken = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return median(taken), min(taken)


if __name__ == "__main__":
    print(table("start-up", measure()))
