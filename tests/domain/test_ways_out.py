"""Admission and driving agree: no wish is taken that can never end, and each way out that is printed is open there."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tern.domain.admission import AdmissionFacts, admit
from tern.domain.control import (
    ADJUSTABLE,
    LIVE_FOR_THE_APPLICATION,
    Delivery,
    DriveFacts,
    Receipt,
    Step,
    Verb,
    fulfilment,
    next_step,
)
from tern.domain.states import TRANSITIONS, State
from tests.domain.test_admission import OF_OPERATIONS, UNTOUCHED, every_fact, level

NEEDS_AN_ID = LIVE_FOR_THE_APPLICATION | {
    State.WAITING_FOR_CUTOVER,
    State.CUTTING_OVER,
    State.RESUMING,
    State.COMPLETED,
    State.REVERTED,
}
TAKEN = {Receipt.ACCEPTED, Receipt.ALREADY}
COMMAND = re.compile(r"`tern ([a-z-]+) apl-1/A( --although-cancel-refused)? --reason '…'`")


def every_real_fact() -> Iterator[AdmissionFacts]:
    """Those combinations that rows can hold: what has an id was dispatched, what needs one has it."""
    for facts in every_fact():
        if facts.state in NEEDS_AN_ID and not facts.has_remote_id:
            continue
        if facts.state is State.PENDING and facts.has_remote_id:
            continue
        if facts.stop_in_force in {"stop", "cancel"} and facts.state in LIVE_FOR_THE_APPLICATION:
            # There none covers (store/halt.py).
            continue
        if facts.stop_in_force == "skip" and facts.state not in UNTOUCHED:
            continue
        if any(not _may_be_open(verb, facts.state) for verb in facts.open_verbs):
            continue
        yield facts


def _may_be_open(verb: Verb, state: State) -> bool:
    """Over the states that end a wish, none of it is open."""
    return fulfilment(verb, state) is None and (verb is not Verb.RETRY or state is State.FAILED)


def driven(verb: Verb, facts: AdmissionFacts, *, resolves: bool, fresh: bool = True) -> Step:
    """What a driver does first about what was accepted just now."""
    covers = facts.stop_in_force in {"stop", "cancel"}
    return next_step(
        verb,
        DriveFacts(
            facts.state,
            has_remote_id=facts.has_remote_id,
            has_intent=not facts.has_remote_id and not facts.was_never_dispatched,
            key_is_dead=False,
            may_be_resolved=resolves,
            delivery=Delivery.PENDING,
            stop_open=covers and verb is not Verb.START,
            drained=facts.drained,
            is_fresh=fresh,
        ),
    )


@pytest.mark.parametrize("verb", OF_OPERATIONS)
def test_what_is_accepted_is_carried_out_or_waits_for_something_that_comes(verb: Verb) -> None:
    """A wish that its own driver would fail, or call too late, at once is not taken in the first place."""
    for facts, resolves in itertools.product(every_real_fact(), (False, True)):
        if admit(verb, facts, level(verb)).outcome is not Receipt.ACCEPTED:
            continue
        if facts.is_revived and facts.state in {State.STOPPED, State.FAILED}:
            # A stop over a start or retry that is on its way: it ends by overtaking it.
            continue
        step = driven(verb, facts, resolves=resolves)
        assert step not in {Step.FAIL, Step.TOO_LATE}, (verb, facts)
        # Nothing that was just accepted waits for a deployment that was drained before.
        assert step is not Step.WAIT_FOR_UNDRAIN, (verb, facts)
        assert step is not Step.WAIT, (verb, facts)


def reachable(state: State) -> set[State]:
    found, new = {state}, {state}
    while new:
        new = {after for each in new for after in TRANSITIONS[each].values()} - found
        found |= new
    return found


@pytest.mark.parametrize("verb", OF_OPERATIONS)
def test_what_is_accepted_can_end_wherever_the_operation_goes(verb: Verb) -> None:
    """From every state that it may come to, it comes to one that ends the wish, or its driver ends it there."""
    welcome = {
        facts.state
        for facts in every_real_fact()
        if admit(verb, facts, level(verb)).outcome is Receipt.ACCEPTED
    }
    for start in welcome:
        for state in reachable(start):
            ends = [
                after
                for after in reachable(state)
                if fulfilment(verb, after) is not None
                or (verb is Verb.VOLUME and after in ADJUSTABLE)
                or (verb is Verb.RETRY and after is State.FAILED)
            ]
            assert ends, (verb, start, state)


@pytest.mark.parametrize("verb", OF_OPERATIONS)
def test_each_way_out_that_is_printed_is_taken_in_that_very_state(verb: Verb) -> None:
    """§11: no trap. What is on its way already counts as taken."""
    printed = 0
    for facts in every_real_fact():
        for name, option in COMMAND.findall(admit(verb, facts, level(verb)).reason):
            way = Verb(name)
            asked = replace(
                facts,
                although_cancel_refused=bool(option),
                open_request=7 if way in facts.open_verbs else None,
            )
            assert admit(way, asked, level(way)).outcome in TAKEN, (verb, facts, way)
            printed += 1
    if verb in {Verb.STOP, Verb.CANCEL, Verb.SKIP, Verb.CUTOVER, Verb.VOLUME, Verb.RETRY, Verb.START}:
        assert printed


def test_no_state_is_a_dead_end() -> None:
    """Wherever nothing moves by itself, some verb is taken, or on its way; `uncertain` has `tern resolve` besides."""
    stands = {
        State.STOPPED: (Verb.START, Verb.CANCEL),
        State.WAITING_FOR_CUTOVER: (Verb.STOP, Verb.CANCEL),
        State.REVERT_WINDOW: (Verb.REVERT, Verb.SKIP_REVERT),
        State.UNCERTAIN: (Verb.CANCEL,),
        State.PENDING: (Verb.CANCEL,),
        State.FAILED_RETRYABLE: (Verb.CANCEL,),
    }
    for facts in every_real_fact():
        for verb in stands.get(facts.state, ())[-1:]:
            ways = stands[facts.state]
            taken = [way for way in ways if way in facts.open_verbs or admit(way, facts).outcome in TAKEN]
            assert taken, (verb, facts)


def test_in_its_window_a_stop_is_told_both_ways() -> None:
    """§11: revert and skip-revert, ready to copy."""
    facts = AdmissionFacts(State.REVERT_WINDOW, has_remote_id=True, deployment="A", scope="apl-1/A")
    for verb in (Verb.STOP, Verb.CANCEL):
        line = admit(verb, facts)
        assert line.outcome is Receipt.REFUSED
        assert [name for name, _ in COMMAND.findall(line.reason)] == ["revert", "skip-revert"]


def test_an_overtaken_wish_is_not_answered_already() -> None:
    """G9: the last word counts, not the first of its verb."""
    facts = AdmissionFacts(
        State.RUNNING,
        has_remote_id=True,
        deployment="A",
        open_request=7,
        open_verbs=frozenset({Verb.STOP, Verb.START}),
    )
    assert admit(Verb.STOP, facts).outcome is Receipt.ALREADY
    assert admit(Verb.STOP, replace(facts, is_overtaken=True)).outcome is Receipt.ACCEPTED
