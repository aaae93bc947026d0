"""Looking for plans that break something: all single faults, sampled pairs, and random walks into more of them."""

import random
from collections.abc import Container, Iterator

from tests.simulation.backend import Backend
from tests.simulation.plan import Plan, distinct, single_faults, write_plan
from tests.simulation.run import Result, play
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.share import ALL, Share
from tests.simulation.shrink import shrink

DEEPEST = 5


def single_plans(
    backend: Backend, scenario: Scenario, *, every_call: bool = False, kinds: Container[str] = ()
) -> tuple[Result, list[Plan]]:
    """The control run, and every single fault that makes a difference in it: at every call, or in every situation,
    since one look at a job that runs on is like the next.
    """
    control = play(backend, scenario, notes=True, watches=not every_call)
    faults = single_faults(distinct(control.trace), without=scenario.pointless, only=kinds)
    return control, [(fault,) for fault in faults]


def singles(backend: Backend, scenario: Scenario, share: Share = ALL) -> Iterator[Result]:
    """The control run, and a run for each of that share of the single faults."""
    control, plans = single_plans(backend, scenario)
    yield control
    for plan in share.of(plans):
        yield play(backend, scenario, plan)


def pairs(backend: Backend, scenario: Scenario, each: int, seed: int = 1) -> Iterator[Result]:
    """Behind every single fault, so many second ones, drawn from those that make a difference there."""
    chance = random.Random(f"{scenario.name} {seed}")  # noqa: S311 - a seed, no secret
    _, plans = single_plans(backend, scenario)
    for plan in plans:
        first = play(backend, scenario, plan, notes=True)
        yield first
        seconds = single_faults(first.trace, after=plan[0].at)
        for fault in chance.sample(seconds, min(each, len(seconds))):
            yield play(backend, scenario, (*plan, fault))


def walk(backend: Backend, seed: int) -> Iterator[Result]:
    """One scenario, and fault upon fault: each is drawn from those that make a difference after the last one."""
    chance = random.Random(seed)  # noqa: S311
    scenario = SCENARIOS[chance.choice(list(SCENARIOS))]
    plan: Plan = ()
    after = 0
    result = play(backend, scenario, notes=True)
    for _ in range(chance.randint(2, DEEPEST)):
        found = single_faults(result.trace, after=after)
        if not found:
            return
        fault = chance.choice(found)
        plan = (*plan, fault)
        # The next one comes soon: faults that have nothing to do with each other are single ones.
        after = fault.at
        result = play(backend, scenario, plan, notes=True)
        yield result
        near = [one for one in single_faults(result.trace, after=after) if one.at < after + 40]
        if near and chance.random() < 0.7:
            result.trace = [point for point in result.trace if point.step <= near[-1].at]


def smallest(backend: Backend, result: Result) -> Result:
    """The smallest plan that still breaks one of the same rules."""
    rules = {line.partition(":")[0] for line in result.wrong}

    def fails(plan: Plan) -> bool:
        found = play(backend, result.scenario, plan)
        return any(line.partition(":")[0] in rules for line in found.wrong)

    return play(backend, result.scenario, shrink(result.plan, fails))


def as_regression(result: Result) -> str:
    """A line for regressions.py."""
    rule = result.wrong[0].partition(":")[0] if result.wrong else "?"
    calls = tuple(map(str, result.befallen))
    return f'Regression("{rule}-…", "{result.scenario.name}", "{write_plan(result.plan)}", {calls}),'
