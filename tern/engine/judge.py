"""From a statement to its recipe: tried on copies as it stands, then in the recipe's own steps.

A step that would read rows while it stops others is refused here, whatever the recipe's author believed.
"""

from dataclasses import dataclass, replace

from tern.engine import catalog
from tern.engine.errors import Reason
from tern.engine.names import Name
from tern.engine.oracle import Observation, Oracle
from tern.engine.parse import Parsed, RefusedError, copy, nodes, read
from tern.engine.recipes import constraint, direct
from tern.engine.recipes.model import NOTHING_TO_DO, ChangeClass, LockMode, Recipe, Step, StepKind, TableLock
from tern.engine.recipes.split import command_of, kind_of, split
from tern.engine.scope import Target, direct_lock, enum_name, out_of_scope

# Their effect is known, and there is no copy of what they are about.
UNTRIED_DROPS = {
    "OBJECT_VIEW",
    "OBJECT_SEQUENCE",
    "OBJECT_TYPE",
    "OBJECT_DOMAIN",
    "OBJECT_FUNCTION",
    "OBJECT_POLICY",
    "OBJECT_STATISTIC_EXT",
}
UNTRIED_COMMENTS = UNTRIED_DROPS
UNTRIED_KINDS = {"alter_policy_stmt", "alter_seq_stmt"}


@dataclass(frozen=True)
class Judged:
    """What the plain statement would do, and what is done instead."""

    change_class: ChangeClass
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class Judge:
    """Finds the recipe of one statement after the other, on the copies of one plan."""

    oracle: Oracle

    def recipe(self, parsed: Parsed, target: Target) -> Judged:
        """The recipe of a statement whose target is known and agreed."""
        match parsed.kind:
            case "alter_table_stmt" if target.object_type == "OBJECT_INDEX":
                raise out_of_scope("ALTER INDEX, except RENAME")
            case "alter_table_stmt":
                return self._alter_table(parsed, target.name)
            case "index_stmt":
                return self._create_index(parsed, target.name)
            case "create_stmt":
                return self._create_table(parsed, target.name)
            case "drop_stmt" if target.object_type == "OBJECT_INDEX":
                return self._drop_index(parsed, target.name)
            case "drop_stmt" if target.object_type == "OBJECT_TABLE":
                return self._drop_table(parsed, target.name)
        return self._as_it_stands(parsed, target)

    def _alter_table(self, parsed: Parsed, table: Name) -> Judged:
        if not self._copy(table, keys=_needs_keys(parsed)):
            if parsed.node.missing_ok:
                return Judged(ChangeClass.METADATA, (Recipe(NOTHING_TO_DO, ()),))
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {table}")
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
                _refuse_dependants(self._dependants(table, command.name), f"column {command.name} of {table}")
            if kind == "AT_AlterColumnType":
                _refuse_dependants(self._row_type_users(table), f"the row type of {table}")
        words = [
            each.alter_table_cmd.name
            for each in part.node.cmds
            if kind_of(each.alter_table_cmd) in _WITH_KEYS
        ]
        neighbours = [
            self.oracle.clones.original(each) or each
            for each in catalog.neighbours(self.oracle.connection, self.oracle.clones.place(table), words)
        ]
        seen = self._try(part, table.namespace, table)
        fresh = not self.oracle.clones.was_copied(table)
        if seen.change_class is not ChangeClass.METADATA and not fresh:
            raise _refused_class(seen.change_class, part)
        return self._settled(seen, direct.alter_together(part, table, neighbours, fresh=fresh), table)

    def _alone(self, part: Parsed, table: Name) -> Judged:
        command = command_of(part)
        match kind_of(command):
            case "AT_SetNotNull":
                return self._set_not_null(part, table)
            case "AT_ValidateConstraint":
                recipe = self._validate(command.name, table)
                seen = self._try(part, table.namespace, table)
                return self._settled(seen, recipe, table, at_least=ChangeClass.SCAN)
        added = constraint.constraint_of(part)
        kind = enum_name(added, "contype")
        match kind:
            case "CONSTR_NOTNULL":
                return self._set_not_null(part, table)
            case "CONSTR_CHECK":
                seen = self._try(part, table.namespace, table)
                name = self._constraint_name(added.conname, seen, table)
                return self._settled(seen, constraint.add_check(part, table, name), table)
            case "CONSTR_FOREIGN":
                return self._add_foreign_key(part, table)
            case "CONSTR_PRIMARY" | "CONSTR_UNIQUE":
                return self._add_key(part, table)
            case "CONSTR_EXCLUSION":
                words = "an EXCLUDE constraint has no online form in PostgreSQL: its index is built under an exclusive lock"
                raise RefusedError(Reason.STATEMENT_REFUSED, words)
        raise out_of_scope(f"ADD CONSTRAINT of kind {kind.removeprefix('CONSTR_')}")

    def _set_not_null(self, part: Parsed, table: Name) -> Judged:
        seen = self._try(part, table.namespace, table)
        if not seen.not_null and not seen.constraints:
            return Judged(seen.change_class, (Recipe(NOTHING_TO_DO, ()),))
        if seen.change_class is ChangeClass.METADATA:
            # A valid CHECK proves it already, or the constraint is NOT VALID by request.
            lock = TableLock(table, LockMode.ACCESS_EXCLUSIVE)
            step = direct.as_it_stands(
                part, table.namespace, "set_not_null", lock, owned_by=table, fresh=not self._is_old(table)
            )
            return self._settled(seen, step, table)
        if not seen.not_null:
            raise RefusedError(
                Reason.STATEMENT_REFUSED, "the column is NOT NULL already, under another constraint"
            )
        steps = self._not_null_steps(seen, table)
        return self._settled(seen, Recipe("set_not_null", steps), table)

    def _not_null_steps(self, seen: Observation, table: Name) -> tuple[Step, ...]:
        names = {each.columns[0]: each.name for each in seen.constraints if each.kind == "n"}
        return tuple(
            step
            for column in seen.not_null
            for step in constraint.set_not_null(table, column, names.get(column, ""), self.oracle.version)
        )

    def _add_foreign_key(self, part: Parsed, table: Name) -> Judged:
        added = constraint.constraint_of(part)
        added.pktable.schemaname = added.pktable.schemaname or self._found_namespace(
            added.pktable.relname, table
        )
        referenced = Name(added.pktable.schemaname, added.pktable.relname)
        if not self._copy(referenced):
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {referenced}")
        seen = self._try(part, table.namespace, table)
        name = self._constraint_name(added.conname, seen, table)
        return self._settled(seen, constraint.add_foreign_key(part, table, name, referenced), table)

    def _add_key(self, part: Parsed, table: Name) -> Judged:
        added = constraint.constraint_of(part)
        if added.without_overlaps:
            raise RefusedError(Reason.STATEMENT_REFUSED, "WITHOUT OVERLAPS has no online form in PostgreSQL")
        seen = self._try(part, table.namespace, table)
        name = self._index_name(added.conname, seen, table)
        recipe = constraint.add_key(part, table, name, seen.indexes[0].key, self._not_null_steps(seen, table))
        return self._settled(seen, recipe, table)

    def _validate(self, name: str, table: Name) -> Recipe:
        keys = dict(catalog.foreign_keys(self.oracle.connection, self.oracle.clones.place(table)))
        referenced = keys.get(name)
        if referenced is not None:
            referenced = self.oracle.clones.original(referenced) or referenced
        return Recipe("validate_constraint", (constraint.validate(table, name, referenced=referenced),))

    def _create_index(self, parsed: Parsed, table: Name) -> Judged:
        if not self._copy(table):
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {table}")
        plain = copy(parsed)
        plain.node.concurrent = False
        plain.node.if_not_exists = False
        wanted = Name(table.namespace, plain.node.idxname)
        if parsed.node.if_not_exists and self._index_is_there(wanted, table):
            return self._same_index(plain, wanted, table)
        seen = self._try(plain, table.namespace, table)
        name = self._index_name(plain.node.idxname, seen, table)
        online = copy(plain)
        online.node.concurrent = True
        online.node.idxname = name
        index = Name(table.namespace, name)
        step = constraint.build_index(online.sql, table, index, seen.indexes[0].key)
        return self._settled(seen, Recipe("create_index", (step,)), table)

    def _same_index(self, plain: Parsed, wanted: Name, table: Name) -> Judged:
        """IF NOT EXISTS is taken at its word only if the index that exists is valid and the one that is meant."""
        from tern.engine.reconcile import definition_key, find_index  # noqa: PLC0415

        nameless = copy(plain)
        nameless.node.idxname = ""
        seen = self._try(nameless, table.namespace, table)
        found = find_index(self.oracle.connection, wanted)
        if found is None or not found.is_valid or definition_key(found.definition) != seen.indexes[0].key:
            state = "is invalid" if found is not None and not found.is_valid else "differs"
            words = f"an index {wanted} exists already and {state}; IF NOT EXISTS would hide that"
            raise RefusedError(Reason.STATEMENT_REFUSED, words)
        return Judged(ChangeClass.INDEX_BUILD, (Recipe(NOTHING_TO_DO, ()),))

    def _create_table(self, parsed: Parsed, table: Name) -> Judged:
        node = parsed.node
        if node.HasField("partbound") or node.HasField("partspec") or len(node.inh_relations):
            raise RefusedError(Reason.STATEMENT_REFUSED, "partitions and inheritance are not built yet")
        if self._copy(table):
            raise RefusedError(Reason.DDL_INVALID, f"a relation {table} exists already")
        referenced: set[Name] = set()
        for relation in nodes(node, "RangeVar"):
            name = Name(relation.schemaname, relation.relname)
            if not relation.schemaname and relation.relname != table.name:
                name = Name(self._found_namespace(relation.relname, table), relation.relname)
                relation.schemaname = name.namespace
            if name != table and relation.schemaname:
                self._copy(name)
                referenced.add(name)
        seen = self._try(parsed, table.namespace, table, new=True)
        keys = {
            Name(each.pktable.schemaname, each.pktable.relname)
            for each in nodes(node, "Constraint")
            if each.HasField("pktable") and each.pktable.schemaname
        }
        recipe = direct.create_table(parsed, table, sorted(keys & referenced))
        # The new table has no rows, so nothing of what building its indexes costs is felt.
        return replace(self._settled(seen, recipe, table), change_class=ChangeClass.METADATA)

    def _drop_table(self, parsed: Parsed, table: Name) -> Judged:
        if not self._copy(table, keys=True):
            if parsed.node.missing_ok:
                return Judged(ChangeClass.METADATA, (Recipe(NOTHING_TO_DO, ()),))
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {table}")
        connection, place = self.oracle.connection, self.oracle.clones.place(table)
        referring = catalog.referring(connection, place)
        if referring:
            words = f"{table} is referred to by {', '.join(referring)}; drop these foreign keys first"
            raise RefusedError(Reason.STATEMENT_REFUSED, words)
        _refuse_dependants(self._dependants(table) + self._row_type_users(table), str(table))
        keys = [
            (name, self.oracle.clones.original(each) or each)
            for name, each in catalog.foreign_keys(connection, place)
        ]
        seen = self._try(parsed, table.namespace, table)
        recipe = direct.drop_table(parsed, table, keys, fresh=not self._is_old(table))
        return self._settled(seen, recipe, table)

    def _drop_index(self, parsed: Parsed, index: Name) -> Judged:
        connection = self.oracle.connection
        table = catalog.index_table(connection, index)
        if table is not None:
            self._copy(table)
        elif not catalog.exists(connection, self.oracle.clones.place(index)):
            if parsed.node.missing_ok:
                return Judged(ChangeClass.METADATA, (Recipe(NOTHING_TO_DO, ()),))
            raise RefusedError(Reason.DDL_INVALID, f"there is no index {index}")
        else:
            place = catalog.index_table(connection, self.oracle.clones.place(index))
            table = (self.oracle.clones.original(place) if place else None) or index
        plain = copy(parsed)
        plain.node.concurrent = False
        seen = self._try(plain, index.namespace, table)
        return self._settled(seen, direct.drop_index(index, table), table)

    def _as_it_stands(self, parsed: Parsed, target: Target) -> Judged:
        name = direct.name_of(parsed)
        mode = direct_lock(parsed, target)
        relation = self._relation_of(parsed, target)
        lock = None if mode is None else TableLock(relation or target.name, mode)
        fresh = relation is not None and not self._is_old(relation)
        recipe = direct.as_it_stands(
            parsed, target.name.namespace, name, lock, owned_by=relation, fresh=fresh
        )
        if _is_untried(parsed):
            return Judged(ChangeClass.METADATA, (recipe,))
        seen = self._try(parsed, target.name.namespace, relation)
        if seen.change_class is not ChangeClass.METADATA:
            raise _refused_class(seen.change_class, parsed)
        return self._settled(seen, recipe, relation)

    def _relation_of(self, parsed: Parsed, target: Target) -> Name | None:
        """The table to copy, whose owner executes the statement; an index is renamed by its table's."""
        is_new = parsed.kind in {"create_seq_stmt", "view_stmt"}
        if not target.is_relation or _is_untried(parsed) or is_new or target.object_type == "OBJECT_SEQUENCE":
            if parsed.kind == "view_stmt" and parsed.node.replace:
                return target.name if self._is_old(target.name) else None
            return None
        if target.object_type == "OBJECT_INDEX":
            table = catalog.index_table(self.oracle.connection, target.name)
            if table is None:
                raise RefusedError(Reason.DDL_INVALID, f"there is no index {target.name}")
            self._copy(table)
            return table
        if not self._copy(target.name):
            raise RefusedError(Reason.DDL_INVALID, f"there is no relation {target.name}")
        return target.name

    def _settled(
        self,
        seen: Observation,
        recipe: Recipe,
        table: Name | None,
        *,
        at_least: ChangeClass = ChangeClass.METADATA,
    ) -> Judged:
        """Runs the recipe's steps on the copies, so that later statements find their effect, and checks them."""
        steps: list[Step] = []
        for step in recipe.steps:
            steps.append(self._checked(step, table))
        worst = max(seen.change_class, at_least, key=lambda each: each.weight)
        return Judged(worst, (replace(recipe, steps=tuple(steps)),))

    def _checked(self, step: Step, table: Name | None) -> Step:
        statement = read(step.sql)
        if step.kind in {StepKind.BUILD_INDEX, StepKind.DROP_INDEX}:
            statement.node.concurrent = False
        fresh = table is not None and not self.oracle.clones.was_copied(table)
        seen = self.oracle.run(statement, step.namespace, table)
        strongest = max((lock.mode for lock in step.locks), default=LockMode.ACCESS_SHARE)
        stops_others = step.kind is StepKind.DIRECT and strongest >= LockMode.SHARE
        if stops_others and seen.change_class is not ChangeClass.METADATA and not (step.fresh or fresh):
            raise _refused_class(seen.change_class, statement)
        if step.kind is StepKind.DIRECT:
            return replace(step, locks=_with_seen(step.locks, seen), fresh=step.fresh or fresh)
        return replace(step, fresh=step.fresh or fresh)

    def _try(self, parsed: Parsed, namespace: str, table: Name | None, *, new: bool = False) -> Observation:
        """What the plain statement does; undone, for the recipe's steps come to the same."""
        self.oracle.clones.place(Name(namespace, ""))
        with self.oracle.attempt():
            seen = self.oracle.run(parsed, namespace, table)
        if seen.change_class is ChangeClass.REWRITE and not new and (table is None or self._is_old(table)):
            raise _refused_class(seen.change_class, parsed)
        return seen

    def _copy(self, name: Name, *, keys: bool = False) -> bool:
        return self.oracle.copy(name, keys=keys)

    def _is_old(self, table: Name) -> bool:
        return self.oracle.clones.was_copied(table)

    def _dependants(self, table: Name, column: str | None = None) -> list[str]:
        return catalog.dependants(self.oracle.connection, table, column) if self._is_old(table) else []

    def _row_type_users(self, table: Name) -> list[str]:
        return catalog.row_type_users(self.oracle.connection, table) if self._is_old(table) else []

    def _found_namespace(self, relation: str, table: Name) -> str:
        """Where an unqualified name leads: only the declared namespace is looked through."""
        return table.namespace if relation else ""

    def _constraint_name(self, given: str, seen: Observation, table: Name) -> str:
        if given:
            return given
        chosen = next(each.name for each in seen.constraints if each.kind in {"c", "f"})
        return catalog.free_name(self.oracle.connection, chosen, table.namespace, is_relation=False)

    def _index_name(self, given: str, seen: Observation, table: Name) -> str:
        if not given:
            chosen = seen.indexes[0].name
            return catalog.free_name(self.oracle.connection, chosen, table.namespace, is_relation=True)
        taken = Name(table.namespace, given)
        owner = catalog.index_table(self.oracle.connection, taken)
        is_ours_to_know = owner is not None and self._is_old(owner)
        if catalog.exists(self.oracle.connection, taken) and not is_ours_to_know:
            raise RefusedError(Reason.DDL_INVALID, f"a relation {taken} exists already")
        return given

    def _index_is_there(self, index: Name, table: Name) -> bool:
        return catalog.index_table(self.oracle.connection, index) == table


_WITH_KEYS = {"AT_DropColumn", "AT_AlterColumnType", "AT_DropConstraint", "AT_AlterConstraint"}


def _needs_keys(parsed: Parsed) -> bool:
    """Whether foreign keys play a part, so that they have to be on the copies."""
    kinds = {kind_of(each.alter_table_cmd) for each in parsed.node.cmds}
    return bool(kinds & (_WITH_KEYS | {"AT_ValidateConstraint"}))


def _is_untried(parsed: Parsed) -> bool:
    if parsed.kind == "drop_stmt":
        return enum_name(parsed.node, "remove_type") in UNTRIED_DROPS
    if parsed.kind == "comment_stmt":
        return enum_name(parsed.node, "objtype") in UNTRIED_COMMENTS
    return parsed.kind in UNTRIED_KINDS


def _refuse_dependants(found: list[str], what: str) -> None:
    if found:
        raise RefusedError(
            Reason.STATEMENT_REFUSED, f"{what} is used by {', '.join(found)}; change or drop that first"
        )


def _refused_class(seen: ChangeClass, parsed: Parsed) -> RefusedError:
    if seen is ChangeClass.REWRITE:
        words = "it rewrites the table under an exclusive lock, and online rewrites are not built yet"
        return RefusedError(Reason.REWRITE_REFUSED, words)
    what = {
        ChangeClass.SCAN: "reads every row",
        ChangeClass.INDEX_BUILD: "builds an index",
        ChangeClass.FK_SCAN: "compares two tables",
    }[seen]
    hint = ""
    if any(enum_name(each, "contype") == "CONSTR_NOTNULL" for each in nodes(parsed.node, "Constraint")):
        hint = "; give the new column a default, or add it first and make it NOT NULL in a change of its own"
    return RefusedError(Reason.STATEMENT_REFUSED, f"it {what} under a lock that stops the application{hint}")


def _with_seen(locks: tuple[TableLock, ...], seen: Observation) -> tuple[TableLock, ...]:
    """The locks that were foretold, and the stronger ones that the server was seen to take."""
    known = {lock.relation: lock.mode for lock in locks}
    for relation, mode in seen.locks.items():
        if mode > LockMode.ROW_EXCLUSIVE and mode > known.get(relation, LockMode.ACCESS_SHARE):
            known[relation] = mode
    return tuple(TableLock(relation, mode) for relation, mode in known.items())
