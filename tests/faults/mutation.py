"""Every small change of what decides: mutmut makes them one by one, in a copy of the tree; the pure tests must see it.

    python -m tests.faults.mutation [FILE …]     only these of the modules that pyproject.toml names

Exits with 1 when a change survives that survivors.py does not explain, or when an explained one is found after all.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.mutants import PARALLEL, copy_tree
from tests.faults.survivors import EXPLAINED, Survivor

FOUND = {"killed", "timeout", "caught by type check"}
_RESULT = re.compile(r"\s*(\S+__mutmut_\d+): (.+)")


def main() -> int:
    """Runs them, prints what survived; how many nobody explains."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tern-mutation-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        _narrow(tree, sys.argv[1:])
        _shorten(tree)
        log = tree / "mutation.log"
        with log.open("wb") as output:
            status = _mutmut(tree, "run", "--max-children", str(PARALLEL), stdout=output).returncode
        results = _results(tree)
        if not results:
            print(log.read_text(errors="replace")[-3000:])  # noqa: T201
            return status or 1
        alive = {_survivor(tree, name): fate for name, fate in results.items() if fate not in FOUND}
    unexplained = {one: fate for one, fate in alive.items() if one not in EXPLAINED}
    for one, fate in unexplained.items():
        print(f"{fate}: {one.function}\n  - {one.old}\n  + {one.new}")  # noqa: T201
    stale = [one for one in EXPLAINED if one not in alive] if len(sys.argv) == 1 else []
    for one in stale:
        print(f"explained, but found or gone: {one.function}\n  - {one.old}\n  + {one.new}")  # noqa: T201
    found = len(results) - len(alive)
    print(  # noqa: T201
        f"{found} of {len(results)} changes found, {len(alive) - len(unexplained)} explained,"
        f" {len(unexplained)} survived, in {time.monotonic() - began:.0f} s"
    )
    return 1 if unexplained or stale else 0


def _narrow(tree: Path, files: list[str]) -> None:
    """Leaves only these modules to be changed."""
    if not files:
        return
    config = tree / "pyproject.toml"
    chosen = ", ".join(f'"{file}"' for file in files)
    config.write_text(
        re.sub(r"only_mutate = \[.*?\]", f"only_mutate = [{chosen}]", config.read_text(), flags=re.DOTALL)
    )


def _shorten(tree: Path) -> None:
    """Counts every call of a changed module, ten times slower: combinations of three operations instead of four."""
    test = tree / "tests/domain/test_projection.py"
    content = test.read_text()
    assert "SIZES = (1, 2, 3, 4)" in content
    test.write_text(content.replace("SIZES = (1, 2, 3, 4)", "SIZES = (1, 2, 3)"))


def _results(tree: Path) -> dict[str, str]:
    said = _mutmut(tree, "results", "--all", "true").stdout.decode()
    return {match[1]: match[2] for line in said.splitlines() if (match := _RESULT.fullmatch(line))}


def _survivor(tree: Path, name: str) -> Survivor:
    """What was changed, by its text: numbers move with every edit of the module."""
    diff = _mutmut(tree, "show", name).stdout.decode().splitlines()
    old, new = (
        "".join(line[1:].strip() for line in diff if re.match(rf"\{sign}(?!\{sign}\{sign})", line))
        for sign in "-+"
    )
    function = re.sub(
        r"x(ǁ(\w+)ǁ|_)", lambda found: f"{found[2]}." if found[2] else "", name.rpartition("__mutmut")[0]
    )
    return Survivor(function.removeprefix("tern.domain."), old, new)


def _mutmut(
    tree: Path, *words: str, stdout: object = subprocess.PIPE
) -> "subprocess.CompletedProcess[bytes]":
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("TERN_", "PYTEST_"))
    }
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.run(
            [sys.executable, "-m", "mutmut", *words],
            cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, check=False,
        )  # type: ignore[call-overload, no-any-return]  # fmt: skip
    sys.exit(130)


if __name__ == "__main__":
    sys.exit(main())
