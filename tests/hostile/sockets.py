"""What arrives at a port when it is no gRPC: other protocols, half a protocol, frames that lie."""

import contextlib
import socket
import struct
from collections.abc import Iterator

from tests.hostile.garbage import Garbage

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
CONTENT_TYPES = (
    "application/json",
    "text/html",
    "application/grpc+json",
    "application/grpc-web",
    "application/grpc;",
    "APPLICATION/GRPC",
    "grpc",
    "",
)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """An HTTP/2 frame."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def headers(path: str, *, method: str = "POST", **more: str) -> bytes:
    """A header block with nothing compressed: each name and value with its length before it."""
    fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(
        b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )


def body(message: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix, true or false."""
    return struct.pack(">BI", compressed, len(message) if length is None else length) + message


def conversations(path: str, garbage: Garbage, times: int) -> Iterator[bytes]:
    """Whole conversations from the caller's side."""
    opening = PREFACE + SETTINGS
    for kind in CONTENT_TYPES:
        block = headers(path, content_type=kind)
        yield opening + frame(1, 4, 1, block) + frame(0, 1, 1, body(b""))
    grpc = {"content_type": "application/grpc"}
    yield opening + frame(1, 5, 1, headers(path, method="GET", **grpc))
    yield opening + frame(1, 5, 1, headers(path, **grpc))
    yield opening + frame(1, 4, 1, headers(path, **grpc)) + frame(0, 1, 1, body(b"x" * 9, compressed=1))
    yield (
        opening
        + frame(1, 4, 1, headers(path, grpc_encoding="gzip", **grpc))
        + frame(0, 1, 1, body(b"x", compressed=1))
    )
    yield opening + frame(1, 4, 1, headers(path, **grpc)) + frame(0, 1, 1, body(b"abc", length=2**32 - 1))
    yield opening + frame(1, 4, 1, headers(path, **grpc)) + frame(0, 1, 1, b"\x00\x00")
    yield opening + frame(1, 4, 1, headers(path, grpc_timeout="1n", **grpc)) + frame(0, 1, 1, body(b""))
    yield opening + frame(1, 4, 1, headers(path, grpc_timeout="nonsense", **grpc)) + frame(0, 1, 1, body(b""))
    yield opening + frame(1, 0, 1, b"\xff" * 50)
    yield opening + frame(0, 0, 7, b"out of nowhere")
    yield opening + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2
    yield opening + b"".join(
        frame(1, 5, n, headers(path, **grpc)) + frame(3, 0, n, b"\x00\x00\x00\x08") for n in range(1, 400, 2)
    )
    yield PREFACE
    yield b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)
    yield b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
    yield b""
    for _ in range(times):
        yield garbage.one_of((b"", PREFACE, opening)) + garbage.noise(2_000)
        yield opening + b"".join(
            frame(
                garbage.random.randrange(12),
                garbage.random.randrange(256),
                garbage.random.randrange(9),
                garbage.noise(60),
            )
            for _ in range(5)
        )


def proper(path: str) -> bytes:
    """How it is done: an empty message to a method."""
    block = headers(path, content_type="application/grpc")
    return PREFACE + SETTINGS + frame(1, 4, 1, block) + frame(0, 1, 1, body(b""))


def talk(port: int, said: bytes, *, wait_s: float = 0.03) -> bytes:
    """Says it all, takes what comes back until nothing came for so long, and hangs up."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.settimeout(wait_s)
        with contextlib.suppress(OSError):
            connection.sendall(said)
            while part := connection.recv(65_536):
                heard += part
    return heard
