"""Every single fault at every call where it makes a difference: nothing that Tern guarantees breaks."""

from collections.abc import Iterable

import pytest

from tests.simulation import explore
from tests.simulation.plan import single_faults
from tests.simulation.postgres import PostgresBackend
from tests.simulation.run import Result, play
from tests.simulation.scenarios import SCENARIOS

ON_POSTGRES = 1
"""So many of each scenario's plans are also run on PostgreSQL; which ones depends on their number alone."""


def assert_nothing_breaks(results: Iterable[Result]) -> None:
    """Raises AssertionError with the smallest plan of the first failure, ready for regressions.py."""
    for result in results:
        if result.wrong:
            least = explore.smallest(result)
            pytest.fail(f"{least}\n{explore.as_regression(least)}", pytrace=False)


@pytest.mark.timeout(900)  # a thousand runs, on a machine that may have other things to do
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_single_fault_breaks_anything(name: str) -> None:
    assert_nothing_breaks(explore.singles(SCENARIOS[name]))


@pytest.mark.parametrize("name", SCENARIOS)
def test_postgresql_goes_the_same_way(name: str, postgres: PostgresBackend) -> None:
    scenario = SCENARIOS[name]
    faults = single_faults(play(scenario).trace, without=scenario.pointless)
    for fault in faults[len(faults) // 3 :: len(faults) // ON_POSTGRES + 1]:
        in_memory = play(scenario, (fault,))
        with postgres.fresh():
            on_postgres = play(scenario, (fault,), postgres)
        assert not on_postgres.wrong, str(on_postgres)
        assert [(p.actor, p.name) for p in on_postgres.trace] == [(p.actor, p.name) for p in in_memory.trace]
