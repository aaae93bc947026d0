"""Messages of any shape: thrown away one by one, and no worker ends by one."""

import base64
import json
from types import SimpleNamespace

import pytest
import redis
from celery.exceptions import InvalidTaskError

from tasks import strategy
from tasks.app import app
from tasks.bells import CeleryBells
from tern.domain.control import Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.ports import Due, DueControl
from tests.tasks.test_bells import app_for

BODY = [[], {"apply_id": "apl-1"}, {"callbacks": None, "chain": []}]
HEADERS = {"id": "1", "task": "tern.sweep", "eta": None, "expires": "2026-01-01", "timelimit": [None, 3]}
BELL = {
    "task": "tern.operation.progress", "args": [], "kwargs": {"operation_id": "7", "scope": "apl-1/A"}, "options": {},
}  # fmt: skip


@pytest.mark.parametrize("payload", [None, 5, "text", [], [1], {"a": 1}, [[], {}], [{}, [], {}], [[], {}, 3]])
def test_a_body_of_another_shape_is_an_invalid_task(payload: object) -> None:
    with pytest.raises(InvalidTaskError):
        strategy.check_shape(payload, HEADERS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": None},
        {"id": 3},
        {"eta": 5},
        {"eta": "9999-12-31T23:59:59"},
        {"expires": []},
        {"shadow": [None]},
        {"retries": "many"},
        {"stamps": 1},
        {"stamped_headers": {}},
        {"timelimit": "x"},
        {"timelimit": ["x", {}]},
    ],
)
def test_headers_of_another_shape_are_an_invalid_task(wrong: dict[str, object]) -> None:
    strategy.check_shape(BODY, HEADERS)
    with pytest.raises(InvalidTaskError):
        strategy.check_shape(BODY, {**HEADERS, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"errbacks": 1},
        {"errbacks": "x"},
        {"callbacks": [BELL]},
        {"chord": BELL},
        {"chain": "x"},
        {"chain": BELL},
        {"chain": [1]},
        {"chain": [BELL, {**BELL, "task": "os.system"}]},
        {"chain": [{**BELL, "kwargs": {}}]},
        {"chain": [{**BELL, "args": [1]}]},
        {"chain": [{**BELL, "options": None}]},
    ],
)
def test_what_comes_next_is_a_bell_or_the_message_is_invalid(wrong: dict[str, object]) -> None:
    """Celery fails at it after the task, acknowledges nothing, and four such messages made a worker deaf."""
    strategy.check_shape([[], {}, {"chain": [BELL, BELL]}], HEADERS)
    with pytest.raises(InvalidTaskError):
        strategy.check_shape([[], {}, wrong], HEADERS)


def test_every_bell_of_ours_has_the_shape(broker_url: str) -> None:
    scope = ScopeName(ApplyId("apl-1"), "A")
    with app_for(broker_url) as rung, redis.Redis.from_url(broker_url) as client:
        bells = CeleryBells(rung)
        bells.control(DueControl(7, scope, Verb.STOP))
        bells.dispatch(Due(7, scope))
        bells.poll("A")
        messages = [
            json.loads(each)
            for queue in ("control", "dispatch", "poll")
            for each in client.lrange(queue, 0, -1)
        ]
    assert len(messages) == 3
    for message in messages:
        strategy.check_shape(json.loads(base64.b64decode(message["body"])), message["headers"])


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
