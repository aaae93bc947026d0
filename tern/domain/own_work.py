"""Whether what an engine says of an id is about our own work. Pure; what a statement amounts to is read elsewhere.

An address may have come to lead to another engine, which may know the same id; an engine that lost its memory may give
an old id to new work. What was sent can't be recognised by the id alone, so each look is compared with the looks before
and with the statements. Tables refute and never prove: another rollout may well change the same ones.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tern.domain.samples import Sample, TableSample

Name = tuple[str, str]
"""Namespace and table."""

_MOST_NAMED = 3
_WORD = re.compile(r"\w+")
_FRACTION = re.compile(r"[.,](\d+)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement amounts to, however it is spelled.

    names: all that an engine may call what it is about: the table, its new name, the index. parts: fingerprints; of an
    ALTER TABLE one for each of its commands, because engines merge and split them. names_its_table is False where the
    text does not tell (DROP INDEX).
    """

    names: frozenset[Name]
    parts: frozenset[str]
    names_its_table: bool = True


Reader = Callable[[str, str], Statement | None]
"""Reads a statement, given the namespace of names that say none; None for what it can't read."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One of our statements: its table, its text, and what else an engine may call what it is about. parts: what it
    amounts to; none where it can't be read.
    """

    table: Name
    text: str
    names: frozenset[Name] = frozenset()
    parts: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Work:
    """What was sent, in the form in which it is compared."""

    names: frozenset[Name]
    texts: frozenset[Name]
    """Namespace and statement."""
    parts: frozenset[str]
    default_namespace: str
    is_read: bool = True
    """All of it could be read. Otherwise a strange statement may be one of ours in other words, and refutes nothing."""
    words: frozenset[str] = frozenset()
    """Of the statements that could not be read: each may be a table's new name, or the name of an index."""
    knows_tables: bool = True
    statements: tuple["Sent", ...] = ()
    """Each of them, in their order."""

    @classmethod
    def of(cls, changes: Iterable[tuple[str, str, str]], read: Reader, default_namespace: str) -> "Work":
        """From namespace, table and statement of each change."""
        names: set[Name] = set()
        texts: set[Name] = set()
        parts: set[str] = set()
        words: set[str] = set()
        statements: list[Sent] = []
        is_read = knows_tables = True
        for said, table, ddl in changes:
            namespace = said or default_namespace
            names.add((namespace, table))
            texts.add((namespace, plain(ddl)))
            statement = read(ddl, namespace)
            also, own = (
                (frozenset(), frozenset()) if statement is None else (statement.names, statement.parts)
            )
            statements.append(Sent((namespace, table), plain(ddl), also, own))
            if statement is None:
                is_read = False
                words.update(_WORD.findall(ddl))
                continue
            parts |= statement.parts
            knows_tables = knows_tables and statement.names_its_table
            names |= statement.names
        return cls(
            frozenset(names),
            frozenset(texts),
            frozenset(parts),
            default_namespace,
            is_read,
            frozenset(words),
            knows_tables,
            tuple(statements),
        )

    def has(self, names: Iterable[Name]) -> bool:
        """One of these is ours."""
        return any(name in self.names or name[1] in self.words for name in names)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of an operation's id from before.

    identity, started_at: from the first look that counted. is_vouched_for: a person looked and said that it is this
    work. is_in_doubt: an earlier look was refuted. earlier_started_at: of the finished operation that had the same id
    before; None where there was none, empty where nothing is known of it.
    """

    identity: str = ""
    started_at: str = ""
    is_vouched_for: bool = False
    is_in_doubt: bool = False
    earlier_started_at: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a look says about whose work it saw. against: everything that refutes it, in words."""

    against: tuple[str, ...] = ()
    confirms: bool = False
    """Something that can tell jobs apart was there to compare, and fits."""

    def counts(self, kept: Kept) -> bool:
        """The look may be taken over. Out of a doubt leads only one that has something to show: a foreign job that is
        through may name no tables any more, and would pass for ours.
        """
        return not self.against and (self.confirms or not kept.is_in_doubt)


def weigh(kept: Kept, work: Work, sample: Sample, read: Reader) -> Evidence:
    """All that speaks against a look, and whether anything speaks for it."""
    against = list(against_identity(kept.identity, sample.identity))
    confirms = False
    if kept.started_at and sample.started_at:
        confirms = is_same_moment(kept.started_at, sample.started_at)
        if not confirms:
            against.append(f"the job began at {sample.started_at}, and this work at {kept.started_at}")
    if kept.is_vouched_for:
        return Evidence(tuple(against), confirms=not against)
    seen = _compare(work, sample.tables, read)
    against += seen.against
    if kept.earlier_started_at is not None and not seen.names_statements:
        began_anew = bool(kept.earlier_started_at and sample.started_at) and not is_same_moment(
            kept.earlier_started_at, sample.started_at
        )
        if not began_anew:
            against.append(
                "the id is that of work that is finished, and nothing shows that new work has it now"
            )
    return Evidence(tuple(against), confirms or seen.names_tables)


def against_identity(kept: str, said: str) -> tuple[str, ...]:
    """What an answer's trailer says against it, an error's too; nothing where either side names no database."""
    if not kept or not said or kept == said:
        return ()
    return (f"the engine works at the database {said}, and this work was at {kept}",)


def is_same_moment(one: str, other: str) -> bool:
    """The same text, or the same moment in another zone or with fewer digits: an engine that was restarted may read
    back less than it said.
    """
    if one == other:
        return True
    digits = min(_digits(one), _digits(other))
    try:
        return _counted(one, digits) == _counted(other, digits)
    except (ValueError, OverflowError):
        return False


@dataclass(frozen=True, slots=True)
class _Seen:
    against: tuple[str, ...]
    names_tables: bool
    names_statements: bool


def _compare(work: Work, tables: Sequence[TableSample], read: Reader) -> _Seen:
    strange_names: list[str] = []
    strange_statements: list[str] = []
    names_tables = names_statements = False
    for table in tables:
        namespace = table.namespace or work.default_namespace
        is_own_text = (namespace, plain(table.ddl)) in work.texts
        statement = None if is_own_text else read(table.ddl, namespace)
        if is_own_text or _is_part(statement, work):
            names_tables = names_statements = True
            continue
        if statement is not None and work.is_read:
            strange_statements.append(" ".join(table.ddl.split())[:120])
        names = set() if statement is None else set(statement.names)
        if table.table_name:
            names.add((namespace, table.table_name))
        if work.has(names):
            names_tables = True
        elif names:
            strange_names.append(".".join(min(names)))
    against = [f"its statement is none of this work: {each}" for each in strange_statements[:_MOST_NAMED]]
    if strange_names and not names_tables and work.knows_tables:
        ours = ", ".join(".".join(name) for name in sorted(work.names)[:_MOST_NAMED])
        theirs = ", ".join(each[:120] for each in strange_names[:_MOST_NAMED])
        against.append(f"it is about {theirs}, and this work about {ours}")
    return _Seen(tuple(against), names_tables, names_statements)


def _is_part(statement: Statement | None, work: Work) -> bool:
    return statement is not None and bool(statement.parts) and statement.parts <= work.parts


def plain(ddl: str) -> str:
    """A statement's text without what ends it."""
    return ddl.strip().rstrip(";").rstrip()


def _counted(moment: str, digits: int) -> int:
    """In units of the last digit. One without a zone is read as if it were in ours: both are the same engine's."""
    read = datetime.fromisoformat(moment)
    since = (read if read.tzinfo is not None else read.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=10 ** (6 - digits))


def _digits(moment: str) -> int:
    found = _FRACTION.search(moment)
    return min(6, len(found[1])) if found else 0
