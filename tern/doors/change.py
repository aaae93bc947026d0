"""A change as somebody gives it: PostgreSQL statements as text, or statements of any database spelled out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tern.domain.choice import shortened
from tern.domain.errors import Refused, UsageError
from tern.domain.model import Action, PlannedChange
from tern.domain.text import is_storable

POSTGRES = "postgres"
_FIELDS = ("namespace", "table", "ddl", "action", "unsafe_reason")


def from_ddl(text: str) -> tuple[PlannedChange, ...]:
    """One change per PostgreSQL statement, in order; raises Refused with line and column for what is none."""
    from tern.doors.ddl import split_ddl  # noqa: PLC0415 - the parser is a library of megabytes, and few need it

    return split_ddl(text)


def from_entries(database_type: object, entries: object) -> tuple[PlannedChange, ...]:
    """`[{"namespace", "table", "ddl", "action", "unsafe_reason"}]`; raises UsageError with all that is wrong, and
    Refused for PostgreSQL statements that are no change.
    """
    why: list[str] = []
    if not is_storable(database_type) or not database_type.strip():
        why.append("database_type is missing")
    if not isinstance(entries, Sequence) or isinstance(entries, str | bytes) or not entries:
        why.append("changes is missing or empty")
        entries = ()
    changes = [_change(number, entry, why) for number, entry in enumerate(entries, 1)]
    if why:
        what = "the changes can't be read"
        raise UsageError(what, why=shortened(why))
    read = tuple(change for change in changes if change is not None)
    return tuple(_parsed(change) for change in read) if database_type == POSTGRES else read


def _parsed(change: PlannedChange) -> PlannedChange:
    """PostgreSQL's own statements are looked at whoever spells them out: what one loses isn't left to the sender."""
    statements = from_ddl(change.ddl)
    if len(statements) != 1:
        what = f"the change of {change.table_name} holds {len(statements)} statements"
        raise Refused(what, why=("a change is one statement on one table",), reason="STATEMENT_REFUSED")
    (found,) = statements
    return replace(
        change,
        namespace=change.namespace or found.namespace,
        ddl=found.ddl,
        action=found.action,
        unsafe_reason=change.unsafe_reason or found.unsafe_reason,
    )


def _change(number: int, entry: object, why: list[str]) -> PlannedChange | None:
    fields = dict(entry) if isinstance(entry, Mapping) else {}
    wrong = [f"{field!a} is not known" for field in fields if field not in _FIELDS]
    texts = {field: "" if fields.get(field) is None else fields[field] for field in _FIELDS}
    wrong += [f"{field} is no text" for field, value in texts.items() if not is_storable(value)]
    wrong += [f"{field} is missing or empty" for field in ("table", "ddl") if not str(texts[field]).strip()]
    action = texts["action"] or Action.OTHER.value
    if action not in set(Action):
        wrong.append(f"action is one of {', '.join(Action)}")
    if wrong:
        why += [f"change {number}: {each}" for each in wrong]
        return None
    return PlannedChange(
        namespace=texts["namespace"],
        table_name=texts["table"],
        ddl=texts["ddl"],
        action=Action(action),
        unsafe_reason=texts["unsafe_reason"],
    )
