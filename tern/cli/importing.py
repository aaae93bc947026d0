"""Reading the file of `tern deployments import`: every entry is checked before the first one is written."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tern.cli.address import HIGHEST_POSITION, check_address, check_name, read_credentials, read_labels
from tern.domain.errors import UsageError
from tern.domain.model import Credentials, Deployment
from tern.domain.text import is_name

MOST_IMPORTED = 10_000
_NO_CREDENTIALS = asdict(Credentials())
IMPORTED_FIELDS = frozenset(
    {
        "name",
        "environment",
        "database",
        "address",
        "target",
        "labels",
        "position",
        "credentials",
        "deduplicates",
    }
)


def read_entries(file: Any) -> list[tuple[Deployment, str | None]]:
    """Each deployment with what its entry declares about deduplication; raises UsageError and Refused."""
    return [_entry(number, each) for number, each in enumerate(_read_list(file), 1)]


def _read_list(file: Any) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        what = f"{Path(str(getattr(file, 'name', 'stdin'))).name} is not JSON"
        raise UsageError(what, why=(str(error),)) from None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        what = "deployments are imported from a list of objects"
        raise UsageError(what)
    if len(found) > MOST_IMPORTED:
        what = f"the list has {len(found):,} entries, at most {MOST_IMPORTED:,} are imported at once"
        raise UsageError(what)
    return found


def _entry(number: int, entry: Mapping[str, Any]) -> tuple[Deployment, str | None]:
    """One entry and what it declares about deduplication."""
    name = str(entry.get("name", f"entry {number}"))
    why = [f"{field} is not known" for field in sorted(entry.keys() - IMPORTED_FIELDS)]
    needed = ("name", "environment", "database", "address", "target")
    why += [f"{field} is missing, empty or unprintable" for field in needed if not is_name(entry.get(field))]
    labels, credentials = entry.get("labels", {}), entry.get("credentials", {})
    position, deduplicates = entry.get("position", 0), entry.get("deduplicates")
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        why.append("labels is an object of texts")
    if not isinstance(credentials, dict) or credentials.keys() - {
        field.name for field in fields(Credentials)
    }:
        why.append("credentials is an object of references")
    elif any(type(value) is not type(_NO_CREDENTIALS[field]) for field, value in credentials.items()):
        why.append("credentials holds a text for each reference, and true or false for insecure_plaintext")
    if isinstance(position, bool) or not isinstance(position, int) or abs(position) > HIGHEST_POSITION:
        why.append("position is a number")
    if deduplicates is not None and not isinstance(deduplicates, bool):
        why.append("deduplicates is true or false")
    if why:
        what = f"{name} can't be imported"
        raise UsageError(what, why=tuple(why))
    check_address(entry["address"])
    wanted = Deployment(
        name=check_name(entry["name"]),
        environment=entry["environment"],
        database=entry["database"],
        address=entry["address"],
        target=entry["target"],
        labels=read_labels([f"{key}={value}" for key, value in labels.items()]),
        position=position,
        credentials=read_credentials(**credentials),
    )
    return wanted, None if deduplicates is None else ("yes" if deduplicates else "no")
