"""ALTER TABLE: each part finds its recipe, and is tried both as it stands and as the recipe has it."""

from dataclasses import dataclass

from tern.engine import catalog
from tern.engine.errors import Reason
from tern.engine.names import Name
from tern.engine.oracle import Observation
from tern.engine.parse import Parsed, RefusedError
from tern.engine.recipes import constraint, direct
from tern.engine.recipes.model import NOTHING_TO_DO, ChangeClass, LockMode, Recipe, Step, TableLock
from tern.engine.recipes.split import command_of, kind_of, split
from tern.engine.scope import enum_name, out_of_scope, refuse_reserved
from tern.engine.trial import Judged, Trial, refuse_dependants, refused_class

_WITH_KEYS = {"AT_DropColumn", "AT_AlterColumnType", "AT_DropConstraint", "AT_AlterConstraint"}


@dataclass(frozen=True)
class AlterJudge:
    """Finds the recipe of one ALTER TABLE."""

    trial: Trial

    def recipe(self, parsed: Parsed, table: Name) -> Judged:
        """The recipes of all parts, in the order in which they are carried out."""
        if not self.trial.copy(table, keys=_needs_keys(parsed)):
            if parsed.node.missing_ok:
                return Judged(ChangeClass.METADATA, (Recipe(NOTHING_TO_DO, ()),))
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {table}")
        if self.trial.is_old(table) and catalog.is_partition(self.trial.oracle.connection, table):
            raise RefusedError(
                Reason.STATEMENT_REFUSED, f"{table} is a partition, and partitions are not built yet"
            )
        parts = split(parsed)
        judged: list[Judged] = []
        if parts.together is not None:
            judged.append(self._together(parts.together, table))
        judged.extend(self._alone(part, table) for part in parts.alone)
        worst = max((each.change_class for each in judged), key=lambda each: each.weight)
        return Judged(worst, tuple(recipe for each in judged for recipe in each.recipes))

    def _together(self, part: Parsed, table: Name) -> Judged:
        for command in [each.alter_table_cmd for each in part.node.cmds]:
            kind = kind_of(command)
            if kind in {"AT_DropColumn", "AT_AlterColumnType"}:
                refuse_dependants(
                    self.trial.dependants(table, command.name), f"column {command.name} of {table}"
                )
            if kind == "AT_AlterColumnType":
                refuse_dependants(self.trial.row_type_users(table), f"the row type of {table}")
        words = [
            each.alter_table_cmd.name
            for each in part.node.cmds
            if kind_of(each.alter_table_cmd) in _WITH_KEYS
        ]
        neighbours = [
            self.trial.oracle.clones.original(each) or each
            for each in catalog.neighbours(
                self.trial.oracle.connection, self.trial.oracle.clones.place(table), words
            )
        ]
        seen = self.trial.plain(part, table.namespace, table)
        fresh = not self.trial.oracle.clones.was_copied(table)
        if seen.change_class is not ChangeClass.METADATA and not fresh:
            raise refused_class(seen.change_class, part)
        return self.trial.settled(seen, direct.alter_together(part, table, neighbours, fresh=fresh), table)

    def _alone(self, part: Parsed, table: Name) -> Judged:
        command = command_of(part)
        match kind_of(command):
            case "AT_SetNotNull":
                return self._set_not_null(part, table)
            case "AT_ValidateConstraint":
                recipe = self._validate(command.name, table)
                seen = self.trial.plain(part, table.namespace, table)
                return self.trial.settled(seen, recipe, table, at_least=ChangeClass.SCAN)
            case _:
                return self._add_constraint(part, table)

    def _add_constraint(self, part: Parsed, table: Name) -> Judged:
        added = constraint.constraint_of(part)
        kind = enum_name(added, "contype")
        match kind:
            case "CONSTR_NOTNULL":
                return self._set_not_null(part, table)
            case "CONSTR_CHECK":
                seen = self.trial.plain(part, table.namespace, table)
                name = self.trial.constraint_name(added.conname, seen, table)
                return self.trial.settled(seen, constraint.add_check(part, table, name), table)
            case "CONSTR_FOREIGN":
                return self._add_foreign_key(part, table)
            case "CONSTR_PRIMARY" | "CONSTR_UNIQUE":
                return self._add_key(part, table)
            case "CONSTR_EXCLUSION":
                words = "an EXCLUDE constraint has no online form in PostgreSQL: it is built under an exclusive lock"
                raise RefusedError(Reason.STATEMENT_REFUSED, words)
            case _:
                raise out_of_scope(f"ADD CONSTRAINT of kind {kind.removeprefix('CONSTR_')}")

    def _set_not_null(self, part: Parsed, table: Name) -> Judged:
        seen = self.trial.plain(part, table.namespace, table)
        if not seen.not_null and not seen.constraints:
            return Judged(seen.change_class, (Recipe(NOTHING_TO_DO, ()),))
        if seen.change_class is ChangeClass.METADATA:
            # A valid CHECK proves it already, or the constraint is NOT VALID by request.
            lock = TableLock(table, LockMode.ACCESS_EXCLUSIVE)
            step = direct.as_it_stands(
                part,
                table.namespace,
                "set_not_null",
                lock,
                owned_by=table,
                fresh=not self.trial.is_old(table),
            )
            return self.trial.settled(seen, step, table)
        if not seen.not_null:
            raise RefusedError(
                Reason.STATEMENT_REFUSED, "the column is NOT NULL already, under another constraint"
            )
        steps = self._not_null_steps(seen, table)
        return self.trial.settled(seen, Recipe("set_not_null", steps), table)

    def _not_null_steps(self, seen: Observation, table: Name) -> tuple[Step, ...]:
        names = {each.columns[0]: each.name for each in seen.constraints if each.kind == "n"}
        return tuple(
            step
            for column in seen.not_null
            for step in constraint.set_not_null(
                table, column, names.get(column, ""), self.trial.oracle.version
            )
        )

    def _add_foreign_key(self, part: Parsed, table: Name) -> Judged:
        added = constraint.constraint_of(part)
        added.pktable.schemaname = added.pktable.schemaname or table.namespace
        referenced = Name(added.pktable.schemaname, added.pktable.relname)
        refuse_reserved(referenced)
        if not self.trial.copy(referenced):
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {referenced}")
        seen = self.trial.plain(part, table.namespace, table)
        name = self.trial.constraint_name(added.conname, seen, table)
        return self.trial.settled(seen, constraint.add_foreign_key(part, table, name, referenced), table)

    def _add_key(self, part: Parsed, table: Name) -> Judged:
        added = constraint.constraint_of(part)
        if added.without_overlaps:
            raise RefusedError(Reason.STATEMENT_REFUSED, "WITHOUT OVERLAPS has no online form in PostgreSQL")
        seen = self.trial.plain(part, table.namespace, table)
        name = self.trial.index_name(added.conname, seen, table)
        taken = catalog.exists(self.trial.oracle.connection, Name(table.namespace, name))
        steps = self._not_null_steps(seen, table)
        recipe = constraint.add_key(part, table, name, seen.indexes[0].key, steps, takes_name=taken)
        return self.trial.settled(seen, recipe, table)

    def _validate(self, name: str, table: Name) -> Recipe:
        keys = dict(catalog.foreign_keys(self.trial.oracle.connection, self.trial.oracle.clones.place(table)))
        referenced = keys.get(name)
        if referenced is not None:
            referenced = self.trial.oracle.clones.original(referenced) or referenced
        return Recipe("validate_constraint", (constraint.validate(table, name, referenced=referenced),))


def _needs_keys(parsed: Parsed) -> bool:
    """Whether foreign keys play a part, so that they have to be on the copies."""
    kinds = {kind_of(each.alter_table_cmd) for each in parsed.node.cmds}
    return bool(kinds & (_WITH_KEYS | {"AT_ValidateConstraint"}))
