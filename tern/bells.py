"""The parts of ports.Ports that keep no truth: what rings for work, and what spreads it. See tern.ports."""

from typing import Protocol

from tern.domain.identity import ApplyId
from tern.domain.work import Due, DueControl


class Bells(Protocol):
    """Rings for work that is already committed. Best effort: never raises, loses are found by the sweeps (G11)."""

    def dispatch(self, due: Due) -> None:
        """tern.operation.dispatch."""

    def control(self, due: DueControl) -> None:
        """tern.operation.VERB, then its progress."""

    def progress(self, due: Due) -> None:
        """tern.operation.progress."""

    def poll(self, deployment: str) -> None:
        """tern.deployment.poll."""

    def advance(self, apply_id: ApplyId) -> None:
        """tern.apply.advance."""


class Chance(Protocol):
    """Spreads what would otherwise come all at once."""

    def jitter(self) -> float:
        """In [0, 1)."""
