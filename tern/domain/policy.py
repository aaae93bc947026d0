"""Rollout policy: what may start when, and every reason why an operation does not move.

Admission and `tern explain` both call holds(); there is no second opinion anywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tern.domain.states import State


class Copy(StrEnum):
    """How the deployments' work overlaps."""

    ROLLING = "rolling"
    PARALLEL = "parallel"


class OnFailure(StrEnum):
    """What one failure too many does to the deployments that have not started."""

    HALT = "halt"
    CONTINUE = "continue"


class Cutover(StrEnum):
    """Who says when the application gets to see the change."""

    AUTO = "auto"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Policy:
    """Frozen with the apply at its creation: editing a default never changes a rollout under way (PL1).

    max_parallel: how many operations may copy at once, None for no limit; rolling means one whatever it says.
    max_failures: that many failures are borne before on_failure acts.
    """

    copy: Copy = Copy.ROLLING
    on_failure: OnFailure = OnFailure.HALT
    cutover: Cutover = Cutover.AUTO
    max_parallel: int | None = None
    max_failures: int = 0

    def __post_init__(self) -> None:
        if self.max_parallel is not None and self.max_parallel < 1:
            message = f"max_parallel must be at least 1, not {self.max_parallel}"
            raise ValueError(message)
        if self.max_failures < 0:
            message = f"max_failures must not be negative, but is {self.max_failures}"
            raise ValueError(message)

    @property
    def defers_cutover(self) -> bool:
        """The engine is told to wait for a Cutover call."""
        return self.cutover is Cutover.MANUAL

    def as_json(self) -> dict[str, object]:
        """What stands in applies.policy."""
        return {
            "copy": self.copy.value,
            "on_failure": self.on_failure.value,
            "cutover": self.cutover.value,
            "max_parallel": self.max_parallel,
            "max_failures": self.max_failures,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> "Policy":
        """Reads applies.policy; raises ValueError or KeyError for what Tern never wrote."""
        max_parallel = stored["max_parallel"]
        return cls(
            copy=Copy(str(stored["copy"])),
            on_failure=OnFailure(str(stored["on_failure"])),
            cutover=Cutover(str(stored["cutover"])),
            max_parallel=None if max_parallel is None else int(str(max_parallel)),
            max_failures=int(str(stored["max_failures"])),
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """An apply's operations by state: all that policy and projection need, however many there are.

    before: the same counts, of the operations whose position is lower than the one asked about.
    admitted: pending operations that have been let in and not been claimed yet.
    """

    counts: Mapping[State, int]
    before: Mapping[State, int] = field(default_factory=dict)
    admitted: int = 0

    def count(self, *states: State) -> int:
        """How many operations are in one of these states."""
        return sum(self.counts.get(state, 0) for state in states)

    def count_before(self, *states: State) -> int:
        """How many operations earlier in the order are in one of these states."""
        return sum(self.before.get(state, 0) for state in states)

    @property
    def total(self) -> int:
        """How many operations the apply has."""
        return sum(self.counts.values())


COPYING = (State.RUNNING, State.RESUMING, State.FAILED_RETRYABLE, State.UNCERTAIN)
"""States that hold a slot. One that waits for its cutover holds none; one we know too little of does."""

PASSED = (State.COMPLETED, State.FAILED, State.CANCELLED, State.REVERTED, State.SKIPPED)
"""States that let the next deployment in the order go (a failure only where the policy bears it)."""


class HoldKind(StrEnum):
    """Why an operation does not move."""

    FAILURES = "failures"
    ORDER = "order"
    SLOTS = "slots"
    STOP = "stop"
    BACKOFF = "backoff"
    CLAIMED = "claimed"
    DRAINED = "drained"
    RESERVATION = "reservation"
    CUTOVER = "cutover"
    UNCERTAIN = "uncertain"


class ClearedBy(StrEnum):
    """Who makes a hold go away: `fix` the reader, `wait` nobody (it clears by itself), `ask` somebody else."""

    FIX = "fix"
    WAIT = "wait"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason, in words; until_s is in how many seconds it clears by itself, where that is known."""

    kind: HoldKind
    detail: str
    cleared_by: ClearedBy
    until_s: float | None = None


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """What decides whether one operation may be dispatched now."""

    state: State
    tally: Tally
    stop_in_force: str | None = None
    """The verb, `stop` or `cancel`, that holds it and has not been superseded by a start."""
    wait_s: float = 0.0
    """Seconds until next_attempt_at; not positive when due."""
    claimed_for_s: float = 0.0
    """Seconds another driver's claim still runs; not positive when free."""
    drained: bool = False
    holds_target: bool = True
    target_holder: str | None = None


def is_halted(policy: Policy, tally: Tally) -> bool:
    """Nothing new is started any more, in any order: more failures than the policy bears, and it says halt."""
    return policy.on_failure is OnFailure.HALT and tally.count(State.FAILED) > policy.max_failures


def holds(policy: Policy, facts: OperationFacts) -> tuple[Hold, ...]:
    """All reasons why a pending or retryable operation is not dispatched now; empty means: it goes.

    A retryable one keeps its slot and its place in the order, so those rules apply to pending ones only.
    """
    found: list[Hold] = []
    if facts.stop_in_force is not None:
        text = f"an operator's {facts.stop_in_force} covers it; `tern start` supersedes a stop"
        found.append(Hold(HoldKind.STOP, text, ClearedBy.FIX))
    if not facts.holds_target:
        who = facts.target_holder or "no apply"
        text = f"its target is held by {who}"
        found.append(Hold(HoldKind.RESERVATION, text, ClearedBy.ASK))
    if facts.claimed_for_s > 0:
        found.append(Hold(HoldKind.CLAIMED, "a driver is working on it", ClearedBy.WAIT, facts.claimed_for_s))
    if facts.state is State.PENDING:
        found += _rollout_holds(policy, facts)
    if facts.wait_s > 0:
        text = "the engine gave no usable answer; the same dispatch is repeated after a pause"
        found.append(Hold(HoldKind.BACKOFF, text, ClearedBy.WAIT, facts.wait_s))
    return tuple(found)


def _rollout_holds(policy: Policy, facts: OperationFacts) -> list[Hold]:
    tally = facts.tally
    found: list[Hold] = []
    if facts.drained:
        text = "its deployment is drained; `tern deployments undrain` opens it"
        found.append(Hold(HoldKind.DRAINED, text, ClearedBy.ASK))
    if is_halted(policy, tally):
        failed = tally.count(State.FAILED)
        text = f"{failed} failed, {policy.max_failures} are borne: the rollout is halted"
        found.append(Hold(HoldKind.FAILURES, text, ClearedBy.FIX))
    match policy.copy:
        case Copy.ROLLING:
            stopped = tally.count_before(State.STOPPED)
            uncertain = tally.count_before(State.UNCERTAIN)
            ahead = sum(tally.before.values()) - tally.count_before(*PASSED)
            if stopped or uncertain:
                counts = [f"{n} {what}" for n, what in ((stopped, "stopped"), (uncertain, "uncertain")) if n]
                text = f"{' and '.join(counts)} before it in the order: a person decides"
                found.append(Hold(HoldKind.ORDER, text, ClearedBy.FIX))
            elif ahead:
                text = f"{ahead} before it in the order are not through yet"
                found.append(Hold(HoldKind.ORDER, text, ClearedBy.WAIT))
        case Copy.PARALLEL:
            busy = tally.count(*COPYING)
            if policy.max_parallel is not None and busy >= policy.max_parallel:
                text = f"{busy} of {policy.max_parallel} slots are taken"
                found.append(Hold(HoldKind.SLOTS, text, ClearedBy.WAIT))
    return found


def admissible(policy: Policy, tally: Tally) -> int:
    """How many more pending operations may be let in now, counted from the front of the order.

    For a rolling order the front is known only to the caller: it asks with the tally *before* the first pending
    operation. Never negative.
    """
    pending = tally.count(State.PENDING) - tally.admitted
    if pending <= 0 or is_halted(policy, tally):
        return 0
    match policy.copy:
        case Copy.ROLLING:
            ahead = sum(tally.before.values()) - tally.count_before(*PASSED)
            return 1 if ahead == 0 and tally.admitted == 0 else 0
        case Copy.PARALLEL:
            if policy.max_parallel is None:
                return pending
            return max(0, min(pending, policy.max_parallel - tally.count(*COPYING) - tally.admitted))
