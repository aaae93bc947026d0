"""What an answer proves about whose work it is, as tables (G2, G4, G10)."""

import itertools

import pytest

from tern.domain.evidence import KeptFacts, after_taken, contradicts, may_be_adopted, seconds_to_wait
from tern.domain.states import RANK, State
from tern.domain.timing import RPC_DEADLINE_S


@pytest.mark.parametrize("state", list(State))
def test_an_id_is_adopted_only_where_nothing_speaks_for_another_one(state: State) -> None:
    """Never over an id, a later send or a doubt, and only where an operation waits for one."""
    for has_id, again, doubt in itertools.product((False, True), repeat=3):
        facts = KeptFacts(state, has_remote_id=has_id, was_sent_again=again, is_in_doubt=doubt)
        waits = state in {State.RUNNING, State.FAILED_RETRYABLE, State.UNCERTAIN}
        assert may_be_adopted(facts) is (waits and not (has_id or again or doubt))


@pytest.mark.parametrize("state", list(State))
def test_what_was_given_a_taken_id_is_uncertain_unless_it_is_over(state: State) -> None:
    """G10: whatever is in use; nothing of what is finished is rewritten, and nothing terminal is ever written."""
    if state.is_finished:
        assert after_taken(state) is None
    else:
        assert after_taken(state) is State.UNCERTAIN


@pytest.mark.parametrize("state", list(State))
def test_only_what_is_finished_is_contradicted_and_only_by_work(state: State) -> None:
    for sampled in (None, *State):
        assert contradicts(state, sampled) is (state.is_finished and sampled in RANK)


@pytest.mark.parametrize(
    ("claimed_for_s", "unanswered_for_s", "wait_s"),
    [
        (0.0, None, 0.0),
        (12.5, None, 12.5),
        (0.0, 3.0, RPC_DEADLINE_S - 3.0),
        (0.0, RPC_DEADLINE_S, 0.0),
        (0.0, 3_600.0, 0.0),
        (0.0, -3_600.0, RPC_DEADLINE_S),
        (20.0, 1.0, 20.0),
        (2.0, 1.0, RPC_DEADLINE_S - 1.0),
    ],
)
def test_how_long_a_person_waits(claimed_for_s: float, unanswered_for_s: float | None, wait_s: float) -> None:
    """The longer of the two: somebody's claim, or a call that may still arrive."""
    found = seconds_to_wait(
        claimed_for_s=claimed_for_s, unanswered_for_s=unanswered_for_s, deadline_s=RPC_DEADLINE_S
    )
    assert found == wait_s
