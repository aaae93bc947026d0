"""The relay cuts when it is told to, and lets through what comes after."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.relay import Relay


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that says back what it hears."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=say_back, args=(connection,), daemon=True).start()

    def say_back(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(100):
                    connection.sendall(data)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_cut_is_a_reset_and_new_connections_pass(echo: int) -> None:
    with Relay(echo) as relay:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as connection:
            connection.sendall(b"hello")
            assert connection.recv(100) == b"hello"
            relay.cut()
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
        with socket.create_connection(("127.0.0.1", relay.port), timeout=5) as connection:
            connection.sendall(b"again")
            assert connection.recv(100) == b"again"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", relay.port), timeout=5)
