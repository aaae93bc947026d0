"""Whether to send, as a table (G4, G10)."""

import itertools

import pytest

from tern.domain.dispatch import AfterUnknown, Approach, after_unknown, approach
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S


@pytest.mark.parametrize(
    ("has_id", "earlier", "deduplicates", "resolves"), list(itertools.product((False, True), repeat=4))
)
def test_how_to_go_on_with_a_claimed_operation(
    *, has_id: bool, earlier: bool, deduplicates: bool, resolves: bool
) -> None:
    """D6, D16: an id ends all sending; an old intent is repeated only where that is harmless."""
    found = approach(
        has_remote_id=has_id,
        has_earlier_intent=earlier,
        idempotent_dispatch=deduplicates,
        offers_resolve=resolves,
    )
    if has_id:
        assert found is Approach.ATTACH
    elif not earlier or deduplicates:
        assert found is Approach.SEND
    else:
        assert found is (Approach.RESOLVE if resolves else Approach.ASK_PERSON)


@pytest.mark.parametrize(
    ("deduplicates", "resolves", "attempts", "age_s", "after"),
    [
        (True, True, 0, 0, AfterUnknown.REPEAT),
        (True, False, 0, 0, AfterUnknown.REPEAT),
        (True, True, ANSWERED_ATTEMPTS_MAX - 1, FRESHNESS_S, AfterUnknown.REPEAT),
        (True, True, ANSWERED_ATTEMPTS_MAX, 0, AfterUnknown.ASK_PERSON),
        (True, True, 0, FRESHNESS_S + 1, AfterUnknown.ASK_PERSON),
        (False, True, 0, 0, AfterUnknown.RESOLVE),
        (False, False, 0, 0, AfterUnknown.ASK_PERSON),
        (False, True, ANSWERED_ATTEMPTS_MAX, FRESHNESS_S + 1, AfterUnknown.RESOLVE),
    ],
)
def test_what_an_unanswered_call_becomes(
    *, deduplicates: bool, resolves: bool, attempts: int, age_s: float, after: AfterUnknown
) -> None:
    """G10: repeated, resolved or shown to a person; failed is not among the answers."""
    found = after_unknown(
        idempotent_dispatch=deduplicates,
        offers_resolve=resolves,
        answered_attempts=attempts,
        intent_age_s=age_s,
    )
    assert found is after
