"""What may be asked for about places that several deployments are, or that move: the register's part of the ports."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tern.domain.identity import DispatchKey
from tern.domain.model import Resolution
from tern.domain.outcome import Outcome
from tern.domain.targets import Finding, Found, Pair


class KeyedEngine(Protocol):
    """The part of an engine by which it is told from another one."""

    def ask_key(self, key: DispatchKey, *, forbid: bool) -> Outcome[Resolution]:
        """Whether a key that is nobody's is forbidden there; with forbid, it is from now on."""


class TargetStore(Protocol):
    """Durable steps about targets of several names."""

    def unproven_pairs(self, names: Sequence[str]) -> tuple[Pair, ...]:
        """Each of these deployments with every other one that names the same database, where nothing is proven yet."""

    def record_findings(self, found: Sequence[Found]) -> None:
        """What was found, where both are still reached as they were when they were asked."""

    def findings(self) -> Mapping[str, Mapping[str, Finding]]:
        """What stands about each deployment and others."""
