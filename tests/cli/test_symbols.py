"""Symbols keep apart where a terminal can't show them, and nothing of a document is lost."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tern.cli
from tern.cli import envelope, symbols
from tern.cli.words import APPLY_SIGNS, COPYING, LOST_CONTACT, SIGNS, UNKNOWN

SAID = re.compile(r"[^\x00-\x7f]")


def test_no_two_symbols_look_alike_in_ascii() -> None:
    used = {sign.symbol for sign in (*SIGNS.values(), *APPLY_SIGNS.values(), COPYING, LOST_CONTACT, UNKNOWN)}
    forms = [symbols.ASCII.get(each, each) for each in used]
    assert len(set(forms)) == len(used) > 8
    assert all(len(each) == 1 and each.isascii() for each in forms)
    # `!` and `?` stand before what needs a person and before what nobody knows.
    assert "!" not in forms


def test_whatever_the_command_line_says_by_itself_has_an_ascii_form() -> None:
    said = {
        found
        for path in Path(tern.cli.__file__).parent.glob("*.py")
        for found in SAID.findall(path.read_text())
    }
    assert len(said) > 8
    assert said - symbols.ASCII.keys() == set()


def test_a_poor_stream_gets_the_form_and_a_good_one_the_symbol() -> None:
    for encoding, told in (
        ("ascii", "+ done ... x ?"),
        ("utf-8", "✔ done … ✖ ж"),
        ("latin-1", "+ done ... x ?"),
    ):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        symbols.use(stream)
        stream.write("✔ done … ✖ ж")
        stream.flush()
        assert stream.buffer.getvalue().decode(encoding) == told  # type: ignore[attr-defined]


def test_a_document_loses_nothing_to_a_poor_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    symbols.use(stream)
    monkeypatch.setattr(sys, "stdout", stream)
    envelope.write_document("x", {"who": "Zoë", "why": "✔"})
    stream.flush()
    assert json.loads(stream.buffer.getvalue())["data"] == {"who": "Zoë", "why": "✔"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["ascii", "ascii:strict"])
def test_in_an_ascii_locale_a_process_says_its_symbols_apart(how: str, tmp_path: Path) -> None:
    environment = {"PYTHONIOENCODING": how, "PYTHONUTF8": "0", "LC_ALL": "C", "TERN_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tern", "doctor"], capture_output=True, check=False, env=environment
    )
    told = done.stdout.decode("ascii")
    assert told.startswith("+ python")
    assert "\nx settings" in told
