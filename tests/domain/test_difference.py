"""Two requests under one key: every difference by its path, none too long to read."""

from typing import Any

import pytest

from tern.domain.difference import LONGEST, differences

NAMES = [f"d{number}" for number in range(1, 1001)]


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": False}, {"a": True}, ["a: False before, True now"]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 3}, ["a: 1 before, 2 now", "b: 2 before, 3 now"]),
        ({"a": 1}, {}, ["a: 1 before, None now"]),
        ({"p": {"x": 1, "y": 2}}, {"p": {"x": 1, "y": 3}}, ["p.y: 2 before, 3 now"]),
        ({"d": ["A", "B"]}, {"d": ["B", "A"]}, ["d: in another order"]),
        ({"d": ["A", "B"]}, {"d": ["B", "C"]}, ["d: no more A, new are C"]),
        ({"d": ["A"]}, {"d": {"all": True}}, ["d: ['A'] before, {'all': True} now"]),
        ({"d": NAMES}, {"d": NAMES[:3]}, ["d: no more d4, d5, d6, d7, d8 and 992 more"]),
        ({"w": [{"x": 1}]}, {"w": []}, ["w: [{'x': 1}] before, [] now"]),
    ],
)
def test_each_difference_is_told_once(before: Any, now: Any, told: list[str]) -> None:
    assert list(differences(before, now)) == told


def test_what_is_long_is_cut() -> None:
    (line,) = differences({"a": "x" * 1000}, {"a": "y" * 1000})
    assert len(line) < 2 * LONGEST + 20
