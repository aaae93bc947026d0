"""gRPC channels: one per address and secrets in a process, opened when first needed, shared by all threads."""

import re
import threading
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from tern.domain.model import Credentials
from tern.domain.outcome import TLS_FAILED
from tern.wire.credentials import Endpoint, Secrets, check_plaintext, read_secrets
from tern.wire.outcomes import known_reason
from tern.wire.transport import (
    Answer,
    AnswerT,
    CallFailed,
    Done,
    Metadata,
    Method,
    NotSent,
    RequestT,
    closing,
    read_identity,
)

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
LINKS_KEPT = 4
"""So many channels to one address stay open, for different certificates."""
_NO_TRUST = re.compile(
    r"handshake failed|SSL_ERROR|CERTIFICATE|Peer name .* is not in peer cert", re.IGNORECASE
)
"""What grpc says where somebody is there and one of the two does not trust the other. No status code tells that from
silence.
"""

OPTIONS: dict[str, int] = {
    # Whether a call may be repeated is decided by what its answer means (G4), never by the library.
    "grpc.enable_retries": 0,
    # An engine that comes back is found within seconds; the default would let the backoff grow to two minutes.
    "grpc.initial_reconnect_backoff_ms": 250,
    "grpc.min_reconnect_backoff_ms": 2_000,
    "grpc.max_reconnect_backoff_ms": 2_000,
    # Also sets TCP_USER_TIMEOUT: a connection into a black hole is given up instead of eating every later call.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.keepalive_permit_without_calls": 0,
    "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
    "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
    # Otherwise a new channel inherits the backoff of the one that it replaces.
    "grpc.use_local_subchannel_pool": 1,
}


class Link:
    """A channel with its methods, each made once: making one costs as much as a short call."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self._methods: dict[str, Any] = {}

    def method(self, method: Method[RequestT, AnswerT]) -> "Callable[..., tuple[AnswerT, grpc.Call]]":
        """The callable of one RPC; beside the answer it gives what came with it."""
        return cast("Callable[..., tuple[AnswerT, grpc.Call]]", self._made(method).with_call)

    def later(self, method: Method[RequestT, AnswerT]) -> "Callable[..., grpc.Future[Any]]":
        """The same for somebody who does not wait."""
        return cast("Callable[..., grpc.Future[Any]]", self._made(method).future)

    def _made(self, method: Method[RequestT, AnswerT]) -> Any:
        found = self._methods.get(method.path)
        if found is None:
            found = self.channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.answer.FromString,
            )
            self._methods[method.path] = found
        return found


class Channels:
    """The channels of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[tuple[Endpoint, Secrets], Link] = {}
        self._left: WeakSet[Link] = WeakSet()
        self._closed = False

    def link(self, endpoint: Endpoint, secrets: Secrets) -> Link:
        """The channel to the endpoint; rotated certificates get a new one. Raises NotSent."""
        # The token travels with each call, so a new one needs no new connection.
        key = (endpoint, Secrets("", secrets.tls_ca, secrets.tls_cert, secrets.tls_key))
        with self._lock:
            if self._closed:
                raise closing()
            found = self._links.get(key)
            if found is None:
                found = self._links[key] = Link(_open(endpoint, secrets))
                # Certificates that were renewed day after day: the oldest are nobody's any more.
                for old in [each for each in self._links if each[0] == endpoint][:-LINKS_KEPT]:
                    self._left.add(self._links.pop(old))
            return found

    def give_up(self, silent: Link) -> None:
        """The next call makes a new connection. Calls that are under way on this one may still be answered."""
        with self._lock:
            for key, link in list(self._links.items()):
                if link is silent:
                    self._left.add(self._links.pop(key))

    def close(self) -> None:
        """Ends every channel; calls under way end as CANCELLED, which is Unknown."""
        with self._lock:
            self._closed = True
            links = [*self._links.values(), *self._left]
            self._links.clear()
        for link in links:
            link.channel.close()


def _open(endpoint: Endpoint, secrets: Secrets) -> grpc.Channel:
    options: list[tuple[str, int]] = list(OPTIONS.items())
    if endpoint.is_loopback:
        # A proxy from the environment would carry plaintext that is meant for this machine away from it.
        options.append(("grpc.enable_http_proxy", 0))
    if not endpoint.is_secure:
        return grpc.insecure_channel(endpoint.authority, options=options)
    tls = grpc.ssl_channel_credentials(
        root_certificates=secrets.tls_ca,
        private_key=secrets.tls_key,
        certificate_chain=secrets.tls_cert,
    )
    return grpc.secure_channel(endpoint.authority, tls, options=options)


class GrpcTransport:
    """Calls to one engine over its channel."""

    def __init__(self, channels: Channels, endpoint: Endpoint, credentials: Credentials) -> None:
        self._channels = channels
        self._endpoint = endpoint
        self._credentials = credentials

    def call(
        self, method: Method[RequestT, AnswerT], request: RequestT, *, timeout_s: float, metadata: Metadata
    ) -> Answer[AnswerT]:
        """The answer; raises NotSent or CallFailed."""
        secrets, link, headers = self._prepared(request, metadata)
        try:
            message, call = link.method(method)(
                request, timeout=timeout_s, metadata=headers, wait_for_ready=False
            )
            return Answer(message, read_identity(call.trailing_metadata() or ()))
        except grpc.RpcError as error:
            raise self._failed(error, link, secrets) from None
        except ValueError:
            # grpc's word for a channel that was closed before the call began.
            raise closing() from None

    def call_later(
        self,
        method: Method[RequestT, AnswerT],
        request: RequestT,
        *,
        timeout_s: float,
        metadata: Metadata,
        done: Done[AnswerT],
    ) -> None:
        """See Transport. The callback comes on a thread of grpc's."""
        try:
            secrets, link, headers = self._prepared(request, metadata)
            future = link.later(method)(
                request, timeout=timeout_s, metadata=tuple(headers), wait_for_ready=False
            )
        except (NotSent, CallFailed) as failed:
            done(failed)
            return
        except ValueError:
            done(closing())
            return

        def answered(ended: Any) -> None:
            try:
                found = ended.result()
            except grpc.RpcError as error:
                done(self._failed(error, link, secrets))
            except grpc.FutureCancelledError:
                done(closing())
            else:
                done(Answer(found, read_identity(ended.trailing_metadata() or ())))

        future.add_done_callback(answered)

    def _failed(self, error: grpc.RpcError, link: Link, secrets: Secrets) -> CallFailed:
        failed = _failure(error, secrets)
        if failed.code == grpc.StatusCode.DEADLINE_EXCEEDED.name:
            # A network that lost the connection's packets may let a new one through, while pings, which are sent only
            # beside a call, find out about the old one a minute later.
            self._channels.give_up(link)
        return failed

    def _prepared(self, request: RequestT, metadata: Metadata) -> tuple[Secrets, Link, list[tuple[str, str]]]:
        check_plaintext(self._endpoint, self._credentials)
        secrets = read_secrets(self._credentials)
        link = self._channels.link(self._endpoint, secrets)
        size = request.ByteSize()
        if size > MESSAGE_BYTES_MAX:
            # gRPC itself would say RESOURCE_EXHAUSTED, which is what an overloaded engine says too.
            reason = "REQUEST_TOO_LARGE"
            raise NotSent(reason, f"the request has {size} bytes, more than {MESSAGE_BYTES_MAX}")
        headers = [*metadata]
        if secrets.token:
            headers.append(("authorization", f"Bearer {secrets.token}"))
        return secrets, link, headers


def _failure(error: grpc.RpcError, secrets: Secrets) -> CallFailed:
    call = cast("grpc.Call", error)  # what grpc raises from a unary call is both
    code = call.code()
    message = call.details() or ""
    if secrets.token:
        message = message.replace(secrets.token, "…")
    reason = _reason(call)
    if not reason and code is grpc.StatusCode.UNAVAILABLE and _NO_TRUST.search(message):
        reason = TLS_FAILED
    return CallFailed(code.name, message, reason, read_identity(call.trailing_metadata() or ()))


def _reason(error: grpc.Call) -> str:
    """The reason of the ErrorInfo of our domain. Details are the engine's and may be garbage."""
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == "tern":
                return known_reason(info.reason)
    except Exception:  # noqa: BLE001 - whatever they hold, the call has failed and its code says how
        return ""
    return ""
