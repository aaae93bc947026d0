"""A short chaos in every test run; `make chaos SECONDS=300` for a long one."""

import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = "20"


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
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    assert "operations completed" in done.stdout
