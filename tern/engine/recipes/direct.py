"""Statements that are executed as they stand, in one short transaction, and the whole-table ones."""

from collections.abc import Sequence
from typing import Any

from tern.engine.names import Name, quote
from tern.engine.parse import Parsed, copy
from tern.engine.recipes.model import LockMode, Recipe, Step, StepKind, TableLock
from tern.engine.recipes.split import STORAGE_PARAMETERS, STRONG_PARAMETERS, WEAKER_LOCKS, kind_of
from tern.engine.scope import enum_name

_PART_NAMES = {
    "AT_AddColumn": "add_column",
    "AT_DropColumn": "drop_column",
    "AT_AlterColumnType": "alter_type",
    "AT_DropConstraint": "drop_constraint",
    "AT_DropNotNull": "drop_not_null",
    "AT_ColumnDefault": "set_default",
}


def alter_together(parsed: Parsed, table: Name, neighbours: Sequence[Name], *, fresh: bool) -> Recipe:
    """The parts of an ALTER TABLE that only touch the catalogue, in one instant.

    `neighbours` are the tables at the other ends of foreign keys that go away: they are locked as well.
    """
    commands = [each.alter_table_cmd for each in parsed.node.cmds]
    locks = [TableLock(table, max(_lock_of(command) for command in commands))]
    locks += [TableLock(each, LockMode.ACCESS_EXCLUSIVE) for each in neighbours if each != table]
    step = Step(StepKind.DIRECT, parsed.sql, table.namespace, tuple(locks), table, fresh=fresh)
    names = dict.fromkeys(_PART_NAMES.get(kind_of(command), "alter_table") for command in commands)
    return Recipe("+".join(names), (step,))


def as_it_stands(
    parsed: Parsed, namespace: str, name: str, lock: TableLock | None, *, owned_by: Name | None, fresh: bool
) -> Recipe:
    """Any statement whose effect is in the catalogue alone."""
    locks = () if lock is None else (lock,)
    return Recipe(name, (Step(StepKind.DIRECT, parsed.sql, namespace, locks, owned_by, fresh=fresh),))


def create_table(parsed: Parsed, table: Name, referenced: Sequence[Name]) -> Recipe:
    """A new table is nobody's business, except that its foreign keys lock the tables they refer to."""
    strict = copy(parsed)
    strict.node.if_not_exists = False
    locks = tuple(TableLock(each, LockMode.SHARE_ROW_EXCLUSIVE) for each in referenced)
    step = Step(StepKind.DIRECT, strict.sql, table.namespace, locks, fresh=True)
    return Recipe("create_table", (step,))


def drop_table(parsed: Parsed, table: Name, keys: Sequence[tuple[str, Name]], *, fresh: bool) -> Recipe:
    """The table's own foreign keys go first, one by one: DROP TABLE would lock all their tables at once."""
    steps = [
        Step(
            StepKind.DIRECT,
            f"ALTER TABLE {table.sql()} DROP CONSTRAINT {quote(name)}",
            table.namespace,
            tuple(TableLock(each, LockMode.ACCESS_EXCLUSIVE) for each in sorted({table, referenced})),
            table,
        )
        for name, referenced in keys
        if referenced != table
    ]
    lock = TableLock(table, LockMode.ACCESS_EXCLUSIVE)
    steps.append(Step(StepKind.DIRECT, parsed.sql, table.namespace, (lock,), table, fresh=fresh))
    return Recipe("drop_table", tuple(steps))


def drop_index(index: Name, table: Name) -> Recipe:
    """DROP INDEX CONCURRENTLY."""
    step = Step(
        StepKind.DROP_INDEX,
        f"DROP INDEX CONCURRENTLY {index.sql()}",
        index.namespace,
        (TableLock(table, LockMode.SHARE_UPDATE_EXCLUSIVE),),
        table,
        index=index,
    )
    return Recipe("drop_index", (step,))


def _lock_of(command: Any) -> LockMode:
    kind = kind_of(command)
    if kind in WEAKER_LOCKS:
        return LockMode[WEAKER_LOCKS[kind]]
    if kind in STORAGE_PARAMETERS:
        changed = {item.def_elem.defname for item in getattr(command, "def").list.items}
        return LockMode.ACCESS_EXCLUSIVE if changed & STRONG_PARAMETERS else LockMode.SHARE_UPDATE_EXCLUSIVE
    return LockMode.ACCESS_EXCLUSIVE


RECIPE_NAMES = {
    "create_trig_stmt": "create_trigger",
    "create_policy_stmt": "create_policy",
    "alter_policy_stmt": "alter_policy",
    "create_stats_stmt": "create_statistics",
    "view_stmt": "create_view",
    "create_seq_stmt": "create_sequence",
    "alter_seq_stmt": "alter_sequence",
    "create_function_stmt": "create_function",
    "create_enum_stmt": "create_type",
    "composite_type_stmt": "create_type",
    "create_domain_stmt": "create_domain",
    "alter_enum_stmt": "alter_enum",
    "comment_stmt": "comment",
    "grant_stmt": "grant",
    "rename_stmt": "rename",
}


def name_of(parsed: Parsed) -> str:
    """The stable name of the recipe of a statement that is executed as it stands."""
    if parsed.kind == "drop_stmt":
        return (
            "drop_"
            + enum_name(parsed.node, "remove_type").removeprefix("OBJECT_").removesuffix("_EXT").lower()
        )
    if parsed.kind == "grant_stmt" and not parsed.node.is_grant:
        return "revoke"
    return RECIPE_NAMES[parsed.kind]
