"""docs/tables.md, made of what the tables say of themselves: `python -m tests.house.tables` writes it (`make docs`)."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.dialects import postgresql

from tern.store.evidence_tables import METADATA

PAGE = Path(__file__).parents[2] / "docs/tables.md"
_HEAD = """# Tables

What stands in Tern's own database, for whoever looks with psql (`\\d+ applies` shows the same texts). Look, and write
nothing: triggers guard what must hold, and `tern` is the way to change it. Tables and columns only grow.

Made by `make docs` from `tern/store/comments.py` and `evidence_comments.py`.
"""


def page() -> str:
    """The whole text."""
    return _HEAD + "".join(f"{line}\n" for line in _tables())


def _tables() -> Iterator[str]:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for name in sorted(METADATA.tables):
        table = METADATA.tables[name]
        yield from (
            "",
            f"## {name}",
            "",
            f"{table.comment}",
            "",
            "| column | type | meaning |",
            "|---|---|---|",
        )
        for column in table.columns:
            kind = column.type.compile(dialect).lower().replace("timestamp with time zone", "timestamptz")
            null = ", may be NULL" if column.nullable else ""
            yield f"| `{column.name}` | {kind}{null} | {column.comment} |"


if __name__ == "__main__":
    PAGE.write_text(page())
