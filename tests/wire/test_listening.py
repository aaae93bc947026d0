"""A server's own side of the network: who may reach it in plain text, and what ends it."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tern import hangup
from tern.wire.listening import bind, check_plaintext, is_loopback, run


def test_loopback_addresses_are_known() -> None:
    assert all(
        is_loopback(each) for each in ("127.0.0.1:0", "127.9.9.9:1", "[::1]:5", "localhost:5", "unix:/tmp/x")
    )


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:1", ":5", "localhost.example:1"]
)
def test_plaintext_to_other_machines_is_asked_for_or_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="no loopback address"):
        check_plaintext(listen, None, asked_for=False)
    check_plaintext(listen, None, asked_for=True)


@pytest.mark.parametrize("listen", ["127.0.0.1:65536", "[::1]:99999"])
def test_a_port_that_there_is_not_is_no_other_port(listen: str) -> None:
    with pytest.raises(OSError, match="there is no port"):
        bind(grpc.server(ThreadPoolExecutor(1)), listen, None)


class _Told:
    """Serves nothing; at its start its own process gets some signals."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self.is_stopped = False

    def start(self) -> int:
        for number in self._numbers:
            os.kill(os.getpid(), number)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return 1

    def stop(self) -> None:
        self.is_stopped = True


def test_a_terminal_that_closes_ends_no_server() -> None:
    """Nor does a habit of somebody's who wants logs or certificates read again."""
    before = [signal.getsignal(number) for number in hangup.HARMLESS]
    served, begun = _Told(*hangup.HARMLESS), time.monotonic()
    told: list[bool] = []
    run(served, lambda _port: None, lambda: told.append(served.is_stopped))
    assert (served.is_stopped, told) == (True, [False]), "that it ends is said before it ends"
    assert time.monotonic() - begun >= 0.2
    assert [signal.getsignal(number) for number in hangup.HARMLESS] == before
