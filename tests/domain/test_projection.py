"""The parent as a function of its operations, its policy and the open wishes: every combination of up to four (G14).

States that the rule table names in one breath (running with resuming, failed_retryable and uncertain; cutting over
with reverting) are shown to be the same first; then one of each stands for all where the product would be too large.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.projection import project
from tern.domain.states import ApplyState, State
from tern.domain.tally import UNDER_WAY, Standing, Tally
from tests.domain.reading import read_state
from tests.domain.rollouts import rollout

ALIKE = [
    (State.RUNNING, State.RESUMING, State.FAILED_RETRYABLE, State.UNCERTAIN),
    (State.CUTTING_OVER, State.REVERTING),
]
DISTINCT = [state for state in State if state not in {other for alike in ALIKE for other in alike[1:]}]
SIZES = (1, 2, 3, 4)
BUDGETS = [
    (on_failure, borne, strict)
    for on_failure in OnFailure
    for borne in ((0, 1) if on_failure is not OnFailure.CONTINUE else (0,))
    for strict in ((False, True) if on_failure is not OnFailure.CONTINUE else (False,))
]
"""What continue bears makes no difference."""
WAVES = (1, 1, 2, 2)
"""In a rollout with two waves the first two operations go first."""


def policies(copy: Copy, *, strict: bool | None = None) -> Iterator[Policy]:
    # A barrier defers its cutovers whoever says when.
    cutovers = [Cutover.AUTO] if copy is Copy.BARRIER else list(Cutover)
    for cutover, (on_failure, borne, is_strict) in itertools.product(cutovers, BUDGETS):
        if strict is None or strict is is_strict:
            yield Policy(copy, on_failure, cutover, max_failures=borne, strict=is_strict)


def combinations(states: Sequence[State], *among: State) -> Iterator[list[Standing]]:
    """Every rollout of up to four operations in these states; with `among`, those that have one of them."""
    for size in SIZES:
        for combination in itertools.product(states, repeat=size):
            if not among or set(among) & set(combination):
                yield rollout(*combination)


def agree(policy: Policy, operations: Sequence[Standing], tally: Tally, released: int | None = None) -> None:
    found, expected = project(policy, tally), read_state(policy, operations, released)
    if found.state is not expected or found.skips_pending is not (
        expected.is_settled and State.PENDING in {each.state for each in operations}
    ):
        raise AssertionError((policy, operations, released, found, expected))


@pytest.mark.parametrize("copy", Copy)
def test_every_combination_of_all_states(copy: Copy) -> None:
    """G14: all fifteen states, up to four operations."""
    policy = Policy(copy, OnFailure.PAUSE if copy is Copy.BARRIER else OnFailure.HALT)
    for operations in combinations(list(State)):
        agree(policy, operations, Tally.of(operations))


@pytest.mark.parametrize("copy", Copy)
def test_every_combination_under_every_policy(copy: Copy) -> None:
    """G14: order, what a failure does, how many are borne, strict or not, and who says when to cut over."""
    rules = list(policies(copy))
    for operations in combinations(DISTINCT):
        tally = Tally.of(operations)
        for policy in rules:
            agree(policy, operations, tally)


@pytest.mark.parametrize("copy", Copy)
def test_every_combination_in_two_waves(copy: Copy) -> None:
    """G14: each wave has a budget of its own, and a stopped operation keeps the next wave from starting."""
    waves = (Wave({"tier": "1"}, max_failures=1), Wave())
    rules = [replace(policy, waves=waves) for policy in policies(copy) if policy.cutover is Cutover.AUTO]
    for plain in combinations(DISTINCT):
        operations = [replace(each, wave=WAVES[each.position]) for each in plain]
        tally = Tally.of(operations)
        for policy in rules:
            agree(policy, operations, tally)


@pytest.mark.parametrize("copy", Copy)
def test_every_combination_with_a_wish_open(copy: Copy) -> None:
    """G14, §7: a parent is never settled, nor paused, with an open delivery; a stopped one with an open start lives."""
    policy = Policy(copy, OnFailure.PAUSE if copy is Copy.ROLLING else OnFailure.HALT)
    for plain in combinations(DISTINCT):
        for wished in range(len(plain)):
            operations = [replace(each, is_wished=each.position == wished) for each in plain]
            tally = Tally.of(operations)
            agree(policy, operations, tally)
            found = project(policy, tally).state
            assert not found.is_settled
            assert found is not ApplyState.PAUSED


@pytest.mark.parametrize("copy", Copy)
def test_every_combination_after_a_release(copy: Copy) -> None:
    """§6: a release opens the failures that it saw, once: the next one holds again."""
    rules = [policy for policy in policies(copy) if policy.on_failure is not OnFailure.CONTINUE]
    rules = [policy for policy in rules if policy.cutover is Cutover.AUTO]
    for plain in combinations(DISTINCT, State.FAILED):
        failed = [each.position for each in plain if each.state is State.FAILED]
        for seen, released in (
            (failed, len(failed)),
            (failed, len(failed) - 1),
            (failed[:-1], len(failed) - 1),
        ):
            operations = [replace(each, was_seen=each.position in seen) for each in plain]
            tally = Tally.of(operations, released)
            for policy in rules:
                agree(policy, operations, tally, released)


@pytest.mark.parametrize("copy", Copy)
def test_every_combination_of_what_a_strict_rollout_counts(copy: Copy) -> None:
    """S18: stopped work that a start resumes may still fail, and what is let in has its place already."""
    rules = [policy for policy in policies(copy, strict=True) if policy.cutover is Cutover.AUTO]
    for plain in combinations(DISTINCT, State.STOPPED, State.PENDING):
        for dispatched, admitted in ((True, False), (False, True)):
            operations = [
                replace(
                    each,
                    has_remote_id=dispatched and each.state is State.STOPPED,
                    is_admitted=admitted and each.state is State.PENDING,
                )
                for each in plain
            ]
            tally = Tally.of(operations)
            for policy in rules:
                agree(policy, operations, tally)


@pytest.mark.parametrize("alike", ALIKE, ids=lambda each: str(each[0]))
def test_states_that_the_rules_name_in_one_breath(alike: tuple[State, ...]) -> None:
    """What lets one of each stand for all: exchanging them never changes what the apply's row says."""
    rules = [policy for copy in Copy for policy in policies(copy)]
    for others in itertools.product(State, repeat=2):
        for place in range(3):
            told = set()
            for state in alike:
                states = [*others[:place], state, *others[place:]]
                tally = Tally.of(rollout(*states))
                told.add(tuple(project(policy, tally) for policy in rules))
            assert len(told) == 1, (alike, others, place)


def test_a_verdict_is_honest_whatever_the_policy_bears() -> None:
    """PR1, PR4: continue and release decide whether to go on, never whether it failed."""
    for copy in Copy:
        for policy in policies(copy):
            for operations in combinations(DISTINCT[:], State.FAILED):
                if len(operations) > 3:
                    break
                found = project(policy, Tally.of(operations))
                states = {each.state for each in operations}
                if found.state.is_settled:
                    assert found.state is ApplyState.FAILED
                    assert not states & set(UNDER_WAY)


@pytest.mark.parametrize(
    ("states", "policy", "verdict"),
    [
        (["failed", "running"], Policy(Copy.PARALLEL), ApplyState.RUNNING_DEGRADED),
        (["failed", "completed"], Policy(Copy.PARALLEL), ApplyState.FAILED),
        (["completed", "pending"], Policy(), ApplyState.RUNNING),
        (["failed", "pending", "pending"], Policy(), ApplyState.FAILED),
        (["failed", "pending"], Policy(on_failure=OnFailure.CONTINUE), ApplyState.RUNNING_DEGRADED),
        (["failed", "pending"], Policy(on_failure=OnFailure.PAUSE), ApplyState.PAUSED),
        (
            ["failed", "running", "pending"],
            Policy(Copy.PARALLEL, OnFailure.PAUSE),
            ApplyState.RUNNING_DEGRADED,
        ),
        (["failed", "completed"], Policy(Copy.PARALLEL, OnFailure.PAUSE), ApplyState.FAILED),
        (["stopped", "running"], Policy(Copy.PARALLEL), ApplyState.RUNNING),
        (["stopped", "pending"], Policy(), ApplyState.PAUSED),
        (["stopped", "pending"], Policy(Copy.PARALLEL), ApplyState.RUNNING),
        (["stopped", "completed"], Policy(), ApplyState.STOPPED),
        (["failed", "waiting_for_cutover"], Policy(Copy.BARRIER), ApplyState.PAUSED),
        (
            ["failed", "waiting_for_cutover"],
            Policy(Copy.BARRIER, OnFailure.CONTINUE),
            ApplyState.RUNNING_DEGRADED,
        ),
        (["failed", "waiting_for_cutover"], Policy(Copy.PARALLEL, cutover=Cutover.MANUAL), ApplyState.PAUSED),
        (["failed", "waiting_for_cutover", "running"], Policy(Copy.BARRIER), ApplyState.RUNNING_DEGRADED),
        (["stopped", "waiting_for_cutover"], Policy(Copy.BARRIER), ApplyState.PAUSED),
        (["waiting_for_cutover", "stopped"], Policy(Copy.BARRIER), ApplyState.WAITING_FOR_CUTOVER),
        (["stopped", "pending"], Policy(Copy.BARRIER), ApplyState.RUNNING),
        (["cancelled", "completed"], Policy(), ApplyState.CANCELLED),
        (["skipped", "completed"], Policy(), ApplyState.COMPLETED),
        (["skipped", "skipped"], Policy(), ApplyState.CANCELLED),
        (["reverted", "completed"], Policy(), ApplyState.REVERTED),
        (["uncertain", "waiting_for_cutover"], Policy(Copy.PARALLEL), ApplyState.RUNNING),
        (["waiting_for_cutover", "cutting_over"], Policy(), ApplyState.WAITING_FOR_CUTOVER),
        (["reverting", "revert_window"], Policy(), ApplyState.CUTTING_OVER),
        (["pending", "pending"], Policy(), ApplyState.PENDING),
    ],
)
def test_words_for_a_rollout(states: list[str], policy: Policy, verdict: ApplyState) -> None:
    """PR1, PR2, PR4, PR5, CU2, CU7 as examples, by hand."""
    operations = rollout(*map(State, states))
    assert project(policy, Tally.of(operations)).state is verdict
