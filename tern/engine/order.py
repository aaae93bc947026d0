"""Which step is next where the cutover is deferred: what takes long goes before the wait, as far as it can. Pure.

Whoever says the cutover wants it short. So an index build or a validation that stands behind a step which the
application can notice is done ahead of it, unless it depends on that step, or on another one that is left behind: then
it has to follow the cutover, and Preview says for how long.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from google.protobuf.message import Message

from tern.engine.job import KeptStep
from tern.engine.names import Name
from tern.engine.parse import read
from tern.engine.recipes.model import Step, StepKind

LONG = frozenset({StepKind.BUILD_INDEX, StepKind.VALIDATE})
# Where the server's own types and functions are: that two statements share it says nothing.
_EVERYBODYS = frozenset({"pg_catalog", ""})
# One letter beside every table's name, and how an index is made: fields that name nothing of the application's.
_NO_NAMES = frozenset({"relpersistence", "access_method"})


def next_before_cutover(kept: Sequence[KeptStep]) -> KeptStep | None:
    """The next step that may be done before the cutover; None where all that are left have to wait for it.

    What the application has noticed already counts as much as what it would: a stop may have come between, and what
    was safe to do before it may not be after.
    """
    left_behind: list[KeptStep] = []
    for each in kept:
        if each.step.is_seen_by_application:
            left_behind.append(each)
        elif each.status not in {"pending", "started"}:
            continue
        elif not left_behind or (_is_long(kept, each) and _is_independent(each, left_behind)):
            return each
        else:
            left_behind.append(each)
    return None


def after_cutover(kept: Sequence[KeptStep]) -> Iterator[KeptStep]:
    """The long steps that nobody can do before the cutover, of those that are not done."""
    waiting = list(kept)
    while (following := next_before_cutover(waiting)) is not None:
        waiting.remove(following)
    return (each for each in waiting if each.step.kind in LONG)


def _is_long(kept: Sequence[KeptStep], wanted: KeptStep) -> bool:
    """Only what takes long is worth another order, and whatever leads to it."""
    return any(
        each.step.kind in LONG
        for each in kept
        if (each.change, each.atom) == (wanted.change, wanted.atom) and each.n >= wanted.n
    )


def _is_independent(wanted: KeptStep, left_behind: Sequence[KeptStep]) -> bool:
    return not any(
        (each.change, each.atom) == (wanted.change, wanted.atom) or _depends(wanted.step, each.step)
        for each in left_behind
    )


def _depends(one: Step, other: Step) -> bool:
    """Whether one may need what the other does, or the other what one does: in doubt it does.

    On different tables they meet only where one names what the other is about. On the same table an index build or a
    validation goes with whatever shares no name with it, the table's own aside; anything else depends on all. An index
    whose name is still another's waits for all: a column, or a table, that goes takes indexes along unnamed. A
    function, a type or a right can be what a constraint or an index leads to without naming it.
    """
    tables, others = _relations(one), _relations(other)
    if one.takes_name or not (tables and (others or other.fresh)):
        return True
    shared = tables & others
    if not shared:
        names = {name.name for name in tables | others}
        return bool(_words(one.sql) & _words(other.sql) & names)
    if one.kind not in LONG or len(tables) > 1:
        return True
    return bool((_words(one.sql, shared) & _words(other.sql, shared)) - _EVERYBODYS)


def _relations(step: Step) -> frozenset[Name]:
    return frozenset(lock.relation for lock in step.locks)


@lru_cache(maxsize=4_096)
def _words(sql: str, without: frozenset[Name] = frozenset()) -> frozenset[str]:
    """Every name and every text in a statement. Where `without` stands as a table is left out, and only there: a column
    may be called what its table or its namespace is.
    """
    return frozenset(_texts(read(sql).tree, without))


def _texts(node: Message, without: frozenset[Name]) -> Iterator[str]:
    if node.DESCRIPTOR.name == "RangeVar" and _table(node) in without:
        return
    for field, value in node.ListFields():
        if field.name in _NO_NAMES:
            continue
        for each in value if field.is_repeated else (value,):
            if isinstance(each, Message):
                yield from _texts(each, without)
            elif isinstance(each, str):
                yield each


def _table(node: Message) -> Name:
    namespace: str = getattr(node, "schemaname", "")
    name: str = getattr(node, "relname", "")
    return Name(namespace, name)
