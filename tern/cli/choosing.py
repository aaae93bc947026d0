"""The options by which `tern plan` and `tern apply` are told which change goes where."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from tern.cli.address import read_labels
from tern.domain.choice import Choice
from tern.domain.errors import UsageError
from tern.domain.model import PlannedChange
from tern.doors.change import POSTGRES, from_ddl, from_document

Command = Callable[..., Any]


def change_options(command: Command) -> Command:
    """`--ddl`, `--changes`, `--environment`, `--database`."""
    for option in (
        click.option("--database", "-d", default="", help="The logical database that the change is for."),
        click.option("--environment", "-e", default="", help="For example production."),
        click.option(
            "--changes",
            "changes_file",
            type=click.File("rb"),
            help="Changes of any type of database, spelled out as JSON: docs/changes.md has the format.",
        ),
        click.option(
            "--ddl", "ddl_file", type=click.File("rb"), help="PostgreSQL statements (`-` for stdin)."
        ),
    ):
        command = option(command)
    return command


def target_options(command: Command) -> Command:
    """`--deployments`, `-l`, `--all`, `--except`."""
    for option in (
        click.option("--except", "excepted", multiple=True, metavar="NAME", help="But not these."),
        click.option("--all", "everywhere", is_flag=True, help="Every deployment of this database."),
        click.option(
            "--label", "-l", "labels", multiple=True, metavar="KEY=VALUE", help="Those with this label."
        ),
        click.option("--deployments", "names", default="", metavar="A,B,…", help="These, in this order."),
    ):
        command = option(command)
    return command


def read_choice(
    names: str, labels: Sequence[str], excepted: Sequence[str], first: str = "", *, everywhere: bool
) -> Choice:
    """Raises UsageError where two ways of choosing are mixed."""
    return Choice(_listed(names), read_labels(labels), everywhere, frozenset(excepted), _listed(first))


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def read_change(ddl_file: Any, changes_file: Any) -> tuple[str, tuple[PlannedChange, ...]]:
    """Database type and changes from exactly one of the two; raises UsageError and Refused."""
    if (ddl_file is None) == (changes_file is None):
        what = "one change is given: --ddl FILE or --changes FILE"
        raise UsageError(what)
    if ddl_file is not None:
        return POSTGRES, from_ddl(_text(ddl_file))
    return read_spelled_out(_text(changes_file))


def read_spelled_out(text: str) -> tuple[str, tuple[PlannedChange, ...]]:
    """`{"database_type": …, "changes": […]}`, as change.py reads them; raises UsageError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "the changes are not JSON"
        raise UsageError(what, why=(str(error),)) from None
    return from_document(found)


def _text(file: Any) -> str:
    try:
        return str(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        what = f"{getattr(file, 'name', 'stdin')} is not UTF-8 text"
        raise UsageError(what, why=(f"byte {error.start + 1} can't be read",)) from None
