"""Whether an operation may be sent to its engine, and what an answer amounts to (G3, G4, G6, G10)."""

from enum import StrEnum

from tern.domain.model import Deployment, Resolution, Unsupported
from tern.domain.outcome import ANOTHER_DATABASE, Ok, Outcome, Refused
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S

NO_ANSWER = "an earlier dispatch was never answered"
KEY_FORBIDDEN = "KEY_FORBIDDEN"
"""The reason of a refusal that is about the key alone: somebody asked about it with a Resolve that forbids. It says
nothing of the change, which was not looked at.
"""

TARGET_BUSY = "TARGET_BUSY"
BUSY = frozenset({TARGET_BUSY, "TABLE_BUSY"})
"""Reasons of a refusal that is about the moment alone: something else works at the target. Nothing is wrong with the
change, and nothing was begun. The second is what our own engine said before the contract had a way to say it.
"""


class Approach(StrEnum):
    """What a driver that has claimed an operation does with it."""

    SEND = "send"
    """Call Apply with the committed key: the first time, or again where somebody declared that this is harmless."""
    ATTACH = "attach"
    """The engine's id is there: never Apply again, only follow it."""
    RESOLVE = "resolve"
    """Ask the engine what became of the key, and forbid it."""
    ASK_PERSON = "ask_person"
    """Nobody here can know, so no call is made and the operation is uncertain."""
    WAIT = "wait"
    """Nothing begins at its deployment now, and its engine can't settle the earlier call: it waits."""


def approach(
    *,
    has_remote_id: bool,
    has_earlier_intent: bool,
    may_be_repeated: bool,
    is_same_engine: bool,
    offers_resolve: bool = True,
    begins_nothing: bool = False,
    is_tried_again: bool = False,
) -> Approach:
    """How to go on with a claimed operation.

    An intent of an earlier tick may or may not have reached the engine. It is repeated only where a person declared
    that the key makes the repetition harmless; otherwise the engine that it was sent to is asked, whatever that engine
    was found to offer before (G4, D16). Another engine knows nothing of the key: neither what it does with it nor what
    it says of it means anything. begins_nothing: the deployment is drained, or something at its target is outstanding:
    there nothing is repeated, what was sent is settled, or waits. is_tried_again: a person called the earlier dispatch
    ended, and wants it tried again; where the engine knows keys it is forbidden, and the new try has its own turn.
    """
    if has_remote_id:
        return Approach.ATTACH
    if not has_earlier_intent:
        return Approach.SEND
    if not is_same_engine:
        return Approach.ASK_PERSON
    if is_tried_again:
        return Approach.RESOLVE
    if begins_nothing:
        return Approach.RESOLVE if offers_resolve else Approach.WAIT
    return Approach.SEND if may_be_repeated else Approach.RESOLVE


def another_engine(deployment: Deployment, answer: Outcome[Resolution]) -> str:
    """Why this answer about a key comes from another engine than the one that was sent it; empty where nothing says so.

    Behind one address an engine may be replaced by another, which never saw the key: whatever was declared of the one
    before, to send the key there would start a second job.
    """
    match answer:
        case Ok(Unsupported()) if deployment.knows_keys:
            shown = (
                f"the engine at {deployment.address}, which was found to know keys, says that it knows none"
            )
        case Refused(message, reason) if reason == ANOTHER_DATABASE:
            shown = message
        case _:
            return ""
    return f"{shown}: another one answers there, and nobody here can tell whether the change runs"


class AfterUnknown(StrEnum):
    """What an unanswered Apply becomes."""

    REPEAT = "repeat"
    RESOLVE = "resolve"
    ASK_PERSON = "ask_person"


def after_unknown(*, deduplicates: bool, answered_attempts: int, intent_age_s: float) -> AfterUnknown:
    """Repeat the same key as long as that is harmless, within budget and fresh; else someone must look.

    deduplicates is what a person declared: what an engine was found to offer, be it a moment ago, is no permission to
    send a key twice. answered_attempts counts only attempts made while the engine's Health answered, so that an outage
    of a day does not spend the budget. A spent budget is uncertainty, never a failure (G10).
    """
    if not deduplicates:
        return AfterUnknown.RESOLVE
    if is_spent(answered_attempts, intent_age_s):
        return AfterUnknown.ASK_PERSON
    return AfterUnknown.REPEAT


def is_spent(answered_attempts: int, intent_age_s: float) -> bool:
    """So much was tried, or so long ago it began, that nothing is tried by itself any more."""
    return answered_attempts >= ANSWERED_ATTEMPTS_MAX or intent_age_s > FRESHNESS_S
