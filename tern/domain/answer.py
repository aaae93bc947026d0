"""Which answers of a person fit an uncertain operation: the one table for accepting and for explaining them."""

from collections.abc import Iterator, Mapping
from typing import Final

from tern.domain.doubt import Doubt
from tern.domain.work import Resolved

_OVER = (Resolved.ENDED, Resolved.COMPLETED)
_WITHOUT_AN_ID = (Resolved.NOT_STARTED, *_OVER, Resolved.REMOTE_ID, Resolved.REPEAT_APPLY)
_WITH_AN_ID = _OVER
_GONE = (*_OVER, Resolved.NOT_STARTED)
_IN_DOUBT = (Resolved.SAME_WORK, *_OVER)

PRINTED = Resolved.ENDED
"""The one answer of a command that stands in a sentence: it fits everywhere, and starts nothing."""

_FIRST: Final = (
    Resolved.SAME_WORK,
    Resolved.ENDED,
    Resolved.COMPLETED,
    Resolved.REMOTE_ID,
    Resolved.REPEAT_APPLY,
    Resolved.NOT_STARTED,
)
"""In this order they are told: last what does the most harm where it is not so."""

_FOUND: Final[Mapping[Resolved, str]] = {
    Resolved.NOT_STARTED: "nothing of it has begun there, and nothing will",
    Resolved.ENDED: "nothing of it runs there any more",
    Resolved.COMPLETED: "all of it is in",
    Resolved.REMOTE_ID: "it runs there under the id R",
    Resolved.REPEAT_APPLY: "its engine runs what comes twice with one key only once",
    Resolved.SAME_WORK: "the job of its id is this work",
}
"""What a person who looked has found, for each answer."""

CONSEQUENCES: Final[Mapping[Resolved, str]] = {
    Resolved.NOT_STARTED: "it waits for its turn again; the old key is never used again",
    Resolved.ENDED: "it counts as failed",
    Resolved.COMPLETED: "it counts as completed, by your word; its progress stays as it was last seen",
    Resolved.REMOTE_ID: "it is followed by that remote id from now on",
    Resolved.REPEAT_APPLY: "the same dispatch is repeated, with the same key",
    Resolved.SAME_WORK: "what its engine says of its remote id counts again",
}
"""What each answer comes to."""

_OUTSTANDING = (
    "what was sent stays outstanding there, and nothing is sent to that target before it is settled"
)
GONE: Final[Mapping[Resolved, str]] = {
    Resolved.ENDED: f"it counts as failed; {_OUTSTANDING}",
    Resolved.COMPLETED: f"it counts as completed, by your word; {_OUTSTANDING}",
    Resolved.NOT_STARTED: f"it counts as failed, and is not sent again; {_OUTSTANDING}",
}
"""What the same words come to where the engine is gone."""

_DANGER: Final[Mapping[Resolved, str]] = {
    Resolved.NOT_STARTED: "if it did begin all the same, the change runs twice",
}


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


def answers(
    scope: str,
    fit: tuple[Resolved, ...],
    comes_to: Mapping[Resolved, str] = CONSEQUENCES,
    *,
    option: str = "",
) -> Iterator[tuple[str, str]]:
    """Each answer that fits as a command of its own, with what it says and what it comes to: nobody has to put one
    together, and none says more than its reader has found.
    """
    for each in sorted(fit, key=_FIRST.index):
        word = "remote-id=R" if each is Resolved.REMOTE_ID else each.value
        danger = f"; {_DANGER[each]}" if each in _DANGER and not option else ""
        yield (
            f"tern resolve {scope}{option} --as {word} --reason '…'",
            f"if {_FOUND[each]}: {comes_to[each]}{danger}",
        )
