"""What a statement amounts to, however an engine spells it: the reader that tern.domain.own_work is handed.

Only PostgreSQL's own grammar is known here. A statement that it can't read says nothing, and refutes nothing.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import postgast
from google.protobuf.message import DecodeError, Message

from tern.domain.own_work import Name, Statement

LONGEST = 10_000
"""Characters. The parser goes as deep as an expression does, and past its stack it ends the process; what an engine
sends is nobody's reviewed statement.
"""
MOST_AT_ONCE = 100_000
"""Characters that were never read before, of all answers of one poll together: up to 25 µs each."""
MOST_PARTS = 200
KEPT = 2_048
"""Statements remembered, so that what does not change is read once and not at every look."""

_RELATIONS = frozenset(
    {"OBJECT_TABLE", "OBJECT_INDEX", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"}
)
_SPELLINGS = frozenset(
    {
        "catalogname",
        # How carefully it is done is the engine's choice; what comes of it is the same.
        "concurrent",
        "if_not_exists",
        "missing_ok",
        "skip_validation",
        "initially_valid",
    }
)


class Statements:
    """Reads statements and remembers them. Shared by all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Name, Statement | None] = OrderedDict()

    def read(self, ddl: str, namespace: str) -> Statement | None:
        """One statement, given the namespace of names that say none; None where it can't be read."""
        return self.read_all([(namespace, ddl)]).get((namespace, ddl))

    def read_all(self, written: Iterable[Name]) -> Mapping[Name, Statement | None]:
        """Those of some answers, by namespace and statement. What there is no room for is left out, which is as if it
        could not be read.
        """
        found: dict[Name, Statement | None] = {}
        room = MOST_AT_ONCE
        for each in written:
            namespace, ddl = each
            if each in found or not ddl or len(ddl) > LONGEST:
                continue
            with self._lock:
                is_known = each in self._known
                if is_known:
                    self._known.move_to_end(each)
                    found[each] = self._known[each]
            if is_known:
                continue
            room -= len(ddl)
            if room < 0:
                break
            found[each] = read_statement(ddl, namespace)
            with self._lock:
                self._known[each] = found[each]
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
        return found


STATEMENTS = Statements()


def read_statement(ddl: str, namespace: str) -> Statement | None:
    """One statement, or several that were written as one text; None where it can't be read."""
    if len(ddl) > LONGEST or "\0" in ddl:
        return None
    try:
        found = postgast.parse(ddl)
        if not found.stmts or len(found.stmts) > MOST_PARTS:
            return None
        names: set[Name] = set()
        parts: set[str] = set()
        names_its_table = True
        for raw in found.stmts:
            kind = raw.stmt.WhichOneof("node")
            node = getattr(raw.stmt, kind)
            _make_equal(kind, node, namespace)
            names.update(_names(kind, node))
            names_its_table = names_its_table and not _is_about_an_index(kind, node)
            if kind == "alter_table_stmt" and len(node.cmds) > MOST_PARTS:
                return None
            parts.update(_parts(kind, node))
    except (DecodeError, postgast.PgQueryError, RecursionError, ValueError):
        return None
    return Statement(frozenset(names), frozenset(parts), names_its_table)


def _names(kind: str, node: Any) -> Iterator[Name]:
    """All that it may be called after."""
    if kind in {"drop_stmt", "comment_stmt"}:
        yield from _listed_names(kind, node)
        return
    relation = _relation(kind, node)
    if relation is None or not relation.relname:
        return
    namespace = relation.schemaname
    yield (namespace, relation.relname)
    if kind == "index_stmt" and node.idxname:
        yield (namespace, node.idxname)
    if kind == "rename_stmt" and _enum(node, "rename_type") in _RELATIONS:
        yield (namespace, node.newname)
    if kind == "alter_object_schema_stmt":
        yield (node.newschema, relation.relname)


def _relation(kind: str, node: Any) -> Any:
    if kind == "view_stmt":
        return node.view
    if kind in {"create_policy_stmt", "alter_policy_stmt"}:
        return node.table
    if kind == "create_stats_stmt":
        return node.relations[0].range_var if node.relations else None
    return node.relation if "relation" in node.DESCRIPTOR.fields_by_name else None


def _listed_names(kind: str, node: Any) -> Iterator[Name]:
    """DROP and COMMENT write a name as a list, with what belongs to a table behind its table."""
    objects = node.objects if kind == "drop_stmt" else [node.object]
    behind = 0 if _what(kind, node) in _RELATIONS else 1
    for each in objects:
        names = [item.string.sval for item in each.list.items]
        of_table = names[: len(names) - behind]
        if len(of_table) > 1:
            yield (of_table[-2], of_table[-1])


def _is_about_an_index(kind: str, node: Any) -> bool:
    """It names an index, and the text does not say whose that is."""
    match kind:
        case "drop_stmt" | "comment_stmt":
            return _what(kind, node) == "OBJECT_INDEX"
        case "rename_stmt":
            return _enum(node, "rename_type") == "OBJECT_INDEX"
        case "alter_table_stmt":
            return _enum(node, "objtype") == "OBJECT_INDEX"
        case "reindex_stmt":
            return _enum(node, "kind") == "REINDEX_OBJECT_INDEX"
        case _:
            return False


def _parts(kind: str, node: Any) -> Iterator[str]:
    """A fingerprint each; of an ALTER TABLE one for each command, since engines merge and split these."""
    if kind != "alter_table_stmt" or len(node.cmds) < 2:  # noqa: PLR2004 - one is nothing to split
        yield _fingerprint(kind, node)
        return
    bare = type(node)()
    bare.CopyFrom(node)
    del bare.cmds[:]
    for command in node.cmds:
        alone = type(node)()
        alone.CopyFrom(bare)
        alone.cmds.add().CopyFrom(command)
        yield _fingerprint(kind, alone)


def _fingerprint(kind: str, node: Any) -> str:
    tree = postgast.ParseResult()
    plain = getattr(tree.stmts.add().stmt, kind)
    plain.CopyFrom(node)
    if kind == "index_stmt":
        # A name that was left to PostgreSQL may come back written out.
        plain.ClearField("idxname")
    return str(postgast.fingerprint(postgast.deparse(tree)).hex)


def _make_equal(kind: str, node: Any, namespace: str) -> None:
    """Writes out what engines may leave out, and takes away in what they may differ that carry out the same."""
    if kind in {"drop_stmt", "comment_stmt"}:
        full = 2 if _what(kind, node) in _RELATIONS else 3
        for each in node.objects if kind == "drop_stmt" else [node.object]:
            names = [item.string.sval for item in each.list.items]
            del each.list.items[:]
            for name in [namespace, *names] if len(names) < full else names[-full:]:
                each.list.items.add().string.sval = name
    _spell_out(node, namespace)


def _spell_out(message: Message, namespace: str) -> None:
    for field, value in message.ListFields():
        if field.name in _SPELLINGS:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if field.is_repeated else [value]:
                _spell_out(each, namespace)
    if message.DESCRIPTOR.name == "RangeVar" and not message.schemaname:  # type: ignore[attr-defined]
        message.schemaname = namespace  # type: ignore[attr-defined]


def _what(kind: str, node: Any) -> str:
    return _enum(node, "remove_type" if kind == "drop_stmt" else "objtype")


def _enum(node: Any, field: str) -> str:
    enum = node.DESCRIPTOR.fields_by_name[field].enum_type
    return str(enum.values_by_number[getattr(node, field)].name)
