"""What an operation that is over has left undone, and the command that leads on. Pure."""

from collections.abc import Iterator

from tern.domain.effect import Effect, half_done
from tern.domain.statement import OTHER_WORD, printed_statements
from tern.domain.states import State
from tern.facts import OperationRecord


def ways_on(scope: str, record: OperationRecord, *, is_over: bool) -> Iterator[tuple[str, str, str]]:
    """What is the matter, the command, and what it would do; nothing while somebody carries it on.

    is_over: its rollout has its verdict. Until then a failure that changed nothing is in nobody's way.
    """
    if record.carried_on_by is not None:
        if record.carried_on_state in {State.FAILED, State.CANCELLED}:
            # Nobody carries it on any more, whoever ended it: the target is half done, and so is this one's part.
            what = f"carried on by {record.carried_on_by}, which is {record.carried_on_state}"
            command = f"tern apply --rest-of {scope}"
            yield what, command, "shows what is left there, and how it is carried on; sends nothing"
        return
    words = [table.state for table in record.tables]
    unknown = [number for number, table in enumerate(record.tables, 1) if table.effect is Effect.UNKNOWN]
    if unknown:
        which = (
            f"statement {unknown[0]}" if len(unknown) == 1 else f"statements {', '.join(map(str, unknown))}"
        )
        what = f"it is {record.state}, and nobody can tell whether {which} of it is in"
        command = f"tern resolve {scope} {printed_statements(unknown)} --reason '…'"
        yield (
            what,
            command,
            f"settles that ({Effect.DONE}, {OTHER_WORD}); then what is left can be carried on",
        )
    elif record.state is State.FAILED and (
        half_done(record.state, words) or (is_over and record.remote_id is not None)
    ):
        done = sum(table.effect is Effect.DONE for table in record.tables)
        what = f"failed, with {done} of {len(words)} statements done"
        command = f"tern apply --rest-of {scope}"
        yield what, command, "shows what is left there, and how it is carried on; sends nothing"
