"""What a statement does to the rows, asked from the server itself: it is run on empty copies and rolled back.

Seen are the server's debug messages (by the C function that sends them, which no translation changes), the storage
of every copy before and after, the locks it took, and the names that it chose.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import errors

from tern.engine import failure
from tern.engine.clones import Clones, redirected
from tern.engine.errors import Reason, unavailable
from tern.engine.names import Name, quote
from tern.engine.parse import Parsed, RefusedError
from tern.engine.recipes.model import ChangeClass, LockMode
from tern.engine.reconcile import definition_key
from tern.engine.session import Connection, Row, rows, set_local, value

# Waiting for the catalogue's locks and for somebody's default expression; the copies themselves are empty.
LOCK_BUDGET_MS = 500
STATEMENT_BUDGET_MS = 5_000


@dataclass(frozen=True)
class NewIndex:
    """An index that a statement made."""

    name: str
    key: str


@dataclass(frozen=True)
class NewConstraint:
    """A constraint that a statement made."""

    name: str
    kind: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Observation:
    """What was seen while a statement ran on the copies."""

    change_class: ChangeClass
    locks: dict[Name, LockMode]
    indexes: tuple[NewIndex, ...] = ()
    constraints: tuple[NewConstraint, ...] = ()
    # Columns that became NOT NULL.
    not_null: tuple[str, ...] = ()


@dataclass
class Oracle:
    """One transaction on the copies, in which the statements of a plan are tried in their order."""

    connection: Connection
    clones: Clones
    version: int
    _heard: list[str] = field(default_factory=list)

    def hear(self, notice: psycopg.errors.Diagnostic) -> None:
        """Keeps which function of the server spoke."""
        # A first wide column gives the table a TOAST relation, whose empty index is built too: no work on any row.
        if _TOAST_INDEX.search(notice.message_primary or ""):
            return
        if notice.source_function:
            self._heard.append(notice.source_function)

    def copy(self, name: Name, *, keys: bool = False) -> bool:
        """Copies a relation unless that was done; False if there is none of that name."""
        before = self.clones.remembered()
        try:
            with self.connection.transaction():
                return self.clones.ensure(name, keys=keys)
        except RefusedError:
            self.clones.recall(before)
            raise
        except psycopg.Error as error:
            self.clones.recall(before)
            if failure.meaning(error) in {failure.Meaning.TRANSIENT, failure.Meaning.LOCKED}:
                raise unavailable(f"{name} could not be copied now: {failure.words(error)}") from error
            words = f"{name} could not be copied to try the statement on: {failure.words(error)}"
            raise RefusedError(Reason.NOT_PREVIEWED, words) from error

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Whatever happens inside is undone at its end."""
        with self.connection.transaction(force_rollback=True):
            yield

    def run(self, parsed: Parsed, namespace: str, table: Name | None) -> Observation:
        """Runs one statement on the copies and tells what was seen; raises RefusedError with the server's words."""
        try:
            with self.connection.transaction():
                return self._run(parsed, namespace, table)
        except psycopg.Error as error:
            raise self._refusal(error) from error

    def _run(self, parsed: Parsed, namespace: str, table: Name | None) -> Observation:
        statement = redirected(self.clones, parsed, namespace)
        before, storage = self._facts(table), self._storage()
        held = self._locks()
        self._lend(namespace, table)
        self._heard.clear()
        set_local(self.connection, client_min_messages="debug1")
        self.connection.execute(statement.encode())
        set_local(self.connection, client_min_messages="warning")
        heard = set(self._heard)
        self._take_back()
        after = self._facts(table)
        return Observation(
            change_class=_classify(heard, storage, self._storage()),
            locks={name: mode for name, mode in self._locks().items() if held.get(name) != mode},
            indexes=tuple(
                NewIndex(each["name"], definition_key(each["definition"]))
                for name, each in after.indexes.items()
                if name not in before.indexes
            ),
            constraints=tuple(
                NewConstraint(each["name"], each["kind"], tuple(each["columns"]))
                for name, each in after.constraints.items()
                if name not in before.constraints
            ),
            not_null=tuple(sorted(after.not_null - before.not_null)),
        )

    def _lend(self, namespace: str, table: Name | None) -> None:
        """The owner's role and the declared namespace, as when the statement is executed in earnest."""
        place = self.clones.place(Name(namespace, ""))
        set_local(self.connection, search_path=f"{quote(place.namespace)}, {quote(namespace)}, pg_temp")
        if table is None:
            return
        owner = value(
            self.connection,
            "SELECT relowner::regrole::text FROM pg_class"
            " WHERE oid = to_regclass(%s)::oid AND pg_get_userbyid(relowner) <> current_user",
            (self.clones.place(table).sql(),),
        )
        if owner is not None:
            self.connection.execute(f"SET LOCAL ROLE {owner}".encode())

    def _take_back(self) -> None:
        self.connection.execute("RESET ROLE")
        set_local(self.connection, search_path="pg_catalog, pg_temp")

    def _facts(self, table: Name | None) -> "_Facts":
        if table is None:
            return _Facts({}, {}, frozenset())
        place = (self.clones.place(table).sql(),)
        indexes = rows(
            self.connection,
            "SELECT c.relname AS name, pg_get_indexdef(i.indexrelid) AS definition"
            "  FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(%s)::oid",
            place,
        )
        constraints = rows(
            self.connection,
            "SELECT conname AS name, contype::text AS kind, ARRAY(SELECT attname::text FROM pg_attribute"
            "       WHERE attrelid = conrelid AND attnum = ANY(conkey) ORDER BY array_position(conkey, attnum))"
            "       AS columns FROM pg_constraint WHERE conrelid = to_regclass(%s)::oid",
            place,
        )
        columns = rows(
            self.connection,
            "SELECT attname AS name FROM pg_attribute WHERE attrelid = to_regclass(%s)::oid AND attnum > 0"
            "   AND attnotnull AND NOT attisdropped",
            place,
        )
        return _Facts(
            {each["name"]: each for each in indexes},
            {each["name"]: each for each in constraints},
            frozenset(each["name"] for each in columns),
        )

    def _storage(self) -> dict[int, tuple[str, int]]:
        found = rows(
            self.connection,
            "SELECT oid::bigint AS oid, relkind::text AS kind, pg_relation_filenode(oid)::bigint AS file FROM pg_class"
            " WHERE relkind IN ('r', 'i') AND relnamespace = ANY(%s::regnamespace[])",
            ([quote(each) for each in self.clones.namespaces()],),
        )
        return {each["oid"]: (each["kind"], each["file"]) for each in found}

    def _locks(self) -> dict[Name, LockMode]:
        """The strongest lock on each relation; a copy holds the one of its own creation from the start."""
        held: dict[Name, LockMode] = {}
        for each in rows(
            self.connection,
            "SELECT n.nspname AS namespace, c.relname AS name, l.mode FROM pg_locks AS l"
            "  JOIN pg_class AS c ON c.oid = l.relation JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p', 'v')"
            "   AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')",
        ):
            mode = LockMode.of_catalog_name(each["mode"])
            place = Name(each["namespace"], each["name"])
            name = self.clones.original(place) or place
            if mode is not None and not (self.clones.original(place) and mode is LockMode.ACCESS_EXCLUSIVE):
                held[name] = max(mode, held.get(name, mode))
        return held

    def _refusal(self, error: psycopg.Error) -> Exception:
        """The server's answer in the words of the plan: the copies' schemas mean nothing to its reader."""
        words = failure.words(error)
        if failure.meaning(error) in {failure.Meaning.TRANSIENT, failure.Meaning.LOCKED}:
            return unavailable(f"the statement could not be tried now: {words}")
        for place in self.clones.namespaces():
            original = self.clones.original(Name(place, ""))
            words = words.replace(place, original.namespace if original else place)
        if isinstance(error, errors.UnsafeNewEnumValueUsage):
            words += ". The value is added by the same plan; apply the plan that adds it first"
            return RefusedError(Reason.NOT_PREVIEWED, words)
        return RefusedError(Reason.DDL_INVALID, f"the server refuses it: {words}")


_TOAST_INDEX = re.compile(r'"pg_toast_\d+_index"')


@dataclass(frozen=True)
class _Facts:
    indexes: dict[str, Row]
    constraints: dict[str, Row]
    not_null: frozenset[str]


@contextmanager
def consult(connection: Connection) -> Iterator[Oracle]:
    """A transaction on copies; nothing of it lasts, whatever happens to this process."""
    with connection.transaction(force_rollback=True):
        set_local(connection, lock_timeout=LOCK_BUDGET_MS, statement_timeout=STATEMENT_BUDGET_MS)
        oracle = Oracle(connection, Clones(connection), connection.info.server_version)
        connection.add_notice_handler(oracle.hear)
        try:
            yield oracle
        finally:
            connection.remove_notice_handler(oracle.hear)


def _classify(
    heard: set[str], before: dict[int, tuple[str, int]], after: dict[int, tuple[str, int]]
) -> ChangeClass:
    """The most expensive thing that was seen."""
    moved = {kind for oid, (kind, file) in after.items() if oid in before and before[oid][1] != file}
    if "r" in moved:
        return ChangeClass.REWRITE
    if "validateForeignKeyConstraint" in heard:
        return ChangeClass.FK_SCAN
    if "i" in moved or "index_build" in heard:
        return ChangeClass.INDEX_BUILD
    if "ATRewriteTable" in heard:
        return ChangeClass.SCAN
    return ChangeClass.METADATA
