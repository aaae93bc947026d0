"""What is known of one statement: nothing but its own evidence settles it."""

import pytest

from tern.domain.effect import Effect, effect_of, half_done, left_behind, taken_over
from tern.domain.states import FINISHED, State

OVER = sorted(FINISHED - {State.COMPLETED, State.REVERTED, State.SKIPPED})


@pytest.mark.parametrize("operation", OVER)
def test_what_an_engine_says_of_a_statement_is_kept_whatever_becomes_of_its_operation(
    operation: State,
) -> None:
    for word in ("completed", "failed", "cancelled", "reverted"):
        assert taken_over(word, operation) == word
    assert taken_over("pending", operation) == "skipped"
    for word in ("running", "copying_rows", "stopped", "unknown"):
        assert taken_over(word, operation) == "unknown"
    assert taken_over("", operation) == ""


@pytest.mark.parametrize("operation", sorted(set(State) - FINISHED))
def test_a_word_of_what_is_live_is_kept_as_it_is(operation: State) -> None:
    for word in ("pending", "running", "waiting_for_lock", "completed", ""):
        assert taken_over(word, operation) == word


def test_what_nobody_spoke_of_is_known_only_where_nothing_began() -> None:
    for operation in OVER:
        assert left_behind(operation, nothing_began=True) == "skipped"
        assert left_behind(operation, nothing_began=False) == "unknown"
    assert left_behind(State.COMPLETED, nothing_began=False) == "completed"
    assert left_behind(State.SKIPPED, nothing_began=True) == "skipped"


def test_every_word_has_an_effect() -> None:
    assert effect_of("completed") is Effect.DONE
    assert effect_of("unknown") is Effect.UNKNOWN
    assert {effect_of(word) for word in ("pending", "skipped", "failed", "cancelled", "reverted")} == {
        Effect.NOT_DONE
    }
    assert {effect_of(word) for word in ("running", "building_index", "stopped")} == {Effect.UNDER_WAY}


@pytest.mark.parametrize(
    ("state", "words", "expected"),
    [
        (State.FAILED, ("completed", "failed", "skipped"), True),
        (State.FAILED, ("unknown",), True),
        (State.FAILED, ("failed", "skipped"), False),
        (State.FAILED, ("completed", "completed"), False),
        (State.CANCELLED, ("completed", "cancelled"), True),
        (State.COMPLETED, ("completed", "unknown"), False),
        (State.RUNNING, ("completed", "running"), False),
    ],
)
def test_half_done(state: State, words: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001
    assert half_done(state, words) is expected
