"""States and their arrows: what may follow what, and what never does."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern.domain.errors import IllegalTransition
from tern.domain.states import (
    FINISHED,
    MADE_BY,
    OBSERVED,
    RANK,
    SETTLED,
    TRANSITIONS,
    Event,
    Party,
    State,
    advance,
    origins,
)

ALL = tuple(itertools.product(State, Event))


def test_an_arrow_that_is_not_in_the_table_raises() -> None:
    """S12: every pair of state and event is either an arrow or an IllegalTransition."""
    for state, event in ALL:
        if event in TRANSITIONS[state]:
            assert advance(state, event) is TRANSITIONS[state][event]
        else:
            with pytest.raises(IllegalTransition, match=f"no arrow leaves {state} by {event}"):
                advance(state, event)


def test_every_event_has_a_maker_and_a_place() -> None:
    assert set(MADE_BY) == set(Event)
    assert all(MADE_BY[event] for event in Event)
    assert all(origins(event) for event in Event)
    assert set(TRANSITIONS) == set(State)


def exits(state: State) -> set[State]:
    return set(TRANSITIONS[state].values())


def test_settled_is_final_but_for_the_listed_exits() -> None:
    """S12: stopped and failed alone have a way out, and only these ways."""
    assert exits(State.STOPPED) == {
        State.RESUMING,
        State.PENDING,
        State.COMPLETED,
        State.FAILED,
        State.CANCELLED,
        State.SKIPPED,
        State.UNCERTAIN,
    }
    assert TRANSITIONS[State.FAILED] == {
        Event.RETRY: State.PENDING,
        Event.REPEAT: State.FAILED_RETRYABLE,
    }
    for state in SETTLED - {State.STOPPED, State.FAILED}:
        assert not TRANSITIONS[state]


def test_stopped_is_settled_and_not_finished() -> None:
    """completed_at stays NULL for a stopped operation."""
    assert SETTLED - {State.STOPPED} == FINISHED
    for state in State:
        assert state.is_live is not state.is_settled
        assert state.is_finished is (state in FINISHED)


def test_a_claim_is_taken_from_three_states_only() -> None:
    """G6: pending, running and retryable; nothing that has settled is ever dispatched (D5)."""
    assert origins(Event.CLAIM) == {State.PENDING, State.RUNNING, State.FAILED_RETRYABLE}
    assert {TRANSITIONS[state][Event.CLAIM] for state in origins(Event.CLAIM)} == {State.RUNNING}


def test_a_lost_answer_is_never_a_verdict() -> None:
    """G10: no usable answer leads to states that stay live."""
    for event in (Event.ANSWER_LOST, Event.LOSE_TRACK):
        assert all(TRANSITIONS[state][event].is_live for state in origins(event))


def test_an_event_leads_to_one_state_wherever_it_happens() -> None:
    """An event's name says what becomes true."""
    for event in Event:
        assert len({TRANSITIONS[state][event] for state in origins(event)}) == 1


def test_a_sample_leads_to_what_it_says() -> None:
    for state, event in OBSERVED.items():
        assert MADE_BY[event] == {Party.ENGINE}
        assert {TRANSITIONS[origin][event] for origin in origins(event)} == {state}


def test_the_verdict_alone_and_people_skip() -> None:
    """PR4: skipping is honest about what never started."""
    assert origins(Event.SKIP) == {State.PENDING, State.STOPPED}
    assert MADE_BY[Event.SKIP] == {Party.VERDICT, Party.OPERATOR}


def test_everything_can_come_to_an_end() -> None:
    """From every live state some way leads to a finished one, and every state can be reached."""
    reached = {State.PENDING}
    while True:
        more = reached | {after for state in reached for after in exits(state)}
        if more == reached:
            break
        reached = more
    assert reached == set(State)
    ending = set(FINISHED)
    while True:
        more = ending | {state for state in State if exits(state) & ending}
        if more == ending:
            break
        ending = more
    assert ending == set(State)


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_a_random_walk_stays_inside_the_rules(events: list[Event]) -> None:
    """S12: whatever is thrown at an operation, finished ones stay, and samples take no rank back."""
    state = State.PENDING
    for event in events:
        try:
            after = advance(state, event)
        except IllegalTransition:
            continue
        assert not state.is_finished or event in {Event.RETRY, Event.REPEAT}
        if event in OBSERVED.values() and state in RANK and after in RANK:
            assert RANK[after] > RANK[state]
        if after is State.PENDING:
            assert event in {Event.REQUEUE, Event.RETRY}
        state = after
