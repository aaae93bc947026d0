"""Messages of any shape: thrown away one by one, and no worker ends by one."""

from types import SimpleNamespace

import pytest
from celery.exceptions import InvalidTaskError

from tasks import strategy
from tasks.app import app

BODY = [[], {"apply_id": "apl-1"}, {"callbacks": None}]
HEADERS = {"id": "1", "task": "tern.sweep", "eta": None, "expires": "2026-01-01", "timelimit": [None, 3]}


@pytest.mark.parametrize("payload", [None, 5, "text", [], [1], {"a": 1}, [[], {}], [{}, [], {}], [[], {}, 3]])
def test_a_body_of_another_shape_is_an_invalid_task(payload: object) -> None:
    with pytest.raises(InvalidTaskError):
        strategy.check_shape(payload, HEADERS)


@pytest.mark.parametrize(
    "wrong",
    [{"id": None}, {"id": 3}, {"eta": 5}, {"expires": []}, {"timelimit": "x"}, {"timelimit": ["x", {}]}],
)
def test_headers_of_another_shape_are_an_invalid_task(wrong: dict[str, object]) -> None:
    strategy.check_shape(BODY, HEADERS)
    with pytest.raises(InvalidTaskError):
        strategy.check_shape(BODY, {**HEADERS, **wrong})


def test_every_task_looks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    app.finalize(auto=True)
    assert {task.Strategy for task in app.tasks.values()} == {"tasks.strategy:checked"}
    handled: list[object] = []
    monkeypatch.setattr(
        strategy, "default", lambda *_given, **_more: lambda message, *_rest: handled.append(message)
    )
    look = strategy.checked(None, None, None)
    good, bad = SimpleNamespace(payload=BODY, headers=HEADERS), SimpleNamespace(payload=[1], headers=HEADERS)
    look(good, None)
    for message, body in ((bad, None), (good, {"task": "tern.sweep"})):
        with pytest.raises(InvalidTaskError):
            look(message, body)
    assert handled == [good]
