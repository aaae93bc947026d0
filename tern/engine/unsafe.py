"""What a person should have agreed to before it is done: data, guarantees or names that go away."""

from tern.engine.parse import Parsed
from tern.engine.recipes.split import kind_of
from tern.engine.scope import enum_name

_PARTS = {
    "AT_DropColumn": "dropping column {name} loses its data",
    "AT_DropConstraint": "dropping constraint {name} ends a guarantee that the application may rely on",
    "AT_DisableRowSecurity": "without row security every role that may read the table sees every row",
    "AT_EnableRowSecurity": "with row security and no policy other roles than the owner see no row",
    "AT_DisableTrig": "trigger {name} no longer fires",
    "AT_DisableTrigAll": "no trigger fires any more, foreign keys included",
    "AT_DisableTrigUser": "no trigger fires any more",
    "AT_ChangeOwner": "the former owner loses its rights",
    "AT_DropIdentity": "column {name} no longer gets its values by itself",
    "AT_DropExpression": "column {name} is no longer computed",
}
_DROPS = {
    "OBJECT_TABLE": "dropping a table loses its data",
    "OBJECT_INDEX": "queries that use the index become slow, and a unique index ends a guarantee",
    "OBJECT_SEQUENCE": "dropping a sequence loses its position",
    "OBJECT_POLICY": "dropping a policy changes who sees which rows",
}
_RENAMES = {
    "OBJECT_INDEX": "hints and scripts that name the index no longer find it",
    "OBJECT_TABCONSTRAINT": "scripts and error handling that name the constraint no longer find it",
}


def reasons(parsed: Parsed) -> tuple[str, ...]:
    """Why a statement is unsafe; empty when it isn't."""
    node = parsed.node
    match parsed.kind:
        case "alter_table_stmt":
            commands = [each.alter_table_cmd for each in node.cmds]
            found = [(_PARTS.get(kind_of(command)), command.name) for command in commands]
            return tuple(words.format(name=name) for words, name in found if words is not None)
        case "drop_stmt":
            kind = enum_name(node, "remove_type")
            what = kind.removeprefix("OBJECT_").replace("_EXT", "").lower()
            return (_DROPS.get(kind, f"the application may still use the {what}"),)
        case "rename_stmt":
            kind = enum_name(node, "rename_type")
            return (_RENAMES.get(kind, "the running application still uses the old name"),)
        case "grant_stmt" if not node.is_grant:
            return ("a role loses rights that it may be using",)
        case "alter_enum_stmt" if node.old_val:
            return ("the running application still uses the old value",)
        case "alter_policy_stmt":
            return ("altering a policy changes who sees which rows",)
        case "create_function_stmt" if node.replace:
            return ("callers get the new function at once",)
    return ()
