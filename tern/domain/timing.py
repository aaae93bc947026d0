"""How long things may take, as numbers and pure functions. All are seconds; the clock is the database's alone."""

from collections.abc import Mapping
from dataclasses import dataclass

LEASE_S = 30.0
"""A claim's length: longer than an RPC deadline and the steps around it, short enough to be re-driven soon."""

RPC_DEADLINE_S = 10.0
"""Where nobody says otherwise. What is decided by it is told the one that is set (TERN_RPC_DEADLINE_SECONDS)."""
START_GRACE_S = 30.0
"""After Start, samples that still say `stopped` are taken for stale this long."""

RESEND_S = 30.0
"""A control that was sent and had no effect is sent again after this."""

ANSWERED_ATTEMPTS_MAX = 10
"""Attempts, counted while the engine's Health answers, until an operation becomes uncertain."""

FRESHNESS_S = 86_400.0
"""An intent older than this is not repeated by itself any more."""

UNANSWERED_S = 60.0
"""So long a call without an answer may act late, and its job is looked at every UNANSWERED_LOOK_S. A trigger of the
database knows both numbers too.
"""

UNANSWERED_LOOK_S = 1.0
HALT_RETRY_MAX_S = 3.0
"""A stop or cancel without an answer is tried again at least this often: an engine that is back must hear of it."""

PROBE_INTERVAL_S = 10.0
SELF_SWEEP_AFTER_S = 5.0
UNHEARD_AFTER_S = 15.0
"""What has been due for so long was rung for several times: nobody hears those bells."""

LOST_CONTACT_AFTER = 10
"""Failed polls in a row after which contact counts as lost."""

SWEEP_PERIOD_S: Mapping[str, float] = {"reconcile": 2.0, "progress": 1.0}
"""How often beat rings for each sweep."""

OWN_SWEEP = "itself@"
"""How a worker calls itself that sweeps because nobody else did."""

SWEEP_AGAIN_AFTER = 0.9
"""Of its period: a sweep that began less than this ago is not begun again, so that a heap of old messages costs one
read each. Not the whole period, because one message in two comes a few milliseconds early.
"""

BACKOFF_MOST_S = 75.0
START_LOOKS_MAX = 10
"""So many answers of its engine that don't say `stopped` end a start."""

CUTOVER_REFUSALS_MAX = 5
"""So often Tern asks for a cutover that an engine refuses, with pauses; then a person decides."""


FAILED_KEPT_S = 60.0
"""So long the looks at what an engine without Resolve called failed must go on saying so, before its target is given
back: some try again by themselves. Where none is answered, a trigger of the database gives it back after ten minutes.
"""

FAILED_LOOK_S = 5.0
GONE_AFTER_TRIES = 10
GONE_AFTER_S = 600.0
"""So many tries in a row, and for so long, without a usable answer, and a person may say that an engine is gone."""

OUTSTANDING_LOOK_S = 2.0
OUTSTANDING_LOOK_MOST_S = 60.0
"""What is outstanding is looked at for ever, first after a moment, then less and less, and at least once a minute."""

WATCHED_S = 600.0
"""So long what was let go is looked at after it was found to be over: some engines try again by themselves."""

WATCHED_MOST_S = 86_400.0
"""Looks that nobody answers don't use that up: answers do. No longer than this: nobody is held by it."""

WOKEN_S = 60.0
"""So long after something outstanding was settled a sweep wakes whoever waits for its target: longer than any
transaction lasts, so that all that were under way then are there to be seen.
"""

SAME_TARGET_AGAIN_S = 2.0
"""A cutover that waits for another one at the same target is tried again after this: nobody tells it."""


@dataclass(frozen=True, slots=True)
class PollPace:
    """How often an operation is polled, in seconds: between eager and steady while it works, slow for what only a
    person moves on.
    """

    eager_s: float = 0.5
    steady_s: float = 5.0
    slow_s: float = 30.0


def backoff_s(attempt: int, jitter: float) -> float:
    """Exponential delay before attempt + 1: 1 s doubling to 60 s, spread by ±25 % with jitter in [0, 1)."""
    raw = min(60.0, 2.0 ** min(attempt - 1, 10)) if attempt > 0 else 1.0
    return raw * (0.75 + 0.5 * jitter)


def longest_dispatch_wait_s(lease_s: float) -> float:
    """No dispatch is ever made due later than in so many seconds: one that seems to be was written under a clock that
    has been set back since, and is due.
    """
    return max(lease_s, BACKOFF_MOST_S)


def longest_control_wait_s(lease_s: float, deadline_s: float) -> float:
    """The same of a wish: under a claim, while its effect is waited for, after no answer and the call's deadline."""
    return max(lease_s, RESEND_S, BACKOFF_MOST_S + deadline_s)


def longest_poll_wait_s(pace: PollPace) -> float:
    """The same of a look."""
    return max(pace.eager_s, pace.steady_s, pace.slow_s)


def due_in_s(left_s: float | None, longest_s: float) -> float:
    """Seconds until something is due; 0 where its time is over, or further ahead than it can have been meant."""
    return 0.0 if left_s is None or left_s > longest_s else max(0.0, left_s)


def poll_interval_s(
    state: str, *, state_age_s: float, poll_failures: int, control_open: bool, pace: PollPace
) -> float:
    """Seconds until the next look at an operation with a remote id.

    Eager while a control waits for its effect and around a cutover; else a tenth of the time that it has been in
    its state, so that a quick change is seen quickly and a long copy costs little; slow for what only a person moves
    on and once contact is lost, so that a dead engine isn't hammered.
    """
    if poll_failures >= LOST_CONTACT_AFTER:
        return pace.slow_s
    if poll_failures:
        return min(pace.slow_s, pace.eager_s * 2.0 ** min(poll_failures, 6))
    if control_open or state in {"cutting_over", "resuming", "reverting"}:
        return pace.eager_s
    if state in {"stopped", "uncertain"}:
        return pace.slow_s
    return min(pace.steady_s, max(pace.eager_s, state_age_s / 10))
