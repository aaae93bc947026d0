"""Asking engines, many at once: what they offer, and what a change would do at each."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tern.domain.drift import Foretold, ForetoldChange, Look
from tern.domain.model import Capabilities, Deployment, PlannedChange, Unsupported
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.ports import ChangePreview, Engines

AT_ONCE = 16
LONGEST_LOOK_S = 60.0

Answer = TypeVar("Answer")
Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class TargetPreview:
    """What one target's engine says about the changes. `trouble` is why it said nothing."""

    deployment: str
    changes: tuple[ChangePreview, ...] = ()
    is_offered: bool = True
    trouble: str = ""
    trouble_reason: str = ""
    is_definite: bool = False
    """The trouble is the engine's own no, not its silence."""

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why the target can't take the change."""
        found = [
            f"change {number}, {change.namespace}.{change.table_name}: {change.refused_reason}"
            for number, change in enumerate(self.changes, 1)
            if change.refused_reason
        ]
        return (*found, *((self.trouble,) if self.trouble and self.is_definite else ()))

    @property
    def unsafe(self) -> tuple[str, ...]:
        """What the engine wants consent for."""
        return tuple(
            f"{change.table_name}: {change.unsafe_reason}" for change in self.changes if change.unsafe_reason
        )

    def foretold(self) -> Foretold:
        """What of it is kept with the plan or the rollout."""
        if self.refusals:
            look, words = Look.REFUSED, "; ".join(" ".join(each.split()) for each in self.refusals)
        elif self.trouble:
            look, words = Look.UNREACHABLE, " ".join(self.trouble.split())
        elif not self.is_offered:
            look, words = Look.NOT_OFFERED, ""
        else:
            look, words = Look.PREVIEWED, ""
        changes = tuple(
            ForetoldChange(
                change.namespace,
                change.table_name,
                change.change_class,
                change.recipe,
                change.refused_reason,
                change.locks,
                change.unsafe_reason,
                change.estimated_rows,
                change.estimated_s,
                change.after_cutover_s,
            )
            for change in self.changes
        )
        return Foretold(self.deployment, look, words, changes)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "deployment": self.deployment,
            "previewed": self.is_offered and not self.trouble,
            "trouble": self.trouble or None,
            "trouble_reason": self.trouble_reason or None,
            "refused": list(self.refusals),
            "changes": [
                {
                    "namespace": change.namespace,
                    "table": change.table_name,
                    "class": change.change_class,
                    "recipe": change.recipe,
                    "locks": list(change.locks),
                    "unsafe_reason": change.unsafe_reason or None,
                    "refused_reason": change.refused_reason or None,
                    "estimated_rows": change.estimated_rows,
                    "estimated_s": change.estimated_s,
                    "after_cutover_s": change.after_cutover_s,
                }
                for change in self.changes
            ],
        }


def look(
    engines: Engines, deployments: Sequence[Deployment], changes: Sequence[PlannedChange]
) -> tuple[tuple[TargetPreview, ...], dict[str, Capabilities | None]]:
    """What the changes would do at every target, and what its engine offers by now; None of one that was silent."""
    ends_at = time.monotonic() + LONGEST_LOOK_S

    def ask(deployment: Deployment) -> tuple[TargetPreview, Outcome[Capabilities]]:
        found = _preview_one(engines, deployment, changes, ends_at)
        if found.trouble and not found.is_definite:
            # It is not waited for twice.
            return found, Unknown(found.trouble, found.trouble_reason)
        return found, engines.of(deployment).probe(previews=found.is_offered)

    asked = at_once(ask, deployments)
    return tuple(found for found, _ in asked), offered(deployments, [answer for _, answer in asked])


def _preview_one(
    engines: Engines, deployment: Deployment, changes: Sequence[PlannedChange], ends_at: float
) -> TargetPreview:
    if time.monotonic() > ends_at:
        words = f"there was no time to ask it: {LONGEST_LOOK_S:g} s went by with the others"
        return TargetPreview(deployment.name, trouble=words, trouble_reason="NOT_ASKED")
    match engines.of(deployment).preview(deployment, changes):
        case Ok(Unsupported()):
            return TargetPreview(deployment.name, is_offered=False)
        case Ok(tuple() as found):
            return TargetPreview(deployment.name, found)
        case Refused(message, reason):
            return TargetPreview(deployment.name, trouble=message, trouble_reason=reason, is_definite=True)
        case Unknown(message, reason):
            return TargetPreview(deployment.name, trouble=message, trouble_reason=reason)
        case other:
            message = f"an engine's answer of an unknown kind: {other!r}"
            raise AssertionError(message)


def probe(engines: Engines, deployments: Sequence[Deployment]) -> tuple[Outcome[Capabilities], ...]:
    """What each engine offers, in the order given."""
    return at_once(lambda deployment: engines.of(deployment).probe(), deployments)


def offered(
    deployments: Sequence[Deployment], answers: Sequence[Outcome[Capabilities]]
) -> dict[str, Capabilities | None]:
    """What was found at each; None where nobody answered."""
    return {
        deployment.name: answer.value if isinstance(answer, Ok) else None
        for deployment, answer in zip(deployments, answers, strict=True)
    }


def at_once(ask: Callable[[Asked], Answer], asked: Sequence[Asked]) -> tuple[Answer, ...]:
    """Asks many engines at the same time; each call has its own deadline."""
    if not asked:
        return ()
    with ThreadPoolExecutor(min(AT_ONCE, len(asked)), thread_name_prefix="tern-ask") as pool:
        return tuple(pool.map(ask, asked))
