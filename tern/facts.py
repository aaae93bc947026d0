"""What the rows say about an apply, read in one look: the store fills these, view.py makes sense of them.

Ages and waits are seconds by the database's clock at the moment of the look; nobody else's clock takes part.
"""

from dataclasses import dataclass, field
from datetime import datetime

from tern.domain.barrier import Refusals
from tern.domain.control import Delivery, Verb
from tern.domain.counting import plural
from tern.domain.doubt import Doubt
from tern.domain.drift import Foretold
from tern.domain.effect import Effect, effect_of
from tern.domain.ending import Released
from tern.domain.holds import Holding
from tern.domain.identity import ApplyId, PlanId, RemoteId
from tern.domain.model import Action
from tern.domain.outstanding import Outstanding, Silent
from tern.domain.policy import Policy
from tern.domain.states import ApplyState, State

_BY_WORD = frozenset({"ENDED", "ENGINE_GONE"})
"""The error_reason of what a person's word has ended."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One statement inside one operation."""

    namespace: str
    table_name: str
    ddl: str
    action: Action
    unsafe_reason: str
    state: str
    rows_copied: int | None
    rows_total: int | None
    percent: int
    eta_s: int | None
    detail: str
    error: str
    settled_by: str = ""
    """Who said what became of it: `engine`, or a person who looked; empty where nobody spoke of it by itself."""

    @property
    def effect(self) -> Effect:
        """Whether it is in, as far as that is known."""
        return effect_of(self.state)

    @property
    def known_error(self) -> str:
        """Why it failed: some engines say so of the statement, and in what they say of its progress."""
        return self.error or (self.detail if self.state == State.FAILED.value else "")

    @property
    def done_percent(self) -> int:
        """How much of it is done; a completed statement is done whatever was counted last."""
        return 100 if self.state == State.COMPLETED.value else self.percent

    def as_json(self, number: int) -> dict[str, object]:
        """For `--json`. number: its place among its operation's, counted from 1, by which a person names it."""
        return {
            "number": number,
            "namespace": self.namespace,
            "table": self.table_name,
            "ddl": self.ddl,
            "action": self.action.value,
            "unsafe_reason": self.unsafe_reason or None,
            "state": self.state,
            "percent": self.done_percent,
            "rows_copied": self.rows_copied,
            "rows_total": self.rows_total,
            "eta_s": self.eta_s,
            "detail": self.detail,
            "error": self.known_error or None,
            "settled_by": self.settled_by or None,
        }


@dataclass(frozen=True, slots=True)
class WishFacts:
    """A wish and its fate on one operation."""

    request_id: int
    verb: Verb
    fate: Delivery
    caller: str
    reason: str
    attempts: int
    engine_words: str
    age_s: float
    closed_s_ago: float | None = None
    waits: bool = False
    """It is open and not driven before something else happens: its turn comes, a person answers."""
    was_refused: bool = False
    """Its engine's last answer was a refusal."""

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "request_id": self.request_id,
            "verb": self.verb.value,
            "state": self.fate.value,
            "caller": self.caller,
            "reason": self.reason,
            "attempts": self.attempts,
            "engine_words": self.engine_words or None,
            "age_s": round(self.age_s, 1),
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """Another rollout's operation at the same target, before or after this one."""

    scope: str
    state: State
    is_same_plan: bool = False

    @property
    def words(self) -> str:
        """Which one, and what became of it."""
        stands = (
            "has completed" if self.state is State.COMPLETED else f"is {self.state.value.replace('_', ' ')}"
        )
        return f"{self.scope}, which {stands}{' (the same plan)' if self.is_same_plan else ''}"

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {"scope": self.scope, "state": self.state.value, "same_plan": self.is_same_plan}


@dataclass(frozen=True, slots=True)
class CarriedOn:
    """Who does what is left of an operation, where that one is, and what is known of each of its statements."""

    by: str
    state: State
    effects: tuple[Effect, ...] = ()

    @property
    def words(self) -> str:
        """Who, and how that stands."""
        done = sum(effect is Effect.DONE for effect in self.effects)
        stands = (
            "has completed" if self.state is State.COMPLETED else f"is {self.state.value.replace('_', ' ')}"
        )
        if self.state.is_finished and self.state is not State.COMPLETED:
            stands += f", with {done} of {plural(len(self.effects), 'statement')} done"
        return f"carried on by {self.by}, which {stands}"

    @property
    def is_in_doubt(self) -> bool:
        """It is over, and of something that it was to do nobody can tell whether it is in."""
        doubtful = {Effect.UNKNOWN, Effect.UNDER_WAY}
        return self.state.is_finished and any(effect in doubtful for effect in self.effects)

    @property
    def leaves_more(self) -> bool:
        """It is over without having done all, so what is left is carried on once more."""
        return self.state.is_finished and any(effect is not Effect.DONE for effect in self.effects)


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """One operation. due_for_s: how long it has been waiting for a driver to take it, below zero where its time still
    comes (after a pause, or because the clock was set back); None when no driver is to take it. untaken_for_s: how long
    a driver should have taken it by now; None while it only waits for its turn among the others of its apply.

    was_seen: it failed before the newest release. volume: how hard its engine works, 1 to 11, as far as it was asked.
    """

    operation_id: int
    deployment: str
    position: int
    wave: int
    target: str
    state: State
    remote_id: RemoteId | None
    attempt: int
    fence: int
    is_admitted: bool
    state_age_s: float
    ended_s_ago: float | None
    was_seen: bool
    worked_s: float | None
    sampled_age_s: float | None
    poll_failures: int
    poll_error: str
    summary: str
    error_reason: str
    error_message: str
    stop_in_force: str | None
    wait_s: float
    due_for_s: float | None
    claimed_for_s: float
    drained: bool
    blocked_by: Holding | None
    tables: tuple[TableFacts, ...]
    wishes: tuple[WishFacts, ...]
    volume: int | None = None
    drained_by: str = ""
    """Who drained its deployment, and why; empty where it is open, and where nobody kept that."""
    doubt: Doubt = Doubt.NONE
    unanswered: int = 0
    """Dispatches in a row that its deployment's engine left without an answer; the next one waits for pauses_s."""
    pauses_s: float = 0.0
    untaken_for_s: float | None = None
    outstanding: tuple[Outstanding, ...] = ()
    """What of it was sent and may still act although it follows it no more."""
    held_by: Outstanding | None = None
    """What may still act at its target, of whatever operation."""
    unheard: Silent = field(default_factory=Silent)
    """The calls in a row that its engine gave no usable answer."""
    carries_on: str | None = None
    """The operation whose rest it does."""
    carried_on: CarriedOn | None = None
    """The follow-up that does its rest, and may act, has completed or has left something behind."""
    follow_ups: tuple[str, ...] = ()
    """All that ever followed it directly, those that came to nothing included."""
    foretold: Foretold | None = None
    """What its engine said before the rollout began, where that strays or is missing."""
    later: tuple[Attempt, ...] = ()
    """Of one that is over and was not completed: who came to its target since, up to the first that has completed."""
    earlier: tuple[Attempt, ...] = ()
    """Who was at its target before it and did not complete, back to the last that did; the nearest first."""
    word_in_s: float = 0.0
    """Until a person's word about it is taken: before that a call may still be answered, which is better."""

    @property
    def is_said_by_a_person(self) -> bool:
        """Its error is what somebody gave for a reason who said what became of it, and no engine's word."""
        return bool(self.error_message) and self.error_reason in _BY_WORD

    @property
    def known_error(self) -> str:
        """What is known of its trouble; where it failed without a word, what is known of the statement that failed."""
        if self.error_message or self.state is not State.FAILED:
            return self.error_message
        return next((table.known_error for table in self.tables if table.known_error), "")

    @property
    def error_words(self) -> str:
        """The same, never a person's words for an engine's."""
        return f"a person says: {self.error_message}" if self.is_said_by_a_person else self.known_error

    @property
    def carried_on_by(self) -> str | None:
        """That follow-up's name."""
        return None if self.carried_on is None else self.carried_on.by

    @property
    def since_then(self) -> tuple[Attempt, ...]:
        """Those who came later by themselves, not to carry it on."""
        return tuple(each for each in self.later if each.scope not in {*self.follow_ups, self.carried_on_by})

    @property
    def is_done_since(self) -> bool:
        """The same plan has completed there since, so that nothing of it is left."""
        return any(each.is_same_plan and each.state is State.COMPLETED for each in self.later)

    @property
    def open_wishes(self) -> tuple[WishFacts, ...]:
        """Those that are still worked on."""
        return tuple(wish for wish in self.wishes if wish.fate.is_open)

    @property
    def is_driven(self) -> bool:
        """A driver works on some wish about it, now or at a time that is set; or one is open though it is settled."""
        return any(not wish.waits or self.state.is_settled for wish in self.open_wishes)

    @property
    def refusals(self) -> Refusals:
        """The cutovers that came to nothing since it was last started."""
        refused: list[WishFacts] = []
        for wish in self.wishes:
            if wish.verb is Verb.START and wish.fate is Delivery.ACKNOWLEDGED:
                refused.clear()
            elif wish.verb is Verb.CUTOVER and wish.fate is Delivery.FAILED and wish.attempts:
                refused.append(wish)
        if not refused:
            return Refusals()
        return Refusals(len(refused), refused[-1].closed_s_ago or 0.0, refused[-1].engine_words)


@dataclass(frozen=True, slots=True)
class ApplyFacts:
    """One apply with all of its operations, in rollout order."""

    apply_id: ApplyId
    plan_id: PlanId
    environment: str
    database: str
    state: ApplyState
    policy: Policy
    operation_count: int
    revision: int
    caller: str
    reason: str
    error_message: str
    created_at: datetime
    age_s: float
    state_age_s: float
    took_s: float | None
    observed_at: datetime
    operations: tuple[OperationRecord, ...]
    released: int | None = None
    """How many failures the newest release opened; None when nothing was ever released."""
    release: Released | None = None


@dataclass(frozen=True, slots=True)
class ApplyLine:
    """One apply in a list."""

    apply_id: ApplyId
    environment: str
    database: str
    state: ApplyState
    operation_count: int
    counts: dict[State, int]
    caller: str
    reason: str
    age_s: float
    created_at: datetime
    carries_on: str | None = None
    """The apply whose rest it does."""
    follow_ups: tuple[str, ...] = ()
    """Those that do its own rest."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of an apply's record; deployment is empty where it is about the apply as a whole."""

    event_id: int
    at: datetime
    age_s: float
    deployment: str
    event: str
    who: str
    why: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Held:
    """Which operation holds a deployment's target now, and how far its apply is."""

    environment: str
    database: str
    deployment: str
    apply_id: ApplyId
    state: ApplyState
    held_for_s: float
    completed: int
    operation_count: int
    scope: str = ""
    operation_state: str = ""
