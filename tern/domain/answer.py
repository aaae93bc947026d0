"""Which answers of a person fit an uncertain operation: the one table for accepting and for explaining them."""

from tern.domain.doubt import Doubt
from tern.domain.work import Resolved

_OVER = (Resolved.ENDED, Resolved.COMPLETED)
_WITHOUT_AN_ID = (Resolved.NOT_STARTED, *_OVER, Resolved.REMOTE_ID, Resolved.REPEAT_APPLY)
_WITH_AN_ID = _OVER
_GONE = (*_OVER, Resolved.NOT_STARTED)
_IN_DOUBT = (Resolved.SAME_WORK, *_OVER)

PRINTED = Resolved.ENDED
"""The answer of a printed command, which has to work as it is copied: it fits everywhere, and starts nothing."""


def fitting_gone() -> tuple[Resolved, ...]:
    """Of an engine that is gone: what is neither followed nor repeated."""
    return _GONE


def fitting(*, has_remote_id: bool, doubt: Doubt) -> tuple[Resolved, ...]:
    """An id that stands is never replaced, so what would dispatch or follow something else fits no operation that has
    one. That it is the same work is an answer to a doubt, and to nothing else.
    """
    if not has_remote_id:
        return _WITHOUT_AN_ID
    return _WITH_AN_ID if doubt is Doubt.NONE else _IN_DOUBT


def other_answers(fit: tuple[Resolved, ...]) -> str:
    """What else may stand in a command that is printed with the one answer."""
    others = (
        "remote-id=R" if each is Resolved.REMOTE_ID else each.value for each in fit if each is not PRINTED
    )
    return f"{PRINTED}, or {', or '.join(others)}: whichever you found"
