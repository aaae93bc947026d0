"""Planted bugs (planted/). Each is a guard that somebody could innocently remove; some test must go red for every one.

    python -m tests.faults.mutants [WORD …]     only those whose guard or name holds one of the words

The tree is copied, a text is replaced, the smallest selection of tests that must find it is run. Exits with 1 when a
mutant survives, when a text is no longer there to be replaced, or when the tests are red without any mutant.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.faults.planted import MUTANTS
from tests.faults.planted.mutant import Mutant

ROOT = Path(__file__).parents[2]
PARALLEL = 2
LIMIT_S = 400
_COPIED = ("tern", "tasks", "tests", "migrations", "docs", "proto", "pyproject.toml", "Makefile", "README.md")


@dataclass(frozen=True)
class Fate:
    """What became of one mutant."""

    mutant: Mutant
    verdict: str
    seconds: float
    output: str = ""

    @property
    def is_dead(self) -> bool:
        return self.verdict.startswith("killed")


def copy_tree(target: Path) -> None:
    """What the tests need, without what this machine has made."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.exists():
            shutil.copy2(source, target / name)


def try_mutant(tree: Path, one: Mutant) -> Fate:
    """Plants it in a copy of the tree and runs its tests."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tern-mutant-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(tree, copy)
        for file, old, new in one.edits:
            source = copy / file
            content = source.read_text() if source.exists() else ""
            if content.count(old) != 1:
                times = content.count(old)
                return Fate(one, f"does not apply: the text stands {times} times in {file}", 0.0)
            source.write_text(content.replace(old, new))
        status, output = run_tests(copy, one.tests)
    verdict = {0: "SURVIVED", 1: "killed", -1: "killed (never ended)"}.get(
        status, f"tests can't run ({status})"
    )
    return Fate(one, verdict, time.monotonic() - began, output)


def run_tests(tree: Path, tests: str) -> tuple[int, str]:
    """Pytest's exit status, -1 for a mutant that never came to an end."""
    arguments = shlex.split(tests)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--show-capture=no",
        "-p",
        "no:randomly",
        *arguments,
    ]
    # Each mutant has its own servers; nothing of ours may be found by it.
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("TERN_", "PYTEST_"))
    }
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return -1, f"{late}"
    return done.returncode, done.stdout[-3000:] + done.stderr[-1000:]


def main() -> int:
    """Runs them, prints the table; how many did not die."""
    words = sys.argv[1:]
    chosen = [one for one in MUTANTS if not words or any(w in f"{one.guard} {one.name}" for w in words)]
    with tempfile.TemporaryDirectory(prefix="tern-mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        with ThreadPoolExecutor(PARALLEL) as pool:
            fates = list(pool.map(lambda one: _told(try_mutant(tree, one)), chosen))
        healthy = _control(tree, chosen)
    dead = sum(fate.is_dead for fate in fates)
    print(f"{dead} of {len(fates)} killed; without a mutant the tests are {'green' if healthy else 'RED'}")  # noqa: T201
    return 0 if healthy and dead == len(fates) else 1


def _told(fate: Fate) -> Fate:
    print(f"{fate.mutant.guard:4} {fate.mutant.name:64} {fate.verdict} {fate.seconds:5.0f} s", flush=True)  # noqa: T201
    if not fate.is_dead:
        print(fate.output[-1500:], flush=True)  # noqa: T201
    return fate


def _control(tree: Path, chosen: list[Mutant]) -> bool:
    """The same selections on the tree as it is: red there would mean that nothing was found."""
    selections = {one.tests for one in chosen}
    plain = sorted({word for tests in selections if " -k " not in tests for word in tests.split()})
    runs = [" ".join(plain)] * bool(plain) + sorted(tests for tests in selections if " -k " in tests)
    for tests in runs:
        status, output = run_tests(tree, tests)
        if status != 0:
            print(f"red without a mutant: {tests}\n{output}")  # noqa: T201
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
