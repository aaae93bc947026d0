"""The rollout policy: what was agreed at creation, frozen with the apply. What follows from it is in tally.py,
budget.py, opening.py, barrier.py and holds.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

MOST = 1_000_000
"""Operations, more than any rollout has: what a policy says still fits every column and limit."""

LONGEST_BAKE_S = 366 * 86_400.0


class Copy(StrEnum):
    """How the deployments' work overlaps."""

    ROLLING = "rolling"
    """One after the other: the next begins when the one before is through."""
    BARRIER = "barrier"
    """Copies overlap and begin in order; cutovers follow one another in order, each after the last is completed."""
    PARALLEL = "parallel"
    """No order."""


class OnFailure(StrEnum):
    """What one failure too many does to the deployments that have not started."""

    HALT = "halt"
    """They never start; they are skipped with the verdict."""
    CONTINUE = "continue"
    PAUSE = "pause"
    """They wait for a release."""


class Cutover(StrEnum):
    """Who says when the application gets to see the change."""

    AUTO = "auto"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Rules:
    """What bounds the operations of one wave.

    max_parallel: how many may copy at once, None for no limit. max_failures: so many of its failures are borne.
    bake_s: seconds that its last ending must be old before the next wave begins.
    """

    max_parallel: int | None = None
    max_failures: int = 0
    bake_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wave:
    """The deployments with all of these labels, or those named; with neither, all that no wave before it took.

    max_parallel and max_failures are those of the rollout where they are None.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    deployments: tuple[str, ...] = ()
    max_parallel: int | None = None
    max_failures: int | None = None
    bake_s: float = 0.0

    def __post_init__(self) -> None:
        if self.labels and self.deployments:
            raise ValueError("a wave selects by labels or by names, not by both")
        _check_bounds(self.max_parallel, self.max_failures)
        if not 0 <= self.bake_s <= LONGEST_BAKE_S:
            raise ValueError(
                f"bake_s must be a number of seconds up to {LONGEST_BAKE_S:.0f}, not {self.bake_s}"
            )

    def selects(self, name: str, labels: Mapping[str, str]) -> bool:
        """A deployment of this name with these labels goes with this wave."""
        if self.deployments:
            return name in self.deployments
        return self.labels.items() <= labels.items()

    @property
    def selector(self) -> str:
        """Whom it selects, in the words of the command line."""
        if self.deployments:
            return ",".join(self.deployments)
        return ",".join(f"{key}={value}" for key, value in sorted(self.labels.items())) or "*"

    def as_json(self) -> dict[str, object]:
        """One entry of `waves` in applies.policy."""
        return {
            "labels": dict(self.labels),
            "deployments": list(self.deployments),
            "max_parallel": self.max_parallel,
            "max_failures": self.max_failures,
            "bake_s": self.bake_s,
        }

    @classmethod
    def from_json(cls, stored: object) -> "Wave":
        """Reads what as_json wrote, or part of it; raises ValueError for anything else."""
        if not isinstance(stored, Mapping):
            raise ValueError("a wave is an object")  # noqa: TRY004 - one kind of error for what can't be read
        if unknown := sorted(stored.keys() - Wave().as_json().keys()):
            raise ValueError(f"a wave has no {unknown[0]!a}")
        labels, names = stored.get("labels", {}), stored.get("deployments", [])
        if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
            raise ValueError("the labels of a wave are an object of texts")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("the deployments of a wave are a list of names")
        bake_s = stored.get("bake_s", 0.0)
        if isinstance(bake_s, bool) or not isinstance(bake_s, int | float):
            raise ValueError(f"bake_s must be a number of seconds, not {bake_s!a}")  # noqa: TRY004
        return cls(
            labels=dict(labels),
            deployments=tuple(names),
            max_parallel=_optional(stored.get("max_parallel")),
            max_failures=_optional(stored.get("max_failures")),
            bake_s=float(bake_s),
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """Frozen with the apply at its creation: editing a default never changes a rollout under way (PL1).

    max_parallel: how many operations may copy at once, None for no limit; rolling means one whatever it says.
    max_failures: that many failures are borne before on_failure acts. strict: an operation is let in only while
    those that failed and those under way together are no more than max_failures, so that one failure more than
    that is the most there can ever be. With waves, these bounds are counted in each wave for itself.
    enable_revert: engines keep a window after the cutover in which the change can be taken back.
    """

    copy: Copy = Copy.ROLLING
    on_failure: OnFailure = OnFailure.HALT
    cutover: Cutover = Cutover.AUTO
    max_parallel: int | None = None
    max_failures: int = 0
    strict: bool = False
    waves: tuple[Wave, ...] = ()
    enable_revert: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self.max_parallel, self.max_failures)

    @property
    def defers_cutover(self) -> bool:
        """The engine is told to wait for a Cutover call."""
        return self.cutover is Cutover.MANUAL or self.copy is Copy.BARRIER

    def rules(self, wave: int) -> Rules:
        """What bounds the operations of this wave, counted from 1; 0 is the whole of a rollout without waves."""
        if not 1 <= wave <= len(self.waves):
            return Rules(self.max_parallel, self.max_failures)
        own = self.waves[wave - 1]
        return Rules(
            self.max_parallel if own.max_parallel is None else own.max_parallel,
            self.max_failures if own.max_failures is None else own.max_failures,
            own.bake_s,
        )

    def contradictions(self) -> tuple[str, ...]:
        """Why no rollout can follow it: what was asked for in one place and taken back in another."""
        why = []
        bounded = any(
            bound is not None for bound in (self.max_parallel, *(w.max_parallel for w in self.waves))
        )
        if self.copy is Copy.ROLLING and bounded:
            why.append("max_parallel is for parallel and barrier: rolling is one after the other")
        if self.strict and self.on_failure is OnFailure.CONTINUE:
            why.append("strict never goes beyond max_failures, and continue always does")
        if self.waves and self.waves[-1].bake_s:
            why.append(f"wave {len(self.waves)} bakes, but no wave comes after it that could wait")
        return tuple(why)

    def as_json(self) -> dict[str, object]:
        """What stands in applies.policy."""
        return {
            "copy": self.copy.value,
            "on_failure": self.on_failure.value,
            "cutover": self.cutover.value,
            "max_parallel": self.max_parallel,
            "max_failures": self.max_failures,
            "strict": self.strict,
            "waves": [wave.as_json() for wave in self.waves],
            "enable_revert": self.enable_revert,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> "Policy":
        """Reads applies.policy; raises ValueError or KeyError for what Tern never wrote."""
        waves, strict, enable_revert = stored["waves"], stored["strict"], stored["enable_revert"]
        if not isinstance(waves, list | tuple):
            raise ValueError("waves is no list")  # noqa: TRY004 - one kind of error for what can't be read
        if not isinstance(strict, bool):
            raise ValueError("strict is neither true nor false")  # noqa: TRY004
        if not isinstance(enable_revert, bool):
            raise ValueError("enable_revert is neither true nor false")  # noqa: TRY004
        return cls(
            copy=Copy(str(stored["copy"])),
            on_failure=OnFailure(str(stored["on_failure"])),
            cutover=Cutover(str(stored["cutover"])),
            max_parallel=_optional(stored["max_parallel"]),
            max_failures=int(str(stored["max_failures"])),
            strict=strict,
            waves=tuple(_numbered(waves)),
            enable_revert=enable_revert,
        )


def _numbered(waves: list[object] | tuple[object, ...]) -> list[Wave]:
    found = []
    for number, wave in enumerate(waves, start=1):
        try:
            found.append(Wave.from_json(wave))
        except ValueError as error:
            raise ValueError(f"wave {number}: {error}") from None
    return found


def for_fewer(policy: Policy, deployments: Mapping[str, Mapping[str, str]]) -> Policy:
    """The first rollout's policy for fewer deployments: without the waves that have nobody left."""
    left = dict(deployments)
    waves = []
    for wave in policy.waves:
        taken = [name for name, labels in left.items() if wave.selects(name, labels)]
        if not taken:
            continue
        for name in taken:
            del left[name]
        waves.append(replace(wave, deployments=tuple(name for name in wave.deployments if name in taken)))
    if waves:
        # Nobody comes after the last one who could wait for it.
        waves[-1] = replace(waves[-1], bake_s=0.0)
    return replace(policy, waves=tuple(waves))


def _optional(stored: object) -> int | None:
    return None if stored is None else int(str(stored))


def _check_bounds(max_parallel: int | None, max_failures: int | None) -> None:
    if max_parallel is not None and not 1 <= max_parallel <= MOST:
        raise ValueError(f"max_parallel must be at least 1 and at most {MOST}, not {max_parallel}")
    if max_failures is not None and not 0 <= max_failures <= MOST:
        raise ValueError(f"max_failures must not be negative, and at most {MOST}, but is {max_failures}")
