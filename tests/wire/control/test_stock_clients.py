"""Clients that know an address and a token and nothing of Tern: one built from reflection alone, and `buf curl`."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tern.wire.control.server import ControlServer
from tests.doors.calling import ACT, DEADLINE_S
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text"
ENQUEUE = {
    "idempotencyKey": "k1",
    "reason": "because",
    "ddl": DDL,
    "environment": "test",
    "database": "shop",
    "targets": {"deployments": ["A"]},
}


class Details(NamedTuple):
    """What an interceptor may change of a call."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any = None
    wait_for_ready: bool | None = None
    compression: Any = None


class Bearer(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):  # type: ignore[misc,type-arg]
    """Adds the token to every call, reflection included."""

    def _with_token(self, details: Any) -> Details:
        return Details(details.method, DEADLINE_S, (("authorization", f"Bearer {ACT}"),))

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_token(details), request)

    def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return continuation(self._with_token(details), requests)


def test_a_client_made_of_reflection_alone(world: World, channel: grpc.Channel) -> None:
    known = grpc.intercept_channel(channel, Bearer())
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(known))
    method = pool.FindServiceByName("tern.control.v1.ControlService").FindMethodByName("Enqueue")
    request = message_factory.GetMessageClass(method.input_type)(
        idempotency_key="k1", reason="because", ddl=DDL, environment="test", database="shop"
    )
    request.targets.deployments.append("A")
    answer_type = message_factory.GetMessageClass(method.output_type)
    enqueue = known.unary_unary(
        "/tern.control.v1.ControlService/Enqueue",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer_type.FromString,
    )
    answer = enqueue(request)
    assert (answer.is_new, list(answer.deployments)) == (True, ["A"])
    assert world.apply_row(answer.apply_id).caller == "deployer"


@pytest.fixture
def curl(server: ControlServer) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`buf curl`, which finds messages by reflection."""

    def run(method: str, message: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(str(Path(sys.executable).with_name("buf")), "curl"),
                *("--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", "grpc-v1alpha"),
                *("-H", f"authorization: Bearer {ACT}", "--reflect-header", f"authorization: Bearer {ACT}"),
                *("-d", json.dumps(message), f"http://127.0.0.1:{server.port}/{method}"),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def test_a_command_line_client(world: World, curl: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    made = curl("tern.control.v1.ControlService/Enqueue", ENQUEUE)
    assert made.returncode == 0, made.stderr
    apply_id = json.loads(made.stdout)["applyId"]
    world.last = apply_id
    stopped = curl(
        "tern.control.v1.ControlService/Control", {"verb": "VERB_STOP", "subject": apply_id, "reason": "x"}
    )
    assert json.loads(stopped.stdout)["outcomes"] == [{"deployment": "A", "outcome": "OUTCOME_ACCEPTED"}]
    world.run(until=lambda: world.apply_row().state == "stopped")
    watched = curl("tern.control.v1.ControlService/WatchApply", {"applyId": apply_id})
    assert json.loads(watched.stdout)["apply"]["state"] == "APPLY_STATE_STOPPED"
    seen = curl("tern.v1.Tern/Progress", {"applyId": apply_id})
    assert json.loads(seen.stdout)["state"] == "STATE_STOPPED"
    refused = curl("tern.control.v1.ControlService/Enqueue", {**ENQUEUE, "ddl": f"{DDL}2"})
    error = json.loads(refused.stderr)
    assert (error["code"], refused.returncode != 0) == ("failed_precondition", True)
    (info,) = [each["value"] for each in error["details"] if each["type"] == "google.rpc.ErrorInfo"]
    told = error_details_pb2.ErrorInfo.FromString(base64.b64decode(f"{info}=="))
    assert (told.reason, told.domain) == ("KEY_REUSED", "tern")
