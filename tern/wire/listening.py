"""What every server of ours needs before it can answer: a port, TLS or a reason to do without, and a quiet end."""

import contextlib
import ipaddress
import secrets
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import grpc

from tern import hangup
from tern.wire.certificates import CertificateFiles

OPTIONS: tuple[tuple[str, int], ...] = (
    # A second process on the same port must fail, not take every other call.
    ("grpc.so_reuseport", 0),
    # Clients may ask every ten seconds whether we are there, also between calls.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


HIGHEST_PORT = 65_535


class Listener(Protocol):
    """Something that serves between start and stop."""

    def start(self) -> int:
        """Serves from now on; returns the port. Raises OSError, ValueError."""

    def stop(self) -> None:
        """Ends calls; idempotent."""


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach an address."""
    if listen.startswith(("unix:", "unix-abstract:")):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def server_credentials(
    cert: str | None, key: str | None, client_ca: str | None
) -> grpc.ServerCredentials | None:
    """TLS from files; None where none is named. With a client_ca, clients show a certificate too.

    What is renewed there is used from the next handshake on. Raises ValueError where one half is missing or the two
    don't fit, OSError for a file that can't be read.
    """
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        message = "TLS needs both a certificate and its key"
        raise ValueError(message)
    files = CertificateFiles(Path(cert), Path(key), None if client_ca is None else Path(client_ca))
    return grpc.dynamic_ssl_server_credentials(
        files.first,
        files.renewed,  # type: ignore[arg-type] # its types know nothing of None, which its own words ask for
        require_client_authentication=client_ca is not None,
    )


def check_plaintext(
    listen: str, credentials: grpc.ServerCredentials | None, *, asked_for: bool, has_token: bool = False
) -> None:
    """What anybody on the way could read is said to this machine only, or explicitly; a token never. Raises
    ValueError.
    """
    if credentials is None and has_token and not is_loopback(listen):
        message = (
            f"{listen} is no loopback address, and tokens would come in the clear: give a TLS certificate"
        )
        raise ValueError(message)
    if credentials is None and not asked_for and not is_loopback(listen):
        message = f"{listen} is no loopback address: give a TLS certificate, or ask for plaintext explicitly"
        raise ValueError(message)


def bind(server: grpc.Server, listen: str, credentials: grpc.ServerCredentials | None) -> int:
    """The port; raises OSError where it can't be had."""
    port_said = listen.rpartition(":")[2]
    if port_said.isdecimal() and int(port_said) > HIGHEST_PORT:
        # gRPC would take what is left of it after a division.
        message = f"can't listen on {listen}: there is no port {port_said}"
        raise OSError(message)
    try:
        port = (
            server.add_insecure_port(listen)
            if credentials is None
            else server.add_secure_port(listen, credentials)
        )
    except RuntimeError:
        port = 0
    if port == 0:
        message = f"can't listen on {listen}{_why_not(listen)}"
        raise OSError(message)
    return port


def _why_not(listen: str) -> str:
    """What the machine says of an address that gRPC could not have; gRPC itself doesn't tell."""
    host, _, port = listen.rpartition(":")
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(place)
    except (OSError, UnicodeError) as error:
        return f": {getattr(error, 'strerror', None) or error}"
    return ""


def run(
    server: Listener,
    announce: Callable[[int], None],
    leave: Callable[[], None],
    *,
    port_file: Path | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, whatever terminal closes. Only for a process's main thread.

    `announce` is told the port, `leave` that it was told to end; `port_file` receives the port in one write, so that a
    reader never sees half.
    """
    done = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: done.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    previous |= {number: signal.signal(number, signal.SIG_IGN) for number in hangup.HARMLESS}
    try:
        port = server.start()
        if port_file is not None:
            draft = port_file.with_name(f"{port_file.name}.{secrets.token_hex(4)}")
            draft.write_text(f"{port}\n")
            draft.replace(port_file)
        announce(port)
        done.wait()
        leave()
    finally:
        server.stop()
        for number, handler in previous.items():
            signal.signal(number, handler)
