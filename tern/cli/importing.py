"""`tern deployments import`: a file with many deployments, taken in whole or not at all, with every reason at once."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tern.cli.address import HIGHEST_POSITION, check_address, check_name, read_credentials, read_labels
from tern.cli.words import plural
from tern.domain.choice import shortened
from tern.domain.errors import Refused, TernError, UsageError
from tern.domain.model import Credentials, Deployment
from tern.domain.plaintext import exposures_of
from tern.domain.register import Entered, Entry, Judged
from tern.domain.text import called_in_json, is_name

if TYPE_CHECKING:
    from tern.store.store import PostgresStore

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
NEEDED_FIELDS = ("name", "environment", "database", "address", "target")
_READ_AT_ONCE = 1_000
_EXAMPLE = (
    'It is a JSON list of objects: [{"name": "eu-1", "environment": "production", "database": "shop",'
    ' "address": "grpcs://eu-1:7420", "target": "shop"}]'
)


def import_entries(file: Any, store: Callable[[], "PostgresStore"], *, replaces: bool) -> tuple[Judged, ...]:
    """Reads, judges and writes the entries; raises UsageError or Refused with every reason against every entry."""
    listed = _read_list(file)
    progress = _Progress(len(listed))
    try:
        read = [_Read.of(number, each, progress) for number, each in enumerate(listed, 1)]
        entries = [each.entry for each in read if each.entry is not None]
        unreadable = [each for each in read if each.why]
        judged = store().import_deployments(
            entries,
            replaces=replaces,
            writes=not unreadable,
            told=lambda done: progress.show("written", done),
        )
    finally:
        progress.clear()
    reasons = [
        (each.number, f"entry {each.number}, {each.name}: {why}") for each in unreadable for why in each.why
    ]
    reasons += [
        (each.entry.number, f"entry {each.entry.number}, {each.entry.deployment.name}: {why}")
        for each in judged
        for why in each.why
    ]
    if reasons:
        bad = len({number for number, _ in reasons})
        what = f"nothing was imported: {bad:,} of {len(listed):,} entries can't be"
        kind = UsageError if any(each.is_usage for each in unreadable) else Refused
        raise kind(
            what,
            why=tuple(reason for _, reason in sorted(reasons)),
            next_step="Mend the file and import it again; what is known already is left as it is.",
            reason="IMPORT_REFUSED",
        )
    progress.end(judged)
    return judged


@dataclass(frozen=True, slots=True)
class _Read:
    """One entry as it could be read, or why not. is_usage: it is written wrongly, rather than forbidden."""

    number: int
    name: str
    entry: Entry | None
    why: tuple[str, ...] = ()
    is_usage: bool = False

    @classmethod
    def of(cls, number: int, said: Mapping[str, Any], progress: "_Progress") -> "_Read":
        """Reads one; never raises for what it says."""
        if number % _READ_AT_ONCE == 0:
            progress.show("read", number)
        name = str(said.get("name", "without a name"))
        try:
            return cls(number, name, _entry(number, said))
        except TernError as error:
            return cls(number, name, None, error.why or (error.what,), isinstance(error, UsageError))


class _Progress:
    """What a person who waits at a terminal sees; elsewhere only the line at the end."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = time.monotonic()
        self._is_watched = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._is_shown = False

    def show(self, what: str, done: int) -> None:
        """So many are done."""
        if self._is_watched:
            click.echo(f"\r{what}: {done:,} of {self._total:,}\x1b[K", nl=False, err=True)
            self._is_shown = True

    def clear(self) -> None:
        """Leaves nothing of it behind."""
        if self._is_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._is_shown = False

    def end(self, judged: tuple[Judged, ...]) -> None:
        """What came of all of them."""
        counts = {outcome: sum(each.outcome is outcome for each in judged) for outcome in Entered}
        said = (
            ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items() if count)
            or "none in the file"
        )
        took_s = time.monotonic() - self._begun
        click.echo(
            f"{plural(len(judged), 'deployment')}: {said}, in {took_s:.1f} s; no engine was asked", err=True
        )


def _read_list(file: Any) -> list[Mapping[str, Any]]:
    content, name = file.read(), Path(str(getattr(file, "name", "stdin"))).name
    if not content.strip():
        what = f"{name} is empty"
        raise UsageError(what, next_step=_EXAMPLE)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        what = f"{name} is not JSON"
        raise UsageError(what, why=(str(error),), next_step=_EXAMPLE) from None
    if found == []:
        what = f"no deployment is in {name}: its list is empty"
        raise UsageError(what, next_step=_EXAMPLE)
    what = "deployments are imported from a list of objects"
    if not isinstance(found, list):
        raise UsageError(what, why=(f"the file holds {called_in_json(found)}",), next_step=_EXAMPLE)
    wrong = [
        f"entry {number} is {called_in_json(each)}, and must be an object"
        for number, each in enumerate(found, 1)
        if not isinstance(each, dict)
    ]
    if wrong:
        raise UsageError(what, why=shortened(wrong), next_step=_EXAMPLE)
    if len(found) > MOST_IMPORTED:
        what = f"the list has {len(found):,} entries, at most {MOST_IMPORTED:,} are imported at once"
        raise UsageError(what)
    return found


def _entry(number: int, entry: Mapping[str, Any]) -> Entry:
    """One entry; raises UsageError and Refused."""
    name = str(entry.get("name", f"entry {number}"))
    known = ", ".join(sorted(IMPORTED_FIELDS))
    why = [f"{field} is not known; known are {known}" for field in sorted(entry.keys() - IMPORTED_FIELDS)]
    why += [line for field in NEEDED_FIELDS for line in _name_at(field, entry.get(field))]
    why += _labels_at(entry.get("labels", {})) + _credentials_at(entry.get("credentials", {}))
    position, deduplicates = entry.get("position", 0), entry.get("deduplicates")
    if isinstance(position, bool) or not isinstance(position, int):
        why.append(f"position is {called_in_json(position)}, and must be a whole number")
    elif abs(position) > HIGHEST_POSITION:
        why.append(f"position is {position}, and must be from {-HIGHEST_POSITION} to {HIGHEST_POSITION}")
    if deduplicates is not None and not isinstance(deduplicates, bool):
        why.append(f"deduplicates is {called_in_json(deduplicates)}, and must be true or false")
    if why:
        what = f"{name} can't be imported"
        raise UsageError(what, why=tuple(why))
    return _checked(number, entry)


def _name_at(field: str, value: object) -> list[str]:
    if value is None:
        return [f"{field} is missing"]
    if not isinstance(value, str):
        return [f"{field} is {called_in_json(value)}, and must be a text"]
    return [] if is_name(value) else [f"{field} is empty or unprintable"]


def _labels_at(labels: object) -> list[str]:
    if not isinstance(labels, dict):
        return [f"labels is {called_in_json(labels)}, and must be an object of texts"]
    return [
        f"labels.{key} is {called_in_json(value)}, and must be a text"
        for key, value in labels.items()
        if not isinstance(value, str)
    ]


def _credentials_at(credentials: object) -> list[str]:
    """No value is repeated: a secret may have been written where a reference belongs."""
    if not isinstance(credentials, dict):
        return [f"credentials is {called_in_json(credentials)}, and must be an object of references"]
    known = ", ".join(_NO_CREDENTIALS)
    why = [
        f"credentials.{field} is not known; known are {known}"
        for field in sorted(credentials.keys() - _NO_CREDENTIALS.keys())
    ]
    for field, empty in _NO_CREDENTIALS.items():
        value = credentials.get(field, empty)
        if type(value) is not type(empty):
            wanted = called_in_json(empty)
            why.append(f"credentials.{field} is {called_in_json(value)}, and must be {wanted}")
    return why


def _checked(number: int, entry: Mapping[str, Any]) -> Entry:
    """Every field has its type; whether it says what it may say is asked of all of them, for all reasons at once."""
    labels = entry.get("labels", {})
    found: dict[str, Any] = {}
    refusals: list[TernError] = []
    for field, read in (
        ("name", lambda: check_name(entry["name"])),
        ("address", lambda: check_address(entry["address"])),
        ("labels", lambda: read_labels([f"{key}={value}" for key, value in labels.items()])),
        ("credentials", lambda: read_credentials(**entry.get("credentials", {}))),
    ):
        try:
            found[field] = read()
        except TernError as refusal:
            refusals.append(refusal)
    if refusals:
        why = tuple("; ".join([each.what, *each.why]) for each in refusals)
        if "credentials" in found:
            # Of an entry that can be read the register's rules say it; nobody asks them about this one.
            why += tuple(each.words for each in exposures_of(entry["address"], found["credentials"]))
        kind = UsageError if any(isinstance(each, UsageError) for each in refusals) else Refused
        raise kind(f"{entry['name']} can't be imported", why=why)
    wanted = Deployment(
        name=found["name"],
        environment=entry["environment"],
        database=entry["database"],
        address=entry["address"],
        target=entry["target"],
        labels=found["labels"],
        position=entry.get("position", 0),
        credentials=found["credentials"],
    )
    return Entry(number, wanted, entry.get("deduplicates"))
