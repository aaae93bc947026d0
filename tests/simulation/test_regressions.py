"""What once broke stays whole, on both stores."""

import pytest

from tests.simulation.plan import read_plan, write_plan
from tests.simulation.postgres import PostgresBackend
from tests.simulation.regressions import REGRESSIONS, Regression
from tests.simulation.run import play
from tests.simulation.scenarios import SCENARIOS


@pytest.mark.parametrize("once", REGRESSIONS, ids=lambda once: once.name)
def test_in_memory(once: Regression) -> None:
    result = play(SCENARIOS[once.scenario], read_plan(once.plan))
    assert not result.wrong, str(result)


@pytest.mark.parametrize("once", REGRESSIONS, ids=lambda once: once.name)
def test_on_postgresql(once: Regression, postgres: PostgresBackend) -> None:
    with postgres.fresh():
        result = play(SCENARIOS[once.scenario], read_plan(once.plan), postgres)
    assert not result.wrong, str(result)


def test_a_plan_is_read_as_it_is_written() -> None:
    for once in REGRESSIONS:
        assert write_plan(read_plan(once.plan)) == once.plan
