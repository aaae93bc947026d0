"""Every single fault at every call where it makes a difference: nothing that Tern guarantees breaks.

All of them take minutes (`make sim`), so every test run plays its share of each scenario's (share.py).
"""

import pytest

from tests.simulation import explore
from tests.simulation.backend import Backend
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.share import Share, share


@pytest.mark.timeout(600)  # some hundred runs, on a machine that may have other things to do
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_single_fault_breaks_anything(name: str, backend: Backend) -> None:
    """Fails with the smallest plan of the first failure, ready for regressions.py."""
    mine = share()
    for result in explore.singles(backend, SCENARIOS[name], mine):
        if result.wrong:
            least = explore.smallest(backend, result)
            pytest.fail(f"{mine}\n{least}\n{explore.as_regression(least)}", pytrace=False)


def test_the_shares_are_all_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = range(47)
    parts = [plan for number in range(10) for plan in Share(number, 10).of(plans)]
    assert sorted(parts) == list(plans)
    monkeypatch.setenv("SIM_SHARE", "3/10")
    assert list(share().of(plans)) == [3, 13, 23, 33, 43]
