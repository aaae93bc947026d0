"""Which change, and which deployments: the choices that `tern plan` and `tern apply` share."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from tern.cli.address import read_labels
from tern.domain.errors import NotFound, Refused, UsageError
from tern.domain.model import Action, Deployment, PlannedChange
from tern.probing import TargetPreview
from tern.store.store import PostgresStore

POSTGRES = "postgres"
MOST_TOLD = 20
_CHANGE_FIELDS = frozenset({"namespace", "table", "ddl", "action", "unsafe_reason"})

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
            help="Changes of another type of database, spelled out as JSON.",
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


@dataclass(frozen=True, slots=True)
class Choice:
    """Which deployments somebody asked for, before anybody looked whether they are there."""

    names: tuple[str, ...]
    labels: Mapping[str, str]
    everywhere: bool
    excepted: frozenset[str]

    @property
    def is_made(self) -> bool:
        """Something was chosen."""
        return bool(self.names or self.labels or self.everywhere)

    @classmethod
    def read(
        cls, names: str, labels: Sequence[str], excepted: Sequence[str], *, everywhere: bool
    ) -> "Choice":
        """Raises UsageError where two ways of choosing are mixed."""
        listed = tuple(name.strip() for name in names.split(",") if name.strip())
        ways = [bool(listed), bool(labels), everywhere]
        if sum(ways) > 1:
            what = "deployments are chosen in one way: --deployments, -l or --all"
            raise UsageError(what)
        if excepted and not any(ways[1:]):
            what = "--except takes away from -l or --all"
            raise UsageError(what)
        return cls(listed, read_labels(labels), everywhere, frozenset(excepted))


def choose(
    store: PostgresStore, choice: Choice, environment: str, database: str, *, is_repeated: bool = False
) -> tuple[Deployment, ...]:
    """The deployments in rollout order; raises Refused with every reason against them, NotFound.

    For a repeated request, what would speak against a new one does not matter.
    """
    if not choice.is_made:
        what = "no deployments were chosen"
        raise UsageError(what, next_step="Say --deployments a,b or -l key=value or --all.")
    known = {each.name: each for each in store.load_deployments()}
    if choice.names:
        found = _named(choice.names, known)
    else:
        found = [
            each
            for each in known.values()
            if (each.environment, each.database) == (environment, database)
            and each.name not in choice.excepted
            and choice.labels.items() <= dict(each.labels).items()
        ]
        if unknown := sorted(choice.excepted - known.keys()):
            what = f"--except names deployments that are not there: {', '.join(unknown)}"
            raise NotFound(what)
    why = [
        f"{each.name} is for {each.database} in {each.environment}, the change for {database} in {environment}"
        for each in found
        if (each.environment, each.database) != (environment, database)
    ]
    why += [f"{each.name} is drained" for each in found if each.drained]
    if why and not is_repeated:
        what = "the change can't go everywhere that was chosen"
        drained = next((each.name for each in found if each.drained), "")
        step = f"tern deployments undrain {drained}, or choose without it." if drained else ""
        raise Refused(what, why=shortened(why), next_step=step, reason="DEPLOYMENTS_REFUSED")
    if not found:
        what = f"no deployment of {database} in {environment} was chosen"
        step = "`tern deployments ls` lists them with their labels."
        raise Refused(what, next_step=step, reason="NO_DEPLOYMENTS")
    return tuple(found)


def _named(names: Sequence[str], known: Mapping[str, Deployment]) -> list[Deployment]:
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        what = f"there is no deployment {', '.join(unknown[:MOST_TOLD])}"
        raise NotFound(what, next_step="`tern deployments ls` lists them.")
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if doubled:
        what = f"deployments are named twice: {', '.join(doubled[:MOST_TOLD])}"
        raise Refused(what, reason="DEPLOYMENT_DOUBLED")
    return [known[name] for name in names]


def read_change(ddl_file: Any, changes_file: Any) -> tuple[str, tuple[PlannedChange, ...]]:
    """Database type and changes from exactly one of the two; raises UsageError and Refused."""
    if (ddl_file is None) == (changes_file is None):
        what = "one change is given: --ddl FILE or --changes FILE"
        raise UsageError(what)
    if ddl_file is not None:
        from tern.ddl import split_ddl  # noqa: PLC0415 - the parser is only needed here

        return POSTGRES, split_ddl(_text(ddl_file))
    return read_spelled_out(_text(changes_file))


def read_spelled_out(text: str) -> tuple[str, tuple[PlannedChange, ...]]:
    """`{"database_type": …, "changes": [{"namespace", "table", "ddl", "action", "unsafe_reason"}]}`."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "the changes are not JSON"
        raise UsageError(what, why=(str(error),)) from None
    why: list[str] = []
    if not isinstance(found, dict):
        found = {}
        why.append("it is no object with database_type and changes")
    database_type, entries = found.get("database_type"), found.get("changes")
    if not isinstance(database_type, str) or not database_type.strip():
        why.append("database_type is missing")
    if not isinstance(entries, list) or not entries:
        why.append("changes is missing or empty")
    changes = [_spelled_out(n + 1, entry, why) for n, entry in enumerate(entries or [])] if not why else []
    if why:
        what = "the changes can't be read"
        raise UsageError(what, why=shortened(why))
    return str(database_type), tuple(change for change in changes if change is not None)


def _spelled_out(number: int, entry: Any, why: list[str]) -> PlannedChange | None:
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    wrong = [f"{field} is not known" for field in sorted(fields.keys() - _CHANGE_FIELDS)]
    wrong += [
        f"{field} is missing or empty"
        for field in ("table", "ddl")
        if not str(fields.get(field) or "").strip()
    ]
    action = fields.get("action", "other")
    if action not in set(Action):
        wrong.append(f"action is one of {', '.join(Action)}")
    if wrong:
        why += [f"change {number}: {each}" for each in wrong]
        return None
    return PlannedChange(
        namespace=str(fields.get("namespace") or ""),
        table_name=str(fields["table"]),
        ddl=str(fields["ddl"]),
        action=Action(action),
        unsafe_reason=str(fields.get("unsafe_reason") or ""),
    )


def require_place(environment: str, database: str) -> None:
    """A new plan says what it is for; raises UsageError."""
    missing = [
        name
        for name, value in (("--environment", environment), ("--database", database))
        if not value.strip()
    ]
    if missing:
        what = f"a new change says what it is for: {' and '.join(missing)} is missing"
        raise UsageError(what)


def refuse_unsafe(changes: Sequence[PlannedChange], previews: Sequence[TargetPreview] = ()) -> None:
    """Raises Refused with everything that a person must agree to, the engines' own words included."""
    why = [
        f"{change.namespace}.{change.table_name}: {change.unsafe_reason}"
        for change in changes
        if change.is_unsafe
    ]
    if not why:
        why = [f"{found.deployment}: {unsafe}" for found in previews for unsafe in found.unsafe]
    if why:
        what = "the change is unsafe, and nobody has agreed to that"
        step = "Add --allow-unsafe if that is what you want."
        raise Refused(what, why=shortened(why), next_step=step, reason="UNSAFE_CHANGE")


def shortened(why: Sequence[str]) -> tuple[str, ...]:
    """All reasons, as long as they fit on a screen."""
    if len(why) <= MOST_TOLD:
        return tuple(why)
    return (*why[: MOST_TOLD - 1], f"and {len(why) - MOST_TOLD + 1} more")


def _text(file: Any) -> str:
    try:
        return str(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        what = f"{getattr(file, 'name', 'stdin')} is not UTF-8 text"
        raise UsageError(what, why=(f"byte {error.start + 1} can't be read",)) from None
