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
