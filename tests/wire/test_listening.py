"""A server's own side of the network: who may reach it in plain text."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tern.wire.listening import bind, check_plaintext, is_loopback


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
