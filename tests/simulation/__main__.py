"""Looks for plans that break something: `--pairs 1`, `--seeds 2000`, or `--plan 'rolling: 17 die-after, 30 late'`."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from functools import partial

from tests.simulation import explore
from tests.simulation.plan import read_plan
from tests.simulation.run import Result, play
from tests.simulation.scenarios import SCENARIOS

_TOLD_MAX = 12


def main() -> int:
    """0 when everything holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--pairs", type=int, default=0, help="so many second faults behind each single one")
    parser.add_argument("--seeds", type=int, default=0, help="so many random walks")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--plan", default="", help="SCENARIO: FAULTS, as it was printed")
    given = parser.parse_args()
    if given.plan:
        name, _, faults = given.plan.partition(":")
        result = play(SCENARIOS[name.strip()], read_plan(faults))
        print(result)  # noqa: T201
        return int(bool(result.wrong))
    begun = time.monotonic()
    if given.seeds:
        last = given.first_seed + given.seeds
        work = partial(_failures_of_seeds)
        chunks: Iterable[object] = [range(n, min(n + 50, last)) for n in range(given.first_seed, last, 50)]
    else:
        work = partial(_failures_of_scenario, given.pairs)  # type: ignore[assignment]
        chunks = list(SCENARIOS)
    runs, failed = 0, []
    with multiprocessing.get_context("fork").Pool(os.cpu_count() or 2) as pool:
        for count, found in pool.imap_unordered(work, chunks):
            runs += count
            failed += found
    seconds = time.monotonic() - begun
    print(f"{runs} runs in {seconds:.0f} s, {len(failed)} kinds of failure")  # noqa: T201
    for text in failed[:_TOLD_MAX]:
        print(text)  # noqa: T201
    return int(bool(failed))


def _failures_of_seeds(seeds: Iterable[int]) -> tuple[int, list[str]]:
    return _failures(result for seed in seeds for result in explore.walk(seed))


def _failures_of_scenario(each: int, name: str) -> tuple[int, list[str]]:
    scenario = SCENARIOS[name]
    return _failures(explore.pairs(scenario, each) if each else explore.singles(scenario, every_call=True))


def _failures(results: Iterable[Result]) -> tuple[int, list[str]]:
    """How many runs, and the smallest plan of each rule that was broken."""
    runs = 0
    found: dict[tuple[str, str], Result] = {}
    for result in results:
        runs += 1
        if result.wrong:
            key = (result.scenario.name, result.wrong[0].partition(":")[0])
            if key not in found or len(result.plan) < len(found[key].plan):
                found[key] = result
    told = []
    for result in found.values():
        least = explore.smallest(result)
        told.append(f"{least}\n    {explore.as_regression(least)}")
    return runs, told


if __name__ == "__main__":
    sys.exit(main())
