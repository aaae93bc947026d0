"""Times as pure functions: bounded, spread, and fitting into each other."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tern.domain.states import State
from tern.domain.timing import (
    LEASE_S,
    LOST_CONTACT_AFTER,
    RESEND_S,
    RPC_DEADLINE_S,
    START_GRACE_S,
    PollPace,
    backoff_s,
    poll_interval_s,
)

JITTER = st.floats(0.0, 1.0, exclude_max=True)


@given(st.integers(-5, 10_000), JITTER)
def test_a_backoff_is_bounded(attempt: int, jitter: float) -> None:
    """Never a busy loop, never longer than a minute and a quarter, however often it failed."""
    assert 0.75 <= backoff_s(attempt, jitter) <= 75.0


@given(st.integers(1, 100))
def test_a_backoff_grows_and_is_spread(attempt: int) -> None:
    assert backoff_s(attempt, 0.5) <= backoff_s(attempt + 1, 0.5)
    assert backoff_s(attempt, 0.0) < backoff_s(attempt, 0.99)


def test_a_lease_outlives_the_calls_made_under_it() -> None:
    """G12: a tick makes two calls with deadlines and some commits; its claim must not run out meanwhile."""
    assert 2 * RPC_DEADLINE_S < LEASE_S
    assert RPC_DEADLINE_S < RESEND_S
    assert RPC_DEADLINE_S < START_GRACE_S


@given(st.sampled_from(State), st.floats(0, 1e7), st.integers(0, 1000), st.booleans())
def test_a_poll_comes_back_in_bounded_time(state: State, age_s: float, failures: int, control: bool) -> None:  # noqa: FBT001
    pace = PollPace()
    found = poll_interval_s(
        state.value, state_age_s=age_s, poll_failures=failures, control_open=control, pace=pace
    )
    assert pace.eager_s <= found <= pace.slow_s
    if failures >= LOST_CONTACT_AFTER:
        assert found == pace.slow_s


def test_controls_and_cutovers_are_watched_eagerly() -> None:
    pace = PollPace()
    for state, control in itertools.product(State, (False, True)):
        if control or state in {State.CUTTING_OVER, State.RESUMING, State.REVERTING}:
            found = poll_interval_s(
                state.value, state_age_s=9e9, poll_failures=0, control_open=control, pace=pace
            )
            assert found == pace.eager_s
