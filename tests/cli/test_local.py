"""`demo` and `up` hand over to tern.local, with what was asked."""

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Tern


def test_demo_and_up_run_in_the_home_that_was_set(
    bare: Tern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("tern.local.demo.run_demo", lambda home, **given: seen.append((home, given)) or 7)
    monkeypatch.setattr("tern.local.up.run_up", lambda home: seen.append(home) or 0)
    assert bare("demo", "--keep", "--scale", "2").code == 7
    assert bare("up").code == 0
    assert seen == [(tmp_path / "home", {"keep": True, "scale": 2}), tmp_path / "home"]
    assert bare("demo", "--scale", "0").code == 2
