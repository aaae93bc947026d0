"""Many ports of loopback that lead to one engine, until they go dark: then every byte is taken and none comes back.

That is how a network looks that swallows packets: connections stand, new ones are made, and nobody ever answers. When
it is light again, new connections work; one that has lost bytes never says anything any more.
"""

import selectors
import socket
import threading
from typing import Self

_WAKES_S = 0.2


class BlackHoles:
    """`count` ports in front of `port`, on one thread. A context manager."""

    def __init__(self, port: int, count: int, *, dark: bool = False) -> None:
        self.is_dark = dark
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(count)]
        for listener in self._listeners:
            self._selector.register(listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._mute: set[socket.socket] = set()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def addresses(self) -> list[str]:
        """Where engine clients connect."""
        return [f"grpc://127.0.0.1:{listener.getsockname()[1]}" for listener in self._listeners]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(10)
        for each in [*self._listeners, *self._peers]:
            each.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._ends.is_set():
            for key, _ in self._selector.select(_WAKES_S):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready in self._listeners:
                    self._take(ready)
                elif ready in self._peers:
                    self._pass_on(ready)

    def _take(self, listener: socket.socket) -> None:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        self._peers |= {near: far, far: near}
        for end in (near, far):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        sink = self._peers[source]
        try:
            data = source.recv(65_536)
            if data and self.is_dark:
                self._mute |= {source, sink}
            if data and source not in self._mute:
                sink.sendall(data)
        except OSError:
            data = b""
        if data:
            return
        for end in (source, sink):
            self._selector.unregister(end)
            del self._peers[end]
            self._mute.discard(end)
            end.close()
