"""How a stop wins without a broker: `python -m benchmarks.stop`.

An apply of 10,000 operations, and two workers whose broker was never there, so that they sweep for themselves. In the
middle of it somebody stops the apply. Every forward call is noted with the moment of its last look: none may have
looked after the commit of the stop, and the last that had looked before must be gone soon.
"""

import time
from contextlib import suppress
from pathlib import Path

from benchmarks.figure import Figure, table
from benchmarks.ground import CHANGE, add_deployments, ground, wait_until
from tern.domain.control import Verb
from tern.domain.identity import ApplyId
from tern.domain.policy import Copy, Policy
from tern.domain.selection import Selection
from tern.ports import Asked, NewApply, StorageUnavailable
from tern.store.store import PostgresStore

OPERATIONS = 10_000
BEFORE = 300
WATCHED_S = 8.0
NOWHERE = "redis://127.0.0.1:1/0"


def measure(operations: int = OPERATIONS) -> list[Figure]:
    """Calls decided after the stop, and when the last call left."""
    with ground() as here:
        _, database = here.database("tern")
        _, port = here.engine("engine", "--busy")
        store = PostgresStore(database, owner="bench")
        names = [f"place-{number:05}" for number in range(operations)]
        add_deployments(store, names, port)
        plan = store.save_plan(
            environment="bench", database="shop", database_type="postgres", changes=[CHANGE], caller="bench"
        )
        notes = [here.folder / f"witness-{number}" for number in range(2)]
        here.settings["TERN_BROKER_URL"] = NOWHERE
        for number, file in enumerate(notes):
            here.start(
                f"worker-{number}",
                *("celery", "-A", "tasks.app", "worker", "--pool", "threads", "--concurrency", "4"),
                *("--hostname", f"w{number}@%h", "--without-mingle", "--without-gossip"),
                *("-I", "benchmarks.witness"),
                BENCH_WITNESS=str(file),
            )
        new = NewApply(
            plan.plan_id, "bench", tuple(names), Policy(copy=Copy.PARALLEL), "bench", "to stop", "stop"
        )
        apply_id = store.accept_apply(new).apply_id
        wait_until(lambda: len(_calls(notes)) >= BEFORE, "the workers are on their way")
        begun, stopped = _stop(store, apply_id)
        time.sleep(WATCHED_S)
        calls = _calls(notes)
    late = [call for looked, call in calls if looked > stopped]
    last = max(call for _, call in calls)
    return [
        Figure("forward calls before the stop", sum(call < begun for _, call in calls)),
        Figure("to accept the stop of all", stopped - begun, "s"),
        Figure("forward calls decided after its commit", len(late), at_most=0),
        Figure("last call after the commit", max(0.0, last - stopped), "s", at_most=2.0),
    ]


def _stop(store: PostgresStore, apply_id: ApplyId) -> tuple[float, float]:
    """Before and after the wish was committed. A person repeats what could not be written down in time."""
    for _ in range(5):
        begun = time.time()
        with suppress(StorageUnavailable):
            store.accept_wish(Asked(Verb.STOP, apply_id, Selection(), "bench", "to see it stop"))
            return begun, time.time()
    raise TimeoutError("the stop was not accepted")


def _calls(notes: list[Path]) -> list[tuple[float, float]]:
    """When each looked for the last time, and when it called."""
    lines = [line.split() for file in notes if file.exists() for line in file.read_text().splitlines()]
    return [(float(words[0]), float(words[1])) for words in lines if len(words) >= 3]  # noqa: PLR2004


if __name__ == "__main__":
    print(table("stop", measure()))
