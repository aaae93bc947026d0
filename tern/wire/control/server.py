"""The port behind which ControlService and the public contract answer, with health and reflection."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tern.domain.errors import NotAllowed, TernError
from tern.doors.door import FrontDesk
from tern.ports import StorageUnavailable
from tern.wire.control import facade, service
from tern.wire.control.adapter import authorization
from tern.wire.control.adapter import service as adapted
from tern.wire.control.status import status_of
from tern.wire.control.tokens import Gate
from tern.wire.listening import OPTIONS, bind, check_plaintext

log = structlog.get_logger("tern.control")

THREADS = 16
"""For calls that end at once; a watcher has a thread of its own beside them."""
LARGEST_REQUEST = 4 * 1024 * 1024
GRACE_S = 5.0
HEALTH_AGE_S = 1.0
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class ControlServer:
    """Everything that `tern serve` answers. Raises ValueError for plaintext beyond this machine: tokens travel here."""

    def __init__(
        self,
        desk: FrontDesk,
        gate: Gate,
        listen: str,
        *,
        credentials: grpc.ServerCredentials | None = None,
        most_watchers: int,
    ) -> None:
        check_plaintext(listen, credentials, asked_for=False, has_token=True)
        self._desk = desk
        self._listen = listen
        self._credentials = credentials
        self._health = _TrueHealth(desk)
        self._names = [service.NAME, facade.NAME]
        threads = THREADS + most_watchers
        self._server = grpc.server(
            ThreadPoolExecutor(threads, thread_name_prefix="tern-control"),
            handlers=[
                adapted(service.NAME, service.ControlService(desk).rpcs(), gate),
                adapted(facade.NAME, facade.Facade(desk).rpcs(), gate),
            ],
            interceptors=[_Bouncer(gate)],
            # Who comes when all threads are taken is told so, instead of waiting in a queue that nobody sees.
            maximum_concurrent_rpcs=threads,
            options=[*OPTIONS, ("grpc.max_receive_message_length", LARGEST_REQUEST)],
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*self._names, HEALTH, reflection.SERVICE_NAME], self._server)
        self.port = 0

    def start(self) -> int:
        """Serves from now on; returns the port. Raises OSError where it can't be had."""
        self.port = bind(self._server, self._listen, self._credentials)
        self._server.start()
        for name in ["", *self._names]:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("control.serving", listen=self._listen, port=self.port)
        return self.port

    def stop(self) -> None:
        """Lets calls under way end, watches with the advice to come back, and takes no new ones."""
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(GRACE_S)
        self._desk.end_watches()
        stopped.wait()


class _TrueHealth(grpc_health.HealthServicer):  # type: ignore[misc] # it has no types
    """Serving means that the database answers, too. It is asked once a second at most: nobody needs a token here."""

    def __init__(self, desk: FrontDesk) -> None:
        super().__init__()
        self._desk = desk
        self._guard = threading.Lock()
        self._asked_at = -HEALTH_AGE_S
        self._is_well = False

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """See grpc.health.v1."""
        answer = super().Check(request, context)
        if answer.status == health_pb2.HealthCheckResponse.SERVING and not self._database_answers():
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return answer

    def _database_answers(self) -> bool:
        with self._guard:
            if time.monotonic() - self._asked_at >= HEALTH_AGE_S:
                try:
                    self._desk.check_health()
                    self._is_well = True
                except (StorageUnavailable, TernError):
                    self._is_well = False
                self._asked_at = time.monotonic()
            return self._is_well


class _Bouncer(grpc.ServerInterceptor):
    """Nothing but health answers to somebody without a token, whatever it is: reflection and unknown methods too."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """The handler behind is never looked up for a stranger."""
        if handler_call_details.method.startswith(f"/{HEALTH}/"):
            return continuation(handler_call_details)
        try:
            self._gate.caller(authorization(handler_call_details.invocation_metadata))
        except TernError as error:
            return _refusing(error)
        return continuation(handler_call_details)


def _refusing(error: TernError) -> Any:
    if isinstance(error, NotAllowed):
        log.warning("control.call.not_allowed", why=str(error))
    else:
        log.error("control.call.closed", why=str(error))

    def refuse(_request: Any, context: grpc.ServicerContext) -> Any:
        return context.abort_with_status(status_of(error))

    return grpc.unary_unary_rpc_method_handler(refuse)
