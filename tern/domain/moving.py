"""Changing what the register says of a deployment while it is used: what is asked first, and what is refused.

Environment, database and target never change: what runs there was reviewed for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tern.domain.errors import Refused, UsageError
from tern.domain.model import Credentials, Deployment


@dataclass(frozen=True, slots=True)
class DeploymentChange:
    """What a person asks for. Only what was said is here; a label of None is taken away."""

    name: str
    caller: str
    reason: str
    address: str | None = None
    credentials: Mapping[str, str | bool] = field(default_factory=dict)
    labels: Mapping[str, str | None] = field(default_factory=dict)
    position: int | None = None
    deduplicates: bool | None = None
    same_engine: bool = False
    new_identity: bool = False

    def __post_init__(self) -> None:
        if not self.reason.strip():
            what = f"what is changed at {self.name} needs a reason"
            raise UsageError(what, next_step="Say why with --reason.")
        said = (self.address, self.position, self.deduplicates)
        if (
            all(each is None for each in said)
            and not self.credentials
            and not self.labels
            and not self.new_identity
        ):
            what = f"nothing was said that should change at {self.name}"
            raise UsageError(what, next_step="tern deployments set --help")
        if self.same_engine and self.address is None:
            what = "--same-engine is about a new address, and none is given"
            raise UsageError(what, next_step="Add --address.")

    def applied_to(self, before: Deployment) -> Deployment:
        """The deployment as it is to be. What was declared of the engine is said again for a new address, or falls."""
        labels = {**before.labels, **{key: value for key, value in self.labels.items() if value is not None}}
        address = before.address if self.address is None else self.address
        stays = before.idempotent_dispatch and address == before.address
        return replace(
            before,
            address=address,
            credentials=replace(before.credentials, **self.credentials),  # type: ignore[arg-type] # by field
            labels={key: value for key, value in labels.items() if self.labels.get(key, value) is not None},
            position=before.position if self.position is None else self.position,
            idempotent_dispatch=stays if self.deduplicates is None else self.deduplicates,
        )

    def words(self, before: Deployment, after: Deployment) -> tuple[str, ...]:
        """What changes, for the record. Credentials are references, and never secrets."""
        told = [
            f"{name}: {old or 'none'} → {new or 'none'}"
            for name, old, new in (
                ("address", before.address, after.address),
                ("position", str(before.position), str(after.position)),
                ("deduplicates", _yes(before.idempotent_dispatch), _yes(after.idempotent_dispatch)),
                ("identity", before.engine_identity, after.engine_identity),
                ("labels", _labels(before), _labels(after)),
                *(
                    (each, str(getattr(before.credentials, each)), str(getattr(after.credentials, each)))
                    for each in Credentials.__dataclass_fields__
                ),
            )
            if old != new
        ]
        return (*told, *(("the same engine, by a person's word",) if self.same_engine else ()))


class Sameness(StrEnum):
    """How it is known that the engine at the new address is the one that was at the old one."""

    PROVEN = "proven"
    SAID = "said"


@dataclass(frozen=True, slots=True)
class InUse:
    """An operation that is not finished, with what of it may be known at its engine."""

    operation_id: int
    scope: str
    fence: int
    remote_id: str | None = None
    key: str | None = None
    """Of a dispatch that nobody has settled and that has no id."""

    @property
    def is_sent(self) -> bool:
        """Something of it may act there."""
        return self.remote_id is not None or self.key is not None


def sameness(change: DeploymentChange, *, there: bool | None, back: bool | None, words: str) -> Sameness:
    """What the two answers, and a person, come to; raises Refused. A person may speak where nobody answers, and not
    against an answer.

    there, back: whether each of the two addresses knows the key that was forbidden at the other; None for no answer.
    """
    if there is True and back is True:
        return Sameness.PROVEN
    if there is False or back is False:
        what = f"{change.name} was not changed: another engine is at {change.address}"
        why = ("a key that was forbidden at one address is not forbidden at the other",)
        step = f"Compare the addresses; a deployment of its own is added with: tern deployments add … {change.address}"
        raise Refused(what, why=why, next_step=step, reason="ANOTHER_ENGINE")
    if change.same_engine:
        return Sameness.SAID
    what = f"{change.name} was not changed: nobody can prove that the same engine is at {change.address}"
    step = (
        f"If you know that it is: tern deployments set {change.name} --address {change.address} --same-engine"
        " --reason '…'"
    )
    raise Refused(what, why=(words,), next_step=step, reason="SAME_ENGINE_UNPROVEN")


def _labels(deployment: Deployment) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(deployment.labels.items()))


def _yes(said: bool) -> str:  # noqa: FBT001 - one word for one value
    return "yes" if said else "no"
