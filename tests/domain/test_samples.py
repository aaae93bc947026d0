"""Merging what an engine says: never backwards, never without a meaning (G10, PO1, PO4, PO6, ST12)."""

import itertools

import pytest

from tern.domain.samples import MergeContext, merge
from tern.domain.states import OBSERVED, RANK, Event, State, advance

CONTEXTS = [
    MergeContext(),
    MergeContext(start_sent_s_ago=1.0),
    MergeContext(start_sent_s_ago=31.0),
    MergeContext(start_sent_s_ago=31.0, stop_was_sent=True),
    MergeContext(start_is_open=True),
]
EVERYTHING = list(itertools.product(State, [None, *OBSERVED], CONTEXTS))


def test_merging_follows_the_table_of_states() -> None:
    """S12: an event that merging chooses is an arrow, and without one the state stays."""
    for current, sampled, context in EVERYTHING:
        observed = merge(current, sampled, context)
        if observed.event is None:
            assert observed.state is current
        else:
            assert advance(current, observed.event) is observed.state
            assert observed.applied


def test_no_sample_goes_backwards() -> None:
    """PO4: by rank, and not out of what is finished."""
    for current, sampled, context in EVERYTHING:
        after = merge(current, sampled, context).state
        if current in RANK and after in RANK:
            assert RANK[after] >= RANK[current]
        if current.is_finished:
            assert after is current


def test_a_lower_rank_brings_its_progress_and_no_state() -> None:
    """PO4: a late sample's rows are taken, so that its cursor may move on; the state that is known stays."""
    for current, sampled in itertools.product(RANK, RANK):
        if RANK[sampled] < RANK[current]:
            observed = merge(current, sampled, MergeContext())
            assert (observed.event, observed.state, observed.applied) == (None, current, True)


def test_a_state_without_a_meaning_writes_nothing() -> None:
    """PO1, G10: and its cursor does not advance."""
    for current, context in itertools.product(State, CONTEXTS):
        observed = merge(current, None, context)
        assert (observed.event, observed.state, observed.applied) == (None, current, False)
        assert observed.note


def test_what_is_not_taken_over_does_not_move_the_cursor() -> None:
    """PO6: a cursor advances only together with an applied sample."""
    for current, sampled, context in EVERYTHING:
        observed = merge(current, sampled, context)
        if not observed.applied:
            assert observed.event is None
            assert observed.note


@pytest.mark.parametrize("sent", [None, 0.0, 29.9])
def test_a_stale_stopped_after_a_start_is_dropped(sent: float | None) -> None:
    """PO6."""
    observed = merge(State.RESUMING, State.STOPPED, MergeContext(start_sent_s_ago=sent))
    assert (observed.event, observed.applied) == (None, False)


def test_still_stopped_after_the_grace() -> None:
    """SA5."""
    observed = merge(State.RESUMING, State.STOPPED, MergeContext(start_sent_s_ago=30.0))
    assert observed.event is Event.RESUME_REFUSED


@pytest.mark.parametrize("sampled", list(RANK))
def test_running_though_it_was_stopped(sampled: State) -> None:
    """ST12: Stop goes out again, and the state is not taken over."""
    observed = merge(State.STOPPED, sampled, MergeContext())
    assert observed.resend_stop
    assert observed.state is State.STOPPED


def test_completed_though_it_was_stopped() -> None:
    """PO4: the truth is taken."""
    assert merge(State.STOPPED, State.COMPLETED, MergeContext()).event is Event.OBSERVE_COMPLETED


@pytest.mark.parametrize("sampled", list(OBSERVED))
def test_a_definite_sample_ends_uncertainty(sampled: State) -> None:
    assert merge(State.UNCERTAIN, sampled, MergeContext()).state is sampled
