"""Which of our statements the entries of a look are about (PO5). Pure; whose work it is stands in own_work.py."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from tern.domain.own_work import Name, Reader, Work, plain
from tern.domain.samples import TableSample

_ENDINGS = frozenset({"failed", "cancelled", "reverted", "skipped"})


def entries_by_statement(
    work: Work, entries: Sequence[TableSample], read: Reader
) -> tuple[TableSample | None, ...]:
    """For each of our statements, in order, what the look says of it; None where it says nothing.

    An entry with the text of one of our statements is about that one, wherever it stands. One that an engine spelled
    anew, merged or split is about those with which it has something in common. What can't be read is about a table: as
    many entries as statements are taken one by one, otherwise the least advanced stands for all of that table, and
    says of none of them that it is through.
    """
    told: list[TableSample | None] = [None] * len(work.statements)
    by_text: defaultdict[Name, deque[int]] = defaultdict(deque)
    by_table: defaultdict[Name, list[int]] = defaultdict(list)
    strange: defaultdict[Name | None, list[TableSample]] = defaultdict(list)
    table_of: dict[Name, Name] = {}
    known: defaultdict[int, list[tuple[TableSample, frozenset[str]]]] = defaultdict(list)
    for number, sent in enumerate(work.statements):
        by_text[sent.table[0], sent.text].append(number)
        for name in (sent.table, *sent.names):
            table_of.setdefault(name, sent.table)
    for entry in entries:
        namespace = entry.namespace or work.default_namespace
        numbers = by_text.get((namespace, plain(entry.ddl)))
        if numbers is None:
            strange[table_of.get((namespace, entry.table_name))].append(entry)
        elif numbers:
            told[numbers.popleft()] = entry
    for number, sent in enumerate(work.statements):
        if told[number] is None:
            by_table[sent.table].append(number)
    for table, left in by_table.items():
        by_part: defaultdict[str, list[int]] = defaultdict(list)
        for number in left:
            for part in work.statements[number].parts:
                by_part[part].append(number)
        unread: list[TableSample] = []
        named: set[int] = set()
        for entry in strange[table]:
            statement = read(entry.ddl, entry.namespace or work.default_namespace) if entry.ddl else None
            parts = frozenset() if statement is None else statement.parts
            shares = sorted({number for part in parts for number in by_part.get(part, ())} - named)
            if not shares:
                unread.append(entry)
                continue
            # Of one that is there twice the engine speaks twice.
            same = next((number for number in shares if parts == work.statements[number].parts), None)
            if same is not None:
                named.add(same)
                known[same].append((entry, parts))
                continue
            for number in shares:
                known[number].append((_of_several(entry) if len(shares) > 1 else entry, parts))
        others = [number for number in left if number not in known]
        if len(unread) == len(others):
            for number, entry in zip(others, unread, strict=True):
                told[number] = entry
        elif unread:
            shared = _of_table(min(unread, key=_advance))
            for number in others:
                told[number] = shared
    for number, about in known.items():
        told[number] = _of_parts(work.statements[number].parts, about)
    return tuple(told)


def _advance(entry: TableSample) -> tuple[bool, int]:
    return entry.status == "completed", entry.percent or 0


def _of_parts(whole: frozenset[str], about: Sequence[tuple[TableSample, frozenset[str]]]) -> TableSample:
    """The least advanced part of a statement tells of it; that the parts of which something is said are through says
    nothing of the others.
    """
    least = min((entry for entry, _ in about), key=_advance)
    if least.status == "completed" and not whole <= frozenset().union(*(parts for _, parts in about)):
        return replace(least, status="")
    return least


def _of_table(entry: TableSample) -> TableSample:
    """One entry for a table with several statements: which of them it speaks of just now can't be told. That it is
    through is said of none of them before the whole operation is.
    """
    if entry.status != "completed":
        return _of_several(entry)
    return replace(entry, status="", percent=None, rows_copied=None, eta_s=None)


def _of_several(entry: TableSample) -> TableSample:
    """That one of several statements has failed says of none of them that it has: the others may be in."""
    return replace(entry, status="") if entry.status in _ENDINGS else entry
