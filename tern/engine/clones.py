"""Empty copies of tables in schemas that vanish with their transaction: what the oracle tries statements on."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from tern.engine.errors import Reason
from tern.engine.names import Name, quote
from tern.engine.parse import Parsed, RefusedError, copy, nodes, read
from tern.engine.scope import enum_name
from tern.engine.session import Connection, Row, row, rows

CATALOGUE_PATH = "pg_catalog, pg_temp"
PREFIX = "_tern_probe_"
RELATIONS = {
    "OBJECT_TABLE",
    "OBJECT_INDEX",
    "OBJECT_COLUMN",
    "OBJECT_TABCONSTRAINT",
    "OBJECT_TRIGGER",
    "OBJECT_POLICY",
}


Memory = tuple[dict[str, str], dict[Name, Name], set[Name], set[Name]]


@dataclass
class Clones:
    """The copies made so far in one transaction."""

    connection: Connection
    _nonce: str = field(default_factory=lambda: secrets.token_hex(4))
    _schemas: dict[str, str] = field(default_factory=dict)
    _made: dict[Name, Name] = field(default_factory=dict)
    _absent: set[Name] = field(default_factory=set)
    _with_keys: set[Name] = field(default_factory=set)

    def place(self, name: Name) -> Name:
        """Where the copy of a relation is, or would be."""
        return Name(self._schema(name.namespace), name.name)

    def original(self, place: Name) -> Name | None:
        """The relation whose copy is at that place; None if it isn't one of ours."""
        namespace = next((real for real, ours in self._schemas.items() if ours == place.namespace), None)
        return None if namespace is None else Name(namespace, place.name)

    def namespaces(self) -> list[str]:
        """The schemas in which copies are."""
        return list(self._schemas.values())

    def ensure(self, name: Name, *, keys: bool = False) -> bool:
        """Copies a relation unless that was done; False if there is none of that name.

        What an earlier statement of the same plan made or removed counts: it was tried on the copies.
        """
        if name in self._absent:
            return _exists(self.connection, self.place(name))
        if name not in self._made:
            found = self._look(name)
            if found is None:
                self._absent.add(name)
                return self.ensure(name)
            self._copy(name, found)
        if keys and name not in self._with_keys:
            self._with_keys.add(name)
            self._copy_keys(name)
        return _exists(self.connection, self.place(name))

    def remembered(self) -> Memory:
        """What is there now, for recall() after a rollback to now."""
        return dict(self._schemas), dict(self._made), set(self._absent), set(self._with_keys)

    def recall(self, memory: Memory) -> None:
        """Forgets what a rollback has undone."""
        self._schemas, self._made, self._absent, self._with_keys = memory

    def stands_in_for(self, name: Name) -> bool:
        """Whether statements about a relation go to its copy: it has or had one, or it exists nowhere but here.

        Indexes are found by the second condition: they are copied with their tables.
        """
        return (
            name in self._made
            or _exists(self.connection, self.place(name))
            or not _exists(self.connection, name)
        )

    def was_copied(self, name: Name) -> bool:
        """Whether the relation exists outside this transaction."""
        return name in self._made

    def _schema(self, namespace: str) -> str:
        if namespace not in self._schemas:
            schema = f"{PREFIX}{self._nonce}_{len(self._schemas)}"
            self.connection.execute(f"CREATE SCHEMA {quote(schema)}")
            # The owner of a copied table must be able to build its indexes there.
            self.connection.execute(f"GRANT USAGE, CREATE ON SCHEMA {quote(schema)} TO PUBLIC")
            self._schemas[namespace] = schema
        return self._schemas[namespace]

    def _look(self, name: Name) -> Row | None:
        found = row(
            self.connection,
            "SELECT c.oid::bigint AS oid, c.relkind::text AS kind, c.relpersistence::text AS persistence,"
            "       pg_get_userbyid(c.relowner) AS owner, c.relowner::regrole::text AS role,"
            "       pg_has_role(c.relowner, 'MEMBER') AS ours, NOT c.relispartition AND EXISTS ("
            "       SELECT FROM pg_inherits AS i WHERE c.oid IN (i.inhparent, i.inhrelid)) AS inherits"
            "  FROM pg_class AS c WHERE c.oid = to_regclass(%s)::oid",
            (name.sql(),),
        )
        if found is not None and found["inherits"] and found["kind"] != "p":
            words = f"{name} takes part in inheritance, which this engine can't try statements on yet"
            raise RefusedError(Reason.NOT_PREVIEWED, words)
        if found is None or found["kind"] in {"r", "v"}:
            return found
        kinds = {
            "p": "a partitioned table",
            "f": "a foreign table",
            "m": "a materialized view",
            "S": "a sequence",
        }
        kind = kinds.get(found["kind"], "no table")
        raise RefusedError(
            Reason.NOT_PREVIEWED, f"{name} is {kind}, which this engine can't try statements on yet"
        )

    def _copy(self, name: Name, found: Row) -> None:
        if not found["ours"]:
            words = f"{name} belongs to {found['owner']}, and the engine's role is no member of it"
            raise RefusedError(Reason.NOT_PREVIEWED, words)
        place = self.place(name)
        self._made[name] = place
        unlogged = "UNLOGGED " if found["persistence"] == "u" else ""
        self._catalogue_path()
        self.connection.execute(
            f"CREATE {unlogged}TABLE {place.sql()}"
            f" (LIKE {name.sql()} INCLUDING ALL EXCLUDING INDEXES EXCLUDING COMMENTS EXCLUDING STATISTICS)"
        )
        self._copy_constraints(name, found["oid"])
        self._copy_definitions(
            "SELECT pg_get_indexdef(indexrelid) AS definition FROM pg_index WHERE indrelid = %s AND NOT EXISTS"
            "       (SELECT FROM pg_constraint WHERE conindid = indexrelid AND conrelid = indrelid)",
            found["oid"],
        )
        self._copy_definitions(
            "SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger WHERE tgrelid = %s AND NOT tgisinternal",
            found["oid"],
        )
        self.connection.execute(f"ALTER TABLE {place.sql()} OWNER TO {found['role']}")

    def _copy_constraints(self, name: Name, oid: int) -> None:
        """Keys with their real names; LIKE would invent new ones."""
        for each in rows(
            self.connection,
            "SELECT conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint"
            " WHERE conrelid = %s AND contype IN ('p', 'u', 'x') ORDER BY contype",
            (oid,),
        ):
            added = f"ADD CONSTRAINT {quote(each['name'])} {each['definition']}"
            self.connection.execute(f"ALTER TABLE {self.place(name).sql()} {added}".encode())

    def _copy_definitions(self, query: str, oid: int) -> None:
        for each in rows(self.connection, query, (oid,)):
            self.connection.execute(redirected(self, read(each["definition"]), "").encode())

    def _copy_keys(self, name: Name) -> None:
        """Foreign keys in both directions, with copies of the tables at their other ends."""
        for each in rows(
            self.connection,
            "SELECT f.conname AS name, pg_get_constraintdef(f.oid) AS definition,"
            "       tn.nspname AS tn, t.relname AS t, rn.nspname AS rn, r.relname AS r"
            "  FROM pg_constraint AS f"
            "  JOIN pg_class AS t ON t.oid = f.conrelid JOIN pg_namespace AS tn ON tn.oid = t.relnamespace"
            "  JOIN pg_class AS r ON r.oid = f.confrelid JOIN pg_namespace AS rn ON rn.oid = r.relnamespace"
            " WHERE f.contype = 'f' AND to_regclass(%s)::oid IN (f.conrelid, f.confrelid)",
            (name.sql(),),
        ):
            here, there = Name(each["tn"], each["t"]), Name(each["rn"], each["r"])
            if not (self.ensure(here) and self.ensure(there)):
                continue
            if row(
                self.connection,
                "SELECT 1 FROM pg_constraint WHERE conrelid = to_regclass(%s)::oid AND conname = %s",
                (self.place(here).sql(), each["name"]),
            ):
                continue
            self._catalogue_path()
            statement = f"ALTER TABLE {here.sql()} ADD CONSTRAINT {quote(each['name'])} {each['definition']}"
            self.connection.execute(redirected(self, read(statement), "").encode())

    def _catalogue_path(self) -> None:
        """Definitions are written out with every name qualified only if nothing but pg_catalog is looked through."""
        self.connection.execute("SELECT set_config('search_path', %s, true)", (CATALOGUE_PATH,))


def redirected(clones: Clones, parsed: Parsed, namespace: str) -> str:
    """Writes a statement anew, about the copies; unqualified names are taken to be in `namespace`."""
    moved = copy(parsed)
    local = {each.ctename for each in nodes(moved.node, "CommonTableExpr")}
    for relation in nodes(moved.node, "RangeVar"):
        if not relation.schemaname and relation.relname in local:
            continue
        name = Name(relation.schemaname or namespace, relation.relname)
        if name.namespace and clones.stands_in_for(name):
            relation.schemaname = clones.place(name).namespace
    for words in _listed_relations(moved):
        name = Name(words[0].string.sval, words[1].string.sval)
        if clones.stands_in_for(name):
            words[0].string.sval = clones.place(name).namespace
    return moved.sql


def _listed_relations(parsed: Parsed) -> list[Any]:
    """The qualified relation names that drops and comments carry as lists of words."""
    if parsed.kind == "drop_stmt":
        things, object_type = list(parsed.node.objects), enum_name(parsed.node, "remove_type")
    elif parsed.kind == "comment_stmt":
        things, object_type = [parsed.node.object], enum_name(parsed.node, "objtype")
    else:
        return []
    if object_type not in RELATIONS:
        return []
    return [thing.list.items for thing in things if thing.WhichOneof("node") == "list"]


def _exists(connection: Connection, name: Name) -> bool:
    return row(connection, "SELECT 1 WHERE to_regclass(%s) IS NOT NULL", (name.sql(),)) is not None
