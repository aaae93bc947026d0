"""A TCP relay that can cut: everything through it is reset, at an instant that a test chooses."""

import contextlib
import socket
import struct
import threading
import time
from typing import Self

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_FRAME = 64


class Relay:
    """Listens on a free port of loopback and passes bytes on to `port`, until it is cut or closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._swallows = False
        self.lag_s = 0.0
        """How long each answer takes on its way; leaves time to break something in the middle of a call."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        """Where an engine client connects."""
        return f"grpc://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Resets every connection. New ones are let through."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        # From here on no pump says goodbye: an orderly end that overtakes the reset would not be a cut.
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it; sends nothing
                end.close()

    def swallow_next_answer(self) -> None:
        """Whatever the server says next is not passed on, and everything is cut: it has acted, nobody hears."""
        self._swallows = True

    def close(self) -> None:
        """Cuts, and lets nothing through any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink, is_answer in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pump, args=(source, sink, is_answer), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:  # noqa: FBT001
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_answer and self.lag_s:
                    time.sleep(self.lag_s)
                # Long enough to be an answer, and no mere acknowledgement of the protocol's.
                if self._swallows and is_answer and len(data) > _FRAME:
                    self._swallows = False
                    self.cut()
                    return
                sink.sendall(data)
            with self._lock:
                if any(sink in pair for pair in self._pairs):
                    sink.shutdown(socket.SHUT_WR)
