"""What becomes of an operation's statements when the operation settles, begins again, or is spoken of by a person.

What engines say of them is written by progress.py; what each word means stands in domain/effect.py.
"""

from collections.abc import Sequence

from tern.domain.effect import PENDING, SETTLED_WORDS, UNKNOWN, left_behind
from tern.domain.states import State
from tern.store.sql import Connection, text


def settle_table_changes(
    tx: Connection, operation_ids: Sequence[int], state: State, *, nothing_began: bool
) -> None:
    """What an operation's settling makes of the statements of which nothing was said themselves (domain/effect.py)."""
    tx.execute(
        text(
            "UPDATE table_changes SET state = :word, eta_seconds = NULL,"
            " percent = CASE WHEN :done THEN 100 ELSE percent END,"
            " rows_copied = CASE WHEN :done THEN coalesce(rows_total, rows_copied) ELSE rows_copied END"
            " WHERE operation_id = ANY(:ids) AND NOT state = ANY(CAST(:kept AS text[]))"
        ),
        {
            "word": left_behind(state, nothing_began=nothing_began),
            "done": state is State.COMPLETED,
            "kept": _kept(state),
            "ids": list(operation_ids),
        },
    )


def _kept(state: State) -> list[str]:
    """The words about a statement that an operation's settling leaves as they are."""
    match state:
        case State.COMPLETED:
            return sorted(SETTLED_WORDS)
        case State.REVERTED:
            # What was completed has been taken back with the rest.
            return sorted(SETTLED_WORDS - {"completed"})
        case State.STOPPED:
            # It may still run, so what had not begun waits as before.
            return sorted({*SETTLED_WORDS, PENDING, UNKNOWN})
        case _:
            return sorted({*SETTLED_WORDS, UNKNOWN})


def believe_table_changes(tx: Connection, operation_id: int, who: str) -> None:
    """A person says that the whole change is in: each statement counts as done. What engines said of rows and percent
    stays as it was seen last, because nobody has seen more.
    """
    tx.execute(
        text(
            "UPDATE table_changes SET state = 'completed', settled_by = :who, eta_seconds = NULL"
            " WHERE operation_id = :id AND state <> 'completed'"
        ),
        {"id": operation_id, "who": who},
    )


def reopen_table_changes(tx: Connection, operation_ids: Sequence[int]) -> None:
    """What the operations' settling had settled is to be done again."""
    tx.execute(
        text(
            "UPDATE table_changes SET state = 'pending', error = '', settled_by = ''"
            " WHERE operation_id = ANY(:ids) AND state IN ('stopped', 'failed', 'skipped')"
        ),
        {"ids": list(operation_ids)},
    )
