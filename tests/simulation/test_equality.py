"""The store in memory is held equal to PostgreSQL: the same calls, the same answers, the same rows after each."""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.simulation import explore
from tests.simulation.any_calls import Stores
from tests.simulation.postgres import PostgresBackend
from tests.simulation.run import play
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.twin import TwinBackend

EXAMPLES = int(os.environ.get("EQUALITY", "15"))
"""How many sequences of calls; more of them with EQUALITY=500."""


@pytest.mark.timeout(600)
def test_any_calls_in_any_order(postgres: PostgresBackend) -> None:
    Stores.postgres = postgres
    run_state_machine_as_test(
        Stores,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            # Shrinking asks for hundreds of sequences; whoever looks for a difference has the patience.
            phases=list(Phase) if "EQUALITY" in os.environ else [Phase.explicit, Phase.generate],
            # Every run draws the same; EQUALITY asks for others.
            derandomize="EQUALITY" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("seed", range(1, 7))
def test_what_drivers_do_when_much_goes_wrong(seed: int, postgres: PostgresBackend) -> None:
    last = list(explore.walk(seed))[-1]
    with postgres.fresh():
        result = play(last.scenario, last.plan, TwinBackend(postgres))
    assert result.wrong == last.wrong


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_drivers_do_when_all_goes_well(name: str, postgres: PostgresBackend) -> None:
    with postgres.fresh():
        result = play(SCENARIOS[name], (), TwinBackend(postgres))
    assert not result.wrong, str(result)
