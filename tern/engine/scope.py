"""Which statements the engine takes at all, and what each one is about. Everything else is refused by name."""

from dataclasses import dataclass
from typing import Any

from tern.engine.errors import Reason
from tern.engine.names import Name
from tern.engine.parse import Parsed, RefusedError, copy, nodes
from tern.engine.recipes.model import LockMode

# Statements about one relation, and where the grammar keeps it.
ON_RELATION = {
    "alter_table_stmt": "relation",
    "create_stmt": "relation",
    "index_stmt": "relation",
    "create_trig_stmt": "relation",
    "create_policy_stmt": "table",
    "alter_policy_stmt": "table",
    "view_stmt": "view",
    "create_seq_stmt": "sequence",
    "alter_seq_stmt": "sequence",
}
# Statements about another object, and where the grammar keeps its name.
ON_OBJECT = {
    "create_function_stmt": "funcname",
    "create_enum_stmt": "type_name",
    "alter_enum_stmt": "type_name",
    "create_domain_stmt": "domainname",
}
# Drops and comments name their object in a list; the value says how many words belong to the relation's part.
ON_TABLE_PART = {"OBJECT_TRIGGER", "OBJECT_POLICY", "OBJECT_TABCONSTRAINT", "OBJECT_COLUMN"}
DROPPED = {
    "OBJECT_TABLE",
    "OBJECT_INDEX",
    "OBJECT_VIEW",
    "OBJECT_SEQUENCE",
    "OBJECT_TYPE",
    "OBJECT_DOMAIN",
    "OBJECT_FUNCTION",
    "OBJECT_TRIGGER",
    "OBJECT_POLICY",
    "OBJECT_STATISTIC_EXT",
}
COMMENTED = {
    "OBJECT_TABLE",
    "OBJECT_COLUMN",
    "OBJECT_INDEX",
    "OBJECT_VIEW",
    "OBJECT_SEQUENCE",
    "OBJECT_TYPE",
    "OBJECT_DOMAIN",
    "OBJECT_FUNCTION",
    "OBJECT_TABCONSTRAINT",
    "OBJECT_TRIGGER",
    "OBJECT_POLICY",
    "OBJECT_STATISTIC_EXT",
}
RENAMED = {"OBJECT_TABLE", "OBJECT_COLUMN", "OBJECT_TABCONSTRAINT", "OBJECT_INDEX", "OBJECT_VIEW"}
ALTERED = {"OBJECT_TABLE", "OBJECT_INDEX"}
RESERVED = {"_tern", "pg_catalog", "information_schema", "pg_toast"}
# Their functions run with the rights of whoever calls them, and reach nothing outside of the database.
FUNCTION_LANGUAGES = {"sql", "plpgsql"}


@dataclass(frozen=True)
class Target:
    """What a statement is about: a relation, or an object of another kind."""

    name: Name
    is_relation: bool
    # The object type of the grammar for drops, comments and renames.
    object_type: str = ""


def aim(parsed: Parsed, namespace: str) -> tuple[Parsed, Target]:
    """The statement with its target's name qualified by the declared namespace, and that target."""
    aimed = copy(parsed)
    _refuse_cascade(aimed)
    _refuse_our_rights(aimed)
    target = _target(aimed, namespace)
    refuse_reserved(target.name)
    return aimed, target


def refuse_reserved(name: Name) -> None:
    """Refuses what belongs to the server or to the engine."""
    if name.namespace in RESERVED or name.namespace.startswith(("pg_temp", "_tern_")):
        words = f"what is in {name.namespace} is not the plan's to change"
        raise RefusedError(Reason.STATEMENT_REFUSED, words)


def _target(parsed: Parsed, namespace: str) -> Target:
    node, kind = parsed.node, parsed.kind
    if kind in ON_RELATION:
        if getattr(node, ON_RELATION[kind]).relpersistence == "t":
            raise out_of_scope("a temporary relation")
        object_type = enum_name(node, "objtype") if kind == "alter_table_stmt" else ""
        if kind == "alter_table_stmt" and object_type not in ALTERED:
            raise out_of_scope(f"ALTER of {object_type.removeprefix('OBJECT_').lower()}")
        return Target(
            _qualify(getattr(node, ON_RELATION[kind]), namespace), is_relation=True, object_type=object_type
        )
    if kind in ON_OBJECT:
        return Target(_qualify_strings(getattr(node, ON_OBJECT[kind]), namespace), is_relation=False)
    match kind:
        case "composite_type_stmt":
            return Target(_qualify(node.typevar, namespace), is_relation=False)
        case "create_stats_stmt":
            if len(node.relations) != 1:
                raise out_of_scope("CREATE STATISTICS on something else than one table")
            if len(node.defnames):
                _qualify_strings(node.defnames, namespace)
            return Target(_qualify(node.relations[0].range_var, namespace), is_relation=True)
        case "rename_stmt":
            object_type = enum_name(node, "rename_type")
            if object_type not in RENAMED:
                raise out_of_scope(f"RENAME of {object_type.removeprefix('OBJECT_').lower()}")
            return Target(_qualify(node.relation, namespace), is_relation=True, object_type=object_type)
        case "grant_stmt":
            return _granted(node, namespace)
        case "drop_stmt":
            object_type = enum_name(node, "remove_type")
            if object_type not in DROPPED:
                raise out_of_scope(f"DROP of {object_type.removeprefix('OBJECT_').lower()}")
            if len(node.objects) != 1:
                raise RefusedError(
                    Reason.STATEMENT_REFUSED, "one statement drops one object; write one per object"
                )
            return _listed(node.objects[0], object_type, namespace)
        case "comment_stmt":
            object_type = enum_name(node, "objtype")
            if object_type not in COMMENTED:
                raise out_of_scope(f"COMMENT ON {object_type.removeprefix('OBJECT_').lower()}")
            return _listed(node.object, object_type, namespace)
        case _:
            raise out_of_scope(kind.removesuffix("_stmt").replace("_", " ").upper())


def refuse_mismatch(target: Target, declared: Name, *, index_table: Name | None = None) -> None:
    """Refuses a statement about something else than what it was declared, reviewed and scheduled for.

    An index may be declared by its own name or by its table's; an object that is no relation may be declared
    without a table.
    """
    accepted = {target.name} | ({index_table} if index_table is not None else set())
    if declared in accepted or (
        not target.is_relation and not declared.name and declared.namespace == target.name.namespace
    ):
        return
    words = f"the change was declared for {declared}, the statement is about {index_table or target.name}"
    raise RefusedError(Reason.TABLE_MISMATCH, words)


def out_of_scope(what: str) -> RefusedError:
    """A kind of statement that is not built (yet)."""
    return RefusedError(
        Reason.STATEMENT_REFUSED, f"this engine does not execute this kind of statement: {what}"
    )


def direct_lock(parsed: Parsed, target: Target) -> LockMode | None:
    """The lock that a statement which is executed as it stands takes on its target; None for no relation."""
    match parsed.kind:
        case "create_trig_stmt":
            return LockMode.SHARE_ROW_EXCLUSIVE
        case "create_policy_stmt" | "alter_policy_stmt":
            return LockMode.ACCESS_EXCLUSIVE
        case "create_stats_stmt":
            return LockMode.SHARE_UPDATE_EXCLUSIVE
        case "view_stmt":
            return LockMode.ACCESS_EXCLUSIVE if parsed.node.replace else None
        case "alter_seq_stmt":
            return LockMode.SHARE_ROW_EXCLUSIVE
        case "comment_stmt":
            return LockMode.SHARE_UPDATE_EXCLUSIVE if target.is_relation else None
        case "rename_stmt":
            is_index = target.object_type == "OBJECT_INDEX"
            return LockMode.SHARE_UPDATE_EXCLUSIVE if is_index else LockMode.ACCESS_EXCLUSIVE
        case "drop_stmt":
            return LockMode.ACCESS_EXCLUSIVE if target.is_relation else None
        case _:
            return None


def _granted(node: Any, namespace: str) -> Target:
    if enum_name(node, "targtype") != "ACL_TARGET_OBJECT" or len(node.objects) != 1:
        raise RefusedError(
            Reason.STATEMENT_REFUSED, "one statement grants on one named object; write one per object"
        )
    object_type = enum_name(node, "objtype")
    if object_type not in {
        "OBJECT_TABLE",
        "OBJECT_SEQUENCE",
        "OBJECT_FUNCTION",
        "OBJECT_TYPE",
        "OBJECT_DOMAIN",
    }:
        raise out_of_scope(f"GRANT on {object_type.removeprefix('OBJECT_').lower()}")
    thing = node.objects[0]
    if thing.HasField("range_var"):
        return Target(_qualify(thing.range_var, namespace), is_relation=True, object_type=object_type)
    return _listed(thing, object_type, namespace)


def _listed(thing: Any, object_type: str, namespace: str) -> Target:
    """The target of a statement that names it as a list of words, in one of the grammar's four shapes."""
    match thing.WhichOneof("node"):
        case "object_with_args":
            return Target(_qualify_strings(thing.object_with_args.objname, namespace), is_relation=False)
        case "type_name":
            return Target(_qualify_strings(thing.type_name.names, namespace), is_relation=False)
        case "list":
            words = thing.list.items
            part = 1 if object_type in ON_TABLE_PART else 0
            if object_type == "OBJECT_DOMAIN" and words[0].HasField("type_name"):
                return Target(_qualify_strings(words[0].type_name.names, namespace), is_relation=False)
            name = _qualify_strings(words, namespace, part=part)
            is_relation = object_type not in {"OBJECT_STATISTIC_EXT", "OBJECT_TYPE", "OBJECT_DOMAIN"}
            return Target(name, is_relation=is_relation, object_type=object_type)
        case _:
            raise out_of_scope(object_type.removeprefix("OBJECT_").lower())


def _qualify(relation: Any, namespace: str) -> Name:
    """Gives a relation without a namespace the declared one."""
    if relation.catalogname:
        raise RefusedError(
            Reason.STATEMENT_REFUSED, "a table is named with its database; name it by its namespace"
        )
    relation.schemaname = relation.schemaname or namespace
    return Name(relation.schemaname, relation.relname)


def _qualify_strings(words: Any, namespace: str, *, part: int = 0) -> Name:
    """The same for a name that is a list of words, the last `part` of which are inside the object."""
    texts = [word.string.sval for word in words]
    if len(texts) - part == 1:
        texts.insert(0, namespace)
        word = type(words[0])()
        word.string.sval = namespace
        kept = list(words)
        del words[:]
        words.extend([word, *kept])
    if len(texts) - part != 2:  # noqa: PLR2004 - namespace and name
        raise RefusedError(Reason.STATEMENT_REFUSED, f"a name can't be read: {'.'.join(texts)}")
    return Name(texts[0], texts[1])


def _refuse_cascade(parsed: Parsed) -> None:
    """CASCADE takes along what neither the plan nor its reviewer named."""
    for kind in ("AlterTableCmd", "DropStmt", "RenameStmt", "GrantStmt"):
        for node in nodes(parsed.node, kind):
            if enum_name(node, "behavior") == "DROP_CASCADE":
                raise RefusedError(
                    Reason.STATEMENT_REFUSED,
                    "CASCADE would drop objects that the plan does not name; name each of them in a change of its own",
                )


def _refuse_our_rights(parsed: Parsed) -> None:
    """A function belongs to the engine's role; what it does must need no rights but its caller's."""
    if parsed.kind != "create_function_stmt":
        return
    for option in (each.def_elem for each in parsed.node.options):
        if option.defname == "security" and option.arg.boolean.boolval:
            words = "a SECURITY DEFINER function would give the engine's rights to whoever calls it"
            raise RefusedError(Reason.STATEMENT_REFUSED, words)
        if option.defname == "language" and option.arg.string.sval.lower() not in FUNCTION_LANGUAGES:
            words = f"functions are created in {' and '.join(sorted(FUNCTION_LANGUAGES))} only"
            raise RefusedError(Reason.STATEMENT_REFUSED, words)


def enum_name(node: Any, field: str) -> str:
    """The name of an enum field's value."""
    described = node.DESCRIPTOR.fields_by_name[field].enum_type
    return str(described.values_by_number[getattr(node, field)].name)
