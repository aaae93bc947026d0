"""The comparison itself: what breaks a reader is told from what is merely new."""

import copy
from typing import Any

from tests.golden.golden import differences, tidy

KEPT: dict[str, Any] = {
    "one": {
        "kind": "apply",
        "data": {
            "state": "completed",
            "percent": 3,
            "error": None,
            "operations": [{"name": "A", "wish": None}],
        },
    },
    "other": {
        "kind": "apply",
        "data": {"state": "failed", "operations": [{"name": "B", "wish": {"verb": "stop"}}]},
    },
}


def changed(path: str, value: object = "") -> tuple[list[str], list[str]]:
    said = copy.deepcopy(KEPT)
    *way, last = path.split(".")
    place: Any = said["one"]
    for word in way:
        place = place[0] if word == "0" else place[word]
    if value == "":
        del place[last]
    else:
        place[last] = value
    return differences(KEPT, said)


def test_what_is_the_same_is_the_same() -> None:
    assert differences(KEPT, copy.deepcopy(KEPT)) == ([], [])
    assert changed("data.percent", 99) == ([], [])
    assert changed("data.error", "disk full") == ([], [])


def test_a_field_that_is_gone_or_renamed_is_named() -> None:
    assert changed("data.percent") == (["gone: apply: data.percent"], [])
    said = copy.deepcopy(KEPT)
    said["one"]["data"]["progress"] = said["one"]["data"].pop("percent")
    assert differences(KEPT, said) == (["gone: apply: data.percent"], ["new: apply: data.progress"])


def test_what_another_document_of_the_kind_still_shows_is_not_gone() -> None:
    """The scenario decides what is to be seen where."""
    assert changed("data.operations.0.wish") == ([], [])


def test_another_kind_of_value_is_named() -> None:
    assert changed("data.percent", "3 %") == (["was number, is text: apply: data.percent"], [])


def test_a_word_by_which_programs_decide_is_held_like_a_field() -> None:
    gone, new = changed("data.state", "done")
    assert (gone, new) == (["gone: state = completed"], ["new: state = done"])


def test_what_differs_from_run_to_run_is_taken_out() -> None:
    found = tidy(
        {"id": "apl-0123456789abcdef/A", "at": "2026-01-02T03:04:05.6Z", "age_s": 1.5, "remote_id": "R1"}
    )
    assert found == {"id": "apl-<id>/A", "at": "<time>", "age_s": 0.0, "remote_id": "<remote id>"}
