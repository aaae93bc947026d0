"""Watching without gRPC and without a database: one look for all, and what a silent database means."""

import threading
from dataclasses import replace

import pytest

from tern.domain.errors import NotFound, TryAgain
from tern.domain.identity import ApplyId
from tern.domain.states import ApplyState, State
from tern.doors.answers import Apply
from tern.doors.watching import Watching
from tern.ports import StorageUnavailable
from tests.doors.looks import look, operation

NAME = ApplyId("apl-1")
DONE = look(9, ApplyState.COMPLETED)


class Script:
    """Answers one look after the other; the last one for ever."""

    def __init__(self, *answers: Apply | Exception) -> None:
        self.answers = list(answers)
        self.count = 0

    def __call__(self, _apply_id: ApplyId) -> Apply:
        self.count += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def watching(script: Script, most: int = 8) -> Watching:
    return Watching(script, interval_s=0.001, most=most)


def test_a_look_that_only_aged_is_no_news() -> None:
    older = [look(1, ApplyState.RUNNING, operation("A", age_s=age)) for age in (0.0, 1.0, 2.0)]
    seen = list(watching(Script(*older, DONE)).watch(NAME))
    assert [each.revision for each in seen] == [1, 9]


def test_what_did_not_change_is_the_very_same_object() -> None:
    first = look(1, ApplyState.RUNNING, operation("A"), operation("B"))
    second = look(2, ApplyState.RUNNING, operation("A", age_s=1), operation("B", State.COMPLETED))
    before, after, _ = watching(Script(first, second, DONE)).watch(NAME)
    assert after.operations[0] is before.operations[0]
    assert after.operations[1] is not before.operations[1]


def test_a_database_that_is_away_for_a_while_ends_no_watch() -> None:
    away = StorageUnavailable("gone")
    seen = list(watching(Script(look(1), away, away, look(2), DONE)).watch(NAME))
    assert [each.revision for each in seen] == [1, 2, 9]


@pytest.mark.parametrize("error", [StorageUnavailable("gone"), NotFound("there is no apply")])
def test_the_first_look_says_what_is_wrong(error: Exception) -> None:
    script = Script(error)
    with pytest.raises(type(error)):
        next(watching(script).watch(NAME))
    assert script.count == 1


def test_a_mistake_in_the_middle_ends_the_watch_with_it() -> None:
    watch = watching(Script(look(1), ZeroDivisionError())).watch(NAME)
    assert next(watch).revision == 1
    with pytest.raises(ZeroDivisionError):
        next(watch)


def test_places_are_given_back_however_a_watch_ends() -> None:
    crowded = watching(Script(look(1)), most=1)
    first = crowded.watch(NAME)
    next(first)
    with pytest.raises(TryAgain) as refusal:
        next(crowded.watch(NAME))
    assert refusal.value.reason == "TOO_MANY_WATCHERS"
    first.close()
    assert next(crowded.watch(NAME)).revision == 1


def test_a_watch_that_nobody_wants_any_more_ends_without_news() -> None:
    wanted = threading.Event()
    wanted.set()
    watch = watching(Script(look(1))).watch(NAME, is_wanted=wanted.is_set)
    next(watch)
    wanted.clear()
    assert list(watch) == []


def test_the_revision_that_was_seen_is_not_told_again() -> None:
    changed = replace(look(1), headline="something that is no change of state")
    assert [x.revision for x in watching(Script(look(1), DONE)).watch(NAME, revision=1)] == [9]
    assert next(watching(Script(look(1), changed, DONE)).watch(NAME, revision=1)) == changed
    assert list(watching(Script(DONE)).watch(NAME, revision=9)) == []
