"""The failure budget and what is let in, in every interleaving (S18)."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tern.domain.barrier import asks_by_itself, failed_since, is_its_turn, turn
from tern.domain.budget import failures_to_release, is_spent
from tern.domain.opening import bakes_for_s, opens_in_s
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.states import State
from tern.domain.tally import COPYING, PASSED, UNDER_WAY, Standing, Tally
from tests.domain.rollouts import Member, admit, let_in, policies, rollout

CANARY = (Wave({"tier": "canary"}, bake_s=600.0), Wave())


@given(policies(), st.integers(1, 8), st.data())
def test_whatever_happens_in_whatever_order_the_bounds_hold(
    policy: Policy, size: int, data: st.DataObject
) -> None:
    """S18: let in, claimed, ended, stopped and resumed in any interleaving: order, slots, waves and budget hold."""
    numbers = sorted(data.draw(st.integers(1, len(policy.waves))) if policy.waves else 0 for _ in range(size))
    now = [Member(Standing(place, State.PENDING, numbers[place])) for place in range(size)]
    for _ in range(30):
        now = admit(now, let_in(policy, now))
        standings = [each.standing for each in now]
        check_bounds(policy, standings)
        moves = [
            (place, after)
            for place, each in enumerate(standings)
            for after in next_states(each)
            if after is not State.RUNNING or each.state is not State.PENDING or each.is_admitted
        ]
        if not moves:
            break
        place, after = data.draw(st.sampled_from(moves))
        now[place] = Member(
            replace(standings[place], state=after, is_admitted=False, has_remote_id=True, ended_s_ago=900.0)
        )


def next_states(each: Standing) -> list[State]:
    match each.state:
        case State.PENDING:
            return [State.RUNNING]
        case State.RUNNING:
            return [
                State.COMPLETED,
                State.FAILED,
                State.STOPPED,
                State.FAILED_RETRYABLE,
                State.WAITING_FOR_CUTOVER,
            ]
        case State.FAILED_RETRYABLE | State.RESUMING:
            return [State.RUNNING, State.FAILED]
        case State.WAITING_FOR_CUTOVER:
            return [State.COMPLETED, State.FAILED]
        case State.STOPPED:
            return [State.RESUMING, State.CANCELLED]
        case _:
            return []


def check_bounds(policy: Policy, standings: Sequence[Standing]) -> None:
    started = [each for each in standings if each.state is not State.PENDING or each.is_admitted]
    for wave in {each.wave for each in standings}:
        own = [each for each in standings if each.wave == wave]
        failed = sum(each.state is State.FAILED for each in own)
        if policy.strict:
            assert failed <= policy.rules(wave).max_failures + 1
        if any(each.wave > wave for each in started):
            assert all(each.state in PASSED for each in own)
        resumed = [each for each in own if each.state is State.RESUMING]
        taken = [each for each in own if each.is_admitted or each.state in COPYING]
        most = policy.rules(wave).max_parallel
        if most is not None and not resumed and not any(each.state is State.STOPPED for each in own):
            assert len([each for each in taken if each.is_admitted]) <= most
    if policy.copy is Copy.ROLLING:
        assert sum(each.is_admitted for each in standings) <= 1


def test_a_failure_more_than_is_borne_spends_the_budget_in_any_order() -> None:
    """§6: up to N never hold, N + 1 does; continue never does."""
    for copy in Copy:
        for borne in (0, 1, 2):
            within = Tally.of(rollout(*[State.FAILED] * borne, State.PENDING))
            beyond = Tally.of(rollout(*[State.FAILED] * (borne + 1), State.PENDING))
            for on_failure in OnFailure:
                policy = Policy(copy, on_failure, max_failures=borne)
                assert not is_spent(policy, within)
                assert is_spent(policy, beyond) is (on_failure is not OnFailure.CONTINUE)


def test_each_wave_has_a_budget_of_its_own() -> None:
    policy = Policy(Copy.PARALLEL, max_failures=1, waves=(Wave({"a": "b"}, max_failures=0), Wave()))
    spread = rollout(State.COMPLETED, State.FAILED, State.RUNNING, waves=(1, 2, 2))
    assert not is_spent(policy, Tally.of(spread))
    assert is_spent(policy, Tally.of(rollout(State.FAILED, State.PENDING, waves=(1, 2))))
    assert is_spent(policy, Tally.of(rollout(State.COMPLETED, State.FAILED, State.FAILED, waves=(1, 2, 2))))


@pytest.mark.parametrize("at_risk", [*UNDER_WAY, State.STOPPED])
def test_a_strict_rollout_that_bears_nothing_risks_one_failure_at_a_time(at_risk: State) -> None:
    """S18: whatever may still fail keeps the next one out, work that a start would resume too."""
    policy = Policy(Copy.PARALLEL, OnFailure.PAUSE, strict=True)
    risky, waits = rollout(at_risk, State.PENDING)
    at_engine = [Member(replace(risky, has_remote_id=True)), Member(waits)]
    assert let_in(policy, at_engine) == set()
    assert let_in(replace(policy, max_failures=1), at_engine) == {1}
    never_sent = [Member(risky), Member(waits)]
    assert let_in(policy, never_sent) == ({1} if at_risk is State.STOPPED else set())


def test_a_strict_rollout_goes_on_after_a_release() -> None:
    """§6: released failures are no longer counted; the risk of those under way still is."""
    policy = Policy(Copy.PARALLEL, OnFailure.PAUSE, strict=True)
    failed, waits = rollout(State.FAILED, State.PENDING)
    seen = [Member(replace(failed, was_seen=True)), Member(waits)]
    assert let_in(policy, seen) == set()
    assert let_in(policy, seen, released=1) == {1}


def failures(*told: str) -> list[Standing]:
    return [Standing(place, State.FAILED, was_seen=each == "seen") for place, each in enumerate(told)]


def test_a_release_opens_one_pause_once() -> None:
    """§6: what was seen is opened; the next failure holds again, until the next release."""
    policy = Policy(Copy.PARALLEL, OnFailure.PAUSE)
    assert is_spent(policy, Tally.of(failures("new")))
    assert failures_to_release(Tally.of(failures("new"))) == 1
    assert not is_spent(policy, Tally.of(failures("seen"), released=1))
    assert is_spent(policy, Tally.of(failures("seen", "new"), released=1))
    assert not is_spent(policy, Tally.of(failures("seen", "seen"), released=2))


def test_a_release_opens_no_failure_that_it_did_not_see() -> None:
    """Committed while the release was being written: from before it, and seen by nobody."""
    policy = Policy(Copy.PARALLEL, OnFailure.PAUSE)
    assert is_spent(policy, Tally.of(failures("seen", "seen"), released=1))


def test_what_was_retried_and_fails_again_is_a_new_failure() -> None:
    policy = Policy(Copy.PARALLEL, OnFailure.PAUSE)
    assert is_spent(policy, Tally.of(failures("new"), released=1))


def test_a_bake_counts_from_the_last_ending_of_its_wave() -> None:
    policy = Policy(waves=CANARY)
    done = rollout(State.COMPLETED, State.COMPLETED, State.PENDING, waves=(1, 1, 2))
    ages = (900.0, 100.0, None)
    baking = [Member(replace(each, ended_s_ago=age)) for each, age in zip(done, ages, strict=True)]
    tally = Tally.of(each.standing for each in baking)
    assert bakes_for_s(policy, tally, 2) == 500.0
    assert opens_in_s(policy, tally) == 500.0
    assert let_in(policy, baking) == set()
    baked = [Member(replace(each, ended_s_ago=601.0)) for each in done]
    assert let_in(policy, baked) == {2}
    assert opens_in_s(policy, Tally.of(each.standing for each in baked)) is None
    assert bakes_for_s(policy, tally, 1) <= 0


def test_nothing_bakes_where_nothing_was_done() -> None:
    """A wave that a person skipped or cancelled before it began has shown nothing that could bake."""
    policy = Policy(waves=CANARY)
    skipped = rollout(State.SKIPPED, State.PENDING, waves=(1, 2))
    tally = Tally.of([replace(skipped[0], ended_s_ago=1.0), skipped[1]])
    assert opens_in_s(policy, tally) is None
    assert let_in(policy, [Member(replace(skipped[0], ended_s_ago=1.0)), Member(skipped[1])]) == {1}


@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED, State.PENDING, State.REVERT_WINDOW])
def test_no_wave_begins_before_the_one_before_it_is_through(state: State) -> None:
    policy = Policy(Copy.PARALLEL, waves=CANARY)
    assert 1 not in let_in(policy, [Member(each) for each in rollout(state, State.PENDING, waves=(1, 2))])


@pytest.mark.parametrize(
    ("states", "policy", "whose"),
    [
        ("wait wait wait", Policy(Copy.BARRIER), 0),
        ("done wait wait", Policy(Copy.BARRIER), 1),
        ("window wait wait", Policy(Copy.BARRIER), None),
        ("cutting wait wait", Policy(Copy.BARRIER), None),
        ("running wait", Policy(Copy.BARRIER), None),
        ("stopped wait", Policy(Copy.BARRIER), None),
        ("unsure wait", Policy(Copy.BARRIER), None),
        ("pending wait", Policy(Copy.BARRIER), None),
        ("done running wait", Policy(Copy.BARRIER), None),
        ("failed wait", Policy(Copy.BARRIER), None),
        ("failed wait", Policy(Copy.BARRIER, OnFailure.PAUSE), None),
        ("failed wait", Policy(Copy.BARRIER, OnFailure.CONTINUE), 1),
        ("failed wait", Policy(Copy.BARRIER, max_failures=1), 1),
        ("wait wait failed", Policy(Copy.BARRIER), None),
        ("wait", Policy(Copy.BARRIER, cutover=Cutover.MANUAL), None),
        ("wait", Policy(Copy.PARALLEL), None),
        ("done done", Policy(Copy.BARRIER), None),
    ],
)
def test_whose_turn_it_is_to_cut_over(states: str, policy: Policy, whose: int | None) -> None:
    """CU1, CU2: strictly in order, none before the earlier ones are through."""
    words = {
        "wait": State.WAITING_FOR_CUTOVER,
        "done": State.COMPLETED,
        "window": State.REVERT_WINDOW,
        "cutting": State.CUTTING_OVER,
        "unsure": State.UNCERTAIN,
    }
    tally = Tally.of(rollout(*(words.get(word) or State(word) for word in states.split())))
    assert (turn(policy, tally) if asks_by_itself(policy, tally) else None) == whose


def test_a_person_cuts_over_in_the_order_too() -> None:
    """§6: in a barrier; elsewhere there is no order of cutovers."""
    waiting = Tally.of(rollout(State.COMPLETED, State.WAITING_FOR_CUTOVER, State.WAITING_FOR_CUTOVER))
    barrier = Policy(Copy.BARRIER, cutover=Cutover.MANUAL)
    assert [is_its_turn(barrier, waiting, place) for place in (1, 2)] == [True, False]
    assert is_its_turn(Policy(Copy.PARALLEL, cutover=Cutover.MANUAL), waiting, 2)


def test_what_was_asked_before_a_failure_no_longer_stands() -> None:
    """CU2: a wish that waited for its turn while another operation failed is not carried out over it."""
    failed, waits = rollout(State.FAILED, State.WAITING_FOR_CUTOVER)
    tally = Tally.of([failed, waits])
    halting, bearing = Policy(Copy.BARRIER), Policy(Copy.BARRIER, max_failures=1)
    assert failed_since(halting, tally, has_failed=True)
    assert not failed_since(halting, tally, has_failed=False)
    assert not failed_since(bearing, tally, has_failed=True)
