"""Over gRPC: errors with their reasons, credentials, health, reflection, and who may listen where."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf import message_factory
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from tern.engine.identity import EngineIdentity
from tern.engine.server import EngineServer, serve
from tern.engine.tokens import FileTokens
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.engine.v1 import engine_service_pb2_grpc as ours_grpc
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tern.wire.generated.tern.v1 import tern_pb2_grpc as contract_grpc

from .conftest import IDENTITY, Database, eventually

Stubs = tuple[contract_grpc.TernStub, ours_grpc.EngineServiceStub]


@pytest.fixture
def server(database_url: str) -> Iterator[EngineServer]:
    one = serve(database_url, "127.0.0.1:0", IDENTITY)
    yield one
    one.stop()


@pytest.fixture
def stubs(server: EngineServer) -> Iterator[Stubs]:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield contract_grpc.TernStub(channel), ours_grpc.EngineServiceStub(channel)


def named(call: "grpc.Call") -> list[str]:
    """The databases that an answer or an error names."""
    return [value for key, value in call.trailing_metadata() if key == "tern-engine"]  # type: ignore[misc]


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, str]:
    """The status, the reason and the domain of a refused call."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    status = rpc_status.from_call(raised.value)
    assert status is not None, raised.value
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert status.message == raised.value.details()
    return raised.value.code(), info.reason, info.domain


def change(ddl: str) -> contract.TableChange:
    return contract.TableChange(
        namespace="public", table_name="t", ddl=ddl, change_type=contract.CHANGE_TYPE_ALTER
    )


def test_a_change_over_the_wire(stubs: Stubs, table: str) -> None:
    tern, engine = stubs
    about = (("tern-operation", "apl-1/eu"), ("tern-fence", "3"))
    request = contract.ApplyRequest(
        idempotency_key="k", environment="prod", database="orders", target="eu-1", type="postgres",
        ddl_changes=[change("ALTER TABLE t ADD COLUMN k int"), change("CREATE INDEX ON t (k)")],
    )  # fmt: skip
    job = tern.Apply(request, timeout=10, metadata=about).apply_id

    def progress() -> contract.ProgressResponse:
        return tern.Progress(contract.ProgressRequest(apply_id=job), timeout=10, metadata=about)

    eventually(lambda: progress().state == contract.STATE_COMPLETED)
    seen = progress()
    assert seen.engine == contract.ENGINE_POSTGRES
    # One entry for the table, whatever is done to it; each statement by itself is the second service's.
    assert [(each.task_id, each.status, each.percent_complete) for each in seen.tables] == [
        (f"{job}/1", "completed", 100)
    ]
    cursor = ours.ProgressCursor(apply_id=job, operation="apl-1/eu")
    asked = ours.BatchProgressRequest(cursors=[cursor])
    statements = engine.BatchProgress(asked, timeout=10).entries[0].progress.tables
    assert [(each.task_id, each.status, each.is_instant) for each in statements] == [
        ("0", "completed", True),
        ("1", "completed", False),
    ]
    assert seen.tables[0].change_type == contract.CHANGE_TYPE_ALTER
    assert seen.started_at
    assert seen.completed_at
    logs = tern.Logs(contract.LogsRequest(apply_id=job), timeout=10, metadata=about).logs
    assert [each.id for each in logs] == sorted(each.id for each in logs)
    assert logs[-1].new_state == "completed"
    assert [each.id for each in tern.Logs(contract.LogsRequest(apply_id=job, limit=1), timeout=10).logs] == [
        logs[-1].id
    ]
    assert tern.Health(contract.HealthRequest(), timeout=10).status == "ok"
    resolved = engine.Resolve(
        ours.ResolveRequest(idempotency_key="k", forbid=True), timeout=10, metadata=about
    )
    assert resolved.apply_id == job


def test_errors_carry_their_reason(stubs: Stubs, table: str) -> None:
    tern, engine = stubs
    job = tern.Apply(
        contract.ApplyRequest(ddl_changes=[change("COMMENT ON TABLE t IS 'x'")]),
        timeout=10,
        metadata=(("tern-operation", "apl-1/eu"), ("tern-fence", "5")),
    ).apply_id
    failed = grpc.StatusCode.FAILED_PRECONDITION
    bad = grpc.StatusCode.INVALID_ARGUMENT
    progress = contract.ProgressRequest(apply_id=job)
    cases: list[tuple[Callable[[], Any], grpc.StatusCode, str]] = [
        (
            lambda: tern.Progress(contract.ProgressRequest(apply_id="x")),
            grpc.StatusCode.NOT_FOUND,
            "APPLY_NOT_FOUND",
        ),
        (lambda: tern.Progress(contract.ProgressRequest()), bad, "INVALID_REQUEST"),
        (
            lambda: tern.Progress(progress, metadata=(("tern-operation", "apl-1/us"),)),
            failed,
            "OPERATION_MISMATCH",
        ),
        (lambda: tern.Progress(progress, metadata=(("tern-fence", "-1"),)), bad, "INVALID_REQUEST"),
        (
            lambda: tern.Stop(
                contract.StopRequest(apply_id=job),
                metadata=(("tern-operation", "apl-1/eu"), ("tern-fence", "4")),
            ),
            failed,
            "STALE_DRIVER",
        ),
        (
            lambda: tern.Progress(contract.ProgressRequest(apply_id=job, environment="x")),
            failed,
            "TARGET_MISMATCH",
        ),
        (lambda: tern.Apply(contract.ApplyRequest(ddl_changes=[change("SELEC")])), bad, "DDL_INVALID"),
        (
            lambda: tern.Apply(
                contract.ApplyRequest(ddl_changes=[change("ALTER TABLE t ALTER a TYPE bigint")])
            ),
            failed,
            "REWRITE_REFUSED",
        ),
        (lambda: engine.Resolve(ours.ResolveRequest()), bad, "INVALID_REQUEST"),
        (lambda: engine.BatchProgress(ours.BatchProgressRequest(cursors=[{}] * 501)), bad, "INVALID_REQUEST"),
        (lambda: engine.Preview(ours.PreviewRequest(target="other")), failed, "TARGET_MISMATCH"),
        (lambda: tern.Revert(contract.RevertRequest()), grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED"),
        (lambda: tern.SkipRevert(contract.SkipRevertRequest()), grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED"),
        (lambda: tern.Volume(contract.VolumeRequest()), grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED"),
        (lambda: tern.Plan(contract.PlanRequest()), grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED"),
        (lambda: tern.PlanDiff(contract.PlanRequest()), grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED"),
        (lambda: tern.PullSchema(contract.PullSchemaRequest()), grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED"),
    ]
    wrong = [
        (place, got)
        for place, (call, code, reason) in enumerate(cases)
        if (got := refused(call)) != (code, reason, "tern")
    ]
    assert wrong == []


@pytest.mark.parametrize("field", ["idempotency_key", "caller", "plan_id"])
def test_text_that_no_database_holds_is_the_callers_mistake(stubs: Stubs, table: str, field: str) -> None:
    """INTERNAL would mean that nobody knows, and the same call would be repeated for ever."""
    request = contract.ApplyRequest(
        idempotency_key="k", database="orders", ddl_changes=[change("ALTER TABLE t ADD COLUMN k int")]
    )
    setattr(request, field, "a\x00")
    bad = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(lambda: stubs[0].Apply(request, timeout=10))[0] == bad
    progress = contract.ProgressRequest(apply_id="a\x00")
    assert refused(lambda: stubs[0].Progress(progress, timeout=10))[0] == bad
    resolve = ours.ResolveRequest(idempotency_key="a\x00", forbid=True)
    assert refused(lambda: stubs[1].Resolve(resolve, timeout=10))[0] == bad


def test_a_fence_that_no_database_counts_to_is_refused(stubs: Stubs, table: str) -> None:
    about = (("tern-operation", "apl-1/eu"), ("tern-fence", "9223372036854775808"))
    resolve = ours.ResolveRequest(idempotency_key="k", forbid=True)
    call = refused(lambda: stubs[1].Resolve(resolve, timeout=10, metadata=about))
    assert call[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_an_unexpected_error_is_internal_with_an_id_and_no_details(
    server: EngineServer, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        message = "the secret is 42"
        raise ZeroDivisionError(message)

    monkeypatch.setattr("tern.engine.progress.batch", broken)
    with pytest.raises(grpc.RpcError) as raised:
        stubs[1].BatchProgress(ours.BatchProgressRequest())
    assert raised.value.code() == grpc.StatusCode.INTERNAL
    assert "42" not in raised.value.details()
    assert "id " in raised.value.details()


def test_a_database_that_is_away_is_unavailable() -> None:
    away = serve("postgresql://nobody@127.0.0.1:1/none", "127.0.0.1:0", IDENTITY)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{away.port}") as channel:
            code, reason, _ = refused(
                lambda: contract_grpc.TernStub(channel).Health(contract.HealthRequest())
            )
    finally:
        away.stop()
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")


def test_health_and_reflection(server: EngineServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "tern.v1.Tern", "tern.engine.v1.EngineService"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == 1
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answer = next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked))
    names = {each.name for each in answer.list_services_response.service}
    assert {"tern.v1.Tern", "tern.engine.v1.EngineService", "grpc.health.v1.Health"} <= names


def test_a_token_is_asked_for(database_url: str) -> None:
    guarded = serve(database_url, "127.0.0.1:0", IDENTITY, token="s3cret")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{guarded.port}") as channel:
            stub = contract_grpc.TernStub(channel)
            for metadata in ((), (("authorization", "Bearer s3cre"),), (("authorization", "s3cret"),)):
                code, reason, _ = refused(
                    lambda metadata=metadata: stub.Health(contract.HealthRequest(), metadata=metadata)
                )
                assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            right = (("authorization", "Bearer s3cret"),)
            assert stub.Health(contract.HealthRequest(), metadata=right).status == "ok"
            assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == 1
    finally:
        guarded.stop()


def test_a_token_is_renewed_while_callers_come(database_url: str, tmp_path: Path) -> None:
    """The new one is added, callers change over, the old one goes; nobody is refused on the way."""
    place = tmp_path / "tokens"
    place.write_text("old-token\n")
    guarded = serve(database_url, "127.0.0.1:0", IDENTITY, token=FileTokens(place))

    def answer(token: str) -> str:
        with grpc.insecure_channel(f"127.0.0.1:{guarded.port}") as channel:
            call = contract_grpc.TernStub(channel).Health
            metadata = (("authorization", f"Bearer {token}"),)
            try:
                return str(call(contract.HealthRequest(), timeout=10, metadata=metadata).status)
            except grpc.RpcError as error:
                return str(error.code().name)

    try:
        assert (answer("old-token"), answer("new-token")) == ("ok", "UNAUTHENTICATED")
        place.write_text("old-token\nnew-token\n")
        assert (answer("old-token"), answer("new-token")) == ("ok", "ok")
        place.write_text("new-token\n")
        assert (answer("old-token"), answer("new-token")) == ("UNAUTHENTICATED", "ok")
        with capture_logs() as lines:
            for content in ("", None):
                place.write_text(content) if content is not None else place.unlink()
                # Closed, but nothing that a change could be failed for.
                assert (answer("new-token"), answer("")) == ("UNAVAILABLE", "UNAVAILABLE")
        assert [line["event"] for line in lines] == ["engine.tokens.unreadable"]
        place.write_text("new-token\n")
        assert answer("new-token") == "ok"
    finally:
        guarded.stop()


def test_tls(database_url: str, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    secure = serve(
        database_url, "localhost:0", IDENTITY, tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(cert)
    )
    try:
        mutual = grpc.ssl_channel_credentials(cert.read_bytes(), key.read_bytes(), cert.read_bytes())
        with grpc.secure_channel(f"localhost:{secure.port}", mutual) as channel:
            assert contract_grpc.TernStub(channel).Health(contract.HealthRequest(), timeout=10).status == "ok"
        anonymous = grpc.ssl_channel_credentials(cert.read_bytes())
        with (
            grpc.secure_channel(f"localhost:{secure.port}", anonymous) as channel,
            pytest.raises(grpc.RpcError),
        ):
            contract_grpc.TernStub(channel).Health(contract.HealthRequest(), timeout=3)
    finally:
        secure.stop()


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:1", ":5"])
def test_plaintext_to_the_world_has_to_be_asked_for(listen: str) -> None:
    with pytest.raises(ValueError, match="no loopback address"):
        EngineServer("postgresql://", listen, EngineIdentity("e", "d", "t"))
    EngineServer("postgresql://", listen, EngineIdentity("e", "d", "t"), insecure_plaintext=True)


def test_a_port_that_is_taken_adopts_nobody(server: EngineServer, database_url: str) -> None:
    second = EngineServer(database_url, f"127.0.0.1:{server.port}", IDENTITY)
    with pytest.raises(OSError, match=r"can't listen on .*: Address already in use"):
        second.start()
    second.stop()


def test_every_answer_and_every_error_names_the_server_and_its_database(
    server: EngineServer, database_url: str
) -> None:
    """An address may come to lead elsewhere, and an id to mean another job: only the database itself can tell."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT system_identifier::text || '/' || d.oid FROM pg_control_system(), pg_database d"
            " WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for stub, names in ((contract_grpc.TernStub, contract), (ours_grpc.EngineServiceStub, ours)):
            package = "Tern" if names is contract else "EngineService"
            for method in names.DESCRIPTOR.services_by_name[package].methods:
                request = message_factory.GetMessageClass(method.input_type)()
                try:
                    _, call = getattr(stub(channel), method.name).with_call(request, timeout=10)
                except grpc.RpcError as error:
                    call = error
                assert named(call) == list(row), (method.name, call)


def test_a_stranger_is_not_told_which_server_it_is(database_url: str) -> None:
    server = serve(database_url, "127.0.0.1:0", IDENTITY, token="secret")
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = contract_grpc.TernStub(channel)
            with pytest.raises(grpc.RpcError) as raised:
                stub.Health(contract.HealthRequest(), timeout=10)
            assert named(raised.value) == []
            health = health_pb2_grpc.HealthStub(channel)
            _, open_to_all = health.Check.with_call(health_pb2.HealthCheckRequest(), timeout=10)
            assert named(open_to_all) == []
            known = (("authorization", "Bearer secret"),)
            _, call = stub.Health.with_call(contract.HealthRequest(), timeout=10, metadata=known)
            assert len(named(call)) == 1
    finally:
        server.stop()


def test_where_the_name_may_not_be_read_none_is_given_and_the_work_goes_on(
    db: Database, database_url: str
) -> None:
    db.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_control_system() FROM PUBLIC")
    db.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    db.execute(f"GRANT CREATE ON DATABASE {db.info.dbname} TO plain")
    url = make_conninfo(database_url, user="plain", password="plain")
    try:
        server = serve(url, "127.0.0.1:0", IDENTITY)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                answer, call = contract_grpc.TernStub(channel).Health.with_call(
                    contract.HealthRequest(), timeout=10
                )
                assert answer.status
                assert named(call) == []
        finally:
            server.stop()
    finally:
        db.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO PUBLIC")
        db.execute("DROP OWNED BY plain CASCADE")
        db.execute("DROP ROLE plain")
