"""An operator's wishes: the verbs and their fates, what to do next about a wish, and when it is fulfilled.

Where each verb is welcome stands in admission.py. Precedence: cancel before stop before everything else. All
functions are pure; the store and the flows do.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from tern.domain.doubt import Doubt, is_held
from tern.domain.states import State


class Verb(StrEnum):
    """What an operator may ask of an operation; release alone is asked of an apply as a whole."""

    STOP = "stop"
    START = "start"
    CUTOVER = "cutover"
    CANCEL = "cancel"
    RETRY = "retry"
    SKIP = "skip"
    RELEASE = "release"
    REVERT = "revert"
    SKIP_REVERT = "skip-revert"
    VOLUME = "volume"

    @property
    def is_halting(self) -> bool:
        """It ends work; stopping is cheap, so a whole apply needs no selection."""
        return self in {Verb.STOP, Verb.CANCEL}

    @property
    def is_forward(self) -> bool:
        """It makes something happen, so no stop or cancel may be in force (G9)."""
        return self not in {Verb.STOP, Verb.CANCEL, Verb.SKIP}

    @property
    def needs_selection(self) -> bool:
        """On a multi apply somebody has to say which operations are meant (G7)."""
        return self not in {Verb.STOP, Verb.CANCEL, Verb.RELEASE}

    @property
    def precedence(self) -> int:
        """Lower is driven first."""
        return {Verb.CANCEL: 0, Verb.STOP: 1}.get(self, 2)


MOMENT = {
    Verb.CUTOVER: State.WAITING_FOR_CUTOVER,
    Verb.REVERT: State.REVERT_WINDOW,
    Verb.SKIP_REVERT: State.REVERT_WINDOW,
}
"""Verbs that fit one state only, in which nothing moves by itself. Their call is made on a look that shows it, and
repeated only on a look from after the call's deadline: before that, the state proves nothing (CU3).
"""

ACTS_LATE = frozenset({Verb.START, Verb.CUTOVER})
"""Verbs whose call, if its answer is missing, may make something happen when nobody expects it any more."""

ADJUSTABLE = frozenset({State.RUNNING, State.WAITING_FOR_CUTOVER, State.CUTTING_OVER})
"""Where an engine works on a job whose pace can be set."""

LIVE_FOR_THE_APPLICATION = frozenset({State.REVERT_WINDOW, State.REVERTING})
"""Where the change has been cut over: nothing is left to be stopped, only to be taken back or kept."""

CALLS_ONLY = frozenset({Verb.CUTOVER, Verb.REVERT, Verb.SKIP_REVERT, Verb.VOLUME})
"""Verbs that mean nothing without a call. The others are carried out here where nothing was dispatched."""

VOLUMES = range(1, 12)
"""How fast an engine may work, from a whisper to full force."""

CONTRARY = {Verb.REVERT: Verb.SKIP_REVERT, Verb.SKIP_REVERT: Verb.REVERT}
"""Of two wishes that exclude each other the earlier one counts."""


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
    """One operation's answer to a wish, with the reason where it is not simply accepted.

    deployment is empty where the answer is the whole apply's. state: where the operation was, if that is the answer;
    never_sent: nothing of it had ever left for an engine.
    """

    deployment: str
    outcome: Receipt
    reason: str = ""
    state: State | None = field(default=None, compare=False)
    never_sent: bool = field(default=False, compare=False)


class Step(StrEnum):
    """What a driver does next about a wish on one operation."""

    SETTLE_LOCALLY = "settle_locally"
    RESOLVE = "resolve"
    ASK_PERSON = "ask_person"
    SEND = "send"
    REQUEUE = "requeue"
    RESUME = "resume"
    """Its engine is looked at, and resumes it where it says `stopped`."""
    ACKNOWLEDGE = "acknowledge"
    TOO_LATE = "too_late"
    FAIL = "fail"
    WAIT = "wait"
    WAIT_FOR_TURN = "wait_for_turn"
    WAIT_FOR_UNDRAIN = "wait_for_undrain"
    WAIT_FOR_OUTSTANDING = "wait_for_outstanding"
    """Something that was sent to its target may still act there, and no operation follows it."""
    HOLD = "hold"
    """Until it is known again whose work its id is."""


@dataclass(frozen=True, slots=True)
class DriveFacts:
    """What decides the next step about a wish."""

    state: State
    has_remote_id: bool
    has_intent: bool
    key_is_dead: bool
    may_be_resolved: bool
    """Its dispatch went to the engine that its deployment has, which can be asked what became of the key."""
    delivery: Delivery
    runs_though_stopped: bool = False
    """It is stopped as far as we know, and its last sample contradicts (ST12)."""
    stop_open: bool = False
    """A stop or cancel covers the same operation, besides this wish, and this wish does not take it back."""
    call_is_out: bool = False
    """A call of this wish was begun, and nobody knows that it came to nothing."""
    drained: bool = False
    """Its deployment takes no new work."""
    outstanding: bool = False
    """Something at its target is outstanding, so that nothing begins there."""
    contrary_came_first: bool = False
    """An earlier wish that excludes this one is open."""
    is_fresh: bool = False
    """Its own sample was taken in this attempt, and after the last call's deadline."""
    out_of_turn: bool = False
    """Its cutover follows an order, and another operation comes before it."""
    doubt: Doubt = Doubt.NONE
    """Whether its id may be its own work's at all."""
    names_foreign: bool = False
    """Whoever asked named the id, to be halted although it is other work."""
    failed_since: bool = False
    """A failure has spent the rollout's budget since the wish was accepted."""

    @property
    def was_never_dispatched(self) -> bool:
        """Nothing was sent, or its key is dead: nothing runs at the engine, nor ever will (S17)."""
        return not self.has_remote_id and (not self.has_intent or self.key_is_dead)


def next_step(verb: Verb, facts: DriveFacts) -> Step:
    """The step that brings a wish forward, without guessing.

    A dispatch whose answer is lost is first resolved (S17): stopping must never leave a live remote behind, and
    must never call Apply in order to find out.
    """
    if facts.has_remote_id and is_held(
        facts.doubt, may_halt_all_the_same=facts.names_foreign and verb.is_halting
    ):
        return Step.HOLD
    if verb.is_halting:
        return _next_halting_step(verb, facts)
    if verb is Verb.START:
        return _next_start_step(facts)
    fate = fulfilment(verb, facts.state)
    if fate is not None:
        return Step.ACKNOWLEDGE if fate is Delivery.ACKNOWLEDGED else Step.TOO_LATE
    if verb in MOMENT and facts.state is State.UNCERTAIN:
        # The call may have worked before contact was lost: what became of it is not known yet (G10).
        return Step.WAIT
    if unmet(verb, facts):
        return Step.FAIL
    if verb is Verb.RETRY:
        return Step.REQUEUE
    if verb is Verb.SKIP:
        return Step.SETTLE_LOCALLY
    if verb is Verb.CUTOVER and facts.out_of_turn:
        return Step.WAIT_FOR_TURN
    return Step.SEND if facts.is_fresh or verb not in MOMENT else Step.WAIT


def unmet(verb: Verb, facts: DriveFacts) -> tuple[str, ...]:
    """Every reason why a wish that was welcome when it was accepted can't be carried out any more."""
    why: list[str] = []
    if facts.stop_open and verb.is_forward:
        why.append("a stop or cancel came between")
    if verb in MOMENT and facts.state is not MOMENT[verb]:
        why.append(f"it is {facts.state}, not {MOMENT[verb]}")
    if verb in CONTRARY and facts.contrary_came_first:
        why.append(f"a {CONTRARY[verb]} was asked for first")
    if verb is Verb.CUTOVER and facts.failed_since:
        why.append("a failure since then holds the rollout: whoever still wants it asks again")
    if verb is Verb.RELEASE:
        why.append("a release is about the whole apply")
    if verb is Verb.VOLUME and not (facts.state in ADJUSTABLE and facts.has_remote_id):
        why.append(f"it is {facts.state}, and no engine works on it")
    if verb is Verb.RETRY and facts.has_remote_id:
        why.append("it has a remote id, which is never replaced")
    if verb is Verb.SKIP and not (
        facts.state in {State.PENDING, State.STOPPED} and facts.was_never_dispatched
    ):
        why.append(f"it is {facts.state}, and its engine may have work of it: cancel ends that")
    return tuple(why)


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
    if facts.was_never_dispatched:
        return Step.SETTLE_LOCALLY
    return Step.RESOLVE if facts.may_be_resolved else Step.ASK_PERSON


def _next_start_step(facts: DriveFacts) -> Step:
    if facts.state.is_finished:
        return Step.TOO_LATE
    if facts.stop_open:
        # The answer to a stop that has left must be there first.
        return Step.WAIT
    if facts.state is State.STOPPED:
        if facts.drained and not facts.call_is_out:
            return Step.WAIT_FOR_UNDRAIN
        if facts.outstanding and facts.has_remote_id and not facts.call_is_out:
            return Step.WAIT_FOR_OUTSTANDING
        return Step.RESUME if facts.has_remote_id else Step.REQUEUE
    if facts.state is State.RESUMING:
        # One that was taken is not repeated: it has its grace, and then it did not work (SA5).
        return Step.WAIT if facts.delivery is Delivery.SENT else Step.SEND
    if facts.state is State.UNCERTAIN and facts.call_is_out:
        # It may have worked; a definite sample or a person says so.
        return Step.WAIT
    # It takes back a stop that never left, or that its engine refused.
    return Step.ACKNOWLEDGE


def fulfilment(verb: Verb, state: State) -> Delivery | None:
    """What an operation's state makes of an open wish; None while it stays open."""
    match verb:
        case Verb.STOP:
            done, late = state is State.STOPPED, state.is_settled or state in LIVE_FOR_THE_APPLICATION
        case Verb.CANCEL:
            done, late = state is State.CANCELLED, state.is_finished or state in LIVE_FOR_THE_APPLICATION
        case Verb.CUTOVER:
            done = state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}
            late = state.is_settled
        case Verb.START:
            if state in {State.STOPPED, State.RESUMING, State.UNCERTAIN}:
                return None
            done, late = state.is_live or state is State.COMPLETED, True
        case Verb.RETRY:
            done, late = state.is_live, state is not State.FAILED
        case Verb.SKIP:
            done, late = state is State.SKIPPED, state.is_finished
        case Verb.REVERT:
            done, late = state in {State.REVERTING, State.REVERTED}, state.is_settled
        case Verb.SKIP_REVERT:
            done, late = state is State.COMPLETED, state.is_settled or state is State.REVERTING
        case Verb.VOLUME:
            # Its answer is its effect; no state shows it.
            done, late = False, state.is_settled
        case Verb.RELEASE:
            # Asked of an apply, it has no fate on an operation.
            return None
        case _:
            assert_never(verb)
    if done:
        return Delivery.ACKNOWLEDGED
    return Delivery.TOO_LATE if late else None
