"""Comparing what is said with what was promised: names, kinds of values, and the words that programs decide by.

    GOLDEN=write .venv/bin/pytest tests/golden      takes over what is new
    GOLDEN=break .venv/bin/pytest tests/golden      takes over what is gone as well: somebody's script breaks by it

A document is kept whole, so that a change is read as a diff of it. Numbers, times, ids and sentences may differ.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCUMENTS = Path(__file__).parent / "documents"
DECIDED_BY = {
    *(
        "schema",
        "kind",
        "outcome",
        "state",
        "verb",
        "fate",
        "action",
        "cleared_by",
        "copy",
        "cutover",
        "on_failure",
    ),
    *("code", "look", "level"),
}
"""Programs decide by the values of these fields: a word that is gone breaks them as a field does."""

_IDS = re.compile(r"\b(apl|pln)-[0-9a-f]{16}\b")
_TIMES = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
_HASHES = re.compile(r"\b[0-9a-f]{12,64}\b")
_PORTS = re.compile(r"(127\.0\.0\.1|localhost):\d+")
_CODES = re.compile(r"[A-Z][A-Z_]+")


def tidy(value: Any, key: str = "") -> Any:
    """Without what differs from run to run."""
    match value:
        case dict():
            return {name: tidy(each, name) for name, each in value.items()}
        case list():
            return [tidy(each, key) for each in value]
        case str() if key == "remote_id":
            return "<remote id>"
        case str():
            text = _PORTS.sub(r"\1:<port>", _TIMES.sub("<time>", _IDS.sub(r"\1-<id>", value)))
            return _HASHES.sub("<hash>", text)
        case float():
            return 0.0
        case int() if not isinstance(value, bool) and (key.endswith(("_id", "revision", "_s", "pid"))):
            return 0
        case _:
            return value


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every path of the document with the kind of its value; where a program decides by a word, the word too."""
    match value:
        case dict():
            yield path, "object"
            for name, each in value.items():
                yield from shape(each, f"{path}.{name}" if path else name)
        case list():
            yield path, "list"
            for each in value:
                yield from shape(each, f"{path}[]")
        case None:
            yield path, "null"
        case bool():
            yield path, "true or false"
        case int() | float():
            yield path, "number"
        case str():
            yield path, "text"
            last = path.rpartition(".")[2].removesuffix("[]")
            if last in DECIDED_BY or (last == "reason" and _CODES.fullmatch(value)):
                yield f"{path} = {value}", "a word"


def shapes(documents: Mapping[str, Any]) -> dict[str, set[str]]:
    """Of all documents of a kind together: which of them shows a field is the scenario's choice, not a promise."""
    found: dict[str, set[str]] = {}
    for name, document in documents.items():
        for each in document if isinstance(document, list) else [document]:
            kind = each.get("kind", name) if isinstance(each, dict) else name
            for path, value in shape(each):
                word = path.rpartition(".")[2] if value == "a word" else f"{kind}: {path}"
                found.setdefault(word, set()).add(value)
    return found


def differences(promised: Mapping[str, Any], said: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What is gone or of another kind, and what is new."""
    before, now = shapes(promised), shapes(said)
    gone = [f"gone: {path}" for path in before if path not in now]
    for path, kinds in before.items():
        others = now.get(path, set()) - {"null"}
        if others and kinds - {"null"} and not others & kinds:
            gone.append(f"was {' or '.join(sorted(kinds))}, is {' or '.join(sorted(others))}: {path}")
    return sorted(gone), sorted(f"new: {path}" for path in now if path not in before)


def hold(group: str, documents: Mapping[str, Any]) -> None:
    """Compares the documents of a group with those that are kept, and says everything at once."""
    mode = os.environ.get("GOLDEN", "")
    folder = DOCUMENTS / group
    kept = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    said = {name: tidy(document) for name, document in documents.items()}
    gone, new = differences(kept, said)
    new += [f"new: the document {name}" for name in sorted(set(said) - set(kept))]
    if mode == "break" or (mode == "write" and not gone):
        _keep(folder, said)
        return
    assert not gone, "\n".join(
        [
            "What is gone or renamed breaks whoever reads it: public names only grow.",
            "Put it back beside the new name; or, where it was never promised, GOLDEN=break.",
            *gone,
            *new,
        ]
    )
    assert not new, "\n".join(
        [
            "Only additions, which break nobody. Take them over: GOLDEN=write .venv/bin/pytest tests/golden",
            *new,
        ]
    )


def _keep(folder: Path, said: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        if path.stem not in said:
            path.unlink()
    for name, document in said.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
