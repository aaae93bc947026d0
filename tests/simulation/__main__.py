"""Looks for plans that break something: every single fault, `--pairs 1`, `--seeds 2000`, or one plan as it was printed,
`--plan 'rolling: 17 die-after, 30 late'`. It starts a PostgreSQL of its own; each process has a database in it.
"""

import argparse
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tern.local.discovery import Servers
from tern.local.embedded import embedded_servers
from tern.local.postgres import ensure_database
from tests.conftest import THROWAWAY
from tests.simulation import explore
from tests.simulation.backend import Backend
from tests.simulation.plan import Plan, read_plan
from tests.simulation.run import Result, play
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.share import named_share

_AT_ONCE = 50
Found = dict[tuple[str, str], Result]
"""The smallest plan found for each rule that was broken in a scenario."""


def main() -> int:
    """0 when everything holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--pairs", type=int, default=0, help="so many second faults behind each single one")
    parser.add_argument("--seeds", type=int, default=0, help="so many random walks")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument(
        "--kinds", default="", help="single faults of these kinds only, those of NOT_YET included"
    )
    parser.add_argument("--scenarios", default="", help="these only")
    parser.add_argument("--plan", default="", help="SCENARIO: FAULTS, as it was printed")
    given = parser.parse_args()
    with _servers() as servers:
        if given.plan:
            return _replay(_backend(servers), given.plan)
        return _explore(servers, given)


@contextmanager
def _servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="tern-") as folder:
        Path(folder).chmod(0o755)
        with embedded_servers(Path(folder) / "home", options=THROWAWAY, databases=()) as servers:
            yield servers


def _backend(servers: Servers) -> Backend:
    url = servers.database(f"simulation_{os.getpid()}")
    ensure_database(url)
    return Backend(url)


def _replay(backend: Backend, written: str) -> int:
    name, _, faults = written.partition(":")
    result = play(backend, SCENARIOS[name.strip()], read_plan(faults))
    print(result)  # noqa: T201
    return int(bool(result.wrong))


def _explore(servers: Servers, given: argparse.Namespace) -> int:
    begun = time.monotonic()
    runs = failed = 0
    names = given.scenarios.split() or list(SCENARIOS)
    with multiprocessing.get_context("fork").Pool(os.cpu_count() or 2, _begin, (servers,)) as pool:
        if given.seeds:
            last = given.first_seed + given.seeds
            seeds = [range(n, min(n + _AT_ONCE, last)) for n in range(given.first_seed, last, _AT_ONCE)]
            found = pool.imap_unordered(_walks, seeds)
        elif given.pairs:
            found = pool.imap_unordered(_pairs, [(name, given.pairs) for name in names])
        else:
            # Plans in handfuls, so that no process is left alone with the longest scenario.
            planned = pool.map(partial(_plans, frozenset(given.kinds.split())), names)
            chunks = [chunk for _, some in planned for chunk in some]
            controls = [(1, told) for told, _ in planned]
            found = itertools.chain(controls, pool.imap_unordered(_singles, chunks))
        for count, told in found:
            runs += count
            failed += len(told)
            for text in told:
                print(text, flush=True)  # noqa: T201
    print(f"{runs} runs in {time.monotonic() - begun:.0f} s, {failed} kinds of failure")  # noqa: T201
    return int(bool(failed))


# In the processes

_own: list[Backend] = []


def _begin(servers: Servers) -> None:
    _own.append(_backend(servers))


def _walks(seeds: Iterable[int]) -> tuple[int, list[str]]:
    return _failures(result for seed in seeds for result in explore.walk(_own[0], seed))


def _pairs(what: tuple[str, int]) -> tuple[int, list[str]]:
    name, each = what
    return _failures(explore.pairs(_own[0], SCENARIOS[name], each))


def _plans(kinds: frozenset[str], name: str) -> tuple[list[str], list[tuple[str, Sequence[Plan]]]]:
    control, plans = explore.single_plans(_own[0], SCENARIOS[name], kinds=kinds)
    told = _failures([control])[1]
    plans = list(named_share().of(plans))
    return told, [(name, plans[n : n + _AT_ONCE]) for n in range(0, len(plans), _AT_ONCE)]


def _singles(what: tuple[str, Sequence[Plan]]) -> tuple[int, list[str]]:
    name, plans = what
    return _failures(play(_own[0], SCENARIOS[name], plan) for plan in plans)


def _failures(results: Iterable[Result]) -> tuple[int, list[str]]:
    """How many runs, and the smallest plan of each rule that was broken."""
    runs = 0
    found: Found = {}
    for result in results:
        runs += 1
        if result.wrong:
            key = (result.scenario.name, result.wrong[0].partition(":")[0])
            if key not in found or len(result.plan) < len(found[key].plan):
                found[key] = result
    told = []
    for result in found.values():
        least = explore.smallest(_own[0], result)
        told.append(f"{least}\n    {explore.as_regression(least)}")
    return runs, told


if __name__ == "__main__":
    sys.exit(main())
