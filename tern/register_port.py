"""The register's part of the ports: deployments, targets of several names, and what changes while it is used."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tern.domain.identity import DispatchKey
from tern.domain.model import Deployment, Resolution
from tern.domain.moving import DeploymentChange, InUse, Sameness
from tern.domain.outcome import Outcome
from tern.domain.targets import Finding, Found, Pair


class DeploymentStore(Protocol):
    """Durable steps of the register of deployments."""

    def save_deployment(self, deployment: Deployment) -> None:
        """Raises Refused where name or (address, target) is taken."""

    def replace_deployment(self, deployment: Deployment) -> None:
        """Takes the place of the one with that name. Raises NotFound, and Refused while an apply uses that one."""

    def load_deployments(self, names: Sequence[str] | None = None) -> tuple[Deployment, ...]:
        """All, or those named in the order given; raises NotFound."""

    def set_drained(self, name: str, *, drained: bool, caller: str = "", reason: str = "") -> None:
        """Who drained it and why stands with it until it is opened; of one that is drained already it stays who was
        first. Raises NotFound.
        """

    def remove_deployment(self, name: str) -> None:
        """Raises NotFound; Refused while an apply uses it."""

    def record_register(self, name: str, event: str, caller: str, reason: str) -> tuple[str, ...]:
        """Writes down who changed what the register says of a deployment, and why: with each operation that is at work
        there, or else with the last that was. Their names; none where nothing ever was.
        """


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

    def unite_engines(self, one: int, other: int) -> None:
        """Two numbers are one engine, says a proof (tern.evidence)."""

    def findings(self) -> Mapping[str, Mapping[str, Finding]]:
        """What stands about each deployment and others."""


class MovingStore(Protocol):
    """Durable steps of changing a deployment that is used."""

    def uses(self, name: str) -> tuple[InUse, ...]:
        """The operations there that are not finished."""

    def unite_engines_at(self, name: str, address: str) -> None:
        """A key proves that its engine is the one at that address: whoever is reached there has the same number."""

    def change_deployment(
        self,
        change: DeploymentChange,
        before: Deployment,
        after: Deployment,
        uses: Sequence[InUse],
        how: Sameness | None,
        unknown: frozenset[int],
    ) -> tuple[str, ...]:
        """Writes it, where deployment and uses are what they were when the engines were asked. With a new address every
        claim there ends, cursors go back to 0, and what nobody can tell about is uncertain.

        how: by what it is the same engine. unknown: operations whose id is not known there. Returns the operations that
        are concerned. Raises Refused, NotFound, TryAgain.
        """


class RegisterStore(TargetStore, MovingStore, Protocol):
    """Both."""
