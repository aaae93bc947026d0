"""Which of our statements the entries of a look are about (PO5). Pure; whose work it is stands in own_work.py."""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace

from tern.domain.own_work import Name, Work, plain
from tern.domain.samples import TableSample

_ENDINGS = frozenset({"failed", "cancelled", "reverted", "skipped"})


def entries_by_statement(work: Work, entries: Sequence[TableSample]) -> tuple[TableSample | None, ...]:
    """For each of our statements, in order, what the look says of it; None where it says nothing.

    An entry with the text of one of our statements is about that one, wherever it stands. What an engine spelled
    anew, merged or split is about a table: as many entries as statements are taken one by one, otherwise the least
    advanced stands for all of that table.
    """
    told: list[TableSample | None] = [None] * len(work.statements)
    by_text: defaultdict[Name, deque[int]] = defaultdict(deque)
    by_table: defaultdict[Name, list[int]] = defaultdict(list)
    strange: defaultdict[Name | None, list[TableSample]] = defaultdict(list)
    table_of: dict[Name, Name] = {}
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
        found = strange[table]
        if len(found) == len(left):
            for number, entry in zip(left, found, strict=True):
                told[number] = entry
        elif found:
            shared = _of_several(min(found, key=_advance))
            for number in left:
                told[number] = shared
    return tuple(told)


def _advance(entry: TableSample) -> tuple[bool, int]:
    return entry.status == "completed", entry.percent or 0


def _of_several(entry: TableSample) -> TableSample:
    """That one of several statements has failed says of none of them that it has: the others may be in."""
    return replace(entry, status="") if entry.status in _ENDINGS else entry
