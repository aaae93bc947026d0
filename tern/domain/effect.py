"""What is known of the effect of one statement: whether it is in, is not, or nobody can tell. Pure.

Only a statement's own evidence settles it: what its engine says of it alone, or a person who looked. That its operation
failed, or was cancelled, says nothing about the statements before the one that failed, and nothing about those after.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from tern.domain.states import State

PENDING: Final = "pending"
NEVER_BEGUN: Final = "skipped"
"""Of an operation that is finished: this statement was never begun there."""
UNKNOWN: Final = "unknown"
FAILING: Final = "failing"
"""It failed, and its operation goes on: its engine may be trying it again, and nobody knows yet what came of it."""
SETTLED_WORDS: Final = frozenset({"completed", "failed", "cancelled", "reverted", "skipped"})
"""Words about a statement that nothing follows; any other is an engine's own, about work under way."""


class Effect(StrEnum):
    """What a statement has come to."""

    DONE = "done"
    NOT_DONE = "not-done"
    UNKNOWN = "unknown"
    UNDER_WAY = "under-way"


def effect_of(word: str) -> Effect:
    """What a statement's state says of its effect."""
    match word:
        case "completed":
            return Effect.DONE
        case "unknown":
            return Effect.UNKNOWN
        case "pending" | "skipped" | "failed" | "cancelled" | "reverted":
            return Effect.NOT_DONE
        case _:
            return Effect.UNDER_WAY


def half_done(state: State, words: Sequence[str]) -> bool:
    """Whether an operation that is over left a part of its change there, or may have."""
    if not state.is_finished or state is State.COMPLETED:
        return False
    effects = [effect_of(word) for word in words]
    some = any(each in {Effect.DONE, Effect.UNKNOWN, Effect.UNDER_WAY} for each in effects)
    return some and not all(each is Effect.DONE for each in effects)


def taken_over(word: str, operation: State, *, is_alone: bool = True) -> str:
    """What is kept of an engine's word about a statement whose operation is, by the same look, where it is.

    is_alone: said of this statement only. An engine may speak of several at one table at once, and the least
    advanced stands for all of them: that these failed, or had not begun, says of none of them whether it is in.

    Of an operation that is under way no failure is the last word: its engine may try again by itself.

    Of one that is over without being completed: what had not begun never will, and what was under way was left
    somewhere in the middle, which nobody can tell.
    """
    if operation.is_live and word == "failed":
        return FAILING
    if not word or not operation.is_finished or operation in {State.COMPLETED, State.REVERTED}:
        return word
    if not is_alone and word in {PENDING, "failed", "cancelled", NEVER_BEGUN}:
        return UNKNOWN
    if word in SETTLED_WORDS or word == UNKNOWN:
        return word
    return NEVER_BEGUN if word == PENDING else UNKNOWN


def left_behind(operation: State, *, nothing_began: bool) -> str:
    """What an unsettled statement becomes when its operation settles and nothing was said of the statement itself.

    nothing_began: the operation was settled because nothing of it had reached its engine, or its engine refused it.
    """
    match operation:
        case State.COMPLETED | State.REVERTED:
            # Said of the whole change, it is said of each of its statements.
            return operation.value
        case State.STOPPED:
            return operation.value
        case State.SKIPPED:
            return NEVER_BEGUN
        case _:
            return NEVER_BEGUN if nothing_began else UNKNOWN
