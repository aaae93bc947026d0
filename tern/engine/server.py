"""The door for gRPC: thin adapters over service.py, errors with their reasons, credentials, health and reflection."""

import hmac
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from tern.engine.errors import EngineError, Reason, invalid, unavailable
from tern.engine.identity import EngineIdentity
from tern.engine.keys import CallContext
from tern.engine.service import EngineService
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.engine.v1 import engine_service_pb2_grpc as ours_grpc
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tern.wire.generated.tern.v1 import tern_pb2_grpc as contract_grpc
from tern.wire.listening import OPTIONS, bind, check_plaintext, server_credentials

DOMAIN = "tern"
OPERATION_KEY = "tern-operation"
FENCE_KEY = "tern-fence"
IDENTITY_KEY = "tern-engine"
THREADS = 16
# Below the seven seconds in which a terminated process has to be gone.
GRACE_SECONDS = 2.0
HIGHEST_FENCE = 2**63 - 1
_NAMED = tuple(
    f"/{service.full_name}/"
    for service in (
        contract.DESCRIPTOR.services_by_name["Tern"],
        ours.DESCRIPTOR.services_by_name["EngineService"],
    )
)
Tokens = Callable[[], Sequence[str]]
"""The bearer tokens that count at this moment."""
HEALTH_SERVICE = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"
log = structlog.get_logger(__name__)

# The method's name on the service below, under the RPC's own.
METHODS = {
    "Apply": "apply",
    "Progress": "progress",
    "Logs": "logs",
    "Cutover": "cutover",
    "Stop": "stop",
    "Start": "start_again",
    "Cancel": "cancel",
    "Health": "health",
    "Revert": "revert",
    "SkipRevert": "skip_revert",
    "Volume": "volume",
    "Plan": "plan",
    "PlanDiff": "plan_diff",
    "PullSchema": "pull_schema",
    "Resolve": "resolve",
    "BatchProgress": "batch_progress",
    "Preview": "preview",
}


class EngineServer:
    """An EngineService behind a port."""

    def __init__(
        self,
        dsn: str,
        listen: str,
        identity: EngineIdentity,
        *,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        tls_client_ca: str | None = None,
        token: str | Tokens | None = None,
        insecure_plaintext: bool = False,
    ) -> None:
        credentials = server_credentials(tls_cert, tls_key, tls_client_ca)
        check_plaintext(listen, credentials, asked_for=insecure_plaintext, has_token=bool(token))
        self.service = EngineService(dsn, identity, name="engine")
        self._listen = listen
        self._credentials = credentials
        self._token = token
        self._server: grpc.Server | None = None
        self._health = grpc_health.HealthServicer()
        self.port = 0

    def start(self) -> int:
        """Serves from now on; returns the port."""
        server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="tern-rpc"),
            # In this order: a stranger is told nothing, and so not which server this is.
            interceptors=[*([_TokenCheck(self._token)] if self._token else []), _Naming(self.service)],
            options=OPTIONS,
        )
        contract_grpc.add_TernServicer_to_server(_adapters(contract_grpc.TernServicer, self.service), server)
        ours_grpc.add_EngineServiceServicer_to_server(
            _adapters(ours_grpc.EngineServiceServicer, self.service), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [
            contract.DESCRIPTOR.services_by_name["Tern"].full_name,
            ours.DESCRIPTOR.services_by_name["EngineService"].full_name,
        ]
        reflection.enable_server_reflection(
            [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME],
            server,
        )
        # Bound before the service starts: a port that is taken must not have adopted anybody's jobs.
        self.port = bind(server, self._listen, self._credentials)
        self.service.start()
        server.start()
        self._server = server
        for name in ["", *names]:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("engine.serving", listen=self._listen, port=self.port, target=self.service.identity.target)
        return self.port

    def stop(self) -> None:
        """Ends calls and work; unfinished jobs are resumed by the next process."""
        self._health.enter_graceful_shutdown()
        if self._server is not None:
            self._server.stop(GRACE_SECONDS).wait()
            self._server = None
        self.service.close()


def serve(
    dsn: str,
    listen: str,
    identity: EngineIdentity,
    *,
    tls_cert: str | None = None,
    tls_key: str | None = None,
    tls_client_ca: str | None = None,
    token: str | Tokens | None = None,
    insecure_plaintext: bool = False,
) -> EngineServer:
    """A server that has started."""
    server = EngineServer(
        dsn,
        listen,
        identity,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        token=token,
        insecure_plaintext=insecure_plaintext,
    )
    server.start()
    return server


def rich_status(error: EngineError) -> Any:
    """The error as google.rpc.Status with its reason."""
    info = any_pb2.Any()
    info.Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    return rpc_status.to_status(
        # Many clients decode no details: the reason stands in the message too.
        status_pb2.Status(
            code=error.code.value[0], message=f"{error.message} ({error.reason})", details=[info]
        )
    )


def _adapters(servicer: type, service: EngineService) -> Any:
    """A servicer whose every method is the service's, with errors made into statuses."""
    own = {
        name: _adapter(getattr(service, METHODS[name])) for name in vars(servicer) if not name.startswith("_")
    }
    return type(f"Adapted{servicer.__name__}", (servicer,), own)()


def _adapter(method: Callable[[Any, CallContext], Any]) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    def handle(_self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        refusal: EngineError
        try:
            return method(request, _call_context(context))
        except EngineError as error:
            refusal = error
        except Exception:
            mark = secrets.token_hex(6)
            log.exception("engine.call.failed", method=method.__name__, id=mark)
            refusal = EngineError(
                grpc.StatusCode.INTERNAL, Reason.INTERNAL, f"unexpected; see the engine's log, id {mark}"
            )
        return context.abort_with_status(rich_status(refusal))

    return handle


def _call_context(context: grpc.ServicerContext) -> CallContext:
    found = {key: _text(value) for key, value in context.invocation_metadata() or ()}
    fence = found.get(FENCE_KEY)
    if fence is not None and not (
        fence.isascii()
        and fence.isdigit()
        and len(fence) <= len(str(HIGHEST_FENCE))
        and int(fence) <= HIGHEST_FENCE
    ):
        message = f"{FENCE_KEY} is {fence!r}, no number"
        raise invalid(message)
    return CallContext(found.get(OPERATION_KEY) or None, None if fence is None else int(fence))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")


class _TokenCheck(grpc.ServerInterceptor):
    """Lets calls with the right bearer token pass, and the standard health check, which says nothing of value."""

    def __init__(self, token: str | Tokens) -> None:
        self._tokens: Tokens = (lambda: (token,)) if isinstance(token, str) else token

        def refuse(_request: Any, context: grpc.ServicerContext) -> None:
            words = "the bearer token is missing or wrong"
            error = EngineError(grpc.StatusCode.UNAUTHENTICATED, Reason.UNAUTHENTICATED, words)
            if not self._tokens():
                # Nobody's call is wrong, and no change may be failed for it.
                error = unavailable(
                    "the engine's tokens can't be read; see its log", Reason.TOKENS_UNREADABLE
                )
            context.abort_with_status(rich_status(error))

        self._refuse: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(refuse)

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Refuses in constant time; the handler behind is never looked up."""
        metadata: Sequence[tuple[str, str | bytes]] = handler_call_details.invocation_metadata or ()
        given = next((value for key, value in metadata if key == "authorization"), "")
        said = _text(given).encode()
        # compare_digest takes as long for a near miss as for a far one; and each is compared, whichever fits.
        fits = [hmac.compare_digest(said, f"Bearer {each}".encode()) for each in self._tokens()]
        if any(fits) or handler_call_details.method.startswith(HEALTH_SERVICE):
            return continuation(handler_call_details)
        return self._refuse


class _Naming(grpc.ServerInterceptor):
    """Names the database in the trailing metadata of every answer and every error of both services, so that a caller
    notices when an address has come to lead to another one.
    """

    def __init__(self, service: EngineService) -> None:
        self._service = service

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The same handler, and the name is put beside whatever it leaves."""
        handler = continuation(handler_call_details)
        if (
            handler is None
            or handler.unary_unary is None
            or not handler_call_details.method.startswith(_NAMED)
        ):
            # The standard health check answers anybody, and a stranger is not told which server this is.
            return handler
        inner = handler.unary_unary

        def named(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return inner(request, context)
            finally:
                # Afterwards: the first call of all learns the name, and the details of an error replace what was set.
                if self._service.works_at:
                    context.set_trailing_metadata(
                        (*(context.trailing_metadata() or ()), (IDENTITY_KEY, self._service.works_at))
                    )

        return grpc.unary_unary_rpc_method_handler(
            named,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
