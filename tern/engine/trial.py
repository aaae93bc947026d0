"""Trying statements and recipes on copies, and the checks that every recipe has to pass.

A step that would read rows while it stops others is refused here, whatever the recipe's author believed.
"""

from dataclasses import dataclass, replace

from tern.engine import catalog
from tern.engine.errors import Reason
from tern.engine.names import Name
from tern.engine.oracle import Observation, Oracle
from tern.engine.parse import Parsed, RefusedError, nodes, read
from tern.engine.recipes.model import ChangeClass, LockMode, Recipe, Step, StepKind, TableLock
from tern.engine.scope import enum_name


@dataclass(frozen=True)
class Judged:
    """What the plain statement would do, and what is done instead."""

    change_class: ChangeClass
    recipes: tuple[Recipe, ...]


@dataclass(frozen=True)
class Trial:
    """The copies of one plan, and what may be done with them."""

    oracle: Oracle

    def copy(self, name: Name, *, keys: bool = False) -> bool:
        """Makes sure that a relation has its copy; False if there is none of that name."""
        return self.oracle.copy(name, keys=keys)

    def is_old(self, table: Name) -> bool:
        """Whether a table exists outside this trial, so that somebody may be using it."""
        return self.oracle.clones.was_copied(table)

    def plain(self, parsed: Parsed, namespace: str, table: Name | None, *, new: bool = False) -> Observation:
        """What the plain statement does; undone, for the recipe's steps come to the same."""
        self.oracle.clones.place(Name(namespace, ""))
        with self.oracle.attempt():
            seen = self.oracle.run(parsed, namespace, table)
        if seen.change_class is ChangeClass.REWRITE and not new and (table is None or self.is_old(table)):
            raise refused_class(seen.change_class, parsed)
        return seen

    def settled(
        self,
        seen: Observation,
        recipe: Recipe,
        table: Name | None,
        *,
        at_least: ChangeClass = ChangeClass.METADATA,
    ) -> Judged:
        """Runs the recipe's steps on the copies, so that later statements find their effect, and checks them."""
        steps = tuple(self._checked(step, table) for step in recipe.steps)
        worst = max(seen.change_class, at_least, key=lambda each: each.weight)
        return Judged(worst, (replace(recipe, steps=steps),))

    def _checked(self, step: Step, table: Name | None) -> Step:
        statement = read(step.sql)
        if step.kind in {StepKind.BUILD_INDEX, StepKind.DROP_INDEX}:
            statement.node.concurrent = False
        fresh = table is not None and not self.oracle.clones.was_copied(table)
        seen = self.oracle.run(statement, step.namespace, table)
        strongest = max((lock.mode for lock in step.locks), default=LockMode.ACCESS_SHARE)
        stops_others = step.kind is StepKind.DIRECT and strongest >= LockMode.SHARE
        if stops_others and seen.change_class is not ChangeClass.METADATA and not (step.fresh or fresh):
            raise refused_class(seen.change_class, statement)
        if step.kind is StepKind.DIRECT:
            return replace(step, locks=_with_seen(step.locks, seen), fresh=step.fresh or fresh)
        return replace(step, fresh=step.fresh or fresh)

    def dependants(self, table: Name, column: str | None = None) -> list[str]:
        """What uses a table or one of its columns."""
        return catalog.dependants(self.oracle.connection, table, column) if self.is_old(table) else []

    def row_type_users(self, table: Name) -> list[str]:
        """What uses the type of a table's rows."""
        return catalog.row_type_users(self.oracle.connection, table) if self.is_old(table) else []

    def constraint_name(self, given: str, seen: Observation, table: Name) -> str:
        """The name that a constraint was given, or the one that the server would choose on the real table."""
        if given:
            return given
        chosen = next(each.name for each in seen.constraints if each.kind in {"c", "f"})
        return catalog.free_name(self.oracle.connection, chosen, table.namespace, is_relation=False)

    def index_name(self, given: str, seen: Observation, table: Name) -> str:
        """The same for an index; one that is taken is refused here, where nothing has been built yet."""
        if not given:
            chosen = seen.indexes[0].name
            return catalog.free_name(self.oracle.connection, chosen, table.namespace, is_relation=True)
        taken = Name(table.namespace, given)
        owner = catalog.index_table(self.oracle.connection, taken)
        is_ours_to_know = owner is not None and self.is_old(owner)
        if catalog.exists(self.oracle.connection, taken) and not is_ours_to_know:
            raise RefusedError(Reason.DDL_INVALID, f"a relation {taken} exists already")
        return given


def refuse_dependants(found: list[str], what: str) -> None:
    """Refuses what the server would refuse too, but only under its lock and after the other steps."""
    if found:
        words = f"{what} is used by {', '.join(found)}; change or drop that first"
        raise RefusedError(Reason.STATEMENT_REFUSED, words)


def refused_class(seen: ChangeClass, parsed: Parsed) -> RefusedError:
    """The refusal of a statement that would stop the application for as long as it takes to read its rows."""
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
