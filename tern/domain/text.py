"""Which texts can be written down at all."""

import re
from collections.abc import Mapping
from typing import TypeGuard

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def is_storable(value: object) -> TypeGuard[str]:
    """A text that PostgreSQL can hold: JSON can spell a NUL and half a surrogate pair, and neither is one."""
    return isinstance(value, str) and _UNSTORABLE.search(value) is None


def is_name(value: object) -> TypeGuard[str]:
    """A text that names something to people: not blank, and nothing in it that can't be seen or moves what can."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def called_in_json(value: object) -> str:
    """What kind of value it is, in words, for whoever wrote the JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "an object"
        case _:
            return "a list"


def within(words: str, limit: int) -> str:
    """At most so many characters. What is left out is in the middle: servers say first what happened, and last to
    which value it did.
    """
    if len(words) <= limit:
        return words
    tail = (limit - 1) // 2
    return f"{words[: limit - 1 - tail]}…{words[-tail:]}"
