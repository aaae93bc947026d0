"""Whether claims and sweeps get slower with the years: `python -m benchmarks.flat`.

The same work in three databases with 1,000, 100,000 and 1,000,000 operations in their tables, a few at a time in
turn, so that whatever else the machine does meets all of them. The best of the turns counts, since disturbances only
slow down.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.figure import Figure, table
from benchmarks.filling import fill
from benchmarks.ground import CHANGE, Ground, add_deployments, ground
from tern.domain.identity import ScopeName
from tern.domain.policy import Copy, Policy
from tern.ports import DispatchClaimed, Due, NewApply
from tern.store.sql import text
from tern.store.store import PostgresStore

SIZES = (1_000, 100_000, 1_000_000)
TURNS = 12
CLAIMS = 25
SWEEPS = 150


@dataclass
class _Year:
    """One database and how long its turns took."""

    store: PostgresStore
    due: list[Due]
    claims: list[float] = field(default_factory=list)
    sweeps: list[float] = field(default_factory=list)


def measure() -> list[Figure]:
    """Claims and sweeps a second by size."""
    with ground(shared_buffers="1GB", max_wal_size="8GB") as here:
        years = {size: _prepare(here, size) for size in SIZES}
        for _ in range(TURNS):
            for year in years.values():
                taken, year.due = year.due[:CLAIMS], year.due[CLAIMS:]
                year.claims.append(_rate(CLAIMS, lambda year=year, taken=taken: _claim(year.store, taken)))
                year.sweeps.append(_rate(SWEEPS, lambda year=year: _sweep(year.store)))
    figures = []
    for name, best in (("claims", lambda year: max(year.claims)), ("sweeps", lambda year: max(year.sweeps))):
        rates = {size: best(year) for size, year in years.items()}
        figures += [
            Figure(f"{name} with {size:,} operations", rate, f"{name}/s") for size, rate in rates.items()
        ]
        figures.append(Figure(f"{name}, last / first", rates[SIZES[-1]] / rates[SIZES[0]], at_least=0.9))
    return figures


def _prepare(here: Ground, size: int) -> _Year:
    _, database = here.database(f"flat_{size}")
    policy = Policy(copy=Copy.PARALLEL)
    fill(database, applies=size // 1000, each=1000, policy=json.dumps(policy.as_json()), is_over=True)
    store = PostgresStore(database, owner="bench")
    names = [f"place-{number:04}" for number in range((TURNS + 1) * CLAIMS)]
    add_deployments(store, names, 1)
    plan = store.save_plan(
        environment="bench", database="shop", database_type="postgres", changes=[CHANGE], caller="bench"
    )
    new = NewApply(plan.plan_id, "bench", tuple(names), policy, "bench", "to measure", "flat")
    apply_id = store.accept_apply(new).apply_id
    with database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT o.id, o.deployment FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
                " WHERE a.apply_identifier = :apply ORDER BY o.position"
            ),
            {"apply": apply_id},
        )
        due = [Due(row.id, ScopeName(apply_id, row.deployment)) for row in rows]
    _claim(store, due[:CLAIMS])
    _sweep(store)
    return _Year(store, due[CLAIMS:])


def _claim(store: PostgresStore, due: list[Due]) -> None:
    for one in due:
        assert isinstance(store.claim_dispatch(one.operation_id, one.scope), DispatchClaimed)


def _sweep(store: PostgresStore) -> None:
    for _ in range(SWEEPS):
        store.due_work()
        store.due_deployments()


def _rate(count: int, work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(table("flat", measure()))
