"""Pages of one look belong together, and a look is forgotten before it is old."""

import pytest

from tern.domain.errors import UsageError
from tern.domain.identity import ApplyId
from tern.domain.states import ApplyState
from tern.doors.answers import Apply
from tern.wire.control import paging
from tern.wire.control.paging import Looks
from tests.doors.looks import look, operation

NAME = ApplyId("apl-1")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Counts the looks; every one shows another revision."""

    count = 0

    def __call__(self, _apply_id: ApplyId) -> Apply:
        self.count += 1
        return look(self.count, ApplyState.RUNNING, *(operation(name) for name in "ABCDE"))


def test_all_pages_are_of_one_look() -> None:
    source = Source()
    looks = Looks(source)
    names, revisions, token = "", set(), ""
    while True:
        apply, start, token = looks.page(NAME, token, 2)
        names += "".join(each.deployment for each in apply.operations[start : start + 2])
        revisions.add(apply.revision)
        if not token:
            break
    assert (names, revisions, source.count) == ("ABCDE", {1}, 1)


def test_a_first_page_is_always_a_new_look() -> None:
    source = Source()
    looks = Looks(source)
    assert [looks.page(NAME, "", 2)[0].revision for _ in range(3)] == [1, 2, 3]


def test_an_old_look_is_taken_anew() -> None:
    source, clock = Source(), Clock()
    looks = Looks(source, monotonic=clock)
    _, _, token = looks.page(NAME, "", 2)
    clock.now = paging.KEPT_S + 1
    apply, start, _ = looks.page(NAME, token, 2)
    assert (apply.revision, start) == (2, 2)


def test_only_a_few_looks_are_kept() -> None:
    looks = Looks(Source())
    for number in range(3 * paging.MOST_LOOKS):
        looks.page(ApplyId(f"apl-{number}"), "", 2)
    assert len(looks._kept) == paging.MOST_LOOKS


@pytest.mark.parametrize("token", ["x", "-1", "1.x", "1.1.1", "9" * 30, "²", " 1"])
def test_a_token_that_came_with_no_answer_is_refused(token: str) -> None:
    with pytest.raises(UsageError):
        Looks(Source()).page(NAME, token, 2)
