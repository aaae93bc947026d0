"""Reading one statement with PostgreSQL's own parser, and writing a changed one back without trusting the writer.

The parser only splits, identifies and redirects; what a statement *does* is asked from the server (oracle.py).
"""

from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from tern.engine.errors import Reason
from tern.engine.grammar import GrammarError, ast, deparse, parse, tokens
from tern.engine.names import LONGEST_BYTES

LONGEST_DDL = 200_000
# The parser goes as deep as an expression does, and past its stack it ends the process.
MOST_WORDS = 20_000
# Where a node stood in the text: the only thing in which a statement and its copy may differ.
POSITIONS = frozenset({"location", "stmt_location", "stmt_len"})


class RefusedError(Exception):
    """A statement that the engine doesn't execute; the reason is stable, the words are for a person."""

    def __init__(self, reason: Reason, words: str, *, position: int = 0) -> None:
        super().__init__(words)
        self.reason = reason
        self.words = words if not position else f"{words} (at character {position})"
        self.position = position


@dataclass(frozen=True)
class Parsed:
    """One statement: its tree, the name of its kind in the grammar, and the node of that kind."""

    tree: Any
    kind: str
    node: Any

    @property
    def sql(self) -> str:
        """The statement as text."""
        return write(self.tree)


def read(ddl: str) -> Parsed:
    """Reads exactly one statement, or says why not and where."""
    if "\0" in ddl:
        # The parser would stop reading here, and the server would never see what follows.
        raise RefusedError(
            Reason.DDL_INVALID, "the statement contains a NUL character", position=ddl.index("\0") + 1
        )
    if len(ddl) > LONGEST_DDL:
        raise RefusedError(Reason.DDL_INVALID, f"the statement is longer than {LONGEST_DDL} characters")
    try:
        if len(ddl) > MOST_WORDS and len(tokens(ddl)) > MOST_WORDS:
            raise RefusedError(Reason.DDL_INVALID, f"the statement has more than {MOST_WORDS} words")
        tree = parse(ddl)
        _refuse_long_identifiers(ddl)
    except DecodeError as error:
        raise RefusedError(Reason.DDL_INVALID, "the statement is nested too deeply to be read") from error
    except GrammarError as error:
        raise RefusedError(
            Reason.DDL_INVALID, _message(error), position=getattr(error, "cursorpos", 0)
        ) from error
    if not tree.stmts:
        raise RefusedError(Reason.DDL_INVALID, "there is no statement")
    if len(tree.stmts) > 1:
        position = _character(ddl, tree.stmts[1].stmt_location + 1)
        raise RefusedError(
            Reason.STATEMENT_REFUSED, "a change holds one statement, this one several", position=position
        )
    return of_tree(tree)


def of_tree(tree: Any) -> Parsed:
    """A tree with one statement, as read() would give it."""
    statement = tree.stmts[0].stmt
    kind = statement.WhichOneof("node")
    return Parsed(tree, kind, getattr(statement, kind))


def copy(parsed: Parsed) -> Parsed:
    """The same statement, free to be changed."""
    tree = ast.ParseResult()
    tree.CopyFrom(parsed.tree)
    return of_tree(tree)


def write(tree: Any) -> str:
    """The tree as SQL, read again and compared: a writer's mistake must not reach the server."""
    try:
        text = deparse(tree)
        again = parse(text)
    except GrammarError as error:
        raise RefusedError(
            Reason.NOT_PREVIEWED, f"the statement can't be written back: {_message(error)}"
        ) from error
    if without_positions(again) != without_positions(tree):
        raise RefusedError(Reason.NOT_PREVIEWED, "the statement changes its meaning when it is written back")
    return text


def without_positions(tree: Any) -> Any:
    """A copy of the tree that says nothing about where things stood."""
    bare = type(tree)()
    bare.CopyFrom(tree)
    _strip(bare)
    return bare


def nodes(message: Any, kind: str) -> list[Any]:
    """Every node of a kind (a message name such as RangeVar) in a tree; they may be changed in place."""
    found: list[Any] = []
    if message.DESCRIPTOR.name == kind:
        found.append(message)
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        children = [value] if hasattr(value, "ListFields") else value
        for child in children:
            found.extend(nodes(child, kind))
    return found


def _strip(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in POSITIONS:
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for child in [value] if hasattr(value, "ListFields") else value:
                _strip(child)


def _refuse_long_identifiers(ddl: str) -> None:
    """The server cuts a longer name silently, and two long names may become one."""
    text = ddl.encode()
    for token in tokens(ddl):
        written = text[token.start : token.end]
        if len(written) <= LONGEST_BYTES or ast.Token.Name(token.token) not in {"IDENT", "UIDENT"}:
            continue
        name = written[1:-1].replace(b'""', b'"') if written.startswith(b'"') else written
        if len(name) > LONGEST_BYTES:
            words = f"a name is longer than {LONGEST_BYTES} bytes: {name.decode(errors='replace')}"
            raise RefusedError(Reason.DDL_INVALID, words, position=_character(ddl, token.start + 1))


def _character(ddl: str, byte_position: int) -> int:
    """Places in a tree are counted in bytes from one (an error's are not); people count characters."""
    if byte_position <= 0:
        return 0
    return len(ddl.encode()[: byte_position - 1].decode(errors="ignore")) + 1


def _message(error: Exception) -> str:
    return str(getattr(error, "message", error))
