"""What ends a connection to the broker and what doesn't; whole workers are in tests/e2e/test_broker.py."""

import logging
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import InvalidTaskError
from kombu.message import Message

from tasks.config import celery_config
from tasks.consumer import Listener
from tern.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore::celery.exceptions.SecurityWarning"),
    pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning"),
]


class Channel:
    """One whose broker refuses everything, or nothing."""

    no_ack_consumers = None

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.gone: list[str] = []

    def basic_ack(self, tag: str, *, multiple: bool = False) -> None:
        self._do(tag)

    def basic_reject(self, tag: str, *, requeue: bool = False) -> None:
        self._do(tag)

    def _do(self, tag: str) -> None:
        if self.error is not None:
            raise self.error
        self.gone.append(tag)


class TaskConsumer:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel


@pytest.fixture
def listener() -> Listener:
    """Of a worker that was never started."""
    app = Celery("tern-test", set_as_current=False)
    app.config_from_object(celery_config(Settings(broker_url="redis://127.0.0.1:1/0")))
    worker: Any = app.Worker(hostname="w@test", quiet=True)
    assert isinstance(worker.consumer, Listener)
    return worker.consumer


def listening(listener: Any, channel: Channel) -> None:
    listener.task_consumer = TaskConsumer(channel)


def message(channel: Channel) -> Message:
    return Message(body="{}", delivery_tag="tag", channel=channel, headers={"id": "1", "task": "none"})


@pytest.mark.parametrize("error", [AttributeError("no hostname"), ConnectionResetError(), KeyError("fd")])
def test_acknowledgement_that_fails_ends_the_connection(listener: Any, error: Exception) -> None:
    """Forgotten, it would take a place of the worker's for ever."""
    channel = Channel(error)
    listening(listener, channel)
    with pytest.raises(type(error)):
        listener._acknowledge(message(channel).ack_log_error, logging.getLogger(), ())


def test_acknowledgement_over_a_connection_that_is_gone_is_nothing(listener: Any) -> None:
    """Its message was given back with it."""
    gone = Channel(AttributeError("no hostname"))
    listening(listener, Channel())
    listener._acknowledge(message(gone).ack_log_error, logging.getLogger(), ())
    listener.task_consumer = None
    listener._acknowledge(message(gone).ack_log_error, logging.getLogger(), ())


def test_acknowledgement_arrives(listener: Any) -> None:
    channel = Channel()
    listening(listener, channel)
    listener._acknowledge(message(channel).ack_log_error, logging.getLogger(), ())
    listener._acknowledge(message(channel).reject_log_error, logging.getLogger(), ())
    assert channel.gone == ["tag", "tag"]


def test_message_that_can_not_be_rejected_ends_the_connection(listener: Any) -> None:
    refusing, taking = Channel(ConnectionResetError()), Channel()
    for channel in (refusing, taking):
        listening(listener, channel)
        bad = message(channel)
        if channel is taking:
            listener.on_invalid_task(None, bad, InvalidTaskError("of another shape"))
            assert channel.gone == ["tag"]
            continue
        with pytest.raises(ConnectionError, match="rejected"):
            listener.on_invalid_task(None, bad, InvalidTaskError("of another shape"))


def test_connection_that_can_not_be_closed_is_given_up(listener: Any) -> None:
    """Closing one whose server is gone raised what Celery does not know, and the worker ended."""

    class Connection:
        transport = None

        def collect(self, **_: object) -> None:
            raise AttributeError("no hostname")

        def close(self) -> None:
            raise AttributeError("no hostname")

    listener.connection = Connection()
    listener.on_connection_error_after_connected(ConnectionResetError())
    assert listener.connection is None


def test_any_error_is_a_lost_connection(listener: Any) -> None:
    assert listener.connection_errors == (Exception,)
    assert not issubclass(SystemExit, listener.connection_errors)
