"""The table of planted bugs is whole: each text still stands where it is looked for, and no guard is left out."""

import re
import shlex
from pathlib import Path

import pytest

from tests.faults.planted import MUTANTS
from tests.faults.planted.mutant import Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("one", MUTANTS, ids=[f"{one.guard} {one.name}" for one in MUTANTS])
def test_a_mutant_is_planted_where_its_text_stands_once(one: Mutant) -> None:
    """Whoever moved that text moves the mutant with it (tests/faults/planted/)."""
    for file, old, new in one.edits:
        assert (ROOT / file).read_text().count(old) == 1, f"{file}: {old}"
        assert old != new


def test_no_mutant_is_planted_in_what_a_later_migration_has_replaced() -> None:
    """Nobody calls that function any more: whatever is broken in it, everything stays green."""
    newest: dict[str, Path] = {}
    bodies: list[tuple[str, Path, str]] = []
    for path in sorted((ROOT / "migrations/versions").glob("0*.py")):
        way_up = path.read_text().partition("def downgrade")[0]
        for found in re.finditer(r"CREATE (?:OR REPLACE )?FUNCTION (\w+)\(.*?END \$\$;", way_up, re.DOTALL):
            newest[found[1]] = path
            bodies.append((found[1], path, found[0]))
    assert len(newest) > 20
    assert [
        f"{one.name}: {name} is written anew in {newest[name].name}"
        for one in MUTANTS
        for file, old, _ in one.edits
        for name, path, body in bodies
        if ROOT / file == path and old in body and newest[name] != path
    ] == []


@pytest.mark.parametrize("one", MUTANTS, ids=[f"{one.guard} {one.name}" for one in MUTANTS])
def test_a_selection_runs_what_it_names(one: Mutant) -> None:
    """Behind -k stands one word of a shell. It narrows all the files before it, so there is one only."""
    words = shlex.split(one.tests)
    files = words[: words.index("-k")] if "-k" in words else words
    assert all((ROOT / word.partition("::")[0]).is_file() for word in files), one.tests
    assert words == files or (len(files), len(words)) == (1, 3), one.tests


def test_every_guarantee_has_a_planted_bug() -> None:
    assert {f"G{number}" for number in range(1, 17)} <= {one.guard for one in MUTANTS}


def test_no_two_have_the_same_name() -> None:
    assert len({(one.guard, one.name) for one in MUTANTS}) == len(MUTANTS)
