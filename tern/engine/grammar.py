"""PostgreSQL's own grammar, by way of libpg_query; imported in one place, untyped, because its stubs don't parse."""

import importlib
from typing import Any

_package: Any = importlib.import_module("postgast")

# The messages of the syntax tree.
ast: Any = importlib.import_module("postgast.pg_query_pb2")
GrammarError: type[Exception] = _package.PgQueryError


def parse(text: str) -> Any:
    """The tree of a text; raises GrammarError with `message` and `cursorpos`."""
    return _package.parse(text)


def deparse(tree: Any) -> str:
    """A tree as text."""
    return str(_package.deparse(tree))


def tokens(text: str) -> list[Any]:
    """The words of a text, with their places in its bytes."""
    return list(_package.scan(text).tokens)


def without_constants(text: str, longest: int) -> str:
    """A statement of somebody else's on one line, with $1 for each constant; of what can't be read its first word."""
    words = " ".join(text.split())
    if not words:
        return ""
    try:
        words = " ".join(str(_package.normalize(words)).split())
    except GrammarError:
        words = f"{words.split(' ', 1)[0]} …"
    return words if len(words) <= longest else f"{words[: longest - 1]}…"
