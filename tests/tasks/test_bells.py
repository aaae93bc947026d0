"""Bells through a real broker: what is rung, and what happens when nobody is there."""

import json
import time

import redis
from celery import Celery

from tasks.bells import LOOKS_AT_ONCE, CeleryBells
from tasks.config import celery_config
from tern.domain.control import Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.metrics import BELLS
from tern.ports import Due, DueControl
from tern.settings import Settings

NAME = ScopeName(ApplyId("apl-0123456789abcdef"), "us-east")


def app_for(url: str) -> Celery:
    app = Celery("tern-test", set_as_current=False)
    app.config_from_object(celery_config(Settings(broker_url=url)))
    return app


def test_control_is_a_chain_of_ids_and_nothing_else(broker_url: str) -> None:
    with app_for(broker_url) as app:
        CeleryBells(app).control(DueControl(7, NAME, Verb.STOP))
    with redis.Redis.from_url(broker_url) as client:
        messages = client.lrange("control", 0, -1)
    assert len(messages) == 1
    message = json.loads(messages[0])
    assert message["headers"]["task"] == "tern.operation.stop"
    import base64  # noqa: PLC0415

    args, kwargs, embed = json.loads(base64.b64decode(message["body"]))
    assert args == []
    assert kwargs == {"operation_id": "7", "scope": str(NAME)}
    (then,) = embed["chain"]
    assert then["task"] == "tern.operation.progress"
    assert then["kwargs"] == kwargs
    assert then["immutable"]


def test_each_bell_reaches_the_queue_of_its_kind(broker_url: str) -> None:
    with app_for(broker_url) as app:
        bells = CeleryBells(app)
        bells.dispatch(Due(7, NAME))
        bells.progress(Due(7, NAME))
        bells.poll("us-east")
        bells.advance(NAME.apply_id)
    with redis.Redis.from_url(broker_url) as client:
        assert {queue: client.llen(queue) for queue in ("dispatch", "poll", "control")} == {
            "dispatch": 1,
            "poll": 2,
            "control": 1,
        }


def test_a_burst_of_looks_is_left_to_the_sweep(broker_url: str) -> None:
    """A small rollout is seen at once; a large one has no message a look beside the poll that the sweep rings."""
    with app_for(broker_url) as app:
        bells = CeleryBells(app)
        for number in range(1, 10 * LOOKS_AT_ONCE):
            bells.progress(Due(number, NAME))
    with redis.Redis.from_url(broker_url) as client:
        # It may have taken more than one second.
        assert LOOKS_AT_ONCE <= client.llen("poll") < 9 * LOOKS_AT_ONCE


def test_broker_that_is_away_costs_the_ringer_one_try() -> None:
    """G11: never an error, and a thousand bells don't wait a thousand times."""
    with app_for("redis://127.0.0.1:1/0") as app:
        bells = CeleryBells(app)
        begun = time.monotonic()
        bells.dispatch(Due(7, NAME))
        one = time.monotonic() - begun
        begun = time.monotonic()
        for number in range(1, 1000):
            bells.dispatch(Due(number, NAME))
        assert time.monotonic() - begun < max(one * 20, 0.5)


def test_broker_that_refuses_disturbs_nobody(broker_url: str) -> None:
    """G11: what was committed before the bell stays answered as committed; other bells are rung."""
    with app_for(broker_url) as app, redis.Redis.from_url(broker_url) as client:
        client.set("dispatch", "somebody else's")
        bells = CeleryBells(app)
        bells.dispatch(Due(7, NAME))
        bells.poll("us-east")
        assert client.llen("poll") == 1


def test_what_is_rung_and_what_the_broker_does_not_take_is_counted(broker_url: str) -> None:
    """G11: nobody loses anything by it, but somebody should see it; what is not even tried is not counted."""
    before = {outcome: BELLS.read().get((outcome,), 0) for outcome in ("rung", "failed")}
    with app_for(broker_url) as app:
        bells = CeleryBells(app)
        bells.poll("us-east")
        bells.control(DueControl(7, NAME, Verb.STOP))
    with app_for("redis://127.0.0.1:1/0") as app:
        bells = CeleryBells(app)
        bells.poll("us-east")
        bells.poll("us-west")
        bells.advance(NAME.apply_id)
    now = {outcome: BELLS.read().get((outcome,), 0) - count for outcome, count in before.items()}
    assert now == {"rung": 2, "failed": 2}
