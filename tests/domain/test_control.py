"""Wishes: where they are welcome, what comes next, when they are fulfilled; over all facts (G2, G7-G9, S17)."""

import itertools
from collections.abc import Iterator

import pytest

from tern.domain.admission import AdmissionFacts, admit
from tern.domain.control import (
    Delivery,
    DriveFacts,
    Receipt,
    Step,
    Verb,
    fulfilment,
    next_step,
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
        stop_sent,
        fresh,
    ) in itertools.product(State, *[(False, True)] * 8):
        if state in NEEDS_AN_ID and not has_id:
            continue
        for delivery in (Delivery.PENDING, Delivery.SENT):
            yield DriveFacts(
                state,
                has_remote_id=has_id,
                has_intent=has_intent,
                key_is_dead=dead,
                offers_resolve=resolves,
                delivery=delivery,
                runs_though_stopped=contradicts,
                stop_open=stop_open,
                stop_was_sent=stop_sent,
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
            assert step is (Step.RESOLVE if facts.offers_resolve else Step.ASK_PERSON), (verb, facts)


def test_a_halting_wish_on_live_work_is_always_driven() -> None:
    """G9: as long as something may run, a stop does something about it and never calls itself done."""
    for verb, facts in itertools.product(HALTING, every_fact()):
        if facts.state.is_live:
            assert next_step(verb, facts) in {Step.SEND, Step.SETTLE_LOCALLY, Step.RESOLVE, Step.ASK_PERSON}


def test_a_stopped_job_that_runs_is_stopped_again() -> None:
    """ST12: what the last sample says outranks what was recorded."""
    for facts in every_fact():
        if facts.runs_though_stopped and facts.has_remote_id:
            assert next_step(Verb.STOP, facts) is Step.SEND


def test_a_cutover_is_sent_only_to_an_engine_that_waits() -> None:
    """CU3, G9: waiting by its own fresh sample, and no stop in the way."""
    for facts in every_fact():
        step = next_step(Verb.CUTOVER, facts)
        if step is Step.SEND:
            assert facts.state is State.WAITING_FOR_CUTOVER
            assert facts.is_fresh
            assert not facts.stop_open
        assert step not in {Step.SETTLE_LOCALLY, Step.RESOLVE, Step.REQUEUE, Step.RESUME}


def test_a_start_never_dispatches_and_never_forgets_an_id() -> None:
    """SA2, G4: without an id back in line, with one resumed; a dispatched one is never put back in line."""
    for facts in every_fact():
        step = next_step(Verb.START, facts)
        if facts.state is State.STOPPED:
            assert step is (Step.RESUME if facts.has_remote_id else Step.REQUEUE)
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
            state.is_live or (verb is Verb.CANCEL and state is State.STOPPED)
        )
    if state in {State.STOPPED, State.RESUMING, State.UNCERTAIN}:
        assert fulfilment(Verb.START, state) is None
    if fulfilment(Verb.CUTOVER, state) is Delivery.ACKNOWLEDGED:
        assert state in {State.CUTTING_OVER, State.COMPLETED, State.REVERT_WINDOW}


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("verb", Verb)
def test_a_second_equal_wish_is_already_on_its_way(verb: Verb, state: State) -> None:
    """At most one open delivery per operation and verb."""
    assert admit(verb, AdmissionFacts(state, has_remote_id=True, open_request=7)).outcome is Receipt.ALREADY


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("in_force", [None, "stop", "cancel"])
def test_stopping_is_cheap(state: State, in_force: str | None) -> None:
    """G9: whatever is live can be stopped and cancelled, whatever else was asked before."""
    facts = AdmissionFacts(state, has_remote_id=False, stop_in_force=in_force)
    for verb in HALTING:
        outcome = admit(verb, facts).outcome
        assert outcome is not Receipt.REFUSED
        if state.is_live:
            assert outcome is Receipt.ACCEPTED
    if state is State.STOPPED:
        assert admit(Verb.CANCEL, facts).outcome is Receipt.ACCEPTED


@pytest.mark.parametrize("state", [state for state in State if not state.is_finished])
def test_a_forward_wish_under_a_cancel_is_refused(state: State) -> None:
    """§7: cancelling is permanent, so neither a start nor a cutover is taken while one covers the operation."""
    facts = AdmissionFacts(state, has_remote_id=True, stop_in_force="cancel")
    assert admit(Verb.START, facts).outcome is Receipt.REFUSED
    if state not in {State.CUTTING_OVER, State.REVERT_WINDOW}:
        assert admit(Verb.CUTOVER, facts).outcome is Receipt.REFUSED


def test_a_refused_cutover_lists_all_that_is_missing() -> None:
    facts = AdmissionFacts(State.RUNNING, has_remote_id=True, stop_in_force="stop")
    line = admit(Verb.CUTOVER, facts)
    assert line.outcome is Receipt.REFUSED
    assert "stop covers it" in line.reason
    assert "running, not waiting" in line.reason


def test_a_start_whose_target_is_held_is_refused_by_name() -> None:
    """SA3, G13."""
    facts = AdmissionFacts(State.STOPPED, has_remote_id=True, target_holder="apl-2 (running)")
    line = admit(Verb.START, facts)
    assert line.outcome is Receipt.REFUSED
    assert "apl-2 (running)" in line.reason


def test_cancel_before_stop_before_the_rest() -> None:
    """RA3: the order in which open wishes are driven."""
    assert sorted(Verb, key=lambda verb: verb.precedence)[:2] == [Verb.CANCEL, Verb.STOP]
    assert {verb for verb in Verb if not verb.is_forward} == {Verb.STOP, Verb.CANCEL, Verb.SKIP}
    assert {verb for verb in Verb if not verb.needs_selection} == {Verb.STOP, Verb.CANCEL, Verb.RELEASE}
    assert {delivery for delivery in Delivery if delivery.is_open} == {Delivery.PENDING, Delivery.SENT}
