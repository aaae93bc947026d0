"""A pooler that gives each transaction whatever session is free, as PgBouncer does with pool_mode=transaction.

It speaks PostgreSQL's protocol on both sides: the sessions behind it are real ones, made beforehand, and their
messages go through unread but for ReadyForQuery, which says whether a transaction is over.
"""

import os
import queue
import socket
import struct
import threading
from typing import Any, Self

import psycopg

_SSL_REQUEST = 80877103
_READY = b"Z"


class _Stream:
    """Messages on a socket."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            more = self.stream.recv(size - len(found))
            if not more:
                raise EOFError
            found += more
        return found

    def message(self) -> tuple[bytes, bytes]:
        kind = self.read(1)
        length = self.read(4)
        return kind, kind + length + self.read(struct.unpack("!I", length)[0] - 4)


class Pooler:
    """`sessions` of the database, for any number of clients. A context manager; `url` is where clients connect."""

    def __init__(self, database_url: str, sessions: int, *, in_turn: bool = False) -> None:
        """in_turn: the session that was idle longest is given, as with server_round_robin."""
        self.sessions: list[psycopg.Connection[Any]] = [
            psycopg.connect(database_url) for _ in range(sessions)
        ]
        self._free: queue.Queue[_Stream | None] = queue.Queue() if in_turn else queue.LifoQueue()
        for session in self.sessions:
            session.execute("SELECT 1")
            session.commit()
            # libpq stays connected and is not asked for anything while clients are served over the same socket.
            self._free.put(_Stream(socket.socket(fileno=os.dup(session.pgconn.socket))))
            session.pgconn.nonblocking = 0
        self._streams = list(self._free.queue)
        for each in self._streams:
            each.stream.settimeout(None)
        self._listener = socket.create_server(("127.0.0.1", 0))
        info = self.sessions[0].info
        self.url = f"postgresql://{info.user}@127.0.0.1:{self._listener.getsockname()[1]}/{info.dbname}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for each in self._streams:
            each.stream.close()
        for session in self.sessions:
            session.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(_Stream(client),), daemon=True).start()

    def _serve(self, client: _Stream) -> None:
        held: _Stream | None = None
        try:
            _greet(client)
            while True:
                kind, message = client.message()
                if kind == b"X":
                    return
                held = held or self._free.get()
                assert held is not None
                held.stream.sendall(message)
                if kind in {b"Q", b"S"} and _is_over(held, client):
                    self._free.put(held)
                    held = None
        except (EOFError, OSError):
            return
        finally:
            client.stream.close()
            if held is not None:
                self._take_back(held)

    def _take_back(self, held: _Stream) -> None:
        """What a client left in the middle of a transaction is rolled back before the next one gets it."""
        try:
            held.stream.sendall(b"Q" + struct.pack("!I", 13) + b"ROLLBACK\x00")
            while held.message()[0] != _READY:
                pass
            self._free.put(held)
        except (EOFError, OSError):
            return


def _greet(client: _Stream) -> None:
    while True:
        size, code = struct.unpack("!II", client.read(8))
        client.read(size - 8)
        if code != _SSL_REQUEST:
            break
        client.stream.sendall(b"N")
    told = b"".join(
        _one(b"S", name.encode() + b"\x00" + value.encode() + b"\x00")
        for name, value in (
            ("server_version", "18.0"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
            ("TimeZone", "UTC"),
        )
    )
    ready = _one(b"R", struct.pack("!I", 0)) + told + _one(b"K", struct.pack("!II", 1, 1)) + _one(b"Z", b"I")
    client.stream.sendall(ready)


def _is_over(held: _Stream, client: _Stream) -> bool:
    """Hands on what comes until the session is ready again; whether that ended its transaction."""
    gone = False
    while True:
        kind, message = held.message()
        if not gone:
            try:
                client.stream.sendall(message)
            except OSError:
                gone = True
        if kind == _READY:
            return message[-1:] == b"I"


def _one(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body
