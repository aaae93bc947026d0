"""Whether an operation may be sent to its engine, and what an answer amounts to (G3, G4, G6, G10)."""

from enum import StrEnum

from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S


class Approach(StrEnum):
    """What a driver that has claimed an operation does with it."""

    SEND = "send"
    """Call Apply with the committed key: the first time, or again to an engine known to deduplicate."""
    ATTACH = "attach"
    """The engine's id is there: never Apply again, only follow it."""
    RESOLVE = "resolve"
    """Ask the engine what became of the key."""
    ASK_PERSON = "ask_person"
    """Nobody here can know, so no call is made and the operation is uncertain."""
    WAIT = "wait"
    """Its deployment is drained, and its engine can't settle the earlier call: it waits until it is open again."""


def approach(
    *,
    has_remote_id: bool,
    has_earlier_intent: bool,
    idempotent_dispatch: bool,
    offers_resolve: bool,
    drained: bool = False,
) -> Approach:
    """How to go on with a claimed operation.

    An intent of an earlier tick may or may not have reached the engine. It is repeated only where the key makes
    the repetition harmless; otherwise it is settled by Resolve, or by a person (G4, D16). To a drained deployment
    nothing is repeated: what was sent is settled there, or waits.
    """
    if has_remote_id:
        return Approach.ATTACH
    if drained and has_earlier_intent:
        return Approach.RESOLVE if offers_resolve else Approach.WAIT
    if not has_earlier_intent or idempotent_dispatch:
        return Approach.SEND
    return Approach.RESOLVE if offers_resolve else Approach.ASK_PERSON


class AfterUnknown(StrEnum):
    """What an unanswered Apply becomes."""

    REPEAT = "repeat"
    RESOLVE = "resolve"
    ASK_PERSON = "ask_person"


def after_unknown(
    *, idempotent_dispatch: bool, offers_resolve: bool, answered_attempts: int, intent_age_s: float
) -> AfterUnknown:
    """Repeat the same key as long as that is harmless, within budget and fresh; else someone must look.

    answered_attempts counts only attempts made while the engine's Health answered, so that an outage of a day
    does not spend the budget. A spent budget is uncertainty, never a failure (G10).
    """
    if not idempotent_dispatch:
        return AfterUnknown.RESOLVE if offers_resolve else AfterUnknown.ASK_PERSON
    if answered_attempts >= ANSWERED_ATTEMPTS_MAX or intent_age_s > FRESHNESS_S:
        return AfterUnknown.ASK_PERSON
    return AfterUnknown.REPEAT
