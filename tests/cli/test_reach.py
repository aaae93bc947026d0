"""Opening what a command needs, and ringing where somebody listens."""

import socket

import pytest

from tern.cli import reach
from tern.settings import Settings
from tern.wiring import Silent


def test_a_broker_that_listens_is_no_trouble(broker_url: str) -> None:
    assert reach.broker_trouble(broker_url) == ""


def test_each_trouble_with_a_broker_is_told_without_its_password() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        words = reach.broker_trouble(f"redis://:hunter2@127.0.0.1:{port}/0")
    assert f"127.0.0.1:{port} does not answer" in words
    assert "hunter2" not in words
    assert "no usable port" in reach.broker_trouble("redis://h:port")
    assert "not set" in reach.broker_trouble("")
    assert reach.broker_trouble("redis+socket:///somewhere") == ""


def test_without_a_broker_bells_are_silent_and_the_person_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(reach.bells(Settings(broker_url="")), Silent)
    assert "written down all the same" in capsys.readouterr().err
