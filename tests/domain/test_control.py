"""Wishes: where they are welcome, what comes next, when they are fulfilled; over all facts (G2, G7-G9, S17)."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tern.domain.control import (
    ADJUSTABLE,
    CONTRARY,
    LIVE_FOR_THE_APPLICATION,
    MOMENT,
    Delivery,
    DriveFacts,
    Step,
    Verb,
    fulfilment,
    next_step,
    unmet,
)
from tern.domain.states import State

HALTING = (Verb.STOP, Verb.CANCEL)
ALL_STATES = tuple(State)
NEEDS_AN_ID = {
    State.WAITING_FOR_CUTOVER,
    State.CUTTING_OVER,
    State.REVERT_WINDOW,
    State.REVERTING,
    State.RESUMING,
}


def every_fact() -> Iterator[DriveFacts]:
    """Every combination that the rows can hold."""
    for (
        state,
        has_id,
        has_intent,
        dead,
        resolves,
        contradicts,
        stop_open,
        call_is_out,
        fresh,
        drained,
    ) in itertools.product(State, *[(False, True)] * 9):
        if state in NEEDS_AN_ID and not has_id:
            continue
        for delivery in (Delivery.PENDING, Delivery.SENT):
            yield DriveFacts(
                state,
                has_remote_id=has_id,
                has_intent=has_intent,
                key_is_dead=dead,
                may_be_resolved=resolves,
                delivery=delivery,
                runs_though_stopped=contradicts,
                stop_open=stop_open,
                call_is_out=call_is_out,
                drained=drained,
                is_fresh=fresh,
            )


def test_nothing_is_sent_without_an_id() -> None:
    """G2: a call that would carry no id of its own is never the next step."""
    for verb, facts in itertools.product(Verb, every_fact()):
        if next_step(verb, facts) in {Step.SEND, Step.RESUME}:
            assert facts.has_remote_id, (verb, facts)


def test_an_unanswered_dispatch_is_resolved_before_it_is_called_stopped() -> None:
    """S17: settled here only if nothing was ever sent or the key is dead; else somebody is asked."""
    for verb, facts in itertools.product(HALTING, every_fact()):
        step = next_step(verb, facts)
        unanswered = facts.has_intent and not facts.has_remote_id and not facts.key_is_dead
        if step is Step.SETTLE_LOCALLY:
            assert not facts.has_remote_id, (verb, facts)
            assert not unanswered, (verb, facts)
        if unanswered and fulfilment(verb, facts.state) is None:
            assert step is (Step.RESOLVE if facts.may_be_resolved else Step.ASK_PERSON), (verb, facts)


def test_a_halting_wish_on_live_work_is_always_driven() -> None:
    """G9: as long as something may run, a stop does something about it and never calls itself done."""
    for verb, facts in itertools.product(HALTING, every_fact()):
        if facts.state in LIVE_FOR_THE_APPLICATION and not facts.runs_though_stopped:
            # There nothing is left to be stopped.
            assert next_step(verb, facts) is Step.TOO_LATE
        elif facts.state.is_live:
            assert next_step(verb, facts) in {Step.SEND, Step.SETTLE_LOCALLY, Step.RESOLVE, Step.ASK_PERSON}


def test_a_stopped_job_that_runs_is_stopped_again() -> None:
    """ST12: what the last sample says outranks what was recorded."""
    for facts in every_fact():
        if facts.runs_though_stopped and facts.has_remote_id:
            assert next_step(Verb.STOP, facts) is Step.SEND


@pytest.mark.parametrize("verb", MOMENT)
def test_a_call_of_a_moment_is_sent_only_in_that_moment(verb: Verb) -> None:
    """CU3, G9: there by its own fresh sample, and no stop in the way."""
    for facts in every_fact():
        step = next_step(verb, facts)
        if step is Step.SEND:
            assert facts.state is MOMENT[verb]
            assert facts.is_fresh
            assert not facts.stop_open
        assert step not in {Step.SETTLE_LOCALLY, Step.RESOLVE, Step.REQUEUE, Step.RESUME}


@pytest.mark.parametrize("verb", CONTRARY)
def test_of_two_that_exclude_each_other_the_later_one_is_never_sent(verb: Verb) -> None:
    """S14: one effect."""
    for facts in every_fact():
        assert next_step(verb, replace(facts, contrary_came_first=True)) is not Step.SEND


def test_a_volume_is_sent_only_where_an_engine_works() -> None:
    """G2, G9: with an id, and no stop in the way; it needs no fresh look, for setting it twice is setting it once."""
    for facts in every_fact():
        sends = next_step(Verb.VOLUME, facts) is Step.SEND
        assert sends is (facts.state in ADJUSTABLE and facts.has_remote_id and not facts.stop_open)


def test_what_may_be_at_its_engine_is_never_left_behind() -> None:
    """G10, S17: a skip settles only what was never dispatched, and calls nobody."""
    for facts in every_fact():
        step = next_step(Verb.SKIP, facts)
        assert step in {Step.SETTLE_LOCALLY, Step.ACKNOWLEDGE, Step.TOO_LATE, Step.FAIL}
        if step is Step.SETTLE_LOCALLY:
            assert facts.was_never_dispatched
            assert facts.state in {State.PENDING, State.STOPPED}


def test_a_retry_puts_back_only_what_failed_without_an_id() -> None:
    """D18, G5: and calls nobody."""
    for facts in every_fact():
        step = next_step(Verb.RETRY, facts)
        assert step in {Step.REQUEUE, Step.ACKNOWLEDGE, Step.TOO_LATE, Step.FAIL}
        if step is Step.REQUEUE:
            assert (facts.state, facts.has_remote_id) == (State.FAILED, False)


def test_what_can_not_be_carried_out_any_more_says_why() -> None:
    """G15: a wish that fails without a call has its reasons."""
    for verb, facts in itertools.product(Verb, every_fact()):
        if next_step(verb, facts) is Step.FAIL:
            assert unmet(verb, facts), (verb, facts)


def test_a_start_never_dispatches_and_never_forgets_an_id() -> None:
    """SA2, G4: without an id back in line, with one resumed; a dispatched one is never put back in line."""
    for facts in every_fact():
        step = next_step(Verb.START, facts)
        if facts.state is State.STOPPED and not facts.stop_open:
            waits = facts.drained and not facts.call_is_out
            starts = Step.RESUME if facts.has_remote_id else Step.REQUEUE
            assert step is (Step.WAIT_FOR_UNDRAIN if waits else starts)
        else:
            assert step not in {Step.RESUME, Step.REQUEUE}
        if facts.state.is_finished:
            assert step is Step.TOO_LATE


@pytest.mark.parametrize("state", ALL_STATES)
def test_when_a_wish_is_fulfilled(state: State) -> None:
    """G8, S15: acknowledged means that its effect is there; too late means that it can't come any more."""
    assert (fulfilment(Verb.STOP, state) is Delivery.ACKNOWLEDGED) is (state is State.STOPPED)
    assert (fulfilment(Verb.CANCEL, state) is Delivery.ACKNOWLEDGED) is (state is State.CANCELLED)
    for verb in HALTING:
        assert (fulfilment(verb, state) is None) is (
            (state.is_live and state not in LIVE_FOR_THE_APPLICATION)
            or (verb is Verb.CANCEL and state is State.STOPPED)
        )
    if state in {State.STOPPED, State.RESUMING, State.UNCERTAIN}:
        assert fulfilment(Verb.START, state) is None
    if fulfilment(Verb.CUTOVER, state) is Delivery.ACKNOWLEDGED:
        assert state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}
    if fulfilment(Verb.REVERT, state) is Delivery.ACKNOWLEDGED:
        assert state in {State.REVERTING, State.REVERTED}
    assert (fulfilment(Verb.SKIP_REVERT, state) is Delivery.ACKNOWLEDGED) is (state is State.COMPLETED)
    assert (fulfilment(Verb.SKIP, state) is Delivery.ACKNOWLEDGED) is (state is State.SKIPPED)
    assert (fulfilment(Verb.RETRY, state) is None) is (state is State.FAILED)
    # no state shows a volume: its answer does
    assert fulfilment(Verb.VOLUME, state) is not Delivery.ACKNOWLEDGED


@pytest.mark.parametrize("state", [state for state in State if state.is_finished])
@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.RELEASE])
def test_no_wish_stays_open_over_what_is_finished(verb: Verb, state: State) -> None:
    """A parent is never settled with an open delivery; a retry alone changes what has failed."""
    assert fulfilment(verb, state) is not None or (verb, state) == (Verb.RETRY, State.FAILED)


def test_cancel_before_stop_before_the_rest() -> None:
    """RA3: the order in which open wishes are driven."""
    assert sorted(Verb, key=lambda verb: verb.precedence)[:2] == [Verb.CANCEL, Verb.STOP]
    assert {verb for verb in Verb if not verb.is_forward} == {Verb.STOP, Verb.CANCEL, Verb.SKIP}
    assert {verb for verb in Verb if not verb.needs_selection} == {Verb.STOP, Verb.CANCEL, Verb.RELEASE}
    assert {delivery for delivery in Delivery if delivery.is_open} == {Delivery.PENDING, Delivery.SENT}
