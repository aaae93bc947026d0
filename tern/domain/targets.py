"""Whether two deployments are one target. Equal identifiers permit nothing and prove nothing: snapshots and promoted
copies share them. The proof is a random key that is forbidden at one and found forbidden at the other, both ways.
"""

from dataclasses import dataclass
from enum import StrEnum

from tern.domain.identity import DispatchKey
from tern.domain.model import Deployment, Forbidden, NeverStarted, Resolution
from tern.domain.outcome import Ok, Outcome


class Finding(StrEnum):
    """What is known about two deployments whose engines name the same database."""

    SAME = "same"
    TWO = "two"
    SUSPECTED = "suspected"
    """Nobody could tell: counts as one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two deployments of which nothing is known yet, as they are reached now."""

    one: Deployment
    other: Deployment


@dataclass(frozen=True, slots=True)
class Found:
    """What was found about a pair."""

    pair: Pair
    finding: Finding
    there: bool | None = None
    """Whether the other one knows the first one's key; None for no answer."""
    back: bool | None = None

    @property
    def words(self) -> str:
        """For people."""
        one, other = self.pair.one.name, self.pair.other.name
        match self.finding:
            case Finding.SAME:
                return f"{one} and {other} are one target under two names"
            case Finding.TWO:
                return f"{one} and {other} name the same server, and are two targets: perhaps one is a copy"
            case Finding.SUSPECTED:
                return f"{one} and {other} may be one target: not both of them could be asked, so they count as one"


def is_known_there(answer: Outcome[Resolution]) -> bool | None:
    """Whether a key that was forbidden elsewhere is forbidden here too; None where nobody can tell."""
    match answer:
        case Ok(Forbidden()):
            return True
        case Ok(NeverStarted()):
            return False
        case _:
            return None


def finding(there: bool | None, back: bool | None) -> Finding:  # noqa: FBT001 - the two answers, in either order
    """What the two answers come to: one way alone is a replica that lags, or an answer that was lost."""
    if there is True and back is True:
        return Finding.SAME
    if there is False and back is False:
        return Finding.TWO
    return Finding.SUSPECTED


def proof_key(chance: str) -> DispatchKey:
    """A key that no dispatch ever has; what is forbidden by it was never anybody's."""
    return DispatchKey(f"tern-proof-{chance}")
