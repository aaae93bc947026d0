"""Where each verb is welcome, over every state and everything else that decides (G7, G9)."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tern.domain.admission import AdmissionFacts, admit, admit_release
from tern.domain.control import ADJUSTABLE, CONTRARY, LIVE_FOR_THE_APPLICATION, MOMENT, Receipt, Verb
from tern.domain.doubt import Doubt
from tern.domain.policy import OnFailure, Policy
from tern.domain.states import ApplyState, State
from tern.domain.tally import Standing, Tally

OF_OPERATIONS = tuple(verb for verb in Verb if verb is not Verb.RELEASE)
FORWARD = tuple(verb for verb in OF_OPERATIONS if verb.is_forward)
ON_THEIR_WAY = tuple(
    frozenset(verbs)
    for verbs in ((), (Verb.START,), (Verb.RETRY,), (Verb.REVERT,), (Verb.SKIP_REVERT,), (Verb.CANCEL,))
)
UNTOUCHED = {State.PENDING, State.STOPPED}


def every_fact(*, open_request: int | None = None) -> Iterator[AdmissionFacts]:
    """Every combination that the rows can hold."""
    for state, stop, has_id, untouched, on_its_way, holder, drained, refused in itertools.product(
        State,
        (None, "stop", "skip", "cancel"),
        *[(False, True)] * 2,
        ON_THEIR_WAY,
        (None, "apl-2 (running)"),
        *[(False, True)] * 2,
    ):
        if (has_id and untouched) or (refused and stop != "cancel"):
            continue
        yield AdmissionFacts(
            state,
            has_remote_id=has_id,
            deployment="A",
            was_never_dispatched=untouched,
            stop_in_force=stop,
            cancel_was_refused=refused,
            drained=drained,
            open_request=open_request,
            open_verbs=on_its_way,
            target_holder=holder,
            scope="apl-1/A",
        )


def level(verb: Verb) -> int | None:
    return 3 if verb is Verb.VOLUME else None


def test_every_answer_but_a_plain_yes_has_a_reason() -> None:
    for verb, facts in itertools.product(OF_OPERATIONS, every_fact()):
        line = admit(verb, facts, level(verb))
        assert line.deployment == "A"
        assert bool(line.reason) is (line.outcome is not Receipt.ACCEPTED), (verb, facts)


def test_nothing_goes_forward_under_a_stop_that_stands() -> None:
    """G9: a start alone supersedes a stop, and nothing supersedes a cancel or a skip."""
    for verb, facts in itertools.product(FORWARD, every_fact()):
        if facts.stop_in_force is None or (verb is Verb.START and facts.stop_in_force == "stop"):
            continue
        line = admit(verb, facts, level(verb))
        assert line.outcome is not Receipt.ACCEPTED, (verb, facts)
        if line.outcome is Receipt.REFUSED:
            assert f"a {facts.stop_in_force} covers it" in line.reason, (verb, facts)


def test_stopping_is_always_welcome_where_something_may_run() -> None:
    """G9: whatever else was asked before; and where a start or retry is on its way, that something may run soon."""
    for verb, facts in itertools.product((Verb.STOP, Verb.CANCEL), every_fact()):
        outcome = admit(verb, facts).outcome
        # Where the change is live for the application nothing is left to be stopped.
        assert (outcome is Receipt.REFUSED) is (facts.state in LIVE_FOR_THE_APPLICATION)
        if (facts.state.is_live or facts.is_revived) and outcome is not Receipt.REFUSED:
            assert outcome is Receipt.ACCEPTED or facts.state is State.CANCELLED, (verb, facts)


def test_a_refusal_lists_all_that_is_missing() -> None:
    """§7: every unmet condition, so that nobody asks three times."""
    for verb, facts in itertools.product(OF_OPERATIONS, every_fact()):
        line = admit(verb, facts, level(verb))
        if line.outcome is not Receipt.REFUSED:
            continue
        if verb in MOMENT and facts.state is not MOMENT[verb]:
            assert f"it is {facts.state}, not" in line.reason
        if verb in {Verb.START, Verb.RETRY} and facts.target_holder:
            assert "held by apl-2 (running)" in line.reason
        if verb in CONTRARY and CONTRARY[verb] in facts.open_verbs:
            assert f"a {CONTRARY[verb]} is on its way" in line.reason


def test_nothing_is_asked_of_an_engine_that_has_no_work_of_it() -> None:
    """G2: what has no id of its own has nothing to pace, and only what is in its moment is cut over or taken back."""
    for facts in every_fact():
        if admit(Verb.VOLUME, facts, 3).outcome is Receipt.ACCEPTED:
            assert facts.has_remote_id
            assert facts.state in ADJUSTABLE
        for verb, moment in MOMENT.items():
            if admit(verb, facts).outcome is Receipt.ACCEPTED:
                assert facts.state is moment


def test_a_retry_is_for_what_failed_without_an_id() -> None:
    """D18, G5: everything else is told what helps there."""
    for facts in every_fact():
        line = admit(Verb.RETRY, facts)
        if line.outcome is Receipt.ACCEPTED:
            assert (facts.state, facts.has_remote_id) == (State.FAILED, False)
        if facts.state is State.FAILED and facts.has_remote_id:
            assert line.outcome is Receipt.REFUSED
            assert "tern apply --rest-of apl-1/A" in line.reason
        if facts.state is State.UNCERTAIN:
            assert "tern resolve apl-1/A" in line.reason


def test_what_is_carried_on_is_neither_tried_again_nor_started() -> None:
    """Its follow-up is named; every other verb is answered as before."""
    for verb, facts in itertools.product(OF_OPERATIONS, every_fact()):
        carried = admit(verb, replace(facts, carried_on_by="apl-2/A"), level(verb))
        if verb not in {Verb.RETRY, Verb.START}:
            assert carried.outcome is admit(verb, facts, level(verb)).outcome
            continue
        assert carried.outcome is not Receipt.ACCEPTED
        if carried.outcome is Receipt.REFUSED and facts.open_request is None:
            assert "`tern get apl-2/A`" in carried.reason
            assert "--rest-of" not in carried.reason


def test_a_skip_is_for_what_was_never_at_its_engine() -> None:
    """G10: everything that may run somewhere is ended, not left behind."""
    for facts in every_fact():
        line = admit(Verb.SKIP, facts)
        if line.outcome is Receipt.ACCEPTED:
            assert facts.state in UNTOUCHED
            assert facts.was_never_dispatched
        elif facts.state.is_live and not facts.was_never_dispatched:
            # Said only where it helps.
            is_welcome = facts.state not in LIVE_FOR_THE_APPLICATION
            assert ("tern cancel apl-1/A" in line.reason) is is_welcome


@pytest.mark.parametrize("verb", OF_OPERATIONS)
def test_a_second_equal_wish_is_linked_to_the_first(verb: Verb) -> None:
    """§2: at most one open delivery per operation and verb."""
    for facts in every_fact(open_request=7):
        line = admit(verb, facts, None)
        assert (line.outcome, line.reason) == (Receipt.ALREADY, f"a {verb} is on its way, by request 7")


@pytest.mark.parametrize("verb", OF_OPERATIONS)
def test_what_is_over_is_too_late_or_so_already(verb: Verb) -> None:
    """S12: a finished operation is left alone, but for a retry."""
    for facts in every_fact():
        if facts.state.is_finished and not facts.is_revived and facts.state is not State.FAILED:
            assert admit(verb, facts, level(verb)).outcome in {Receipt.TOO_LATE, Receipt.ALREADY}


def failed(count: int, *, released: int | None = None) -> Tally:
    """So many failures, all seen by the newest release, and one that waits."""
    standings = [Standing(place, State.FAILED, was_seen=released is not None) for place in range(count)]
    return Tally.of([*standings, Standing(count, State.PENDING)], released)


PAUSE = Policy(on_failure=OnFailure.PAUSE)


@pytest.mark.parametrize(
    ("state", "policy", "tally", "outcome"),
    [
        (ApplyState.PAUSED, PAUSE, failed(1), Receipt.ACCEPTED),
        (ApplyState.RUNNING_DEGRADED, PAUSE, failed(1), Receipt.ACCEPTED),
        (ApplyState.PAUSED, Policy(), failed(1), Receipt.ACCEPTED),
        (ApplyState.PAUSED, PAUSE, failed(1, released=1), Receipt.ALREADY),
        (ApplyState.PAUSED, PAUSE, failed(2, released=1), Receipt.ACCEPTED),
        (ApplyState.PAUSED, PAUSE, failed(0), Receipt.REFUSED),
        (ApplyState.RUNNING, Policy(on_failure=OnFailure.PAUSE, max_failures=1), failed(1), Receipt.REFUSED),
        (ApplyState.RUNNING, Policy(on_failure=OnFailure.CONTINUE), failed(1), Receipt.REFUSED),
        (ApplyState.FAILED, PAUSE, failed(1), Receipt.TOO_LATE),
        (ApplyState.STOPPED, PAUSE, failed(1), Receipt.TOO_LATE),
    ],
)
def test_a_release_opens_a_spent_budget_and_nothing_else(
    state: ApplyState, policy: Policy, tally: Tally, outcome: Receipt
) -> None:
    """§7: one pause, once."""
    assert admit_release(state, policy, tally).outcome is outcome


@pytest.mark.parametrize("doubt", [Doubt.FOREIGN, Doubt.TAKEN])
def test_in_doubt_nothing_goes_forward_and_a_halt_says_what_it_waits_for(doubt: Doubt) -> None:
    """G2: whose work the id is decides; every verb's answer names the ways out that fit."""
    facts = AdmissionFacts(
        State.UNCERTAIN, has_remote_id=True, remote_id="R", doubt=doubt, deployment="A", scope="apl-1/A"
    )
    for verb in FORWARD:
        line = admit(verb, facts, level(verb))
        assert line.outcome is Receipt.REFUSED, verb
        assert "--as same-work" in line.reason, verb
    for verb in (Verb.STOP, Verb.CANCEL):
        line = admit(verb, facts)
        assert line.outcome is Receipt.ACCEPTED
        assert ("--although-foreign=R" in line.reason) is (doubt is Doubt.FOREIGN)
        named = admit(verb, replace(facts, although_foreign="R"))
        assert named.outcome is (Receipt.ACCEPTED if doubt is Doubt.FOREIGN else Receipt.REFUSED)
        assert admit(verb, replace(facts, although_foreign="S")).outcome is Receipt.REFUSED
        again = replace(facts, although_foreign="R", open_request=7, open_although="R")
        assert admit(verb, again).outcome is (Receipt.ALREADY if doubt is Doubt.FOREIGN else Receipt.REFUSED)
