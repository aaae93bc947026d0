"""Taking ALTER TABLE apart: what may run together in one instant, and what needs a recipe of its own.

PostgreSQL executes the parts of one ALTER TABLE in passes of its own, drops first and constraints after columns, not
in the order written. The parts that touch only the catalogue stay one statement, so the application never sees a state
between them; the others follow it, in the passes' order.
"""

from dataclasses import dataclass
from typing import Any

from tern.engine.errors import Reason
from tern.engine.grammar import ast
from tern.engine.parse import Parsed, RefusedError, copy
from tern.engine.scope import enum_name

# Column constraints that become constraints of the table, with the field that then names the column.
MOVED = {
    "CONSTR_CHECK": "",
    "CONSTR_UNIQUE": "keys",
    "CONSTR_PRIMARY": "keys",
    "CONSTR_FOREIGN": "fk_attrs",
}
ATTRIBUTES = {
    "CONSTR_ATTR_DEFERRABLE": ("deferrable", True),
    "CONSTR_ATTR_NOT_DEFERRABLE": ("deferrable", False),
    "CONSTR_ATTR_DEFERRED": ("initdeferred", True),
    "CONSTR_ATTR_IMMEDIATE": ("initdeferred", False),
}
# Parts that are taken together in one instant, and the lock that each needs when it isn't ACCESS EXCLUSIVE.
WEAKER_LOCKS = {
    "AT_SetStatistics": "SHARE_UPDATE_EXCLUSIVE",
    "AT_SetOptions": "SHARE_UPDATE_EXCLUSIVE",
    "AT_ResetOptions": "SHARE_UPDATE_EXCLUSIVE",
    "AT_ClusterOn": "SHARE_UPDATE_EXCLUSIVE",
    "AT_DropCluster": "SHARE_UPDATE_EXCLUSIVE",
    "AT_EnableTrig": "SHARE_ROW_EXCLUSIVE",
    "AT_EnableAlwaysTrig": "SHARE_ROW_EXCLUSIVE",
    "AT_EnableReplicaTrig": "SHARE_ROW_EXCLUSIVE",
    "AT_DisableTrig": "SHARE_ROW_EXCLUSIVE",
    "AT_EnableTrigAll": "SHARE_ROW_EXCLUSIVE",
    "AT_DisableTrigAll": "SHARE_ROW_EXCLUSIVE",
    "AT_EnableTrigUser": "SHARE_ROW_EXCLUSIVE",
    "AT_DisableTrigUser": "SHARE_ROW_EXCLUSIVE",
}
STORAGE_PARAMETERS = {"AT_SetRelOptions", "AT_ResetRelOptions"}
# The storage parameters that don't get by with SHARE UPDATE EXCLUSIVE.
STRONG_PARAMETERS = {"user_catalog_table"}
TOGETHER = {
    *WEAKER_LOCKS,
    *STORAGE_PARAMETERS,
    "AT_AddColumn",
    "AT_ColumnDefault",
    "AT_DropNotNull",
    "AT_SetStorage",
    "AT_SetCompression",
    "AT_DropColumn",
    "AT_DropConstraint",
    "AT_AlterColumnType",
    "AT_AlterConstraint",
    "AT_ChangeOwner",
    "AT_EnableRowSecurity",
    "AT_DisableRowSecurity",
    "AT_ForceRowSecurity",
    "AT_NoForceRowSecurity",
    "AT_ReplicaIdentity",
    "AT_AddIdentity",
    "AT_SetIdentity",
    "AT_DropIdentity",
    "AT_SetExpression",
    "AT_DropExpression",
    "AT_SetLogged",
    "AT_SetUnLogged",
    "AT_SetAccessMethod",
}
# Parts that are never built here, with the reason.
REFUSED = {
    "AT_SetTableSpace": "moving a table to another tablespace copies it under an exclusive lock",
    "AT_AttachPartition": "partitions are not built yet",
    "AT_DetachPartition": "partitions are not built yet",
    "AT_DetachPartitionFinalize": "partitions are not built yet",
    "AT_AddInherit": "inheritance is not built yet",
    "AT_DropInherit": "inheritance is not built yet",
}


@dataclass(frozen=True)
class Parts:
    """An ALTER TABLE taken apart."""

    together: Parsed | None
    # Each with exactly one part: a constraint, SET NOT NULL, or VALIDATE CONSTRAINT.
    alone: tuple[Parsed, ...]


def split(parsed: Parsed) -> Parts:
    """Takes an ALTER TABLE apart; refuses what no recipe is for."""
    together: list[Any] = []
    alone: list[Any] = []
    for part in parsed.node.cmds:
        command = part.alter_table_cmd
        kind = enum_name(command, "subtype")
        if kind == "AT_AddColumn":
            if command.missing_ok:
                words = "ADD COLUMN IF NOT EXISTS would hide a column that differs; write it without IF NOT EXISTS"
                raise RefusedError(Reason.STATEMENT_REFUSED, words)
            column, constraints = _without_constraints(command)
            together.append(column)
            alone.extend(constraints)
        elif kind == "AT_AddConstraint" and _uses_index(command):
            together.append(command)
        elif kind in {"AT_AddConstraint", "AT_SetNotNull", "AT_ValidateConstraint"}:
            alone.append(command)
        elif kind in TOGETHER:
            together.append(command)
        else:
            words = REFUSED.get(kind, "it is no part of ALTER TABLE that this engine knows")
            raise RefusedError(Reason.STATEMENT_REFUSED, f"{readable_part(kind)}: {words}")
    ordered = sorted(alone, key=_pass)
    return Parts(
        _with(parsed, together) if together else None, tuple(_with(parsed, [command]) for command in ordered)
    )


def command_of(parsed: Parsed) -> Any:
    """The only part of an ALTER TABLE."""
    return parsed.node.cmds[0].alter_table_cmd


def kind_of(command: Any) -> str:
    """The part's name in the grammar."""
    return enum_name(command, "subtype")


def readable_part(kind: str) -> str:
    """AT_SetTableSpace as SET TABLE SPACE."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in kind.removeprefix("AT_"))
    return words.strip().upper()


def _with(parsed: Parsed, commands: list[Any]) -> Parsed:
    part = copy(parsed)
    kept = [ast.Node(alter_table_cmd=command) for command in commands]
    del part.node.cmds[:]
    part.node.cmds.extend(kept)
    return part


def _uses_index(command: Any) -> bool:
    return bool(getattr(command, "def").constraint.indexname)


def _pass(command: Any) -> int:
    """SET NOT NULL and keys before foreign keys that may refer to them, and VALIDATE last."""
    kind = enum_name(command, "subtype")
    if kind == "AT_ValidateConstraint":
        return 3
    if kind == "AT_AddConstraint":
        return 2 if enum_name(getattr(command, "def").constraint, "contype") == "CONSTR_FOREIGN" else 1
    return 0


def _without_constraints(command: Any) -> tuple[Any, list[Any]]:
    """ADD COLUMN without what would make it read the table, and that as constraints of the table."""
    bare = type(command)()
    bare.CopyFrom(command)
    column = getattr(bare, "def").column_def
    kept: list[Any] = []
    moved: list[Any] = []
    last: list[Any] = kept
    for node in column.constraints:
        kind = enum_name(node.constraint, "contype")
        if kind in MOVED:
            moved.append(_of_table(node.constraint, kind, column.colname))
            last = moved
        elif kind.startswith("CONSTR_ATTR_") and last is moved:
            _attribute(moved[-1], kind)
        else:
            kept.append(node)
            last = kept
    copies = [_copied(node) for node in kept]
    del column.constraints[:]
    column.constraints.extend(copies)
    return bare, [_add_constraint(constraint) for constraint in moved]


def _copied(node: Any) -> Any:
    same = type(node)()
    same.CopyFrom(node)
    return same


def _of_table(constraint: Any, kind: str, column: str) -> Any:
    own = _copied(constraint)
    if MOVED[kind]:
        getattr(own, MOVED[kind]).append(ast.Node(string=ast.String(sval=column)))
    return own


def _attribute(constraint: Any, kind: str) -> None:
    if kind not in ATTRIBUTES:
        raise RefusedError(
            Reason.STATEMENT_REFUSED, f"{kind.removeprefix('CONSTR_ATTR_')} on a column's constraint"
        )
    field, value = ATTRIBUTES[kind]
    setattr(constraint, field, value)
    if kind == "CONSTR_ATTR_DEFERRED":
        constraint.deferrable = True


def _add_constraint(constraint: Any) -> Any:
    command = ast.AlterTableCmd(subtype=ast.AT_AddConstraint, behavior=ast.DROP_RESTRICT)
    getattr(command, "def").constraint.CopyFrom(constraint)
    return command
