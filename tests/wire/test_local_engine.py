"""The engine of this process: another transport, the same rules."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest

import tern.engine.service
from tern.domain.identity import RemoteId
from tern.domain.model import Credentials, Deployment, Forbidden, NeverStarted, Started
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.states import State
from tern.engine.errors import EngineError, Reason
from tern.engine.identity import EngineIdentity
from tern.engine.keys import CallContext
from tern.engine.service import EngineService
from tern.ports import Engine
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.local_engine import METHODS
from tern.wire.outcomes import REFUSING
from tern.wire.routing import EngineDirectory
from tests.wire.conftest import CHANGE, NAME, call_for, claim_on, cursor_for, deployment_at, scope_at

ADDRESS = "local:postgresql://ann@127.0.0.1:5432/shop"


class Stub:
    """Stands in for EngineService; what it does is decided by the test."""

    made: list["Stub"]
    works_at = "7401234567890123456/16384"
    respond: Callable[[str, Any], Any]

    def __init__(self, dsn: str, identity: EngineIdentity, *, runs_jobs: bool = True) -> None:
        self.runs_jobs = runs_jobs
        self.dsn = dsn
        self.identity = identity
        self.log: list[str] = []
        self.contexts: list[CallContext] = []
        self.made.append(self)

    def start(self) -> None:
        self.log.append("start")

    def close(self) -> None:
        self.log.append("close")

    def __getattr__(self, name: str) -> Callable[[Any, CallContext], Any]:
        def call(request: Any, context: CallContext) -> Any:
            self.log.append(name)
            self.contexts.append(context)
            return type(self).respond(name, request)

        return call


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> type[Stub]:
    class Fresh(Stub):
        made: list[Stub] = []  # noqa: RUF012 - one list per test is the point
        respond = staticmethod(lambda _name, _request: tern_v1.HealthResponse(status="ok"))

    monkeypatch.setattr(tern.engine.service, "EngineService", Fresh)
    return Fresh


def raising(error: Exception) -> Callable[[str, Any], Any]:
    def respond(_name: str, _request: Any) -> Any:
        raise error

    return staticmethod(respond)


@pytest.fixture
def local(directory: EngineDirectory, stub: type[Stub]) -> Engine:
    return directory.of(deployment_at(ADDRESS))


def test_the_service_answers_every_method_that_we_call() -> None:
    for name in METHODS.values():
        assert callable(getattr(EngineService, name)), name


def test_an_engine_is_started_by_its_first_call_and_told_who_it_is(stub: type[Stub], local: Engine) -> None:
    assert not stub.made
    assert local.health() == Ok("ok")
    assert local.health() == Ok("ok")
    (made,) = stub.made
    assert made.dsn == "postgresql://ann@127.0.0.1:5432/shop"
    assert made.identity == EngineIdentity("production", "shop", "shop-us-east")
    assert made.log == ["start", "health", "health"]


def test_starting_a_job_again_is_not_starting_the_engine(stub: type[Stub], local: Engine) -> None:
    stub.respond = staticmethod(lambda _name, _request: tern_v1.StartResponse(accepted=True))
    assert local.start(call_for("R1")) == Ok(None)
    assert stub.made[0].log == ["start", "start_again"]


def test_there_is_one_engine_for_an_address_and_target(directory: EngineDirectory, stub: type[Stub]) -> None:
    deployments = [
        deployment_at(ADDRESS),
        deployment_at(ADDRESS),
        deployment_at(ADDRESS, name="eu-west"),
    ]
    start = threading.Barrier(len(deployments))

    def call(deployment: Deployment) -> None:
        start.wait()
        directory.of(deployment).health()

    threads = [threading.Thread(target=call, args=(deployment,)) for deployment in deployments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made.identity.target for made in stub.made) == ["shop-eu-west", "shop-us-east"]


def test_the_engines_end_with_the_directory(
    directory: EngineDirectory, stub: type[Stub], local: Engine
) -> None:
    local.health()
    directory.close()
    directory.close()
    assert stub.made[0].log == ["start", "health", "close"]
    outcome = local.health()
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "CLOSING"


def test_operation_and_fence_reach_the_engine(stub: type[Stub], local: Engine) -> None:
    stub.respond = staticmethod(lambda _name, _request: tern_v1.StopResponse(accepted=True))
    assert local.stop(call_for("R1", fence=9)) == Ok(None)
    assert stub.made[0].contexts == [CallContext(operation=str(NAME), fence=9)]


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_an_error_means_what_it_means_over_grpc(
    code: grpc.StatusCode, stub: type[Stub], directory: EngineDirectory
) -> None:
    stub.respond = raising(EngineError(code, "SOME_REASON", "because"))
    deployment = deployment_at(ADDRESS)
    scope = scope_at(deployment)
    outcome = directory.of(deployment).apply(scope, claim_on(scope))
    assert isinstance(outcome, Refused if code.name in REFUSING else Unknown)
    assert (outcome.code, outcome.reason) == (code.name, "SOME_REASON")


def test_a_bug_in_the_engine_is_unknown_and_says_no_secret(
    stub: type[Stub], directory: EngineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_TEST_PASSWORD", "hunter2")
    stub.respond = raising(RuntimeError("no such thing as hunter2"))
    deployment = deployment_at(ADDRESS, credentials=Credentials(password="env:TERN_TEST_PASSWORD"))
    outcome = directory.of(deployment).stop(call_for("R1"))
    assert isinstance(outcome, Unknown)
    assert outcome.code == "INTERNAL"
    assert "hunter2" not in outcome.message


def test_an_engine_that_cannot_be_started_is_unknown_and_tried_again(
    stub: type[Stub], local: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        message = "no database"
        raise OSError(message)

    with monkeypatch.context() as patched:
        patched.setattr(stub, "start", fails)
        outcome = local.health()
        assert isinstance(outcome, Unknown)
        assert outcome.code == "UNAVAILABLE"
    assert local.health() == Ok("ok")
    assert len(stub.made) == 2


def test_a_deadline_holds_without_a_network_too(stub: type[Stub], impatient: EngineDirectory) -> None:
    release = threading.Event()

    def hang(_name: str, _request: Any) -> Any:
        release.wait(30)
        return tern_v1.StopResponse(accepted=True)

    stub.respond = staticmethod(hang)
    outcome = impatient.of(deployment_at(ADDRESS)).stop(call_for("R1"))
    release.set()
    assert isinstance(outcome, Unknown)
    assert outcome.code == "DEADLINE_EXCEEDED"


def test_the_password_comes_by_reference(
    stub: type[Stub], directory: EngineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_TEST_PASSWORD", "p@ss/w?rd&x=1")
    for address, dsn in (
        ("local:postgresql://ann@h/shop", "postgresql://ann@h/shop?password=p%40ss%2Fw%3Frd%26x%3D1"),
        (
            "local:postgresql:///shop?host=/tmp",
            "postgresql:///shop?host=/tmp&password=p%40ss%2Fw%3Frd%26x%3D1",
        ),
    ):
        credentials = Credentials(password="env:TERN_TEST_PASSWORD")
        directory.of(deployment_at(address, credentials=credentials)).health()
        assert stub.made[-1].dsn == dsn


def test_a_missing_password_starts_nothing(
    stub: type[Stub], directory: EngineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERN_TEST_PASSWORD", raising=False)
    credentials = Credentials(password="env:TERN_TEST_PASSWORD")
    outcome = directory.of(deployment_at(ADDRESS, credentials=credentials)).health()
    assert isinstance(outcome, Refused)
    assert outcome.reason == "SECRET_MISSING"
    assert not stub.made


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("local:postgresql://ann:hunter2@h/shop", "PASSWORD_IN_ADDRESS"),
        ("local:postgresql://ann@h/shop?password=hunter2", "PASSWORD_IN_ADDRESS"),
        ("local:postgresql://ann@h/shop?Password=hunter2", "PASSWORD_IN_ADDRESS"),
        ("local:postgresql://ann@h/shop?passfile=/hunter2", "PASSWORD_IN_ADDRESS"),
        ("local:postgresql://ann@h", "ADDRESS_MALFORMED"),
        ("local:postgresql://ann@h:port/shop", "ADDRESS_MALFORMED"),
        ("local:postgresql://[h/shop", "ADDRESS_MALFORMED"),
        ("local:mysql://h/shop", "ADDRESS_MALFORMED"),
        ("local:", "ADDRESS_MALFORMED"),
        ("local:postgresql://ann@h/shop#?password=hunter2", "ADDRESS_MALFORMED"),
    ],
)
def test_a_local_address_that_cannot_be_is_refused(
    address: str, reason: str, stub: type[Stub], directory: EngineDirectory
) -> None:
    outcome = directory.of(deployment_at(address)).health()
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert "hunter2" not in outcome.message
    assert not stub.made


@pytest.fixture
def real(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Engine, Deployment]]:
    """The real engine on a real database with one table."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY, kind text)")
    found = EngineDirectory()
    url = urlsplit(database_url)
    monkeypatch.setenv("TERN_TEST_PASSWORD", url.password or "")
    address = database_url.replace(f":{url.password}@", "@")
    credentials = Credentials(password="env:TERN_TEST_PASSWORD" if url.password else "")
    deployment = deployment_at(f"local:{address}", credentials=credentials)
    yield found.of(deployment), deployment
    found.close()


def until(look: Callable[[], Outcome[Any]], state: State) -> Any:
    """The first sample in that state."""
    outcome: Outcome[Any] | None = None
    for _ in range(1500):
        outcome = look()
        assert isinstance(outcome, Ok), outcome
        if outcome.value.state is state:
            return outcome.value
        threading.Event().wait(0.02)
    raise AssertionError(outcome)


def test_the_real_engine_follows_the_same_rules_without_grpc(real: tuple[Engine, Deployment]) -> None:
    engine, deployment = real
    scope = scope_at(deployment)
    claim = claim_on(scope)
    assert engine.resolve(scope, claim, claim.key, forbid=False) == Ok(NeverStarted())
    first = engine.apply(scope, claim)
    assert isinstance(first, Ok), first
    remote_id = RemoteId(first.value)
    assert engine.apply(scope, claim) == first
    assert engine.resolve(scope, claim, claim.key, forbid=True) == Ok(Started(remote_id))
    done = until(lambda: engine.progress(call_for(remote_id)), State.COMPLETED)
    assert done.tables[0].table_name == "orders"
    (look,) = engine.batch_progress([cursor_for(7, remote_id)])
    assert isinstance(look.outcome, Ok)
    assert engine.batch_progress([cursor_for(7, remote_id, revision=look.outcome.value.revision)]) == ()
    sibling = type(NAME)(type(NAME.apply_id)("apl-two"), "us-east")
    mismatch = engine.progress(call_for(remote_id, name=sibling))
    assert isinstance(mismatch, Refused)
    assert mismatch.reason == "OPERATION_MISMATCH"
    probed = engine.probe()
    assert isinstance(probed, Ok), probed
    assert probed.value.resolve
    assert probed.value.batch_progress
    assert probed.value.preview
    assert isinstance(engine.preview(deployment, [CHANGE]), Ok)
    assert isinstance(engine.logs(call_for(remote_id), 5), Ok)


def test_the_real_engine_honours_a_dead_key(real: tuple[Engine, Deployment]) -> None:
    engine, deployment = real
    scope = scope_at(deployment)
    claim = claim_on(scope)
    assert engine.resolve(scope, claim, claim.key, forbid=True) == Ok(Forbidden())
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "KEY_FORBIDDEN"


def test_answers_and_errors_name_the_database_as_they_do_over_a_network(
    stub: type[Stub], local: Engine
) -> None:
    stub.respond = raising(EngineError(grpc.StatusCode.NOT_FOUND, Reason.APPLY_NOT_FOUND, "no such job"))
    failed = local.progress(call_for("j-1"))
    assert isinstance(failed, Refused)
    assert failed.identity == Stub.works_at
    stub.respond = staticmethod(
        lambda _name, request: tern_v1.ProgressResponse(apply_id=request.apply_id, started_at="today")
    )
    seen = local.progress(call_for("j-1"))
    assert isinstance(seen, Ok)
    assert (seen.value.identity, seen.value.started_at) == (Stub.works_at, "today")
