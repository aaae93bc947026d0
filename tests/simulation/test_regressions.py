"""What once broke stays whole."""

import pytest

from tests.simulation.backend import Backend
from tests.simulation.plan import read_plan, write_plan
from tests.simulation.regressions import REGRESSIONS, Regression
from tests.simulation.run import play
from tests.simulation.scenarios import SCENARIOS


@pytest.mark.parametrize("once", REGRESSIONS, ids=lambda once: once.name)
def test_it_stays_whole(once: Regression, backend: Backend) -> None:
    result = play(backend, SCENARIOS[once.scenario], read_plan(once.plan))
    assert not result.wrong, str(result)
    assert tuple(map(str, result.befallen)) == once.calls


def test_a_plan_is_read_as_it_is_written() -> None:
    for once in REGRESSIONS:
        assert write_plan(read_plan(once.plan)) == once.plan
