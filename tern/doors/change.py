"""A change as somebody gives it: PostgreSQL statements as text, or statements of any database spelled out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tern.domain.choice import shortened
from tern.domain.errors import Refused, UsageError
from tern.domain.model import Action, PlannedChange
from tern.domain.text import called_in_json, is_storable

POSTGRES = "postgres"
_DOCUMENT = ("database_type", "changes")
_FIELDS = ("namespace", "table", "ddl", "action", "unsafe_reason")
_NEEDED = ("table", "ddl")
_SHAPE = "an object with database_type and changes"
_FORMAT = (
    'It is written {"database_type": "mysql", "changes": [{"table": "orders", "ddl": "ALTER TABLE …"}]}.'
)


def from_ddl(text: str) -> tuple[PlannedChange, ...]:
    """One change per PostgreSQL statement, in order; raises Refused with line and column for what is none."""
    from tern.doors.ddl import split_ddl  # noqa: PLC0415 - the parser is a library of megabytes, and few need it

    return split_ddl(text)


def from_document(document: object) -> tuple[str, tuple[PlannedChange, ...]]:
    """`{"database_type": …, "changes": […]}`, as docs/changes.md has it; raises as from_entries does."""
    if not isinstance(document, Mapping):
        what = "the changes can't be read"
        raise UsageError(
            what, why=(f"it is {called_in_json(document)}, and must be {_SHAPE}",), next_step=_FORMAT
        )
    why = _unknown("", document, _DOCUMENT)
    database_type = document.get("database_type")
    changes = _read(database_type, document.get("changes"), why)
    return str(database_type), changes


def from_entries(database_type: object, entries: object) -> tuple[PlannedChange, ...]:
    """`[{"namespace", "table", "ddl", "action", "unsafe_reason"}]`; raises UsageError with all that is wrong and where,
    and Refused for PostgreSQL statements that are no change.
    """
    return _read(database_type, entries, [])


def _read(database_type: object, entries: object, why: list[str]) -> tuple[PlannedChange, ...]:
    why += _text_at("database_type", database_type, needed=True)
    if entries is None:
        why.append("changes is missing")
    elif not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
        why.append(f"changes is {called_in_json(entries)}, and must be a list")
    elif not entries:
        why.append("changes is empty: there is nothing to roll out")
    listed = entries if isinstance(entries, Sequence) and not isinstance(entries, str | bytes) else ()
    changes = [_change(f"changes[{number}]", entry, why) for number, entry in enumerate(listed)]
    if why:
        what = "the changes can't be read"
        raise UsageError(what, why=shortened(why), next_step=_FORMAT)
    read = tuple(change for change in changes if change is not None)
    return _parsed(read) if database_type == POSTGRES else read


def _parsed(changes: Sequence[PlannedChange]) -> tuple[PlannedChange, ...]:
    """PostgreSQL's own statements are looked at whoever spells them out: what one loses isn't left to the sender."""
    found: list[PlannedChange] = []
    refused: list[tuple[Refused, tuple[str, ...]]] = []
    for number, change in enumerate(changes):
        try:
            found.append(_completed(change))
        except Refused as refusal:
            # Below the first stands the place in the statement, marked: those lines stay as they are.
            first, *more = refusal.why or (refusal.what,)
            refused.append((refusal, (f"changes[{number}].ddl: {first}", *more)))
    if not refused:
        return tuple(found)
    only, _ = refused[0]
    what = only.what if len(refused) == 1 else f"{len(refused)} of {len(changes)} changes can't be rolled out"
    why = shortened([each for _, reasons in refused for each in reasons])
    raise Refused(what, why=why, unchanged=only.unchanged, next_step=only.next_step, reason=only.reason)


def _completed(change: PlannedChange) -> PlannedChange:
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


def _change(where: str, entry: object, why: list[str]) -> PlannedChange | None:
    """One entry, or what is wrong with it, added to why."""
    if not isinstance(entry, Mapping):
        why.append(f"{where} is {called_in_json(entry)}, and must be an object with {' and '.join(_NEEDED)}")
        return None
    wrong = _unknown(f"{where}.", entry, _FIELDS)
    for field in _FIELDS:
        wrong += _text_at(f"{where}.{field}", entry.get(field), needed=field in _NEEDED)
    texts = {field: entry.get(field) or "" for field in _FIELDS}
    action = texts["action"] or Action.OTHER.value
    if isinstance(action, str) and action not in set(Action):
        wrong.append(f"{where}.action is {action!a}, and must be one of {', '.join(Action)}")
    if wrong:
        why += wrong
        return None
    return PlannedChange(
        namespace=texts["namespace"],
        table_name=texts["table"],
        ddl=texts["ddl"],
        action=Action(action),
        unsafe_reason=texts["unsafe_reason"],
    )


def _unknown(where: str, entry: Mapping[object, object], known: Sequence[str]) -> list[str]:
    return [
        f"{where}{field if isinstance(field, str) and field.isidentifier() else ascii(field)} is not known;"
        f" known are {', '.join(known)}"
        for field in entry
        if field not in known
    ]


def _text_at(where: str, value: object, *, needed: bool) -> list[str]:
    """What is wrong with a text, as one line or none. Null is as good as left out."""
    if value is None:
        return [f"{where} is missing"] if needed else []
    if not isinstance(value, str):
        return [f"{where} is {called_in_json(value)}, and must be a text"]
    if not is_storable(value):
        return [f"{where} holds a NUL or half a surrogate pair, which no database can keep"]
    return [f"{where} is empty"] if needed and not value.strip() else []
