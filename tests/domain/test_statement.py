"""A person's word about single statements: what can be said, and what is refused."""

import pytest

from tern.domain.effect import Effect
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.statement import StatementAnswer, check_answer, read_statements
from tern.domain.states import FINISHED, State

NAME = ScopeName(ApplyId("apl-1"), "eu")


def answer(effects: dict[int, Effect]) -> StatementAnswer:
    return StatementAnswer(NAME, effects, "eve", "I looked")


def test_what_is_said_is_read() -> None:
    assert read_statements(("2=done", "3=not-done")) == {2: Effect.DONE, 3: Effect.NOT_DONE}


@pytest.mark.parametrize(
    "said",
    [
        ("2",),
        ("x=done",),
        ("2=unknown",),
        ("2=under-way",),
        ("-1=done",),
        ("2=done", "02=not-done"),
        ("²=done",),
    ],
)
def test_what_can_t_be_said_is_refused(said: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        read_statements(said)


def test_a_word_needs_a_reason_and_a_statement() -> None:
    for effects, reason in (({2: Effect.DONE}, " "), ({}, "I looked"), ({1: Effect.UNKNOWN}, "I looked")):
        with pytest.raises(UsageError):
            StatementAnswer(NAME, effects, "eve", reason)


@pytest.mark.parametrize("state", sorted(set(State) - FINISHED))
def test_what_may_still_run_is_not_spoken_of(state: State) -> None:
    with pytest.raises(Refused) as refusal:
        check_answer(answer({1: Effect.DONE}), state, ["unknown"])
    assert refusal.value.reason == "STILL_LIVE"


def test_what_is_known_or_not_there_is_refused_with_all_that_is_wrong() -> None:
    with pytest.raises(Refused) as refusal:
        check_answer(
            answer({1: Effect.DONE, 2: Effect.DONE, 0: Effect.DONE, 4: Effect.DONE}),
            State.FAILED,
            ["completed", "unknown", "skipped"],
        )
    assert len(refusal.value.why) == 3
    assert "Unknown are 2." in (refusal.value.next_step or "")
    check_answer(answer({2: Effect.NOT_DONE}), State.FAILED, ["completed", "unknown", "skipped"])
