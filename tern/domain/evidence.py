"""What an answer proves about whose work it is, and what it does not (G2, G4, G10).

How a claimed operation is sent stands in dispatch.py, how a sample is merged in samples.py.
"""

from dataclasses import dataclass

from tern.domain.states import RANK, Event, State, advance, origins


@dataclass(frozen=True, slots=True)
class KeptFacts:
    """What decides whether an id that could not be stored may be an operation's after all."""

    state: State
    has_remote_id: bool
    was_sent_again: bool
    """A later generation was sent, or another key is due to be."""
    is_in_doubt: bool = False


def may_be_adopted(facts: KeptFacts) -> bool:
    """Whether a look that knows the id is enough to make it the operation's own.

    Not where something else was sent since: then two may be at work, and only one can be followed.
    """
    if facts.has_remote_id or facts.was_sent_again or facts.is_in_doubt:
        return False
    return facts.state in origins(Event.ADOPT)


def after_taken(state: State) -> State | None:
    """What an operation becomes whose id its engine gave to another one as well; None where nothing can be changed."""
    if state is State.UNCERTAIN:
        return state
    return advance(state, Event.LOSE_TRACK) if state in origins(Event.LOSE_TRACK) else None


def contradicts(state: State, sampled: State | None) -> bool:
    """The engine works on what is finished here: a call without an answer has acted late."""
    return state.is_finished and sampled in RANK


def says_failed_still(state: State | None, *, unchanged: bool) -> bool:
    """The engine calls the job failed, or nothing has changed since it did."""
    return unchanged or state is State.FAILED


def seconds_to_wait(*, claimed_for_s: float, unanswered_for_s: float | None, deadline_s: float) -> float:
    """How long a person's answer would come too early: somebody drives the operation, or a call may still arrive. One
    that lies ahead, because the clock was set back, was made now.
    """
    in_flight = 0.0 if unanswered_for_s is None else deadline_s - max(0.0, unanswered_for_s)
    return max(0.0, claimed_for_s, in_flight)
