"""Which answers of a person fit an uncertain operation: the one table for accepting and for explaining them."""

from tern.domain.doubt import Doubt
from tern.domain.work import Resolved

_OVER = (Resolved.ENDED, Resolved.COMPLETED)
_WITHOUT_AN_ID = (Resolved.NOT_STARTED, *_OVER, Resolved.REMOTE_ID, Resolved.REPEAT_APPLY)
_WITH_AN_ID = _OVER
_GONE = (*_OVER, Resolved.NOT_STARTED)
_IN_DOUBT = (Resolved.SAME_WORK, *_OVER)


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
