"""From a statement to its recipe: tried on copies as it stands, then in the recipe's own steps (trial.py)."""

from dataclasses import dataclass, replace

from tern.engine import catalog
from tern.engine.altering import AlterJudge
from tern.engine.errors import Reason
from tern.engine.names import Name
from tern.engine.parse import Parsed, RefusedError, copy, nodes
from tern.engine.recipes import constraint, direct
from tern.engine.recipes.model import NOTHING_TO_DO, ChangeClass, Recipe, TableLock
from tern.engine.reconcile import definition_key, find_index
from tern.engine.scope import Target, direct_lock, enum_name, out_of_scope, refuse_reserved
from tern.engine.trial import Judged, Trial, refuse_dependants, refused_class

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
class Judge:
    """Finds the recipe of one statement after the other, on the copies of one plan."""

    trial: Trial

    def recipe(self, parsed: Parsed, target: Target) -> Judged:
        """The recipe of a statement whose target is known and agreed."""
        match parsed.kind:
            case "alter_table_stmt" if target.object_type == "OBJECT_INDEX":
                raise out_of_scope("ALTER INDEX, except RENAME")
            case "alter_table_stmt":
                return AlterJudge(self.trial).recipe(parsed, target.name)
            case "index_stmt":
                return self._create_index(parsed, target.name)
            case "create_stmt":
                return self._create_table(parsed, target.name)
            case "drop_stmt" if target.object_type == "OBJECT_INDEX":
                return self._drop_index(parsed, target.name)
            case "drop_stmt" if target.object_type == "OBJECT_TABLE":
                return self._drop_table(parsed, target.name)
            case _:
                return self._as_it_stands(parsed, target)

    def _create_index(self, parsed: Parsed, table: Name) -> Judged:
        if not self.trial.copy(table):
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {table}")
        plain = copy(parsed)
        plain.node.concurrent = False
        plain.node.if_not_exists = False
        wanted = Name(table.namespace, plain.node.idxname)
        if parsed.node.if_not_exists and self._index_is_there(wanted, table):
            return self._same_index(plain, wanted, table)
        seen = self.trial.plain(plain, table.namespace, table)
        name = self.trial.index_name(plain.node.idxname, seen, table)
        online = copy(plain)
        online.node.concurrent = True
        online.node.idxname = name
        index = Name(table.namespace, name)
        taken = catalog.exists(self.trial.oracle.connection, index)
        step = constraint.build_index(online.sql, table, index, seen.indexes[0].key, takes_name=taken)
        return self.trial.settled(seen, Recipe("create_index", (step,)), table)

    def _same_index(self, plain: Parsed, wanted: Name, table: Name) -> Judged:
        """IF NOT EXISTS is taken at its word only if the index that exists is valid and the one that is meant."""
        nameless = copy(plain)
        nameless.node.idxname = ""
        seen = self.trial.plain(nameless, table.namespace, table)
        found = find_index(self.trial.oracle.connection, wanted)
        if found is None or not found.is_valid or definition_key(found.definition) != seen.indexes[0].key:
            state = "is invalid" if found is not None and not found.is_valid else "differs"
            words = f"an index {wanted} exists already and {state}; IF NOT EXISTS would hide that"
            raise RefusedError(Reason.STATEMENT_REFUSED, words)
        return Judged(ChangeClass.INDEX_BUILD, (Recipe(NOTHING_TO_DO, ()),))

    def _create_table(self, parsed: Parsed, table: Name) -> Judged:
        node = parsed.node
        if node.HasField("partbound") or node.HasField("partspec") or len(node.inh_relations):
            raise RefusedError(Reason.STATEMENT_REFUSED, "partitions and inheritance are not built yet")
        if self.trial.copy(table):
            raise RefusedError(Reason.DDL_INVALID, f"a relation {table} exists already")
        for relation in nodes(node, "RangeVar"):
            relation.schemaname = relation.schemaname or table.namespace
            name = Name(relation.schemaname, relation.relname)
            if name != table and not self.trial.copy(name):
                raise RefusedError(Reason.DDL_INVALID, f"there is no table {name}")
        seen = self.trial.plain(parsed, table.namespace, table, new=True)
        keys = {
            Name(each.pktable.schemaname, each.pktable.relname)
            for each in nodes(node, "Constraint")
            if each.HasField("pktable")
        }
        for key in keys:
            refuse_reserved(key)
        recipe = direct.create_table(parsed, table, sorted(keys - {table}))
        # The new table has no rows, so nothing of what building its indexes costs is felt.
        return replace(self.trial.settled(seen, recipe, table), change_class=ChangeClass.METADATA)

    def _drop_table(self, parsed: Parsed, table: Name) -> Judged:
        if not self.trial.copy(table, keys=True):
            if parsed.node.missing_ok:
                return Judged(ChangeClass.METADATA, (Recipe(NOTHING_TO_DO, ()),))
            raise RefusedError(Reason.DDL_INVALID, f"there is no table {table}")
        connection, place = self.trial.oracle.connection, self.trial.oracle.clones.place(table)
        referring = catalog.referring(connection, place)
        if referring:
            named = ", ".join(
                f"{key} of {self.trial.oracle.clones.original(other) or other}" for key, other in referring
            )
            words = f"{table} is referred to by {named}; drop these foreign keys first"
            raise RefusedError(Reason.STATEMENT_REFUSED, words)
        refuse_dependants(self.trial.dependants(table) + self.trial.row_type_users(table), str(table))
        keys = [
            (name, self.trial.oracle.clones.original(each) or each)
            for name, each in catalog.foreign_keys(connection, place)
        ]
        seen = self.trial.plain(parsed, table.namespace, table)
        recipe = direct.drop_table(parsed, table, keys, fresh=not self.trial.is_old(table))
        return self.trial.settled(seen, recipe, table)

    def _drop_index(self, parsed: Parsed, index: Name) -> Judged:
        connection = self.trial.oracle.connection
        table = catalog.index_table(connection, index)
        if table is not None:
            self.trial.copy(table)
        elif not catalog.exists(connection, self.trial.oracle.clones.place(index)):
            if parsed.node.missing_ok and not catalog.exists(connection, index):
                return Judged(ChangeClass.METADATA, (Recipe(NOTHING_TO_DO, ()),))
            raise RefusedError(Reason.DDL_INVALID, f"there is no index {index}")
        else:
            place = catalog.index_table(connection, self.trial.oracle.clones.place(index))
            table = (self.trial.oracle.clones.original(place) if place else None) or index
        plain = copy(parsed)
        plain.node.concurrent = False
        seen = self.trial.plain(plain, index.namespace, table)
        return self.trial.settled(seen, direct.drop_index(index, table), table)

    def _as_it_stands(self, parsed: Parsed, target: Target) -> Judged:
        name = direct.name_of(parsed)
        mode = direct_lock(parsed, target)
        relation = self._relation_of(parsed, target)
        lock = None if mode is None else TableLock(relation or target.name, mode)
        fresh = relation is not None and not self.trial.is_old(relation)
        recipe = direct.as_it_stands(
            parsed, target.name.namespace, name, lock, owned_by=relation, fresh=fresh
        )
        if _is_untried(parsed):
            return Judged(ChangeClass.METADATA, (recipe,))
        seen = self.trial.plain(parsed, target.name.namespace, relation)
        if seen.change_class is not ChangeClass.METADATA:
            raise refused_class(seen.change_class, parsed)
        return self.trial.settled(seen, recipe, relation)

    def _relation_of(self, parsed: Parsed, target: Target) -> Name | None:
        """The table to copy, whose owner executes the statement; an index is renamed by its table's."""
        is_new = parsed.kind in {"create_seq_stmt", "view_stmt"}
        if not target.is_relation or _is_untried(parsed) or is_new or target.object_type == "OBJECT_SEQUENCE":
            if parsed.kind == "view_stmt" and parsed.node.replace:
                return target.name if self.trial.is_old(target.name) else None
            return None
        if target.object_type == "OBJECT_INDEX":
            table = catalog.index_table(self.trial.oracle.connection, target.name)
            if table is None:
                raise RefusedError(Reason.DDL_INVALID, f"there is no index {target.name}")
            self.trial.copy(table)
            return table
        if not self.trial.copy(target.name):
            raise RefusedError(Reason.DDL_INVALID, f"there is no relation {target.name}")
        return target.name

    def _index_is_there(self, index: Name, table: Name) -> bool:
        return catalog.index_table(self.trial.oracle.connection, index) == table


def _is_untried(parsed: Parsed) -> bool:
    if parsed.kind == "drop_stmt":
        return enum_name(parsed.node, "remove_type") in UNTRIED_DROPS
    if parsed.kind == "comment_stmt":
        return enum_name(parsed.node, "objtype") in UNTRIED_COMMENTS
    return parsed.kind in UNTRIED_KINDS
