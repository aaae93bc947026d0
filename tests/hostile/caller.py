"""A caller without manners: garbage to every method of a gRPC server, from several threads at once."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from tests.hostile.garbage import TEXTS, Garbage, Override, path_of

THREADS = 4
DEADLINE_S = 20.0
WATCHED_S = 0.1
FENCES = (
    "",
    "0",
    "1",
    "3",
    "-1",
    "1e9",
    " 7",
    "0x10",
    "\u0663".encode().decode("latin-1"),
    "9" * 30,
    "9" * 18,
)
_CODES = grpc.StatusCode


@dataclass
class Heard:
    """What a server answered to so many calls."""

    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, path: str, code: grpc.StatusCode, details: str, *, allowed: frozenset[grpc.StatusCode]
    ) -> None:
        with self.lock:
            self.calls += 1
            self.codes[code.name] += 1
            if code not in allowed:
                self.wrong.append(f"{path}: {code.name}: {details[:200]}")


ANSWERS = frozenset(
    {
        _CODES.OK,
        _CODES.INVALID_ARGUMENT,
        _CODES.NOT_FOUND,
        _CODES.ALREADY_EXISTS,
        _CODES.FAILED_PRECONDITION,
        _CODES.OUT_OF_RANGE,
        _CODES.UNIMPLEMENTED,
        _CODES.RESOURCE_EXHAUSTED,
        _CODES.UNAUTHENTICATED,
        _CODES.PERMISSION_DENIED,
    }
)
"""How a server may answer a message that can be read."""
UNREADABLE = ANSWERS | {_CODES.INTERNAL}
"""What is no message at all never reaches us: the library answers INTERNAL for it, as every gRPC library does."""
GIVEN_UP = UNREADABLE | {_CODES.DEADLINE_EXCEEDED, _CODES.CANCELLED}
"""What a caller hears that did not wait."""


class Caller:
    """Calls every method of some services with garbage, `calls` times together."""

    def __init__(
        self,
        target: str,
        services: Sequence[ServiceDescriptor],
        *,
        override: Override | None = None,
        metadata: Callable[[Garbage], tuple[tuple[str, str], ...]] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._methods = [method for service in services for method in service.methods]
        self._override = override
        self._metadata = metadata or strange_metadata
        self._credentials = credentials

    def call(self, calls: int) -> Heard:
        heard = Heard()
        with ThreadPoolExecutor(THREADS) as threads:
            shares = [
                threads.submit(self._share, number, calls // THREADS, heard) for number in range(THREADS)
            ]
        for share in shares:
            share.result()
        return heard

    def _share(self, number: int, calls: int, heard: Heard) -> None:
        garbage = Garbage(f"caller {number}", self._override)
        with self._open() as channel:
            for turn in range(calls):
                self._one(channel, garbage, self._methods[turn % len(self._methods)], heard)

    def _open(self) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self._credentials is not None:
            return grpc.secure_channel(self._target, self._credentials, options)
        return grpc.insecure_channel(self._target, options)

    def _one(self, channel: grpc.Channel, garbage: Garbage, method: MethodDescriptor, heard: Heard) -> None:
        path = path_of(method)
        metadata = self._metadata(garbage)
        if method.server_streaming:
            # It may have something to tell for as long as somebody listens.
            self._unary(
                channel, path, garbage.encoded(method.input_type), metadata, heard, GIVEN_UP, WATCHED_S
            )
            return
        match garbage.random.randrange(40):
            case 0:
                strange = garbage.one_of((f"{path}x", "/", "//", path.lower(), f"/{method.name}", "/a/b/c"))
                self._unary(channel, strange, garbage.noise(), metadata, heard, UNREADABLE)
            case 1:
                self._unary(channel, path, garbage.noise(5_000_000), metadata, heard, UNREADABLE)
            case 2:
                impatient = garbage.one_of((0.0001, 0.001, 0.003))
                self._unary(
                    channel, path, garbage.encoded(method.input_type), metadata, heard, GIVEN_UP, impatient
                )
            case 3:
                self._several(channel, garbage, method, metadata, heard)
            case 4 | 5 | 6 | 7:
                self._unary(channel, path, garbage.encoded(method.input_type), metadata, heard, UNREADABLE)
            case _:
                message = garbage.message(method.input_type).SerializeToString()
                self._unary(channel, path, message, metadata, heard, ANSWERS)

    def _unary(
        self,
        channel: grpc.Channel,
        path: str,
        request: bytes,
        metadata: tuple[tuple[str, str], ...],
        heard: Heard,
        allowed: frozenset[grpc.StatusCode],
        timeout_s: float = DEADLINE_S,
    ) -> None:
        method = channel.unary_stream(path, request_serializer=None, response_deserializer=None)
        self._listen(path, method(request, timeout=timeout_s, metadata=metadata), heard, allowed)

    def _several(
        self,
        channel: grpc.Channel,
        garbage: Garbage,
        method: MethodDescriptor,
        metadata: tuple[tuple[str, str], ...],
        heard: Heard,
    ) -> None:
        """None, or more than one, where one message is expected; or a caller that hangs up."""
        path = path_of(method)
        wanted = garbage.random.randrange(4)
        requests = [garbage.encoded(method.input_type) for _ in range(wanted)]
        stream: Any = channel.stream_stream(path, request_serializer=None, response_deserializer=None)
        call = stream(iter(requests), timeout=DEADLINE_S, metadata=metadata)
        if garbage.happens(0.5):
            call.cancel()
        self._listen(path, call, heard, GIVEN_UP)

    def _listen(self, path: str, call: Any, heard: Heard, allowed: frozenset[grpc.StatusCode]) -> None:
        try:
            for _ in call:
                pass
        except grpc.RpcError:
            heard.note(path, call.code(), call.details() or "", allowed=allowed)
        else:
            heard.note(path, _CODES.OK, "", allowed=allowed)


def strange_metadata(garbage: Garbage) -> tuple[tuple[str, str], ...]:
    """Headers that are nearly what Tern sends, and some that nobody does."""
    pairs: list[tuple[str, Any]] = []
    if garbage.happens(0.6):
        pairs.append(("tern-operation", _header(garbage.one_of(TEXTS))))
    if garbage.happens(0.5):
        pairs.append(("tern-fence", garbage.one_of(("0", "1", "7"))))
    if garbage.happens(0.2):
        pairs.append(("tern-fence", _header(garbage.one_of(FENCES))))
    if garbage.happens(0.1):
        pairs.append(("authorization", _header(garbage.one_of(TEXTS))))
    if garbage.happens(0.1):
        pairs.append((f"x-{garbage.random.randrange(9)}-bin", garbage.noise()))
    if garbage.happens(0.02):
        pairs.append(("x-long", "x" * 7_000))
    return tuple(pairs)


def _header(text: str) -> str:
    """As much of a text as HTTP takes."""
    return "".join(letter for letter in text if " " <= letter <= "~")[:2_000]
