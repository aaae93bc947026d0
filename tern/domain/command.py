"""What somebody asked for, as the command to copy that asks for the same of the same operations. Pure.

A hint that forgot a selector would be about more than its reader has thought of.
"""

from collections.abc import Iterator
from shlex import quote
from typing import Final

from tern.domain.selection import Selection
from tern.domain.work import Answered, Asked

WHY: Final = "--reason '…'"


def control_command(asked: Asked, *more: str) -> str:
    """The same verb again. more: what is said beside it."""
    words = [f"tern {asked.verb} {asked.apply_id}"]
    words += [] if asked.volume is None else [str(asked.volume)]
    words += selectors(asked.selection)
    words += ["--although-cancel-refused"] if asked.although_cancel_refused else []
    words += [f"--although-foreign={quote(asked.although_foreign)}"] if asked.although_foreign else []
    words += ["--outstanding"] if asked.outstanding else []
    return " ".join([*words, *more, WHY])


def resolve_command(answered: Answered, *more: str) -> str:
    """The same answer again. more: what is said beside it."""
    found = answered.found.value + (f"={quote(answered.remote_id)}" if answered.remote_id else "")
    words = [f"tern resolve {answered.apply_id}", *selectors(answered.selection), f"--as {found}"]
    words += ["--engine-is-gone"] if answered.engine_is_gone else []
    words += [] if answered.taken_from is None else [f"--taken-from {answered.taken_from}"]
    return " ".join([*words, *more, WHY])


def selectors(selection: Selection, names: str = "--deployment") -> Iterator[str]:
    """Each option with its value. names: the option that names deployments."""
    if selection.deployments:
        yield f"{names} {quote(','.join(selection.deployments))}"
    yield from (f"-l {quote(f'{key}={value}')}" for key, value in selection.labels.items())
    if selection.wave is not None:
        yield f"--wave {selection.wave}"
    yield from (f"--state {state}" for state in sorted(selection.states))
    if selection.everywhere:
        yield "--all"
    yield from (f"--except {quote(name)}" for name in sorted(selection.excepted))
