"""An engine that changes nothing, keeps a ledger of all it was asked, and misbehaves on demand.

A real gRPC server of both services, written from the contract alone: it shares the generated messages with the
real engine and not a line besides. In a test:

    with FakeEngine("us-east", complete_after_polls=2) as engine:
        engine.script("Apply", lose_answer())
        ... Deployment(address=engine.address) ...
        assert len(engine.effects("apply")) == 1

As a process of its own, for kills and benchmarks (its jobs come back from the ledger when it is started again):

    python -m tests.faults.fake_engine --listen 127.0.0.1:0 --port-file F --ledger FILE.jsonl
"""

import argparse
import contextlib
import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf import any_pb2, message_factory
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.faults.behaviour import Behaviour, Rejected, Turn
from tests.faults.fake_jobs import FakeJobs, Job
from tests.faults.ledger import Call, Effect, Ledger, read_ledger

THREADS = 48
"""More than the hanging calls of any test, so that the others are still served."""


class FakeEngine:
    """One fake engine on a port of loopback. Thread-safe; usable as a context manager."""

    def __init__(
        self,
        name: str = "fake",
        *,
        listen: str = "127.0.0.1:0",
        offers_engine_service: bool = True,
        deduplicates: bool = True,
        complete_after_s: float | None = None,
        complete_after_polls: int | None = None,
        unlucky: int = 0,
        ledger: Ledger | None = None,
        tls: grpc.ServerCredentials | None = None,
        token: str = "",
        target: str = "",
        environment: str = "",
        identity: str = "",
    ) -> None:
        self.name = name
        self.identity = identity
        """What the trailing metadata of every answer and error names as its database; '' sends none."""
        self.ledger = ledger or Ledger()
        self.jobs = FakeJobs(
            name,
            self.ledger,
            deduplicates=deduplicates,
            complete_after_s=complete_after_s,
            complete_after_polls=complete_after_polls,
            unlucky=unlucky,
        )
        self.offers_engine_service = offers_engine_service
        self.max_concurrent = 0
        self._token = token
        self._target = target
        self._environment = environment
        self._lock = threading.Lock()
        self._scripts: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._standing: dict[str, Behaviour] = {}
        self._running = 0
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"fake-{name}")
        self._server = grpc.server(
            self._threads, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )
        self._server.add_generic_rpc_handlers(tuple(self._handlers()))
        add_port = self._server.add_insecure_port
        port = add_port(listen) if tls is None else self._server.add_secure_port(listen, tls)
        self.port = port
        self.address = f"{'grpc' if tls is None else 'grpcs'}://{listen.rpartition(':')[0]}:{port}"
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the server; hanging calls are let go."""
        self._closing.set()
        self._server.stop(0).wait()
        self._threads.shutdown()
        self.ledger.close()

    # What a test says

    def script(self, method: str, *behaviours: Behaviour) -> None:
        """The next calls of the method meet these behaviours, one each."""
        with self._lock:
            self._scripts[method].extend(behaviours)

    def always(self, method: str, behaviour: Behaviour | None) -> None:
        """Every call of the method that no script serves meets this one; None ends it."""
        with self._lock:
            if behaviour is None:
                self._standing.pop(method, None)
            else:
                self._standing[method] = behaviour

    def set_state(self, remote_id: str, state: str, *, error: str = "") -> None:
        """The job is in that state now, a word of the contract such as 'waiting_for_cutover'."""
        self.jobs.set_state(remote_id, state, error=error)

    def forget(self) -> None:
        """It has lost its memory: it knows no job and no key, and counts its ids from the beginning again."""
        self.jobs.forget()

    def offer(self, *, engine_service: bool, deduplicates: bool) -> None:
        """Another engine listens there from now on. One without the second service answers it as not offered."""
        self.jobs.change(offers=engine_service, deduplicates=deduplicates)

    def ignore(self, *methods: str) -> None:
        """These controls are accepted from now on and have no effect."""
        self.jobs.ignored = frozenset(methods)

    # What a test asks

    def calls(self, method: str | None = None) -> list[Call]:
        """What was asked, in order."""
        return self.ledger.calls(method)

    def effects(self, kind: str | None = None, *, duplicates: bool = False) -> list[Effect]:
        """What was done, after deduplication or, with `duplicates`, before."""
        return [effect for effect in self.ledger.effects(kind) if duplicates or not effect.is_duplicate]

    def job(self, remote_id: str) -> Job:
        """The job with that id; raises KeyError."""
        return self.jobs.by_id[remote_id]

    # How it serves

    def _handlers(self) -> list[grpc.GenericRpcHandler]:
        services = [tern_v1.DESCRIPTOR.services_by_name["Tern"]]
        if self.offers_engine_service:
            services.append(engine_v1.DESCRIPTOR.services_by_name["EngineService"])
        return [
            grpc.method_handlers_generic_handler(
                service.full_name,
                {
                    method.name: grpc.unary_unary_rpc_method_handler(
                        self._serving(method.name, message_factory.GetMessageClass(method.output_type)),
                        request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                        response_serializer=_as_bytes,
                    )
                    for method in service.methods
                },
            )
            for service in services
        ]

    def _serving(self, method: str, answer_type: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        def serve(request: Message, context: grpc.ServicerContext) -> "Message | bytes":
            metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
            self.ledger.add_call(method, metadata, request)
            with self._lock:
                self._running += 1
                self.max_concurrent = max(self.max_concurrent, self._running)
                script = self._scripts[method]
                behaviour = script.popleft() if script else self._standing.get(method)
            try:
                self._admit(request, metadata)
                if behaviour is None:
                    return self.jobs.perform(method, request, metadata)
                turn = Turn(
                    method=method,
                    request=request,
                    answer_type=answer_type,
                    perform=lambda: self.jobs.perform(method, request, metadata),
                    closing=self._closing,
                )
                return behaviour(turn)
            except Rejected as rejected:
                context.abort_with_status(_status(rejected))
                raise
            finally:
                if self.identity:
                    found = context.trailing_metadata() or ()  # type: ignore[attr-defined] # the stubs lack it
                    context.set_trailing_metadata((*found, ("tern-engine", self.identity)))
                with self._lock:
                    self._running -= 1

        return serve

    def _admit(self, request: Message, metadata: dict[str, str]) -> None:
        if self._token and metadata.get("authorization") != f"Bearer {self._token}":
            raise Rejected(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "who are you?")
        for field, ours in (("target", self._target), ("environment", self._environment)):
            asked = getattr(request, field, "")
            if ours and asked and asked != ours:
                raise Rejected(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "TARGET_MISMATCH",
                    f"{field} {asked!r} is not {ours!r}",
                )


def _as_bytes(answer: "Message | bytes") -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _status(rejected: Rejected) -> Any:
    status = status_pb2.Status(code=rejected.code.value[0], message=rejected.message)
    if rejected.reason:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=rejected.reason, domain=rejected.domain))
        status.details.append(detail)
    return rpc_status.to_status(status)


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A fake engine in a process of its own.")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--port-file", type=Path)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--name", default="fake")
    parser.add_argument("--complete-after", type=float)
    parser.add_argument("--complete-after-polls", type=int)
    parser.add_argument("--no-engine-service", action="store_true")
    parser.add_argument("--no-dedup", action="store_true")
    parser.add_argument("--unlucky", type=int, default=0, help="one change in so many fails, one is refused")
    given = parser.parse_args(arguments)
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    known = list(read_ledger(given.ledger)) if given.ledger and given.ledger.exists() else []
    engine = FakeEngine(
        given.name,
        listen=given.listen,
        offers_engine_service=not given.no_engine_service,
        deduplicates=not given.no_dedup,
        complete_after_s=given.complete_after,
        complete_after_polls=given.complete_after_polls,
        unlucky=given.unlucky,
        ledger=Ledger(given.ledger, remembers=False),
    )
    engine.jobs.replay(known)
    if given.port_file:
        fresh = given.port_file.with_suffix(".new")
        fresh.write_text(str(engine.port))
        fresh.rename(given.port_file)  # whoever waits for the file finds the port in it
    while not ends.is_set():
        with contextlib.suppress(InterruptedError):
            ends.wait(3600)
    engine.stop()


def wait_for_port(path: Path, timeout_s: float = 20.0) -> int:
    """The port of a fake engine that was started as a process."""
    ends_at = time.monotonic() + timeout_s
    while not path.exists():
        if time.monotonic() > ends_at:
            message = f"no fake engine wrote {path} within {timeout_s:g} s"
            raise TimeoutError(message)
        time.sleep(0.02)
    return int(path.read_text())


if __name__ == "__main__":
    main()
