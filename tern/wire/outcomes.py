"""From the ways in which a call can end to the three that flows know: Ok, Refused, Unknown.

The line between Refused and Unknown is drawn here and nowhere else. A code is Refused only if an engine that has
begun the work would never send it; a connection reset after the work was done looks like an engine that is down.
"""

import re
from dataclasses import dataclass, replace

from tern.domain.identity import RemoteId, ScopeName
from tern.domain.outcome import Refused, Unknown
from tern.domain.text import within
from tern.wire.transport import CallFailed, NotSent

REFUSING = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "DATA_LOSS",
        "UNIMPLEMENTED",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
    }
)
"""Status codes by which an engine says that it did not do it."""

_WORDS_MAX = 2_000
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class About:
    """What a call is about: every message about it names the operation, the deployment and that scope's own id."""

    verb: str
    deployment: str
    name: ScopeName | None = None
    remote_id: RemoteId | None = None

    def __str__(self) -> str:
        if self.name is None:
            return f"{self.verb} at deployment {self.deployment or '(none)'}"
        remote = f"remote id {self.remote_id}" if self.remote_id else "no remote id yet"
        return f"{self.verb} for {self.name} at deployment {self.deployment or '(none)'} ({remote})"

    def is_public_id(self, remote_id: str) -> bool:
        """It is Tern's own name for the apply, which all of its deployments share: no engine's id."""
        return self.name is not None and remote_id == self.name.apply_id

    def refused(self, reason: str, words: str, code: str = "") -> Refused:
        """It did not happen."""
        return Refused(f"{self} was refused: {tidy(words)}", reason, code)

    def unknown(self, reason: str, words: str, code: str = "") -> Unknown:
        """Nobody here can tell whether it happened."""
        return Unknown(f"{self} has no usable answer: {tidy(words)}", reason, code)

    def not_sent(self, why: NotSent) -> Refused:
        """It never left us."""
        return self.refused(why.reason, f"nothing was sent: {why.message}")

    def failed(self, failure: CallFailed) -> Refused | Unknown:
        """What a failed call amounts to, by its status code alone."""
        return replace(self.coded(failure.code, failure.reason, failure.message), identity=failure.identity)

    def explained(self, failed: Refused | Unknown) -> Refused | Unknown:
        """The same, with what UNIMPLEMENTED means to somebody who asked for a control."""
        if failed.code != "UNIMPLEMENTED":
            return failed
        words = f"the engine does not offer {self.verb}, which is its right ({failed.message})"
        return Refused(words, failed.reason or "NOT_OFFERED", failed.code)

    def coded(self, code: str, reason: str, words: str) -> Refused | Unknown:
        """What a status code amounts to."""
        said = f"{code}: {words}" if words else code
        if code in REFUSING:
            return self.refused(reason, said, code)
        return self.unknown(reason, said, code)


def known_reason(word: str) -> str:
    """An engine's reason if it has the shape of one; anything else is no word to store or to compare with."""
    return word if _REASON.fullmatch(word) else ""


def tidy(words: str, limit: int = _WORDS_MAX) -> str:
    """An engine's text, of a length that fits a line in a log and without the NUL that PostgreSQL can't store."""
    clean = words.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return within(clean, limit)
