"""The public contract as somebody else has it: written by hand from the numbers, and never from our own files.

Three of them: TODAY, what TODAY may become (LATER, with fields, states and kinds that nobody here knows), and MAY, as
it was before its calls were renumbered. A client or an engine made of one shares no generated code with Tern.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

SCALARS: Final = {"s": 9, "i32": 5, "i64": 3, "b": 8, "by": 12}
_ENUM, _MESSAGE = 14, 11

STATES: Final = (
    "NO_ACTIVE_CHANGE",
    "PENDING",
    "RUNNING",
    "WAITING_FOR_CUTOVER",
    "CUTTING_OVER",
    "REVERT_WINDOW",
    "COMPLETED",
    "FAILED",
    "STOPPED",
    "REVERTED",
    "CANCELLED",
    "PREPARING_BRANCH",
    "APPLYING_BRANCH_CHANGES",
    "CREATING_DEPLOY_REQUEST",
    "WAITING_FOR_DEPLOY",
    "VALIDATING_DEPLOY_REQUEST",
    "VALIDATING_BRANCH",
    "RECOVERING",
    "REVERTING",
    "CATCHING_UP",
    "CHECKSUMMING",
    "POST_CHECKSUM",
    "FAILED_RETRYABLE",
)
TODAY: Final = {
    "SchemaFiles": "1 files:map",
    "TableChange": "1 table_name:s 2 ddl:s 3 change_type:ChangeType 4 namespace:s 5 is_unsafe:b 6 unsafe_reason:s"
    " 7 execution_mode:s 8 mode_reason:s 9 metadata:map",
    "ApplyRequest": "1 plan_id:s 2 options:map 3 schema_files:map<SchemaFiles> 4 database:s 5 type:s"
    " 6 ddl_changes:*TableChange 7 environment:s 8 target:s 9 caller:s 10 target_shards:*s 11 idempotency_key:s"
    " 12 generation_operation_keys:*s 13 ignore_tables:*s",
    "ApplyConflict": "1 table:s 7 holder_external_id:s",
    "ApplyResponse": "1 accepted:b 2 error_message:s 3 apply_id:s 4 apply_operation_id:s 5 operation_key:s"
    " 6 conflict:ApplyConflict",
    "ProgressRequest": "1 apply_id:s 2 environment:s 3 apply_operation_id:s",
    "TableProgress": "1 task_id:s 2 namespace:s 3 table_name:s 4 ddl:s 5 status:s 6 rows_copied:i64 7 rows_total:i64"
    " 8 percent_complete:i32 9 eta_seconds:i64 10 is_instant:b 12 progress_detail:s 13 change_type:ChangeType"
    " 16 error_message:s 17 throttled:b 18 throttle_reason:s 19 estimated_bytes:i64",
    "ProgressResponse": "1 apply_id:s 2 state:State 3 engine:Engine 4 summary:s 5 error_message:s"
    " 6 tables:*TableProgress 7 started_at:s 8 completed_at:s 10 metadata:map 12 apply_operation_id:s",
    "LogsRequest": "1 apply_id:s 2 target:s 3 database:s 4 type:s 5 environment:s 6 limit:i32",
    "ApplyLog": "1 id:i64 3 level:s 4 event_type:s 5 source:s 6 message:s 7 old_state:s 8 new_state:s 10 created_at:s",
    "LogsResponse": "1 apply_id:s 2 logs:*ApplyLog",
    "StopRequest": "1 apply_id:s 2 environment:s 3 caller:s",
    "StopResponse": "1 accepted:b 2 error_message:s 3 resume_deadline:s 4 stopped_count:i64 5 skipped_count:i64",
    "StartRequest": "1 apply_id:s 2 environment:s 3 caller:s",
    "StartResponse": "1 accepted:b 2 error_message:s 3 started_count:i64 4 skipped_count:i64",
    "CancelRequest": "1 apply_id:s 2 environment:s 3 caller:s",
    "CancelResponse": "1 accepted:b 2 error_message:s 3 cancelled_count:i64 4 skipped_count:i64",
    "CutoverRequest": "1 apply_id:s 2 environment:s 3 caller:s 4 apply_operation_id:s",
    "CutoverResponse": "1 accepted:b 2 error_message:s",
    "HealthRequest": "",
    "HealthResponse": "1 status:s 2 version:s 3 capabilities:*s",
}
LATER: Final = {
    **TODAY,
    "ApplyRequest": f"{TODAY['ApplyRequest']} 90 mood:s",
    "StopRequest": f"{TODAY['StopRequest']} 4 apply_operation_id:s 91 urgency:i32",
    "ProgressResponse": f"{TODAY['ProgressResponse']} 92 weather:s",
    "TableProgress": f"{TODAY['TableProgress']} 93 colour:s",
}
_EARLIER: Final = "1 database:s 2 type:s 3 environment:s 4 apply_id:s"
MAY: Final = {
    **TODAY,
    **{
        f"{each}Request": _EARLIER
        for each in ("Progress", "Cutover", "Revert", "SkipRevert", "Stop", "Start")
    },
    "VolumeRequest": "1 database:s 2 type:s 3 environment:s 4 volume:i32 5 apply_id:s",
    **{f"{each}Response": "1 accepted:b 2 error_message:s" for each in ("Revert", "SkipRevert", "Volume")},
}


class Contract:
    """Messages made of a table of numbers."""

    def __init__(self, table: Mapping[str, str], *, more_states: Mapping[str, int] | None = None) -> None:
        file = descriptor_pb2.FileDescriptorProto(name="theirs.proto", package="tern.v1", syntax="proto3")
        states = {f"STATE_{name}": number for number, name in enumerate(STATES)}
        self.states = {**states, **(more_states or {})}
        _enum(file, "State", self.states)
        _enum(file, "Engine", {"ENGINE_SPIRIT": 0, "ENGINE_POSTGRES": 3})
        _enum(
            file,
            "ChangeType",
            {"CHANGE_TYPE_OTHER": 0, "CHANGE_TYPE_ALTER": 2, "CHANGE_TYPE_CREATE_INDEX": 5},
        )
        for name, fields in table.items():
            _message(file.message_type.add(name=name), fields)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._pool = pool
        self.methods = sorted(name.removesuffix("Request") for name in table if name.endswith("Request"))

    def of(self, name: str, **fields: Any) -> Any:
        """A message with these fields."""
        return self.type_of(name)(**fields)

    def type_of(self, name: str) -> Callable[..., Any]:
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"tern.v1.{name}"))

    def client(self, channel: grpc.Channel, metadata: Any = ()) -> "ForeignClient":
        return ForeignClient(self, channel, metadata)

    def number(self, state: str) -> int:
        return self.states[f"STATE_{state.upper()}"]


class ForeignClient:
    """Calls by name, as somebody's own program makes them."""

    def __init__(self, contract: Contract, channel: grpc.Channel, metadata: Any) -> None:
        self._contract, self._channel, self._metadata = contract, channel, metadata

    def call(self, method: str, **fields: Any) -> Any:
        answer = self._contract.type_of(f"{method}Response")
        ask = self._channel.unary_unary(
            f"/tern.v1.Tern/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,  # type: ignore[attr-defined]
        )
        request = self._contract.of(f"{method}Request", **fields)
        return ask(request, timeout=10, metadata=self._metadata)


class ForeignEngine:
    """An engine of somebody else's: it speaks the public contract and nothing beside it."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        self.answers: dict[str, Callable[[Any], Message]] = {}
        self.state = contract.number("running")
        self.tables: list[Mapping[str, Any]] = []
        self.said: dict[str, Any] = {}
        self.address = ""

    def requests(self, method: str) -> list[Any]:
        return [request for name, request, _ in self.asked if name == method]

    def answer(self, method: str, request: Any) -> Message:
        """What a well-meaning engine says."""
        if method in self.answers:
            return self.answers[method](request)
        match method:
            case "Apply":
                return self._made(
                    "ApplyResponse", accepted=True, apply_id=f"theirs-{len(self.requests('Apply'))}"
                )
            case "Progress":
                tables = [self.contract.of("TableProgress", **each) for each in self.tables]
                given = {"apply_id": request.apply_id, "state": self.state, "tables": tables, **self.said}
                return self._made("ProgressResponse", **given)
            case "Health":
                return self._made("HealthResponse", status="ok", version="9.9", capabilities=["a.b"])
            case "Logs":
                return self._made("LogsResponse", apply_id=request.apply_id)
            case control:
                return self._made(f"{control}Response", accepted=True)

    def _made(self, name: str, **fields: Any) -> Message:
        made: Message = self.contract.of(name, **fields)
        return made


@contextmanager
def serving(engine: ForeignEngine) -> Iterator[ForeignEngine]:
    """The engine on a port of loopback."""

    def handler(method: str) -> Any:
        def serve(request: Any, context: grpc.ServicerContext) -> Message:
            metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
            engine.asked.append((method, request, metadata))
            return engine.answer(method, request)

        return grpc.unary_unary_rpc_method_handler(
            serve,
            request_deserializer=engine.contract.type_of(f"{method}Request").FromString,  # type: ignore[attr-defined]
            response_serializer=lambda message: message.SerializeToString(),
        )

    server = grpc.server(ThreadPoolExecutor(8))
    handlers = {method: handler(method) for method in engine.contract.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tern.v1.Tern", handlers),))
    engine.address = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield engine
    finally:
        server.stop(0).wait()


def _enum(file: descriptor_pb2.FileDescriptorProto, name: str, values: Mapping[str, int]) -> None:
    made = file.enum_type.add(name=name)
    for word, number in values.items():
        made.value.add(name=word, number=number)


def _message(made: descriptor_pb2.DescriptorProto, fields: str) -> None:
    for number, name, kind in re.findall(r"(\d+) (\w+):(\S+)", fields):
        repeated = kind.startswith(("*", "map"))
        field = made.field.add(name=name, number=int(number), label=3 if repeated else 1)
        if kind.startswith("map"):
            value = kind.removeprefix("map").strip("<>") or "s"
            entry = made.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
            entry.options.map_entry = True
            _typed(entry.field.add(name="key", number=1, label=1), "s")
            _typed(entry.field.add(name="value", number=2, label=1), value)
            field.type, field.type_name = _MESSAGE, f".tern.v1.{made.name}.{entry.name}"
        else:
            _typed(field, kind.removeprefix("*"))


def _typed(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in SCALARS:
        field.type = SCALARS[kind]  # type: ignore[assignment]
        return
    field.type = _ENUM if kind in {"State", "Engine", "ChangeType"} else _MESSAGE
    field.type_name = f".tern.v1.{kind}"
