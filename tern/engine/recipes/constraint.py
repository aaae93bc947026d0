"""Constraints on tables that are in use: added without a look at the rows, then proven while everybody works."""

from typing import Any

from tern.engine.errors import Reason
from tern.engine.names import LONGEST_BYTES, Name, quote
from tern.engine.parse import Parsed, RefusedError, copy, read
from tern.engine.recipes.model import LockMode, Recipe, Step, StepKind, TableLock
from tern.engine.recipes.split import command_of
from tern.engine.scope import enum_name

# 18 knows NOT NULL constraints that are valid only from now on.
NOT_NULL_NOT_VALID = 180_000


def constraint_of(parsed: Parsed) -> Any:
    """The constraint that an ADD CONSTRAINT adds."""
    return getattr(command_of(parsed), "def").constraint


def add_check(parsed: Parsed, table: Name, name: str) -> Recipe:
    """NOT VALID in an instant, then VALIDATE, which stops neither readers nor writers."""
    lock = TableLock(table, LockMode.ACCESS_EXCLUSIVE)
    if not _is_to_validate(constraint_of(parsed)):
        step = Step(StepKind.DIRECT, _named(parsed, name).sql, table.namespace, (lock,), table)
        return Recipe("add_check_not_valid", (step,))
    return Recipe(
        "add_check", (_add_unproven(_named(parsed, name), table, name, (lock,)), validate(table, name))
    )


def add_foreign_key(parsed: Parsed, table: Name, name: str, referenced: Name) -> Recipe:
    """The same; both steps also touch the table at the other end."""
    both = {table, referenced}
    locks = tuple(TableLock(each, LockMode.SHARE_ROW_EXCLUSIVE) for each in sorted(both))
    if not _is_to_validate(constraint_of(parsed)):
        step = Step(StepKind.DIRECT, _named(parsed, name).sql, table.namespace, locks, table)
        return Recipe("add_foreign_key_not_valid", (step,))
    steps = (
        _add_unproven(_named(parsed, name), table, name, locks),
        validate(table, name, referenced=referenced),
    )
    return Recipe("add_foreign_key", steps)


def set_not_null(table: Name, column: str, constraint: str, version: int) -> tuple[Step, ...]:
    """SET NOT NULL without reading the table under an exclusive lock.

    Before 18 a CHECK is proven first; the server then takes it as the proof, and the CHECK goes again.
    """
    exclusive = (TableLock(table, LockMode.ACCESS_EXCLUSIVE),)

    def direct(part: str) -> Step:
        return Step(StepKind.DIRECT, f"ALTER TABLE {table.sql()} {part}", table.namespace, exclusive, table)

    if version >= NOT_NULL_NOT_VALID:
        added = direct(f"ADD CONSTRAINT {quote(constraint)} NOT NULL {quote(column)} NOT VALID")
        return (_undone_by_drop(added, table, constraint), validate(table, constraint))
    helper = _helper_name(column)
    added = direct(f"ADD CONSTRAINT {quote(helper)} CHECK ({quote(column)} IS NOT NULL) NOT VALID")
    proven = validate(table, helper)
    # Two steps: in one statement the CHECK would be dropped first, and the table read after all.
    return (
        _undone_by_drop(added, table, helper),
        proven,
        direct(f"ALTER COLUMN {quote(column)} SET NOT NULL"),
        direct(f"DROP CONSTRAINT {quote(helper)}"),
    )


def add_key(
    parsed: Parsed, table: Name, name: str, expect: str, not_null: tuple[Step, ...], *, takes_name: bool
) -> Recipe:
    """PRIMARY KEY or UNIQUE: the index is built beside the running application, then made the constraint's."""
    constraint = constraint_of(parsed)
    if constraint.without_overlaps:
        raise RefusedError(Reason.STATEMENT_REFUSED, "WITHOUT OVERLAPS has no online form in PostgreSQL")
    is_primary = enum_name(constraint, "contype") == "CONSTR_PRIMARY"
    index = Name(table.namespace, name)
    kind = "PRIMARY KEY" if is_primary else "UNIQUE"
    deferred = " DEFERRABLE" if constraint.deferrable else ""
    deferred += " INITIALLY DEFERRED" if constraint.initdeferred else ""
    attach = Step(
        StepKind.DIRECT,
        f"ALTER TABLE {table.sql()} ADD CONSTRAINT {quote(name)} {kind} USING INDEX {quote(name)}{deferred}",
        table.namespace,
        (TableLock(table, LockMode.ACCESS_EXCLUSIVE),),
        table,
    )
    # The index first: it takes long, and stops nobody; what makes the column NOT NULL can be noticed at once.
    built = build_index(
        _index_statement(constraint, table, name), table, index, expect, takes_name=takes_name
    )
    steps = (built, *not_null, attach)
    return Recipe("add_primary_key" if is_primary else "add_unique", steps)


def build_index(sql: str, table: Name, index: Name, expect: str, *, takes_name: bool) -> Step:
    """CREATE INDEX CONCURRENTLY, undone by DROP INDEX CONCURRENTLY."""
    locks = (TableLock(table, LockMode.SHARE_UPDATE_EXCLUSIVE),)
    undo = Step(
        StepKind.DROP_INDEX,
        f"DROP INDEX CONCURRENTLY IF EXISTS {index.sql()}",
        table.namespace,
        locks,
        table,
        index=index,
        expect=expect,
    )
    return Step(
        StepKind.BUILD_INDEX,
        sql,
        table.namespace,
        locks,
        table,
        index=index,
        expect=expect,
        takes_name=takes_name,
        undo=undo,
    )


def validate(table: Name, name: str, *, referenced: Name | None = None) -> Step:
    """VALIDATE CONSTRAINT."""
    locks = [TableLock(table, LockMode.SHARE_UPDATE_EXCLUSIVE)]
    if referenced is not None and referenced != table:
        locks.append(TableLock(referenced, LockMode.ROW_SHARE))
    sql = f"ALTER TABLE {table.sql()} VALIDATE CONSTRAINT {quote(name)}"
    return Step(StepKind.VALIDATE, sql, table.namespace, tuple(locks), table)


def _add_unproven(parsed: Parsed, table: Name, name: str, locks: tuple[TableLock, ...]) -> Step:
    constraint = constraint_of(parsed)
    constraint.skip_validation = True
    constraint.initially_valid = False
    return _undone_by_drop(Step(StepKind.DIRECT, parsed.sql, table.namespace, locks, table), table, name)


def _undone_by_drop(step: Step, table: Name, name: str) -> Step:
    """Dropping a foreign key takes ACCESS EXCLUSIVE at both ends."""
    undo = Step(
        StepKind.DIRECT,
        f"ALTER TABLE {table.sql()} DROP CONSTRAINT IF EXISTS {quote(name)}",
        table.namespace,
        tuple(TableLock(lock.relation, LockMode.ACCESS_EXCLUSIVE) for lock in step.locks),
        table,
    )
    return Step(step.kind, step.sql, step.namespace, step.locks, step.owned_by, undo=undo)


def _named(parsed: Parsed, name: str) -> Parsed:
    named = copy(parsed)
    constraint_of(named).conname = name
    return named


def _is_to_validate(constraint: Any) -> bool:
    return bool(constraint.is_enforced and not constraint.skip_validation)


def _index_statement(constraint: Any, table: Name, name: str) -> str:
    columns = ", ".join(quote(key.string.sval) for key in constraint.keys)
    including = ", ".join(quote(key.string.sval) for key in constraint.including)
    parsed = read(
        f"CREATE UNIQUE INDEX CONCURRENTLY {quote(name)} ON {table.sql()} ({columns})"
        + (f" INCLUDE ({including})" if including else "")
        + (" NULLS NOT DISTINCT" if constraint.nulls_not_distinct else "")
    )
    parsed.node.options.extend(constraint.options)
    parsed.node.table_space = constraint.indexspace
    return parsed.sql


def _helper_name(column: str) -> str:
    return "_tern_nn_" + column.encode()[: LONGEST_BYTES - 10].decode(errors="ignore")
