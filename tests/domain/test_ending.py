"""What a command ends with: one rule for every verb, over every state and fate."""

import itertools

import pytest

from tern.domain.control import Delivery, Receipt, ReceiptLine, Verb
from tern.domain.ending import (
    Ending,
    Released,
    Seen,
    answered,
    ending,
    exit_code,
    is_followed,
    release_ending,
    stopped,
)
from tern.domain.states import ApplyState, State

DONE, NOT_DONE, UNKNOWN = Ending.DONE, Ending.NOT_DONE, Ending.UNKNOWN
ACKNOWLEDGED, TOO_LATE, MOOT, FAILED = (
    Delivery.ACKNOWLEDGED,
    Delivery.TOO_LATE,
    Delivery.MOOT,
    Delivery.FAILED,
)


@pytest.mark.parametrize(
    ("verb", "state", "fate", "ends"),
    [
        (Verb.STOP, State.STOPPED, ACKNOWLEDGED, DONE),
        (Verb.STOP, State.FAILED, TOO_LATE, DONE),
        (Verb.STOP, State.CANCELLED, TOO_LATE, DONE),
        (Verb.STOP, State.REVERTED, TOO_LATE, DONE),
        # It was accepted, and then the change was faster.
        (Verb.STOP, State.COMPLETED, TOO_LATE, NOT_DONE),
        (Verb.STOP, State.REVERT_WINDOW, TOO_LATE, NOT_DONE),
        (Verb.STOP, State.REVERTING, TOO_LATE, NOT_DONE),
        # Another operator's start was faster than the look.
        (Verb.STOP, State.RUNNING, ACKNOWLEDGED, NOT_DONE),
        (Verb.STOP, State.RESUMING, ACKNOWLEDGED, NOT_DONE),
        (Verb.STOP, State.RUNNING, MOOT, NOT_DONE),
        (Verb.STOP, State.PENDING, ACKNOWLEDGED, NOT_DONE),
        (Verb.STOP, State.RUNNING, Delivery.SENT, None),
        (Verb.STOP, State.UNCERTAIN, Delivery.PENDING, UNKNOWN),
        (Verb.CANCEL, State.CANCELLED, ACKNOWLEDGED, DONE),
        (Verb.CANCEL, State.SKIPPED, TOO_LATE, DONE),
        (Verb.CANCEL, State.COMPLETED, TOO_LATE, NOT_DONE),
        (Verb.CANCEL, State.FAILED, TOO_LATE, NOT_DONE),
        (Verb.CANCEL, State.REVERT_WINDOW, TOO_LATE, NOT_DONE),
        (Verb.CANCEL, State.STOPPED, Delivery.SENT, None),
        (Verb.CANCEL, State.RUNNING, MOOT, NOT_DONE),
        (Verb.START, State.RUNNING, ACKNOWLEDGED, DONE),
        (Verb.START, State.WAITING_FOR_CUTOVER, ACKNOWLEDGED, DONE),
        (Verb.START, State.COMPLETED, ACKNOWLEDGED, DONE),
        (Verb.START, State.REVERTED, TOO_LATE, DONE),
        (Verb.START, State.STOPPED, FAILED, NOT_DONE),
        (Verb.START, State.STOPPED, Delivery.PENDING, None),
        (Verb.START, State.STOPPED, MOOT, NOT_DONE),
        (Verb.START, State.FAILED, TOO_LATE, NOT_DONE),
        (Verb.START, State.CANCELLED, TOO_LATE, NOT_DONE),
        # Its place in the order comes back before it runs.
        (Verb.START, State.PENDING, ACKNOWLEDGED, None),
        (Verb.START, State.RESUMING, Delivery.SENT, None),
        # It waits for the answer to a stop, and runs meanwhile.
        (Verb.START, State.RUNNING, Delivery.PENDING, None),
        (Verb.START, State.UNCERTAIN, Delivery.SENT, UNKNOWN),
        (Verb.CUTOVER, State.CUTTING_OVER, ACKNOWLEDGED, None),
        (Verb.CUTOVER, State.COMPLETED, ACKNOWLEDGED, DONE),
        (Verb.CUTOVER, State.REVERT_WINDOW, ACKNOWLEDGED, DONE),
        (Verb.CUTOVER, State.WAITING_FOR_CUTOVER, FAILED, NOT_DONE),
        (Verb.CUTOVER, State.STOPPED, TOO_LATE, NOT_DONE),
        (Verb.CUTOVER, State.FAILED, ACKNOWLEDGED, NOT_DONE),
        (Verb.REVERT, State.REVERTING, ACKNOWLEDGED, None),
        (Verb.REVERT, State.REVERTED, ACKNOWLEDGED, DONE),
        (Verb.REVERT, State.COMPLETED, TOO_LATE, NOT_DONE),
        (Verb.REVERT, State.REVERT_WINDOW, FAILED, NOT_DONE),
        (Verb.SKIP_REVERT, State.COMPLETED, ACKNOWLEDGED, DONE),
        (Verb.SKIP_REVERT, State.REVERTING, TOO_LATE, NOT_DONE),
        (Verb.SKIP_REVERT, State.REVERT_WINDOW, Delivery.SENT, None),
        (Verb.RETRY, State.PENDING, ACKNOWLEDGED, DONE),
        (Verb.RETRY, State.FAILED, FAILED, NOT_DONE),
        (Verb.SKIP, State.SKIPPED, ACKNOWLEDGED, DONE),
        (Verb.SKIP, State.PENDING, FAILED, NOT_DONE),
        (Verb.VOLUME, State.RUNNING, ACKNOWLEDGED, DONE),
        (Verb.VOLUME, State.COMPLETED, TOO_LATE, NOT_DONE),
    ],
)
def test_what_a_wish_came_to(verb: Verb, state: State, fate: Delivery, ends: Ending | None) -> None:
    assert ending(verb, Seen(state, fate)) is ends


def test_what_was_never_sent_is_cancelled_however_it_ended() -> None:
    assert ending(Verb.CANCEL, Seen(State.FAILED, Delivery.TOO_LATE, never_sent=True)) is DONE


def test_whom_nobody_reaches_is_waited_for_by_nobody() -> None:
    """§11: unknown, as soon as no operation is still on its way; but what is known is known."""
    lost = Seen(State.RUNNING, Delivery.SENT, lost_contact=True)
    assert ending(Verb.STOP, lost) is UNKNOWN
    assert ending(Verb.STOP, Seen(State.STOPPED, ACKNOWLEDGED, lost_contact=True)) is DONE


def test_a_started_operation_that_only_a_person_lets_in_is_not_waited_for() -> None:
    assert ending(Verb.START, Seen(State.PENDING, ACKNOWLEDGED, is_held=True)) is NOT_DONE


def test_nothing_is_waited_for_for_ever_once_it_is_finished() -> None:
    """Whatever a verb and a fate: a finished operation, and one that nobody knows, has an ending."""
    for verb, state, fate in itertools.product(Verb, State, [None, *Delivery]):
        if fate is not None and fate.is_open and not state.is_finished:
            continue
        if state.is_finished and (fate is None or not fate.is_open):
            assert ending(verb, Seen(state, fate)) in {DONE, NOT_DONE}, (verb, state, fate)
        if state is State.UNCERTAIN and verb not in {Verb.RETRY, Verb.VOLUME, Verb.RELEASE}:
            assert ending(verb, Seen(state, fate)) is UNKNOWN, (verb, fate)


@pytest.mark.parametrize(
    ("verb", "outcome", "state", "ends"),
    [
        (Verb.STOP, Receipt.ACCEPTED, None, DONE),
        (Verb.STOP, Receipt.ALREADY, State.STOPPED, DONE),
        (Verb.STOP, Receipt.TOO_LATE, State.COMPLETED, DONE),
        (Verb.STOP, Receipt.TOO_LATE, State.FAILED, DONE),
        (Verb.STOP, Receipt.REFUSED, None, NOT_DONE),
        (Verb.CANCEL, Receipt.TOO_LATE, State.COMPLETED, NOT_DONE),
        (Verb.CANCEL, Receipt.TOO_LATE, State.SKIPPED, DONE),
        (Verb.START, Receipt.TOO_LATE, State.COMPLETED, DONE),
        (Verb.START, Receipt.TOO_LATE, State.CANCELLED, NOT_DONE),
        (Verb.START, Receipt.ALREADY, State.UNCERTAIN, UNKNOWN),
        (Verb.CUTOVER, Receipt.ALREADY, State.COMPLETED, DONE),
        (Verb.CUTOVER, Receipt.TOO_LATE, State.FAILED, NOT_DONE),
        (Verb.SKIP, Receipt.TOO_LATE, State.COMPLETED, NOT_DONE),
    ],
)
def test_the_same_rule_over_what_was_accepted(
    verb: Verb, outcome: Receipt, state: State | None, ends: Ending
) -> None:
    assert answered(verb, ReceiptLine("A", outcome, "why", state)) is ends


def test_whom_a_command_waits_for() -> None:
    """Its own wishes, those that they were linked to, and what is just coming about."""
    assert is_followed(Verb.STOP, ReceiptLine("A", Receipt.ACCEPTED))
    assert is_followed(Verb.STOP, ReceiptLine("A", Receipt.ALREADY, "a stop is on its way"))
    assert is_followed(Verb.CUTOVER, ReceiptLine("A", Receipt.ALREADY, "it is", State.CUTTING_OVER))
    assert not is_followed(Verb.START, ReceiptLine("A", Receipt.ALREADY, "it is", State.PENDING))
    assert not is_followed(Verb.STOP, ReceiptLine("A", Receipt.TOO_LATE, "it is", State.COMPLETED))
    assert not is_followed(Verb.STOP, ReceiptLine("A", Receipt.REFUSED, "no"))


@pytest.mark.parametrize(
    ("endings", "code"),
    [
        ([DONE, DONE], 0),
        ([DONE, UNKNOWN, NOT_DONE], 15),
        ([UNKNOWN], 15),
        ([NOT_DONE, NOT_DONE], 5),
        ([DONE, NOT_DONE], 6),
    ],
)
def test_the_exit_code(endings: list[Ending], code: int) -> None:
    assert exit_code(endings) == code


@pytest.mark.parametrize(
    ("state", "newest", "ends"),
    [
        (ApplyState.PAUSED, Released(7), None),
        (ApplyState.PAUSED, Released(7, 6, has_moved=True), None),
        # Others still work, and what it opens is not under way yet.
        (ApplyState.RUNNING_DEGRADED, Released(7), None),
        (ApplyState.RUNNING_DEGRADED, Released(7, 7), DONE),
        # The next failure was quicker than the look.
        (ApplyState.PAUSED, Released(7, 7, has_moved=True), DONE),
        (ApplyState.PAUSED, Released(9, 9), DONE),
        # A failure came while it was asked for.
        (ApplyState.PAUSED, Released(7, 7), NOT_DONE),
        (ApplyState.FAILED, Released(7, 7, has_moved=True), DONE),
        (ApplyState.FAILED, Released(7), DONE),
    ],
)
def test_a_release_is_over_once_it_was_taken_up(
    state: ApplyState, newest: Released, ends: Ending | None
) -> None:
    assert release_ending(7, state, newest) is ends


def test_a_release_that_was_asked_for_already_is_over_with_the_newest() -> None:
    assert release_ending(None, ApplyState.PAUSED, Released(7, 6, has_moved=True)) is None
    assert release_ending(None, ApplyState.PAUSED, Released(7, 7, has_moved=True)) is DONE


@pytest.mark.parametrize(
    ("state", "fate", "asked", "moves", "found"),
    [
        (State.STOPPED, Delivery.ACKNOWLEDGED, True, False, DONE),
        (State.STOPPED, Delivery.SENT, True, True, None),
        (State.FAILED, None, False, False, DONE),
        (State.SKIPPED, None, False, False, DONE),
        # Before the stop was asked for, after it, and where none was.
        (State.COMPLETED, None, True, False, DONE),
        (State.COMPLETED, Delivery.TOO_LATE, True, False, NOT_DONE),
        (State.COMPLETED, None, False, False, NOT_DONE),
        # Nobody has asked for a stop yet, or somebody has started it again since.
        (State.RUNNING, None, False, True, None),
        (State.RUNNING, Delivery.ACKNOWLEDGED, True, True, None),
        (State.WAITING_FOR_CUTOVER, None, False, False, NOT_DONE),
        (State.UNCERTAIN, None, True, True, UNKNOWN),
    ],
)
def test_whoever_waits_for_a_stop_is_told_by_the_rule_of_the_stop(
    state: State,
    fate: Delivery | None,
    asked: bool,  # noqa: FBT001
    moves: bool,  # noqa: FBT001
    found: Ending | None,
) -> None:
    assert stopped(Seen(state, fate), anybody_asked=asked, moves=moves) is found
