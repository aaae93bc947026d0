"""Whether to send, as a table (G4, G10)."""

import itertools

import pytest

from tern.domain.dispatch import AfterUnknown, Approach, after_unknown, approach
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S


@pytest.mark.parametrize(
    ("has_id", "earlier", "declared", "same_engine"), list(itertools.product((False, True), repeat=4))
)
def test_how_to_go_on_with_a_claimed_operation(
    *, has_id: bool, earlier: bool, declared: bool, same_engine: bool
) -> None:
    """D6, D16: an id ends all sending; an old intent is repeated only where a person declared that this is harmless,
    and neither repeated at another engine nor asked about there.
    """
    found = approach(
        has_remote_id=has_id,
        has_earlier_intent=earlier,
        may_be_repeated=declared,
        is_same_engine=same_engine,
    )
    if has_id:
        assert found is Approach.ATTACH
    elif not earlier:
        assert found is Approach.SEND
    elif not same_engine:
        assert found is Approach.ASK_PERSON
    else:
        assert found is (Approach.SEND if declared else Approach.RESOLVE)


@pytest.mark.parametrize("declared", [False, True])
def test_under_a_drain_nothing_is_repeated(*, declared: bool) -> None:
    """What was sent is settled by its engine, or waits until the deployment is open again."""
    for offers, expected in ((True, Approach.RESOLVE), (False, Approach.WAIT)):
        found = approach(
            has_remote_id=False,
            has_earlier_intent=True,
            may_be_repeated=declared,
            is_same_engine=True,
            offers_resolve=offers,
            begins_nothing=True,
        )
        assert found is expected


@pytest.mark.parametrize(
    ("declared", "attempts", "age_s", "after"),
    [
        (True, 0, 0, AfterUnknown.REPEAT),
        (True, ANSWERED_ATTEMPTS_MAX - 1, FRESHNESS_S, AfterUnknown.REPEAT),
        (True, ANSWERED_ATTEMPTS_MAX, 0, AfterUnknown.ASK_PERSON),
        (True, 0, FRESHNESS_S + 1, AfterUnknown.ASK_PERSON),
        (False, 0, 0, AfterUnknown.RESOLVE),
        (False, ANSWERED_ATTEMPTS_MAX, FRESHNESS_S + 1, AfterUnknown.RESOLVE),
    ],
)
def test_what_an_unanswered_call_becomes(
    *, declared: bool, attempts: int, age_s: float, after: AfterUnknown
) -> None:
    """G10: repeated, resolved or shown to a person; failed is not among the answers."""
    assert after_unknown(deduplicates=declared, answered_attempts=attempts, intent_age_s=age_s) is after
