"""`--json`: exactly one document on stdout, always in the same envelope."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import click

SCHEMA = "tern.cli/v1"

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
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str) + "\n")


def write_line(kind: str, data: Mapping[str, object]) -> None:
    """One document of a stream, on one line (`--jsonl`)."""
    sys.stdout.write(
        json.dumps({"schema": SCHEMA, "kind": kind, **data}, ensure_ascii=False, default=str) + "\n"
    )
    sys.stdout.flush()


def talk(line: str) -> None:
    """Says something to the person, beside the document."""
    click.echo(line, err=True)
