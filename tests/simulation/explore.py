"""Looking for plans that break something: all single faults, sampled pairs, and random walks into more of them."""

import random
import time
from collections.abc import Callable, Iterator

from tests.simulation.plan import Plan, distinct, single_faults, write_plan
from tests.simulation.run import Result, play
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.shrink import shrink

DEEPEST = 5


def singles(scenario: Scenario, *, every_call: bool = False) -> Iterator[Result]:
    """The control run, and a run for every single fault that makes a difference in it: at every call, or in every
    situation, since one look at a job that runs on is like the next.
    """
    control = play(scenario, watches=not every_call)
    yield control
    for fault in single_faults(distinct(control.trace), without=scenario.pointless):
        yield play(scenario, (fault,))


def pairs(scenario: Scenario, each: int, seed: int = 1) -> Iterator[Result]:
    """Behind every single fault, so many second ones, drawn from those that make a difference there."""
    chance = random.Random(f"{scenario.name} {seed}")  # noqa: S311 - a seed, no secret
    for first in singles(scenario):
        if not first.plan:
            continue
        seconds = single_faults(first.trace, after=first.plan[0].at)
        for fault in chance.sample(seconds, min(each, len(seconds))):
            yield play(scenario, (*first.plan, fault))


def walk(seed: int) -> Iterator[Result]:
    """One scenario, and fault upon fault: each is drawn from those that make a difference after the last one."""
    chance = random.Random(seed)  # noqa: S311
    scenario = SCENARIOS[chance.choice(list(SCENARIOS))]
    plan: Plan = ()
    after = 0
    result = play(scenario)
    for _ in range(chance.randint(2, DEEPEST)):
        found = single_faults(result.trace, after=after)
        if not found:
            return
        fault = chance.choice(found)
        plan = (*plan, fault)
        # The next one comes soon: faults that have nothing to do with each other are single ones.
        after = fault.at
        result = play(scenario, plan)
        yield result
        near = [one for one in single_faults(result.trace, after=after) if one.at < after + 40]
        if near and chance.random() < 0.7:
            result.trace = [point for point in result.trace if point.step <= near[-1].at]


def smallest(result: Result, run: Callable[[Scenario, Plan], Result] = play) -> Result:
    """The smallest plan that still breaks one of the same rules."""
    rules = {line.partition(":")[0] for line in result.wrong}

    def fails(plan: Plan) -> bool:
        found = run(result.scenario, plan)
        return any(line.partition(":")[0] in rules for line in found.wrong)

    return run(result.scenario, shrink(result.plan, fails))


def as_regression(result: Result) -> str:
    """A line for regressions.py."""
    rule = result.wrong[0].partition(":")[0] if result.wrong else "?"
    return f'Regression("{rule}-…", "{result.scenario.name}", "{write_plan(result.plan)}", "…"),'


def for_seconds(results: Iterator[Result], seconds: float) -> Iterator[Result]:
    """As many as there is time for."""
    ends_at = time.monotonic() + seconds
    for result in results:
        yield result
        if time.monotonic() > ends_at:
            return
