"""A launched program: tied to its parent, with open ears, and under the account that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tern.local import launcher

LAUNCH = (sys.executable, "-I", "-S", launcher.__file__)


def launch(parent: int, account: str, *argv: str) -> "subprocess.CompletedProcess[str]":
    arguments = [*LAUNCH, str(parent), "15", account, *argv]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def test_a_program_starts_with_open_ears() -> None:
    """Signals that a supervisor holds back, or that Python ignores, would otherwise be inherited."""
    done = launch(os.getpid(), "-", "grep", "-E", "SigBlk|SigIgn", "/proc/self/status")
    # The C library keeps 32 and 33 for itself; what it starts ignores them, and nobody can change that.
    masks = [int(line.split()[1], 16) & ~(0b11 << 31) for line in done.stdout.splitlines()]
    assert masks == [0, 0]


def test_a_program_whose_parent_is_gone_does_not_start() -> None:
    done = launch(1, "-", "echo", "started")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_missing_program_is_named() -> None:
    done = launch(os.getpid(), "-", "/no/such/program")
    assert (done.returncode, done.stderr) == (127, "cannot run /no/such/program: No such file or directory\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_program_runs_under_the_given_account_and_no_other_group() -> None:
    done = launch(os.getpid(), "65534:65534", "grep", "-E", "^(Uid|Gid|Groups):", "/proc/self/status")
    assert set(done.stdout.replace("Uid:", "").replace("Gid:", "").replace("Groups:", "").split()) == {
        "65534"
    }


def test_the_launcher_needs_the_standard_library_only() -> None:
    assert "import tern" not in Path(launcher.__file__).read_text()
