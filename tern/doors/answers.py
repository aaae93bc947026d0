"""What every door answers, as plain values: the same from the database of this process and from a ControlService.

Ages are seconds by the database's clock at `observed_at`, and take no part in comparing: two looks at something that
has not changed are equal. Where these come from is desk.py and wire/control/.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tern.domain.control import Delivery, ReceiptLine
from tern.domain.control import Receipt as Outcome
from tern.domain.holds import ClearedBy
from tern.domain.model import Action
from tern.domain.policy import Policy
from tern.domain.states import ApplyState, State


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason why an operation does not move. until_s: in how many seconds it clears by itself, where known."""

    kind: str
    detail: str
    cleared_by: ClearedBy
    until_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Blocker:
    """Something that only a person moves on, with the command that does and what it would do."""

    deployment: str
    what: str
    command: str
    consequence: str


@dataclass(frozen=True, slots=True)
class Way:
    """A command that works now, and what it would do."""

    command: str
    consequence: str


@dataclass(frozen=True, slots=True)
class Cause:
    """One matter that only a person moves on, and how many operations it concerns; deployments are the first of them.

    cause_id: what `--cause` of the command line selects by.
    """

    cause_id: str
    kind: str
    what: str
    operation_count: int
    deployments: tuple[str, ...]
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What was sent for an operation, is followed no more, and may still act at `address`. what: in one sentence."""

    outstanding_id: int
    remote_id: str | None
    address: str
    what: str
    last_seen: str
    cancel_asked: bool
    is_own: bool
    in_doubt: bool
    ways: tuple[Way, ...]
    last_seen_age_s: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody asked of an operation, and what became of it. verb: as on the command line."""

    request_id: int
    verb: str
    fate: Delivery
    caller: str
    reason: str
    attempts: int
    engine_words: str
    age_s: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class TableChange:
    """One statement inside one operation."""

    namespace: str
    table: str
    ddl: str
    action: Action
    unsafe_reason: str
    state: str
    percent: int
    rows_copied: int | None
    rows_total: int | None
    eta_s: int | None
    detail: str
    error: str
    settled_by: str = ""
    """Who said what became of it: `engine`, or a person who looked; empty where nobody spoke of it by itself."""
    number: int = 0
    """Its place among its operation's statements, counted from 1."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An apply's share on one deployment. wave: counted from 1, 0 in a rollout without waves. volume: 1 to 11, as far
    as it was asked.
    """

    scope: str
    deployment: str
    position: int
    wave: int
    target: str
    state: State
    remote_id: str | None
    attempt: int
    percent: int
    rows_copied: int | None
    rows_total: int | None
    eta_s: int | None
    volume: int | None
    lost_contact: bool
    summary: str
    error: str
    error_reason: str
    holds: tuple[Hold, ...]
    wishes: tuple[Wish, ...]
    tables: tuple[TableChange, ...]
    state_age_s: float = field(compare=False)
    worked_s: float | None = field(compare=False)
    sampled_age_s: float | None = field(compare=False)
    carries_on: str = ""
    """The operation whose rest it does; empty for none."""
    carried_on_by: str = ""
    """The follow-up that does its rest, and may act, has completed or has left something behind; empty for none."""
    follow_ups: tuple[str, ...] = ()
    """All that ever followed it directly."""
    carried_on_state: State | None = None
    """Where that follow-up is."""
    outstanding: tuple[Outstanding, ...] = ()
    """What may still act although it is followed no more."""


@dataclass(frozen=True, slots=True)
class Apply:
    """One rollout. exit_code: what `tern watch` ends with, None while something moves without a person."""

    apply_id: str
    plan_id: str
    state: ApplyState
    headline: str
    environment: str
    database: str
    caller: str
    reason: str
    policy: Policy
    created_at: datetime
    operation_count: int
    counts: Mapping[State, int]
    percent: int
    error: str
    exit_code: int | None
    blockers: tuple[Blocker, ...]
    revision: int
    observed_at: datetime = field(compare=False)
    operations: tuple[Operation, ...] = ()
    needs_you: tuple[Cause, ...] = ()
    """What only a person moves on, one entry for each cause, the most numerous first."""

    @property
    def is_settled(self) -> bool:
        """A verdict stands and the targets are free; a stopped one can still be started."""
        return self.state.is_settled

    def operation(self, deployment: str) -> Operation:
        """Its share on one deployment; raises KeyError."""
        for operation in self.operations:
            if operation.deployment == deployment:
                return operation
        raise KeyError(deployment)


@dataclass(frozen=True, slots=True)
class Summary:
    """One apply in a list."""

    apply_id: str
    environment: str
    database: str
    state: ApplyState
    operation_count: int
    counts: Mapping[State, int]
    caller: str
    reason: str
    created_at: datetime
    carries_on: str = ""
    """The apply whose rest it does; empty for none."""
    follow_ups: tuple[str, ...] = ()
    """Those that do its own rest."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One hold with all whom it holds; deployments are the first of them in rollout order."""

    hold: Hold
    operation_count: int
    deployments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every reason why something does not move, once."""

    apply: Apply
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an apply's record; deployment is empty where it is about the apply as a whole."""

    event_id: int
    at: datetime
    deployment: str
    event: str
    who: str
    why: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a wish or to a resolve. request_id is None where no wish was accepted."""

    request_id: int | None
    lines: tuple[ReceiptLine, ...]

    def having(self, outcome: Outcome) -> tuple[str, ...]:
        """The deployments with this outcome, in rollout order."""
        return tuple(line.deployment for line in self.lines if line.outcome is outcome)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that asked for a rollout and was refused. reason: a stable word, the same at every door."""

    at: datetime
    caller: str
    reason: str
    what: str
    why: tuple[str, ...]
    next_step: str


@dataclass(frozen=True, slots=True)
class KeyFate:
    """What became of an idempotency key. refusals: newest first; an apply may exist beside them."""

    apply_id: str | None
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """One operation alone, as far as its engine was last heard: what an engine's own client wants to know."""

    scope: str
    environment: str
    state: State
    remote_id: str | None
    summary: str
    error: str
    lost_contact: bool
    volume: int | None
    started_at: datetime | None
    completed_at: datetime | None
    sampled_age_s: float | None
    tables: tuple[TableChange, ...]
