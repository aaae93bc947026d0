"""A short storm in every test run; `make chaos SECONDS=300` is a long one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = os.environ.get("CHAOS_SECONDS", "20")
TOLD = 9_000
"""Characters of the report, whose end says what was violated."""


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_doubled_in_chaos() -> None:
    """Real servers, workers, beat and engines; all invariants, and the bound of the calm phase."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.chaos", "--seconds", SECONDS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    if done.returncode:
        first = done.stdout.partition("\n")[0]
        pytest.fail(f"{done.stderr[-TOLD:]}\n{first}\n…{done.stdout[-TOLD:]}", pytrace=False)
