"""The states of an operation and of an apply, and every arrow between an operation's states, as data.

Nothing else decides what may follow what. An apply's state has no arrows: it is computed (projection.py, G14).
"""

from collections.abc import Mapping
from enum import StrEnum

from tern.domain.errors import IllegalTransition


class State(StrEnum):
    """Where an operation is."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING_FOR_CUTOVER = "waiting_for_cutover"
    CUTTING_OVER = "cutting_over"
    REVERT_WINDOW = "revert_window"
    REVERTING = "reverting"
    RESUMING = "resuming"
    FAILED_RETRYABLE = "failed_retryable"
    UNCERTAIN = "uncertain"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERTED = "reverted"
    SKIPPED = "skipped"
    STOPPED = "stopped"

    @property
    def is_settled(self) -> bool:
        """Nothing moves by itself from here."""
        return self in SETTLED

    @property
    def is_finished(self) -> bool:
        """Settled for good: completed_at is set. A stopped operation is settled but not finished."""
        return self in FINISHED

    @property
    def is_live(self) -> bool:
        """Not settled."""
        return self not in SETTLED


class ApplyState(StrEnum):
    """What an apply's operations amount to: the same words, and two that only projection produces."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING_FOR_CUTOVER = "waiting_for_cutover"
    CUTTING_OVER = "cutting_over"
    REVERT_WINDOW = "revert_window"
    RUNNING_DEGRADED = "running_degraded"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERTED = "reverted"
    STOPPED = "stopped"

    @property
    def is_settled(self) -> bool:
        """A verdict stands; the targets are free."""
        return self in SETTLED_APPLY

    @property
    def is_finished(self) -> bool:
        """Settled for good: a stopped apply may still be started."""
        return self.is_settled and self is not ApplyState.STOPPED


SETTLED = frozenset(
    {State.COMPLETED, State.FAILED, State.CANCELLED, State.REVERTED, State.SKIPPED, State.STOPPED}
)
FINISHED = SETTLED - {State.STOPPED}
SETTLED_APPLY = frozenset(
    {
        ApplyState.COMPLETED,
        ApplyState.FAILED,
        ApplyState.CANCELLED,
        ApplyState.REVERTED,
        ApplyState.STOPPED,
    }
)

RANK: Mapping[State, int] = {
    State.RUNNING: 1,
    State.WAITING_FOR_CUTOVER: 2,
    State.CUTTING_OVER: 3,
    State.REVERT_WINDOW: 4,
    State.REVERTING: 5,
}
"""How far a started operation has come; a sample never takes it back."""


class Event(StrEnum):
    """What can happen to an operation. Each is made by one kind of party (MADE_BY)."""

    CLAIM = "claim"
    ANSWER_LOST = "answer_lost"
    REFUSE = "refuse"
    LOSE_TRACK = "lose_track"
    WITHDRAW_STOPPED = "withdraw_stopped"
    WITHDRAW_CANCELLED = "withdraw_cancelled"
    SKIP = "skip"
    RESUME = "resume"
    RESUME_REFUSED = "resume_refused"
    RESUME_WITHDRAWN = "resume_withdrawn"
    REQUEUE = "requeue"
    RETRY = "retry"
    ADOPT = "adopt"
    REPEAT = "repeat"
    END = "end"
    FINISH = "finish"
    OBSERVE_RUNNING = "observe_running"
    OBSERVE_WAITING_FOR_CUTOVER = "observe_waiting_for_cutover"
    OBSERVE_CUTTING_OVER = "observe_cutting_over"
    OBSERVE_REVERT_WINDOW = "observe_revert_window"
    OBSERVE_REVERTING = "observe_reverting"
    OBSERVE_COMPLETED = "observe_completed"
    OBSERVE_FAILED = "observe_failed"
    OBSERVE_STOPPED = "observe_stopped"
    OBSERVE_CANCELLED = "observe_cancelled"
    OBSERVE_REVERTED = "observe_reverted"


class Party(StrEnum):
    """Who may make an event happen."""

    DRIVER = "driver"
    ENGINE = "engine"
    OPERATOR = "operator"
    VERDICT = "verdict"


MADE_BY: Mapping[Event, frozenset[Party]] = {
    Event.CLAIM: frozenset({Party.DRIVER}),
    Event.ANSWER_LOST: frozenset({Party.DRIVER}),
    Event.REFUSE: frozenset({Party.DRIVER}),
    Event.LOSE_TRACK: frozenset({Party.DRIVER, Party.ENGINE}),
    Event.WITHDRAW_STOPPED: frozenset({Party.OPERATOR}),
    Event.WITHDRAW_CANCELLED: frozenset({Party.OPERATOR}),
    Event.SKIP: frozenset({Party.VERDICT, Party.OPERATOR}),
    Event.RESUME: frozenset({Party.OPERATOR}),
    Event.RESUME_REFUSED: frozenset({Party.ENGINE}),
    Event.RESUME_WITHDRAWN: frozenset({Party.DRIVER}),
    Event.REQUEUE: frozenset({Party.OPERATOR, Party.DRIVER}),
    Event.RETRY: frozenset({Party.OPERATOR}),
    Event.ADOPT: frozenset({Party.DRIVER, Party.OPERATOR}),
    Event.END: frozenset({Party.OPERATOR}),
    Event.FINISH: frozenset({Party.OPERATOR}),
    Event.REPEAT: frozenset({Party.OPERATOR}),
    **{event: frozenset({Party.ENGINE}) for event in Event if event.value.startswith("observe_")},
}

OBSERVED: Mapping[State, Event] = {
    State(event.value.removeprefix("observe_")): event
    for event in Event
    if event.value.startswith("observe_")
}
"""The event by which a sample of this state is taken over."""

_FORWARD = (
    State.WAITING_FOR_CUTOVER,
    State.CUTTING_OVER,
    State.REVERT_WINDOW,
    State.REVERTING,
)
_ENDINGS = (State.COMPLETED, State.FAILED, State.STOPPED, State.CANCELLED, State.REVERTED)


def _sampled(*states: State) -> dict[Event, State]:
    return {OBSERVED[state]: state for state in states}


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.PENDING: {
        Event.CLAIM: State.RUNNING,
        Event.REFUSE: State.FAILED,
        Event.LOSE_TRACK: State.UNCERTAIN,
        Event.WITHDRAW_STOPPED: State.STOPPED,
        Event.WITHDRAW_CANCELLED: State.CANCELLED,
        Event.SKIP: State.SKIPPED,
    },
    State.RUNNING: {
        Event.CLAIM: State.RUNNING,
        Event.ANSWER_LOST: State.FAILED_RETRYABLE,
        Event.REFUSE: State.FAILED,
        Event.LOSE_TRACK: State.UNCERTAIN,
        Event.WITHDRAW_STOPPED: State.STOPPED,
        Event.WITHDRAW_CANCELLED: State.CANCELLED,
        # Nothing was sent, or its key is dead; the store's statements say so. Never with an id.
        Event.REQUEUE: State.PENDING,
        Event.ADOPT: State.RUNNING,
        **_sampled(*_FORWARD, *_ENDINGS),
    },
    State.FAILED_RETRYABLE: {
        Event.CLAIM: State.RUNNING,
        Event.REFUSE: State.FAILED,
        Event.LOSE_TRACK: State.UNCERTAIN,
        Event.WITHDRAW_STOPPED: State.STOPPED,
        Event.WITHDRAW_CANCELLED: State.CANCELLED,
        Event.REQUEUE: State.PENDING,
        Event.ADOPT: State.RUNNING,
    },
    State.UNCERTAIN: {
        Event.ADOPT: State.RUNNING,
        Event.REPEAT: State.FAILED_RETRYABLE,
        Event.REQUEUE: State.PENDING,
        Event.END: State.FAILED,
        Event.FINISH: State.COMPLETED,
        Event.WITHDRAW_STOPPED: State.STOPPED,
        Event.WITHDRAW_CANCELLED: State.CANCELLED,
        **_sampled(State.RUNNING, *_FORWARD, *_ENDINGS),
    },
    State.WAITING_FOR_CUTOVER: {
        Event.LOSE_TRACK: State.UNCERTAIN,
        **_sampled(State.CUTTING_OVER, State.REVERT_WINDOW, State.REVERTING, *_ENDINGS),
    },
    State.CUTTING_OVER: {
        Event.LOSE_TRACK: State.UNCERTAIN,
        **_sampled(State.REVERT_WINDOW, State.REVERTING, *_ENDINGS),
    },
    State.REVERT_WINDOW: {
        Event.LOSE_TRACK: State.UNCERTAIN,
        **_sampled(State.REVERTING, *_ENDINGS),
    },
    State.REVERTING: {
        Event.LOSE_TRACK: State.UNCERTAIN,
        **_sampled(*_ENDINGS),
    },
    State.RESUMING: {
        Event.LOSE_TRACK: State.UNCERTAIN,
        Event.RESUME_REFUSED: State.STOPPED,
        # No Start has left by anybody's hand.
        Event.RESUME_WITHDRAWN: State.STOPPED,
        **_sampled(State.RUNNING, *_FORWARD, *_ENDINGS),
    },
    State.STOPPED: {
        # Its id was given to another operation as well; or its engine knows none such, and somebody wants it ended.
        Event.LOSE_TRACK: State.UNCERTAIN,
        Event.RESUME: State.RESUMING,
        Event.REQUEUE: State.PENDING,
        Event.WITHDRAW_CANCELLED: State.CANCELLED,
        # Only what was never dispatched: a stopped one that blocks the order is left behind by a person's word.
        Event.SKIP: State.SKIPPED,
        **_sampled(State.COMPLETED, State.FAILED, State.CANCELLED),
    },
    State.FAILED: {
        # Only without a remote id; the store's statement says so (D18). The second where its key may still act.
        Event.RETRY: State.PENDING,
        Event.REPEAT: State.FAILED_RETRYABLE,
    },
    State.COMPLETED: {},
    State.CANCELLED: {},
    State.REVERTED: {},
    State.SKIPPED: {},
}


def advance(state: State, event: Event) -> State:
    """The state after the event; raises IllegalTransition for an arrow that does not exist."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        message = f"no arrow leaves {state} by {event}"
        raise IllegalTransition(message) from None


def origins(event: Event) -> frozenset[State]:
    """The states from which the event may happen: what set-based statements put into their WHERE."""
    return frozenset(state for state, arrows in TRANSITIONS.items() if event in arrows)
