"""What became of a wish on each operation that it was asked for, and what a command ends with. One rule for all verbs,
whether their asker waits for the effect or not. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from tern.domain.control import Delivery, Receipt, ReceiptLine, Verb
from tern.domain.states import ApplyState, State

NONE_DONE = 5
PARTLY_DONE = 6
UNKNOWN = 15


class Ending(StrEnum):
    """What a wish came to on one operation."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """One operation as it is now, as far as a wish about it is concerned.

    fate: of the wish on it, None where there is no delivery. never_sent: nothing of it ever left for an engine.
    lost_contact: its engine has not answered for so long that its state is only the last known. is_held: no
    operation of its apply that waits for its turn gets it without a person.
    """

    state: State
    fate: Delivery | None = None
    never_sent: bool = False
    lost_contact: bool = False
    is_held: bool = False


def ending(verb: Verb, seen: Seen) -> Ending | None:
    """What an accepted wish came to; None while the operation is on its way.

    What can't be known, because nobody knows where the operation is, is unknown at once: nobody waits for a person.
    """
    if (found := _by_state(verb, seen)) is not None:
        return Ending.DONE if found else Ending.NOT_DONE
    if seen.state is State.UNCERTAIN or seen.lost_contact:
        return Ending.UNKNOWN
    if seen.fate is not None and seen.fate.is_open:
        return None
    if _goes_on(verb, seen):
        return None
    return Ending.NOT_DONE


def stopped(seen: Seen, *, anybody_asked: bool, moves: bool) -> Ending | None:
    """Whether an operation came to stand, for somebody who waits for that and has asked for no stop of their own; None
    while it is on its way. fate: of the newest stop of it. anybody_asked: a stop of some operation of the apply.

    moves: something is going to happen to the apply without a person, so that a stop may still be asked for.
    """
    if seen.state is State.COMPLETED:
        # By whoever asked it was not asked of what had completed before.
        return Ending.DONE if anybody_asked and seen.fate is None else Ending.NOT_DONE
    found = ending(Verb.STOP, seen)
    return None if found is Ending.NOT_DONE and moves else found


@dataclass(frozen=True, slots=True)
class Released:
    """The newest release of an apply, and the newest one that was taken up. has_moved: since that was, the apply has
    been in another state.
    """

    request_id: int
    heard_id: int | None = None
    has_moved: bool = False


def release_ending(request_id: int | None, state: ApplyState, newest: Released | None) -> Ending | None:
    """What a release came to; None while nobody has taken it up. What was opened and is paused again was opened all the
    same: the next failure may be quicker than any look. request_id: None where an earlier one is waited for.
    """
    waits = state in {ApplyState.PAUSED, ApplyState.RUNNING_DEGRADED}
    if newest is None:
        return None if waits else Ending.DONE
    wanted = newest.request_id if request_id is None else request_id
    if newest.heard_id is None or newest.heard_id < wanted:
        return None if waits else Ending.DONE
    # A failure that was committed while it was asked for was not counted, so it opened nothing.
    opened_nothing = state is ApplyState.PAUSED and newest.heard_id == wanted and not newest.has_moved
    return Ending.NOT_DONE if opened_nothing else Ending.DONE


def answered(verb: Verb, line: ReceiptLine) -> Ending:
    """What the receipt alone says: accepted counts as done, and so does what was so already, whatever the answer was.

    A finished operation has seen the last of what a stop or a start wants, although it comes too late for either.
    """
    match line.outcome:
        case Receipt.ALREADY if line.state is State.UNCERTAIN:
            return Ending.UNKNOWN
        case Receipt.ACCEPTED | Receipt.ALREADY:
            return Ending.DONE
        case Receipt.REFUSED:
            return Ending.NOT_DONE
        case Receipt.TOO_LATE:
            return Ending.DONE if _was_so(verb, line) else Ending.NOT_DONE
        case _:
            assert_never(line.outcome)


def is_followed(verb: Verb, line: ReceiptLine) -> bool:
    """Whether the effect is still to come on this operation: by this wish, by an earlier one that it was linked to, or
    because it is just coming about.
    """
    match line.outcome:
        case Receipt.ACCEPTED:
            return True
        case Receipt.ALREADY:
            return line.state is None or line.state in _UNDER_WAY.get(verb, ())
        case Receipt.REFUSED | Receipt.TOO_LATE:
            return False
        case _:
            assert_never(line.outcome)


def exit_code(endings: Iterable[Ending]) -> int:
    """Of a command: all done, none, some, or something that nobody knows."""
    found = list(endings)
    if all(each is Ending.DONE for each in found):
        return 0
    if Ending.UNKNOWN in found:
        return UNKNOWN
    return PARTLY_DONE if Ending.DONE in found else NONE_DONE


def _was_so(verb: Verb, line: ReceiptLine) -> bool:
    """Before the wish was accepted. A stop has nothing to do about what had completed by then; of what completes later
    it has missed the change.
    """
    if line.state is None:
        return False
    if verb is Verb.STOP and line.state is State.COMPLETED:
        return True
    return _by_state(verb, Seen(line.state, never_sent=line.never_sent)) is True


def _by_state(verb: Verb, seen: Seen) -> bool | None:
    """Whether the state shows the effect; None where it shows neither that nor its absence for good."""
    state, fate = seen.state, seen.fate
    match verb:
        case Verb.STOP:
            if state is State.STOPPED and fate is not None and fate.is_open:
                return None
            return state is not State.COMPLETED if state.is_settled else None
        case Verb.CANCEL:
            if state in {State.CANCELLED, State.SKIPPED}:
                return True
            return seen.never_sent if state.is_finished else None
        case Verb.START:
            if state.is_finished:
                return state in {State.COMPLETED, State.REVERTED}
            return True if fate is not Delivery.PENDING and state in _RUNS else None
        case Verb.CUTOVER:
            if state in {State.COMPLETED, State.REVERT_WINDOW, State.REVERTING, State.REVERTED}:
                return True
            return False if state.is_settled else None
        case Verb.REVERT:
            return state is State.REVERTED if state.is_settled else None
        case Verb.SKIP_REVERT:
            return state is State.COMPLETED if state.is_settled or state is State.REVERTING else None
        case Verb.SKIP:
            return True if state is State.SKIPPED else (False if state.is_finished else None)
        case Verb.RETRY | Verb.VOLUME | Verb.RELEASE:
            # No state shows these for good: their fate does.
            return True if fate is Delivery.ACKNOWLEDGED else None
        case _:
            assert_never(verb)


_RUNS = frozenset(
    {
        State.RUNNING,
        State.WAITING_FOR_CUTOVER,
        State.CUTTING_OVER,
        State.REVERT_WINDOW,
        State.REVERTING,
    }
)


def _goes_on(verb: Verb, seen: Seen) -> bool:
    """The wish has had its fate, and its effect is still on its way."""
    match verb:
        case Verb.START:
            # Back in line, it waits for its turn like any other.
            in_line = {State.PENDING, State.FAILED_RETRYABLE}
            waits = seen.state in in_line and not seen.is_held
            return seen.fate is Delivery.ACKNOWLEDGED and (waits or seen.state is State.RESUMING)
        case _:
            return seen.state in _UNDER_WAY.get(verb, ())


_UNDER_WAY = {Verb.CUTOVER: (State.CUTTING_OVER,), Verb.REVERT: (State.REVERTING,)}
