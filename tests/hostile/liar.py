"""An engine that answers every call with something else than the truth, and has nothing behind it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.hostile.garbage import Garbage, path_of

SERVICES = (
    tern_v1.DESCRIPTOR.services_by_name["Tern"],
    engine_v1.DESCRIPTOR.services_by_name["EngineService"],
)
TOO_LARGE = 17 * 1024 * 1024
PATIENCE_S = 0.5


class Liar:
    """On a port of loopback. `own_ids`: the ids that it may use to be believed; the others are anybody's."""

    def __init__(self, seed: object, own_ids: tuple[str, ...] = ()) -> None:
        self._garbage = Garbage(seed, self._override)
        self._own_ids = own_ids
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.calls = 0
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        methods = {path_of(method): method for service in SERVICES for method in service.methods}
        self._server.add_generic_rpc_handlers((_Anything(methods, self._answer),))
        self.address = f"grpc://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.stop(0).wait()

    def _override(self, field: FieldDescriptor, chance: Any) -> Any:
        if field.name == "apply_id" and self._own_ids and chance.random() < 0.6:
            return chance.choice(self._own_ids)
        return None

    def _answer(self, method: MethodDescriptor, _request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.calls += 1
            garbage = self._garbage
            kind = garbage.random.randrange(100)
            sound = garbage.message(method.output_type).SerializeToString()
            bent = garbage.encoded(method.output_type)
            code = garbage.one_of(list(grpc.StatusCode))
            words = garbage.text().replace("\x00", "?")
            details = garbage.noise(400)
        if kind < 55:
            return bytes(sound)
        if kind < 80:
            return bent
        if kind == 80:
            return b"\x0a\xff\xff\xff\x07" + bytes(TOO_LARGE)
        if kind == 81:
            self._closing.wait(PATIENCE_S)
            return b""
        context.set_trailing_metadata((("grpc-status-details-bin", details), ("x-bin", details)))
        context.abort(grpc.StatusCode.INTERNAL if code is grpc.StatusCode.OK else code, words)
        return b""


class _Anything(grpc.GenericRpcHandler):
    """Serves whatever is asked for, bytes in and bytes out."""

    def __init__(self, methods: dict[str, MethodDescriptor], answer: Any) -> None:
        self._methods = methods
        self._answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(method, request, context)
        )
