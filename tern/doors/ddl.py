"""Splitting reviewed PostgreSQL DDL into changes: which table each statement is about, and what it would lose.

Only the text is looked at, with PostgreSQL's own parser, so that planning needs no engine. What a statement costs
and locks is asked from each target's engine (Preview), never guessed here. Plans for other database types don't
come here: they are files with the changes spelled out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import postgast
from google.protobuf.message import DecodeError

from tern.domain.errors import Refused
from tern.domain.model import Action, PlannedChange

DEFAULT_NAMESPACE = "public"
LONGEST_STATEMENT = 200_000
LONGEST_TEXT = 1_000_000
MOST_CHANGES = 200
MOST_WORDS = 20_000
"""Of one statement. The parser goes as deep as an expression does, and past its stack it ends the process."""
EXCERPT_WIDTH = 72

_REASON_INVALID = "DDL_INVALID"
_REASON_REFUSED = "STATEMENT_REFUSED"

_NOT_DDL: Mapping[str, str] = {
    "select_stmt": "it reads rows",
    "insert_stmt": "it writes rows",
    "update_stmt": "it writes rows",
    "delete_stmt": "it deletes rows",
    "merge_stmt": "it writes rows",
    "truncate_stmt": "it deletes rows",
    "copy_stmt": "it moves rows",
    "do_stmt": "what an anonymous block does can't be reviewed as a change",
    "call_stmt": "what a procedure does can't be reviewed as a change",
    "explain_stmt": "it only explains",
    "transaction_stmt": "the engine decides about transactions; leave BEGIN and COMMIT out",
    "variable_set_stmt": "the engine decides about its session's settings",
    "variable_show_stmt": "it only shows a setting",
    "constraints_set_stmt": "it is for one transaction only",
    "lock_stmt": "the engine decides about locks",
    "vacuum_stmt": "it maintains a table and changes no schema",
    "cluster_stmt": "it rewrites a table under an exclusive lock and changes no schema",
    "create_foreign_table_stmt": "its rows are in another database, where nothing can be shown to be safe",
    "create_table_as_stmt": "it copies rows; create the table and fill it in two steps",
    "refresh_mat_view_stmt": "it fills a view and changes no schema",
    "check_point_stmt": "it is for the server as a whole",
    "alter_system_stmt": "it is for the server as a whole",
    "createdb_stmt": "it is for the server as a whole",
    "dropdb_stmt": "it is for the server as a whole",
}
"""Statements that are no schema change of a table, with the reason in words."""

_WITH_RELATION: Mapping[str, Action] = {
    "create_stmt": Action.CREATE,
    "alter_table_stmt": Action.ALTER,
    "index_stmt": Action.ALTER,
    "rename_stmt": Action.ALTER,
    "alter_object_schema_stmt": Action.ALTER,
    "create_trig_stmt": Action.ALTER,
    "rule_stmt": Action.ALTER,
    "reindex_stmt": Action.ALTER,
}
"""Statements whose node names its table in `relation`."""

_RENAMES_WHAT_APPLICATIONS_SAY = frozenset(
    {"OBJECT_TABLE", "OBJECT_COLUMN", "OBJECT_VIEW", "OBJECT_FOREIGN_TABLE"}
)
_DROPPED_AS_RELATION = frozenset(
    {"OBJECT_TABLE", "OBJECT_INDEX", "OBJECT_VIEW", "OBJECT_MATVIEW", "OBJECT_FOREIGN_TABLE"}
)
_DROPPED_FROM_TABLE = frozenset({"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_RULE"})
_LOSSLESS_TYPES = frozenset({"text"})


def split_ddl(text: str) -> tuple[PlannedChange, ...]:
    """One change per statement, in order; raises Refused with line and column for what is none."""
    _refuse_unreadable(text)
    try:
        _refuse_wordy(text)
        tree = postgast.parse(text)
    except DecodeError:
        what = "the DDL is nested too deeply to be read"
        why = ("an expression holds others within others, or very many in a row",)
        raise Refused(what, why=why, reason=_REASON_INVALID) from None
    except postgast.PgQueryError as error:
        # Unlike the positions in a tree, which count bytes, an error's counts characters.
        _refuse_at(text, error.cursorpos - 1, "the DDL can't be parsed", error.message, _REASON_INVALID)
    if not tree.stmts:
        what = "the DDL is empty"
        raise Refused(what, why=("it holds no statement",), reason="DDL_EMPTY")
    if len(tree.stmts) > MOST_CHANGES:
        what = f"the DDL holds {len(tree.stmts)} statements"
        raise Refused(what, why=(f"a plan holds at most {MOST_CHANGES}",), reason=_REASON_REFUSED)
    return tuple(_change(text, raw) for raw in tree.stmts)


def _refuse_unreadable(text: str) -> None:
    if "\0" in text:
        # The parser would stop reading at it, and what follows would never be reviewed.
        _refuse_at(
            text, text.index("\0"), "the DDL can't be read", "it contains a NUL character", _REASON_INVALID
        )
    if len(text) > LONGEST_TEXT:
        what = f"the DDL is {len(text):,} characters long"
        raise Refused(what, why=(f"at most {LONGEST_TEXT:,} are accepted",), reason=_REASON_INVALID)


def _refuse_wordy(text: str) -> None:
    if len(text) <= MOST_WORDS:
        return
    words = 0
    for token in postgast.scan(text).tokens:
        words = 0 if token.token == ord(";") else words + 1
        if words > MOST_WORDS:
            what = "a statement of the DDL is too long"
            why = (f"it has more than {MOST_WORDS:,} words",)
            raise Refused(what, why=why, reason=_REASON_INVALID)


def _change(text: str, raw: Any) -> PlannedChange:
    ddl = _slice(text, raw.stmt_location, raw.stmt_len)
    kind = raw.stmt.WhichOneof("node")
    node = getattr(raw.stmt, kind)

    def refuse(why: str) -> NoReturn:
        before = text.encode()[: raw.stmt_location].decode()
        _refuse_at(text, len(before), "a statement is no change of one table", why, _REASON_REFUSED)

    if len(ddl) > LONGEST_STATEMENT:
        refuse(f"it is {len(ddl):,} characters long, at most {LONGEST_STATEMENT:,} are accepted")
    if kind in _NOT_DDL:
        refuse(_NOT_DDL[kind])
    if kind == "drop_stmt":
        return _dropping(node, ddl, refuse)
    if kind == "comment_stmt":
        return _commenting(node, ddl, refuse)
    if kind in {"create_policy_stmt", "alter_policy_stmt"}:
        return _planned(node.table, ddl, Action.ALTER)
    if kind == "view_stmt":
        return _planned(node.view, ddl, Action.CREATE)
    if kind == "create_stats_stmt" and len(node.relations) == 1:
        return _planned(node.relations[0].range_var, ddl, Action.ALTER)
    action = _WITH_RELATION.get(kind)
    if action is None or not node.relation.relname:
        refuse(f"it names no table ({_words_of(kind)}); Tern rolls out changes of tables")
    if node.relation.relpersistence == "t":
        refuse("a temporary table lives in one session only")
    return _planned(node.relation, ddl, action, _loss_of(kind, node))


def _planned(relation: Any, ddl: str, action: Action, unsafe_reason: str = "") -> PlannedChange:
    namespace = relation.schemaname or DEFAULT_NAMESPACE
    return PlannedChange(namespace, relation.relname, ddl, action, unsafe_reason)


def _loss_of(kind: str, node: Any) -> str:
    if kind == "rename_stmt":
        if _name_of(node, "rename_type") in _RENAMES_WHAT_APPLICATIONS_SAY:
            return "applications that still use the old name fail at once"
        return ""
    if kind == "alter_object_schema_stmt":
        return "applications that still use the old schema fail at once"
    if kind == "alter_table_stmt":
        losses = [_loss_of_part(command.alter_table_cmd) for command in node.cmds]
        return "; ".join(loss for loss in losses if loss)
    return ""


def _loss_of_part(command: Any) -> str:
    name = command.name
    cascade = (
        ", with everything that depends on it" if _name_of(command, "behavior") == "DROP_CASCADE" else ""
    )
    match _name_of(command, "subtype"):
        case "AT_DropColumn":
            return f"the column {name} and its values are lost{cascade}"
        case "AT_DropConstraint":
            return f"what the constraint {name} guarantees is lost{cascade}"
        case "AT_AlterColumnType" if _type_name(command) not in _LOSSLESS_TYPES:
            return f"values of {name} that its new type can't hold exactly are changed or refused"
        case "AT_SetUnLogged":
            return "the table's rows are lost in a crash of the server"
        case "AT_DetachPartition" | "AT_DropInherit":
            return "the rows of the partition leave the table"
        case "AT_DisableRowSecurity":
            return "rows become visible to those whom a policy kept out"
        case "AT_DisableTrig" | "AT_DisableTrigAll" | "AT_DisableTrigUser" | "AT_DisableRule":
            return "what the trigger or rule guards is not guarded any more"
        case _:
            return ""


def _dropping(node: Any, ddl: str, refuse: Callable[[str], NoReturn]) -> PlannedChange:
    what = _name_of(node, "remove_type")
    word = what.removeprefix("OBJECT_").lower().replace("_", " ")
    if what not in _DROPPED_AS_RELATION | _DROPPED_FROM_TABLE:
        refuse(f"it drops a {word}, not something of a table")
    if len(node.objects) > 1:
        refuse(f"it drops {len(node.objects)} at once; write one statement for each")
    names = [item.string.sval for item in node.objects[0].list.items]
    if what in _DROPPED_FROM_TABLE:
        *schema, table, name = names
        namespace = schema[-1] if schema else DEFAULT_NAMESPACE
        return PlannedChange(namespace, table, ddl, Action.ALTER, f"what the {word} {name} does is lost")
    namespace = names[-2] if len(names) > 1 else DEFAULT_NAMESPACE
    cascade = ", with everything that depends on it" if _name_of(node, "behavior") == "DROP_CASCADE" else ""
    if what == "OBJECT_INDEX":
        # The text does not say whose index it is; the engine finds its table.
        loss = f"queries that use the index {names[-1]} become slow at once{cascade}"
        return PlannedChange(namespace, names[-1], ddl, Action.ALTER, loss)
    loss = f"the {word} {names[-1]} is lost{cascade}"
    if what == "OBJECT_TABLE":
        loss = f"the table {names[-1]} and its rows are lost{cascade}"
    return PlannedChange(namespace, names[-1], ddl, Action.DROP, loss)


def _commenting(node: Any, ddl: str, refuse: Callable[[str], NoReturn]) -> PlannedChange:
    what = _name_of(node, "objtype")
    names = [item.string.sval for item in node.object.list.items]
    # A column or constraint is named behind its table.
    behind = 1 if what in {"OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_TRIGGER", "OBJECT_POLICY"} else 0
    if what not in {"OBJECT_TABLE", "OBJECT_VIEW", "OBJECT_INDEX"} and not behind:
        refuse("it comments on something that is no part of a table")
    of_table = names[: len(names) - behind]
    namespace = of_table[-2] if len(of_table) > 1 else DEFAULT_NAMESPACE
    return PlannedChange(namespace, of_table[-1], ddl, Action.ALTER)


def _type_name(command: Any) -> str:
    # The grammar calls the field `def`, which Python keeps for itself.
    names = getattr(command, "def").column_def.type_name.names
    return str(names[-1].string.sval) if names else ""


def _name_of(node: Any, field: str) -> str:
    """The name of an enum's value, whose number differs between versions of the parser."""
    enum = node.DESCRIPTOR.fields_by_name[field].enum_type
    return str(enum.values_by_number[getattr(node, field)].name)


def _words_of(kind: str) -> str:
    return kind.removesuffix("_stmt").replace("_", " ")


def _slice(text: str, start: int, length: int) -> str:
    """A statement's own text; the parser counts bytes, and a length of 0 means up to the end."""
    raw = text.encode()
    return raw[start : start + length if length else None].decode().strip().rstrip(";").rstrip()


def _refuse_at(text: str, position: int, what: str, why: str, reason: str) -> NoReturn:
    """Raises Refused with line, column and the line itself, marked below."""
    if position < 0:
        raise Refused(what, why=(why,), reason=reason)
    before = text[:position]
    line_number = before.count("\n") + 1
    column = len(before) - (before.rfind("\n") + 1)
    line = text.split("\n")[line_number - 1]
    message = f"{what} (line {line_number}, column {column + 1})"
    raise Refused(message, why=(why, *excerpt(line, column)), reason=reason)


def excerpt(line: str, column: int) -> Sequence[str]:
    """The part of a line around a column, and a caret below it."""
    first = max(0, column - EXCERPT_WIDTH // 2)
    shown = "".join(each if each.isprintable() else " " for each in line[first : first + EXCERPT_WIDTH])
    return (shown, " " * (column - first) + "^")
