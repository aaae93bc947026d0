"""One entry for each table, as the public contract has it: its clients keep what they read by namespace and table, and
of two entries for the same one they would keep one, whichever it is.

What each statement has come to by itself travels in tern.engine.v1.EngineService.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1

_FAILED: Final = frozenset({"failed", "unknown", "cancelled", "reverted"})
_NOT_BEGUN: Final = frozenset({"pending", "skipped"})
_BETWEEN: Final = "running"
"""Of a table of which a part is through and the rest has not begun."""


def per_table(entries: Iterable[tern_v1.TableProgress], job: str) -> list[tern_v1.TableProgress]:
    """The entries of one job's statements, in their order, as one for each table. Each has a task_id that no other
    table of any job has, and keeps it.
    """
    tables: defaultdict[tuple[str, str], list[tern_v1.TableProgress]] = defaultdict(list)
    for entry in entries:
        tables[entry.namespace, entry.table_name].append(entry)
    return [_merged(table, f"{job}/{number}") for number, table in enumerate(tables.values(), 1)]


def _merged(entries: Sequence[tern_v1.TableProgress], task_id: str) -> tern_v1.TableProgress:
    """The statement that counts stands for its table: the one that failed, else the one that is under way, else the
    next one, else the last.
    """
    statuses = {entry.status for entry in entries}
    merged = tern_v1.TableProgress()
    merged.CopyFrom(min(entries, key=_turn))
    merged.task_id = task_id
    merged.is_instant = all(entry.is_instant for entry in entries)
    if merged.status in _NOT_BEGUN and len(statuses) > 1:
        merged.status = _BETWEEN
    return merged


def _turn(entry: tern_v1.TableProgress) -> int:
    """The lowest counts; of equals the first."""
    if entry.status in _FAILED:
        return 0
    if entry.status == "completed":
        return 4
    if entry.status == "waiting_for_cutover":
        return 3
    return 2 if entry.status in _NOT_BEGUN else 1
