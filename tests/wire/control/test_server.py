"""What listens: strangers, TLS, health, reflection, sizes, and a quiet end."""

import subprocess
import threading
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tern.domain.errors import Misconfigured
from tern.doors.desk import Desk
from tern.ports import StorageUnavailable
from tern.store.database import Database
from tern.wire.control.server import LARGEST_REQUEST, ControlServer
from tern.wire.control.tokens import OpenGate, TokenGate
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tern.wire.generated.tern.control.v1 import control_service_pb2_grpc as control_v1_grpc
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.listening import server_credentials
from tests.doors.calling import ACT, READ, Stubs, bearer, call, ended, refused
from tests.world import World

SERVICES = {"tern.control.v1.ControlService", "tern.v1.Tern", "grpc.health.v1.Health"}


@pytest.mark.parametrize("token", ["", "wrong-0123456789abcdef01", ACT[:-1], ACT.upper()])
def test_a_stranger_learns_nothing(token: str, channel: grpc.Channel, stubs: Stubs) -> None:
    strange = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    listing, health = control_v1.ListAppliesRequest(), tern_v1.HealthRequest()
    assert refused(stubs.control.ListApplies, listing, token)[:2] == strange
    assert refused(stubs.control.WatchApply, control_v1.WatchApplyRequest(), token)[:2] == strange
    assert refused(stubs.tern.Health, health, token)[:2] == strange
    unknown = channel.unary_unary("/tern.control.v1.ControlService/Nothing")
    assert refused(unknown, b"", token)[:2] == strange
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    assert refused(reflect, asked, token)[:2] == strange
    # Whether the process is well is no secret.
    assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1


def test_two_headers_are_none(stubs: Stubs) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stubs.control.ListApplies(
            control_v1.ListAppliesRequest(), metadata=[*bearer(ACT), *bearer(READ)], timeout=10
        )
    assert ended(raised.value).code is grpc.StatusCode.UNAUTHENTICATED


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    for path in ("/tern.control.v1.ControlService/Nothing", "/no.such.Service/Nothing"):
        assert refused(channel.unary_unary(path), b"").code is grpc.StatusCode.UNIMPLEMENTED


def test_reflection_describes_every_service(channel: grpc.Channel) -> None:
    """So that grpcurl and its like need no file: names, and every message of the contract."""
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tern.control.v1.ControlService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="tern.v1.Tern"),
    ]
    names, ours, public = reflect(iter(asked), metadata=bearer(READ), timeout=10)
    assert {each.name for each in names.list_services_response.service} >= SERVICES
    for answer, message in ((ours, "EnqueueRequest"), (public, "ApplyRequest")):
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(each)
            for each in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert message in {each.name for file in files for each in file.message_type}


def test_health_is_that_of_the_database_too(
    channel: grpc.Channel, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tern.wire.control.server.HEALTH_AGE_S", 0.0)
    check = health_pb2_grpc.HealthStub(channel).Check
    for name in ("", "tern.control.v1.ControlService", "tern.v1.Tern"):
        assert check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == 1

    def away() -> None:
        message = "gone"
        raise StorageUnavailable(message)

    monkeypatch.setattr(desk, "check_health", away)
    assert check(health_pb2.HealthCheckRequest(), timeout=10).status == 2
    with pytest.raises(grpc.RpcError) as raised:
        check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=10)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_silent_database_is_unavailable_and_its_words_stay_here(
    stubs: Stubs, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        message = "connection to db.internal failed for user tern"
        raise StorageUnavailable(message)

    monkeypatch.setattr(desk._reading, "page_of_applies", away)
    answer = refused(stubs.control.ListApplies, control_v1.ListAppliesRequest())
    assert answer[:2] == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert "db.internal" not in str(answer)


@pytest.mark.parametrize("method", ["ListApplies", "WatchApply"])
def test_a_mistake_of_ours_is_internal_with_a_mark(
    method: str, world: World, stubs: Stubs, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        message = "the secret word is mellon"
        raise ZeroDivisionError(message)

    monkeypatch.setattr(desk._reading, "page_of_applies", broken)
    monkeypatch.setattr(desk._reading, "apply", broken)
    requests = {
        "ListApplies": control_v1.ListAppliesRequest(),
        "WatchApply": control_v1.WatchApplyRequest(apply_id="apl-1"),
    }
    answer = refused(getattr(stubs.control, method), requests[method])
    assert answer[:2] == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert ("mellon" in str(answer), "id " in answer.message) == (False, True)


def test_a_request_that_is_too_large_is_refused_before_it_is_read(world: World, stubs: Stubs) -> None:
    huge = control_v1.EnqueueRequest(ddl="x" * (LARGEST_REQUEST + 1))
    assert refused(stubs.control.Enqueue, huge).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    large = control_v1.EnqueueRequest(ddl="x" * (LARGEST_REQUEST - 1000), reason="x", idempotency_key="k")
    assert refused(stubs.control.Enqueue, large)[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "USAGE")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_tls_and_mutual_tls(
    desk: Desk, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    monkeypatch.setenv("TEST_TOKENS", f"deployer act {ACT}")
    for client_ca in (None, str(cert)):
        secure = ControlServer(
            desk,
            TokenGate("env:TEST_TOKENS"),
            "localhost:0",
            credentials=server_credentials(str(cert), str(key), client_ca),
            most_watchers=4,
        )
        port = secure.start()
        try:
            mine = (key.read_bytes(), cert.read_bytes()) if client_ca else (None, None)
            trusting = grpc.ssl_channel_credentials(cert.read_bytes(), *mine)
            with grpc.secure_channel(f"localhost:{port}", trusting) as channel:
                stub = control_v1_grpc.ControlServiceStub(channel)
                call(stub.ListApplies, control_v1.ListAppliesRequest())
                assert (
                    refused(stub.ListApplies, control_v1.ListAppliesRequest(), "").reason == "UNAUTHENTICATED"
                )
            strangers = [grpc.insecure_channel(f"localhost:{port}")]
            if client_ca:
                anonymous = grpc.ssl_channel_credentials(cert.read_bytes())
                strangers.append(grpc.secure_channel(f"localhost:{port}", anonymous))
            for stranger in strangers:
                with stranger as channel:
                    stub = control_v1_grpc.ControlServiceStub(channel)
                    answer = refused(stub.ListApplies, control_v1.ListAppliesRequest())
                    # Nobody answers; whether that is heard or waited for is the library's affair.
                    silence = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
                    assert answer.code in silence, answer
        finally:
            secure._server.stop(None).wait()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:1"])
def test_plaintext_to_the_world_has_to_be_asked_for(listen: str, desk: Desk) -> None:
    with pytest.raises(ValueError, match="no loopback address"):
        ControlServer(desk, OpenGate("x"), listen, most_watchers=1)


def test_a_port_that_is_taken_is_said(server: ControlServer, desk: Desk) -> None:
    second = ControlServer(desk, OpenGate("x"), f"127.0.0.1:{server.port}", most_watchers=1)
    with pytest.raises(OSError, match=r"can't listen on .*: Address already in use"):
        second.start()


def test_tokens_that_became_unreadable_close_the_door(desk: Desk, tmp_path: Path, database: Database) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"deployer act {ACT}\n")
    guarded = ControlServer(desk, TokenGate(f"file:{tokens}"), "127.0.0.1:0", most_watchers=1)
    port = guarded.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = control_v1_grpc.ControlServiceStub(channel)
            call(stub.ListApplies, control_v1.ListAppliesRequest())
            tokens.write_text("what is this")
            answer = refused(stub.ListApplies, control_v1.ListAppliesRequest())
            assert answer[:2] == (grpc.StatusCode.UNAVAILABLE, "TOKENS_UNREADABLE")
    finally:
        guarded.stop()
    with pytest.raises(Misconfigured):
        TokenGate(f"file:{tokens}")


def test_a_call_under_way_is_answered_before_the_end(
    server: ControlServer, stubs: Stubs, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, may_answer = threading.Event(), threading.Event()

    def slow(**_: object) -> tuple[()]:
        inside.set()
        assert may_answer.wait(20)
        return ()

    monkeypatch.setattr(desk._reading, "page_of_applies", slow)
    answers: list[object] = []
    asking = threading.Thread(
        target=lambda: answers.append(call(stubs.control.ListApplies, control_v1.ListAppliesRequest()))
    )
    asking.start()
    assert inside.wait(20)
    ending = threading.Thread(target=server.stop)
    ending.start()
    may_answer.set()
    for thread in (asking, ending):
        thread.join(20)
    assert len(answers) == 1
