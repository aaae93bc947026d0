"""`--json`: exactly one document on stdout, always in the same envelope."""

import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click

from tern.cli import symbols

SCHEMA = "tern.cli/v1"
# What JSON leaves as it is and a terminal obeys: C1 controls, line separators, directions of writing.
_OBEYED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document to stdout.")


def write_document(
    kind: str,
    data: Mapping[str, object],
    *,
    observed_at: datetime | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Writes the document; observed_at is the database's time where the data came from there."""
    moment = (observed_at or datetime.now(UTC)).astimezone(UTC)
    document = {
        "schema": SCHEMA,
        "kind": kind,
        "observed_at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": data,
        "warnings": list(warnings),
    }
    sys.stdout.write(_text(document, indent=2) + "\n")


def write_line(kind: str, data: Mapping[str, object]) -> None:
    """One document of a stream, on one line (`--jsonl`)."""
    sys.stdout.write(_text({"schema": SCHEMA, "kind": kind, **data}) + "\n")
    sys.stdout.flush()


def _text(document: Mapping[str, object], *, indent: int | None = None) -> str:
    # Where the locale lacks a character, JSON has a form of its own for it: nothing of a document is lost.
    written = json.dumps(document, indent=indent, ensure_ascii=not symbols.has_all(sys.stdout), default=str)
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def announce(line: str, log_format: str) -> None:
    """What a process that stays says of itself: to the person who started it, or as a line of its log."""
    if log_format == "json":
        logging.getLogger("tern").info("%s", line)
    else:
        talk(line)


def talk(line: str) -> None:
    """Says something to the person, beside the document."""
    click.echo(line, err=True)
