"""Whether anybody at a deployment's engine is heard, by one rule for every place that says so. Pure."""

from dataclasses import dataclass

from tern.domain.silence import SLOW_AFTER
from tern.domain.timing import LOST_CONTACT_AFTER


@dataclass(frozen=True, slots=True)
class Contact:
    """What came of the last calls to a deployment's engine.

    looks: in a row without a usable answer, for whatever works there or is outstanding; unanswered: calls in a row that
    ran out without any answer. for_s: since the first of them, where that is known.
    """

    deployment: str
    looks: int = 0
    unanswered: int = 0
    for_s: float | None = None

    @property
    def is_lost(self) -> bool:
        """So many that what is shown of it is only what was known last."""
        return self.looks >= LOST_CONTACT_AFTER or self.unanswered >= SLOW_AFTER

    @property
    def tries(self) -> int:
        """In a row, of whichever kind there are more."""
        return max(self.looks, self.unanswered)


@dataclass(frozen=True, slots=True)
class Drain:
    """Who let nothing begin at a deployment any more. age_s: None of a drain from before that was kept."""

    deployment: str
    by: str = ""
    reason: str = ""
    age_s: float | None = None
