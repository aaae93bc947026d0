"""A launched program: tied to its parent, with open ears, and under the account that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tern.local import launcher
from tern.local.launching import MAY_NOT_BECOME

POWERLESS = """
import ctypes, runpy, sys
header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, none) == 0
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_root_that_may_not_become_somebody_else_says_so() -> None:
    """As in a container that took root's capabilities; here the process gives them up itself."""
    done = subprocess.run(
        [sys.executable, "-c", POWERLESS, launcher.__file__, str(os.getpid()), "15", "65534:65534", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        MAY_NOT_BECOME,
        "cannot become 65534:65534: Operation not permitted\n",
    )


def test_the_launcher_needs_the_standard_library_only() -> None:
    assert "import tern" not in Path(launcher.__file__).read_text()
