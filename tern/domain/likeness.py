"""Words that say the same of many: what differs from one deployment to the next is taken out. Pure.

What is left is what two failures have in common. It is compared and, where the words differ, shown; the words of one
operation are never changed.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

DIFFERS = "…"

# The values of keys and of rows, which are never the same twice: (email)=(ann@example.org), contains (7, ann).
_VALUES = re.compile(r"=\([^)]*\)|(?<=contains )\([^)]*\)|(?<=: )\"[^\"]*\"")
_IDS = re.compile(
    r"\b(?:apl|pln)-[0-9a-f]+(?:/\S+)?|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b"
)
_PLACES = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\b[\w-]+(?:\.[\w-]+)*:\d{2,5}\b|\bpid \d+(?: \([^)]*\))?"
)
# A number that belongs to a name, such as orders_2026, is part of what is the same.
_NUMBERS = re.compile(r"(?<![\w.])\d+(?:[.,:]\d+)*(?!\w)")


def alike(words: str, own: Iterable[str] = ()) -> str:
    """The words without names, ids, places, values and numbers. own: the names of the operation that they are about."""
    for name in sorted(filter(None, own), key=len, reverse=True):
        words = without_name(words, name)
    return _without_what_differs(words)


def without_name(words: str, name: str, mark: str = DIFFERS) -> str:
    """The words with a mark in the place of a name, where that stands alone.

    Without a regular expression: there may be thousands of names.
    """
    at = words.find(name)
    while at >= 0:
        end = at + len(name)
        if _goes_on(words[at - 1 : at]) or _goes_on(words[end : end + 1]):
            at = words.find(name, end)
            continue
        words = words[:at] + mark + words[end:]
        at = words.find(name, at + len(mark))
    return words


def _goes_on(character: str) -> bool:
    """It is part of a longer name."""
    return character.isalnum() or character in {"_", "-"}


@lru_cache(maxsize=4096)
def _without_what_differs(words: str) -> str:
    for pattern in (_VALUES, _IDS, _PLACES, _NUMBERS):
        words = pattern.sub(lambda found: f"=({DIFFERS})" if found[0].startswith("=(") else DIFFERS, words)
    return words


def common(said: Sequence[str], without: str) -> str:
    """What is shown of several: their words where all say the same, else what they have in common."""
    return said[0] if len(set(said)) == 1 else without
