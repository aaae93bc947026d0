"""Sizes, names and pictures: what a newcomer relies on."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.house.diagram import draw, shown
from tests.house.mirror import ELSEWHERE

ROOT = Path(__file__).parents[2]
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "manager", "service_base", "misc", "handler"}


def modules() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [Path(name) for name in listed if "generated" not in name and (ROOT / name).exists()]


def product() -> list[Path]:
    return [path for path in modules() if path.parts[0] in {"tern", "tasks"}]


def test_states_in_the_page_are_those_of_the_table() -> None:
    """Redraw with `python -m tests.house.diagram`."""
    assert shown() == draw()


@pytest.mark.parametrize("path", product(), ids=str)
def test_no_module_is_longer_than_four_hundred_lines(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= 400


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in modules() if path.stem in VAGUE] == []


def test_every_module_says_what_lives_in_it() -> None:
    empty = [path for path in product() if not (ROOT / path).read_text().lstrip().startswith('"""')]
    assert empty == []


def behaves(path: Path) -> bool:
    """Some function in it does something; constants, shapes and protocols are tested by whoever uses them."""
    functions = [
        node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)
    ]
    return any(not _is_remark(line) for function in functions for line in function.body)


def _is_remark(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def mirror(path: Path) -> Path:
    """tern/store/poll.py -> tests/store/test_poll.py, tasks/bells.py -> tests/tasks/test_bells.py."""
    parts = path.parts[1:] if path.parts[0] == "tern" else path.parts
    return Path("tests", *parts[:-1], f"test_{parts[-1]}")


def test_each_module_has_its_tests_in_the_mirror_or_in_the_table() -> None:
    """Whoever changes a module knows which tests to run, and a module without any is seen at once (mirror.py)."""
    told = {Path(f"{module}.py") for modules in ELSEWHERE.values() for module in modules.split()}
    mirrored = {path for path in product() if (ROOT / mirror(path)).exists()}
    untested = {path for path in product() if behaves(path)} - mirrored - told
    assert sorted(map(str, untested)) == []


def test_the_table_tells_of_what_is_there_and_nothing_twice() -> None:
    told = Counter(module for modules in ELSEWHERE.values() for module in modules.split())
    assert [module for module, times in told.items() if times > 1] == []
    assert [module for module in told if Path(f"{module}.py") not in product()] == []
    assert [module for module in told if (ROOT / mirror(Path(f"{module}.py"))).exists()] == []
    assert [file for file in ELSEWHERE if not (ROOT / file).exists()] == []


def test_no_file_names_a_package_registry() -> None:
    """Locks hold hashes, never addresses."""
    hosts = re.compile("|".join(["files.python" + "hosted", "py" + r"pi\.org", r"registry\.np" + "mjs"]))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    texts = [ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file()]
    assert [path for path in texts if hosts.search(path.read_text(errors="replace"))] == []


def test_only_known_terms_for_a_schema_change_on_a_table() -> None:
    """Celery has tasks; what changes a table is a table change."""
    domain = [path for path in product() if path.parts[:2] == ("tern", "domain")]
    assert [path for path in domain if re.search(r"\btask\b", (ROOT / path).read_text())] == []


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs/guarantees.md").read_text())
    assert len(named) > 16
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists() or (name and f"def {name}(" not in (ROOT / path).read_text())
    ]
    assert missing == []


def test_no_command_in_the_code_has_a_bar_in_it() -> None:
    """What is printed to be copied works as it stands; what else may be said is told in words beside it."""
    bars = re.compile(r"(\btern [a-z]|--[a-z]).*\w\|\w")
    found = [
        f"{path}:{node.lineno}: {words}"
        for path in product()
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if bars.search(words := _words(node))
    ]
    assert found == []


def _words(node: ast.AST) -> str:
    """Of a string in the code; what is filled in is one word."""
    match node:
        case ast.Constant(value=str(words)):
            return words
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "WORD" for part in parts)
        case _:
            return ""
