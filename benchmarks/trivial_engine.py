"""An engine that does nothing, as fast as Python can: what is left of a dispatch when the change costs nothing.

A process of its own that serves any number of deployments:

    python -m benchmarks.trivial_engine --port-file F [--busy] [--changing 100] [--log FILE]

An Apply is answered with an id that its key determines, so that the same key always names the same work. A look says
`completed`; with --busy, `running` for ever, and with --changing N every N-th job has a new revision at each look.
"""

import argparse
import hashlib
import itertools
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1

THREADS = 16


class TrivialEngine:
    """All methods that a rollout needs."""

    def __init__(self, *, busy: bool, changing: int, log: Path | None) -> None:
        self._state = tern_v1.STATE_RUNNING if busy else tern_v1.STATE_COMPLETED
        self._changing = changing
        self._numbers = itertools.count(1)
        self._log = log.open("a", buffering=1) if log else None

    def apply(self, request: tern_v1.ApplyRequest, context: grpc.ServicerContext) -> tern_v1.ApplyResponse:
        """Takes everything."""
        if self._log:
            metadata = dict(context.invocation_metadata())
            self._log.write(f"{time.time()} {metadata.get('tern-operation', '')}\n")
        name = hashlib.sha256(request.idempotency_key.encode()).hexdigest()[:16]
        return tern_v1.ApplyResponse(accepted=True, apply_id=f"job-{name}")

    def progress(self, request: tern_v1.ProgressRequest, _: Any) -> tern_v1.ProgressResponse:
        """One look."""
        return tern_v1.ProgressResponse(apply_id=request.apply_id, state=self._state)

    def batch(self, request: engine_v1.BatchProgressRequest, _: Any) -> engine_v1.BatchProgressResponse:
        """Many looks: an entry for each job that is new or has changed."""
        answer = engine_v1.BatchProgressResponse()
        for cursor in request.cursors:
            # Ids end in a number where a benchmark filled the tables itself.
            tail = cursor.apply_id.rpartition("-")[2]
            changes = self._changing and tail.isdigit() and int(tail) % self._changing == 0
            if cursor.revision and not changes:
                continue
            answer.entries.add(
                apply_id=cursor.apply_id,
                revision=cursor.revision + 1,
                progress=tern_v1.ProgressResponse(apply_id=cursor.apply_id, state=self._state),
            )
        return answer

    def stop(self, _request: tern_v1.StopRequest, _: Any) -> tern_v1.StopResponse:
        """Takes it."""
        return tern_v1.StopResponse(accepted=True)

    def health(self, _request: tern_v1.HealthRequest, _: Any) -> tern_v1.HealthResponse:
        """Always well."""
        return tern_v1.HealthResponse(status="ok")

    def resolve(self, request: engine_v1.ResolveRequest, _: Any) -> engine_v1.ResolveResponse:
        """Nothing was ever started that the key does not name."""
        return engine_v1.ResolveResponse(forbidden=request.forbid)


def serve(engine: TrivialEngine) -> tuple[grpc.Server, int]:
    """A server on a port of loopback."""
    methods: dict[str, tuple[Callable[..., Any], Any]] = {
        "/tern.v1.Tern/Apply": (engine.apply, tern_v1.ApplyRequest),
        "/tern.v1.Tern/Progress": (engine.progress, tern_v1.ProgressRequest),
        "/tern.v1.Tern/Stop": (engine.stop, tern_v1.StopRequest),
        "/tern.v1.Tern/Health": (engine.health, tern_v1.HealthRequest),
        "/tern.engine.v1.EngineService/BatchProgress": (engine.batch, engine_v1.BatchProgressRequest),
        "/tern.engine.v1.EngineService/Resolve": (engine.resolve, engine_v1.ResolveRequest),
    }
    handlers = {
        path: grpc.unary_unary_rpc_method_handler(
            method, request.FromString, lambda answer: answer.SerializeToString()
        )
        for path, (method, request) in methods.items()
    }

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return handlers.get(details.method)

    server = grpc.server(ThreadPoolExecutor(THREADS))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--changing", type=int, default=0)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    server, port = serve(TrivialEngine(busy=given.busy, changing=given.changing, log=given.log))
    draft = given.port_file.with_suffix(".draft")
    draft.write_text(str(port))
    draft.rename(given.port_file)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
