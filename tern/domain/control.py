"""An operator's wishes: where each verb is welcome, what to do next about one, and when it is fulfilled.

Precedence: cancel before stop before everything else. All functions are pure; the store and the flows do.
"""

from dataclasses import dataclass
from enum import StrEnum

from tern.domain.states import State


class Verb(StrEnum):
    """What an operator may ask of an operation."""

    STOP = "stop"
    START = "start"
    CUTOVER = "cutover"
    CANCEL = "cancel"

    @property
    def is_forward(self) -> bool:
        """It makes something happen at the engine, and needs an explicit selection on a multi apply (G7)."""
        return self in {Verb.START, Verb.CUTOVER}

    @property
    def precedence(self) -> int:
        """Lower is driven first."""
        return {Verb.CANCEL: 0, Verb.STOP: 1}.get(self, 2)


class Delivery(StrEnum):
    """The fate of a wish on one operation."""

    PENDING = "pending"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    MOOT = "moot"
    TOO_LATE = "too_late"

    @property
    def is_open(self) -> bool:
        """Still to be worked on."""
        return self in {Delivery.PENDING, Delivery.SENT}


class Receipt(StrEnum):
    """What a door answers for one operation."""

    ACCEPTED = "accepted"
    ALREADY = "already"
    REFUSED = "refused"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One operation's answer to a wish, with the reason where it is not simply accepted."""

    deployment: str
    outcome: Receipt
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AdmissionFacts:
    """What decides whether a wish is taken for one operation."""

    state: State
    has_remote_id: bool
    stop_in_force: str | None = None
    same_verb_open: bool = False
    start_open: bool = False
    """A start is on its way, so that `stopped` won't last."""
    target_holder: str | None = None
    """Another apply that holds the target, where this one no longer does."""
    deployment: str = ""


def admit(verb: Verb, facts: AdmissionFacts) -> ReceiptLine:
    """Whether a wish is written down for an operation; every unmet condition is in the reason."""
    deployment, state = facts.deployment, facts.state

    def refused(*why: str) -> ReceiptLine:
        return ReceiptLine(deployment, Receipt.REFUSED, "; ".join(why))

    if facts.same_verb_open:
        return ReceiptLine(deployment, Receipt.ALREADY, f"a {verb} is already on its way")
    match verb:
        case Verb.STOP:
            if state is State.STOPPED and not facts.start_open:
                return ReceiptLine(deployment, Receipt.ALREADY, "it is stopped")
            if state is State.STOPPED:
                return ReceiptLine(deployment, Receipt.ACCEPTED)
            if state.is_settled:
                return ReceiptLine(deployment, Receipt.TOO_LATE, f"it is {state}")
            return ReceiptLine(deployment, Receipt.ACCEPTED)
        case Verb.CANCEL:
            if state is State.CANCELLED:
                return ReceiptLine(deployment, Receipt.ALREADY, "it is cancelled")
            if state.is_finished:
                return ReceiptLine(deployment, Receipt.TOO_LATE, f"it is {state}")
            return ReceiptLine(deployment, Receipt.ACCEPTED)
        case Verb.START:
            if facts.stop_in_force == Verb.CANCEL.value and not state.is_finished:
                return refused("a cancel covers it, and cancelling is permanent")
            if facts.target_holder is not None:
                return refused(f"its target is held by {facts.target_holder}")
            if state is State.STOPPED or (state.is_live and facts.stop_in_force is not None):
                return ReceiptLine(deployment, Receipt.ACCEPTED)
            if state.is_live:
                return ReceiptLine(deployment, Receipt.ALREADY, f"it is {state}")
            return ReceiptLine(deployment, Receipt.TOO_LATE, f"it is {state}")
        case Verb.CUTOVER:
            if state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}:
                return ReceiptLine(deployment, Receipt.ALREADY, f"it is {state}")
            why = []
            if facts.stop_in_force is not None:
                why.append(f"a {facts.stop_in_force} covers it that no start has superseded")
            if state is not State.WAITING_FOR_CUTOVER:
                why.append(f"it is {state}, not waiting for its cutover")
            return refused(*why) if why else ReceiptLine(deployment, Receipt.ACCEPTED)


class Step(StrEnum):
    """What a driver does next about a wish on one operation."""

    SETTLE_LOCALLY = "settle_locally"
    RESOLVE = "resolve"
    ASK_PERSON = "ask_person"
    SEND = "send"
    REQUEUE = "requeue"
    RESUME = "resume"
    ACKNOWLEDGE = "acknowledge"
    TOO_LATE = "too_late"
    FAIL = "fail"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class DriveFacts:
    """What decides the next step about a wish."""

    state: State
    has_remote_id: bool
    has_intent: bool
    key_is_dead: bool
    offers_resolve: bool
    delivery: Delivery
    runs_though_stopped: bool = False
    """It is stopped as far as we know, and its last sample contradicts (ST12)."""
    stop_open: bool = False
    """A stop or cancel is open on the same operation, besides this wish."""
    stop_was_sent: bool = False
    fresh_waiting_sample: bool = False
    """Its own sample, taken in this attempt and after the last call, says that it waits for its cutover."""


def next_step(verb: Verb, facts: DriveFacts) -> Step:
    """The step that brings a wish forward, without guessing.

    A dispatch whose answer is lost is first resolved (S17): stopping must never leave a live remote behind, and
    must never call Apply in order to find out.
    """
    match verb:
        case Verb.STOP | Verb.CANCEL:
            return _next_halting_step(verb, facts)
        case Verb.START:
            return _next_start_step(facts)
        case Verb.CUTOVER:
            if facts.state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}:
                return Step.ACKNOWLEDGE
            if facts.state.is_settled:
                return Step.TOO_LATE
            if facts.stop_open or facts.state is not State.WAITING_FOR_CUTOVER:
                return Step.FAIL
            return Step.SEND if facts.fresh_waiting_sample else Step.WAIT


def _next_halting_step(verb: Verb, facts: DriveFacts) -> Step:
    if facts.runs_though_stopped and facts.has_remote_id:
        return Step.SEND
    done = fulfilment(verb, facts.state)
    if done is Delivery.ACKNOWLEDGED:
        return Step.ACKNOWLEDGE
    if done is Delivery.TOO_LATE:
        return Step.TOO_LATE
    if facts.has_remote_id:
        return Step.SEND
    if not facts.has_intent or facts.key_is_dead:
        return Step.SETTLE_LOCALLY
    return Step.RESOLVE if facts.offers_resolve else Step.ASK_PERSON


def _next_start_step(facts: DriveFacts) -> Step:
    if facts.state.is_finished:
        return Step.TOO_LATE
    if facts.state is State.STOPPED:
        if not facts.has_remote_id:
            return Step.REQUEUE
        return Step.RESUME
    if facts.state is State.RESUMING:
        # One that was taken is not repeated: it has its grace, and then it did not work (SA5).
        return Step.WAIT if facts.delivery is Delivery.SENT else Step.SEND
    # A stop that has not left is superseded; one that has must come back first.
    return Step.WAIT if facts.stop_was_sent else Step.ACKNOWLEDGE


def fulfilment(verb: Verb, state: State) -> Delivery | None:
    """What an operation's state makes of an open wish; None while it stays open."""
    match verb:
        case Verb.STOP:
            if state is State.STOPPED:
                return Delivery.ACKNOWLEDGED
            return Delivery.TOO_LATE if state.is_settled else None
        case Verb.CANCEL:
            if state is State.CANCELLED:
                return Delivery.ACKNOWLEDGED
            return Delivery.TOO_LATE if state.is_finished else None
        case Verb.CUTOVER:
            if state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}:
                return Delivery.ACKNOWLEDGED
            return Delivery.TOO_LATE if state.is_settled else None
        case Verb.START:
            if state in {State.STOPPED, State.RESUMING, State.UNCERTAIN}:
                return None
            return (
                Delivery.TOO_LATE
                if state.is_finished and state is not State.COMPLETED
                else Delivery.ACKNOWLEDGED
            )
