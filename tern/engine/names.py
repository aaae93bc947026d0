"""Qualified names: as values, as SQL, as a person reads them."""

import re
from dataclasses import dataclass
from functools import lru_cache

from tern.engine import grammar

# What the server keeps of an identifier; it cuts the rest off without an error.
LONGEST_BYTES = 63
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")


@dataclass(frozen=True, order=True)
class Name:
    """An object in a namespace, unquoted."""

    namespace: str
    name: str

    def sql(self) -> str:
        """The name as it goes into a statement: always quoted, so never a keyword or an expression."""
        return f"{quote(self.namespace)}.{quote(self.name)}"

    def __str__(self) -> str:
        return f"{readable(self.namespace)}.{readable(self.name)}"


def quote(identifier: str) -> str:
    """One identifier as SQL."""
    return '"' + identifier.replace('"', '""') + '"'


@lru_cache(maxsize=4096)
def readable(identifier: str) -> str:
    """One identifier as a person would write it: quoted only where SQL needs it."""
    if not _PLAIN.match(identifier):
        return quote(identifier)
    try:
        tree = grammar.parse(f"DROP TABLE {identifier}.x")
    except grammar.GrammarError:
        return quote(identifier)  # a keyword
    kept = tree.stmts[0].stmt.drop_stmt.objects[0].list.items[0].string.sval
    return identifier if kept == identifier else quote(identifier)


def numbered(identifier: str, number: int) -> str:
    """The n-th variant of a name that is taken, cut to what the server keeps."""
    suffix = str(number)
    head = identifier.encode()[: LONGEST_BYTES - len(suffix)].decode(errors="ignore")
    return head + suffix
