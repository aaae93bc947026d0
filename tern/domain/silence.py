"""Engines that leave calls without any answer: how that is told from a refusal, and what it costs them.

A call that runs out binds a thread for as long as its deadline. What answers, be it with a refusal or an error, does
not, and neither does a port that nobody listens on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

CALLS_AT_ONCE = 2
"""So many calls to one deployment are under way from one process. Stop and cancel are not counted."""

SLOW_AFTER = 3
"""Calls of one kind without an answer, one after the other, after which a deployment goes slowly."""

LONGEST_PAUSE_S = 30.0
_ANSWERED_LATE_S = 1.0
"""A connection that could not even be made is told from a port that refuses by how long that took."""


class CallKind(StrEnum):
    """What a call is for. An engine that answers one kind may leave another without an answer."""

    DISPATCH = "dispatch"
    CONTROL = "control"
    POLL = "poll"
    HEALTH = "health"


KINDS: Mapping[str, CallKind] = {
    "Apply": CallKind.DISPATCH,
    "Resolve": CallKind.DISPATCH,
    "Start": CallKind.CONTROL,
    "Cutover": CallKind.CONTROL,
    "Revert": CallKind.CONTROL,
    "SkipRevert": CallKind.CONTROL,
    "Volume": CallKind.CONTROL,
    "Progress": CallKind.POLL,
    "BatchProgress": CallKind.POLL,
    "Health": CallKind.HEALTH,
}
"""The kind of each RPC. Stop and cancel have none: they are tried again whatever became of the others."""


class Ended(StrEnum):
    """What the end of a call says about its engine."""

    ANSWERED = "answered"
    SILENT = "silent"
    NEITHER = "neither"


def ended(code: str, seconds: float) -> Ended:
    """By the name of the gRPC status, and how long it took."""
    if code == "DEADLINE_EXCEEDED" or (code == "UNAVAILABLE" and seconds >= _ANSWERED_LATE_S):
        return Ended.SILENT
    if code in {"UNAVAILABLE", "CANCELLED", "NOT_SENT"}:
        return Ended.NEITHER
    return Ended.ANSWERED


@dataclass(frozen=True, slots=True)
class Silence:
    """Calls of a kind that a deployment's engine left without an answer.

    retry_in_s: until the next one is due; not positive when it is. since_s: how long ago the first of them ended.
    """

    deployment: str
    kind: CallKind
    in_a_row: int
    retry_in_s: float = 0.0
    since_s: float = 0.0

    @property
    def is_slow(self) -> bool:
        """So many that its engine may not bind a driver like any other."""
        return self.in_a_row >= SLOW_AFTER


def pause_s(in_a_row: int) -> float:
    """How long to wait after so many before the next: none at first, then longer and longer."""
    if in_a_row < SLOW_AFTER:
        return 0.0
    return min(LONGEST_PAUSE_S, 2.0 ** min(in_a_row - SLOW_AFTER + 1, 10))
