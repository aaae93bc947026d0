"""Channels over a real network stack: sharing, TLS, tokens, sizes and what happens at the end."""

import contextlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tern.domain.model import Claim, Credentials, OperationScope
from tern.domain.outcome import Ok, Refused, Unknown
from tern.domain.outstanding import is_heard
from tern.ports import Engine
from tern.wire.channels import LINKS_KEPT, MESSAGE_BYTES_MAX, Channels, GrpcTransport, Link
from tern.wire.credentials import Secrets, parse_address
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.routing import EngineDirectory
from tern.wire.transport import HEALTH, CallFailed
from tests.faults.behaviour import altered, delay, fail
from tests.faults.black_hole import BlackHoles
from tests.faults.fake_engine import FakeEngine
from tests.self_signed import self_signed
from tests.wire.conftest import CHANGE, call_for, claim_on, deployment_at, scope_at


@dataclass(frozen=True)
class Certificate:
    key: Path
    chain: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Self-signed, for localhost, good for a day."""
    return Certificate(*self_signed(tmp_path_factory.mktemp("tls"), "DNS:localhost,IP:127.0.0.1"))


def tls_engine(certificate: Certificate, *, token: str = "", wants_client: bool = False) -> FakeEngine:
    pair = (certificate.key.read_bytes(), certificate.chain.read_bytes())
    authority = certificate.chain.read_bytes() if wants_client else None
    server = grpc.ssl_server_credentials([pair], authority, require_client_auth=wants_client)
    return FakeEngine("tls", tls=server, token=token)


def test_all_threads_share_one_channel_to_an_address() -> None:
    channels = Channels()
    endpoint = parse_address("grpc://127.0.0.1:9")
    start = threading.Barrier(8)
    links: list[Link] = []

    def open_link() -> None:
        start.wait()
        links.append(channels.link(endpoint, Secrets(token=f"t{len(links)}")))

    threads = [threading.Thread(target=open_link) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(link) for link in links}) == 1
    assert channels.link(parse_address("grpc://127.0.0.1:10"), Secrets()) is not links[0]
    channels.close()


def test_certificates_that_are_renewed_leave_no_channels_behind() -> None:
    """One a day, for ten thousand deployments, would fill a worker's memory."""
    channels = Channels()
    endpoint, other = parse_address("grpc://127.0.0.1:9"), parse_address("grpc://127.0.0.1:10")
    kept = channels.link(other, Secrets())
    last = [channels.link(endpoint, Secrets(tls_ca=str(number).encode())) for number in range(20)][-1]
    assert len(channels._links) <= LINKS_KEPT + 1
    assert channels.link(endpoint, Secrets(tls_ca=b"19")) is last
    assert channels.link(other, Secrets()) is kept
    channels.close()


def test_no_channel_is_opened_before_it_is_needed(directory: EngineDirectory) -> None:
    directory.of(deployment_at("grpc://127.0.0.1:9"))
    assert not directory._channels._links


def test_calls_after_the_end_reach_nobody_and_fail_nothing(
    directory: EngineDirectory, engine: Engine, fake: FakeEngine
) -> None:
    assert engine.health() == Ok("ok")
    directory.close()
    outcome = engine.health()
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "CLOSING"
    assert len(fake.calls()) == 1


def test_a_request_that_no_engine_would_read_is_refused_before_it_is_sent(
    fake: FakeEngine, engine: Engine
) -> None:
    huge = type(CHANGE)("public", "orders", "x" * (MESSAGE_BYTES_MAX + 1), CHANGE.action)
    scope = scope_at(deployment_at(fake.address), changes=(huge,))
    outcome = engine.apply(scope, claim_on(scope))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "REQUEST_TOO_LARGE"
    assert not fake.calls()


def test_an_answer_that_is_too_large_is_unknown(fake: FakeEngine, engine: Engine) -> None:
    fake.script("Health", altered(status="x" * (MESSAGE_BYTES_MAX + 1)))
    outcome = engine.health()
    assert isinstance(outcome, Unknown)
    assert outcome.code == "RESOURCE_EXHAUSTED"


def test_the_engine_comes_back_and_is_found_again(directory: EngineDirectory) -> None:
    with FakeEngine("first") as first:
        engine = directory.of(deployment_at(first.address))
        assert engine.health() == Ok("ok")
    assert isinstance(engine.health(), Unknown)
    with FakeEngine("second", listen=f"127.0.0.1:{first.port}"):
        outcome = engine.health()
        for _ in range(1000):
            if isinstance(outcome, Ok):
                break
            threading.Event().wait(0.02)
            outcome = engine.health()
        assert outcome == Ok("ok")


def test_a_connection_that_fell_silent_is_left_with_the_first_deadline(fake: FakeEngine) -> None:
    """The network swallowed its packets for a while: a new connection works, the old one never says anything more."""
    directory = EngineDirectory(deadline_s=0.5)
    with BlackHoles(fake.port, 1) as network, contextlib.closing(directory):
        engine = directory.of(deployment_at(*network.addresses))
        assert engine.health() == Ok("ok")
        network.is_dark = True
        silent = engine.health()
        assert isinstance(silent, Unknown)
        assert silent.code == "DEADLINE_EXCEEDED"
        network.is_dark = False
        assert engine.health() == Ok("ok")


def test_who_waits_on_a_connection_that_is_left_is_answered_all_the_same(fake: FakeEngine) -> None:
    """One call that took too long says nothing about the others beside it."""
    fake.always("Health", delay(1.0))
    channels = Channels()
    transport = GrpcTransport(channels, parse_address(fake.address), Credentials())

    def ask(timeout_s: float) -> object:
        return transport.call(HEALTH, tern_v1.HealthRequest(), timeout_s=timeout_s, metadata=())

    with ThreadPoolExecutor(1) as beside:
        patient = beside.submit(ask, 20.0)
        with pytest.raises(CallFailed):
            ask(0.1)
        assert patient.result()
    channels.close()


def test_a_token_travels_as_metadata_and_shows_nowhere_else(
    directory: EngineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_TEST_TOKEN", "hunter2")
    credentials = Credentials(token="env:TERN_TEST_TOKEN")
    with FakeEngine("R", token="hunter2") as fake:
        engine = directory.of(deployment_at(fake.address, credentials=credentials))
        assert engine.health() == Ok("ok")
        fake.script("Stop", fail("INTERNAL", message="Bearer hunter2 is a strange token"))
        outcome = engine.stop(call_for("R1"))
        assert isinstance(outcome, Unknown)
        assert "hunter2" not in outcome.message
        monkeypatch.setenv("TERN_TEST_TOKEN", "rotated")
        refused = engine.health()
        assert isinstance(refused, Refused)
        assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def test_a_missing_secret_is_a_refusal_and_no_call(
    directory: EngineDirectory, monkeypatch: pytest.MonkeyPatch, fake: FakeEngine
) -> None:
    monkeypatch.delenv("TERN_TEST_TOKEN", raising=False)
    credentials = Credentials(token="env:TERN_TEST_TOKEN")
    engine = directory.of(deployment_at(fake.address, credentials=credentials))
    outcome = engine.health()
    assert isinstance(outcome, Refused)
    assert outcome.reason == "SECRET_MISSING"
    assert "TERN_TEST_TOKEN" in outcome.message
    assert not fake.calls()


def test_tls_with_a_token(
    certificate: Certificate, directory: EngineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_TEST_TOKEN", "hunter2")
    credentials = Credentials(token="env:TERN_TEST_TOKEN", tls_ca=f"file:{certificate.chain}")
    with tls_engine(certificate, token="hunter2") as fake:
        deployment = deployment_at(fake.address, credentials=credentials)
        scope = scope_at(deployment)
        assert directory.of(deployment).apply(scope, claim_on(scope)) == Ok("tls-1")


def test_tls_to_an_engine_that_nobody_vouches_for_is_unknown(
    certificate: Certificate, directory: EngineDirectory
) -> None:
    with tls_engine(certificate) as fake:
        outcome = directory.of(deployment_at(fake.address)).health()
        assert isinstance(outcome, Unknown)
        assert outcome.code == "UNAVAILABLE"
        assert not fake.calls()


def test_who_is_there_and_not_trusted_is_told_from_who_is_not_there(
    certificate: Certificate, directory: EngineDirectory
) -> None:
    """No status code tells them apart. An engine that is not trusted is not gone, and what is to be mended is here. One
    that does not trust us merely closes the connection, as a proxy does behind which nobody is.
    """
    authority = f"file:{certificate.chain}"
    with (
        tls_engine(certificate) as fake,
        FakeEngine("p") as plain,
    ):
        unheard = {
            "nobody vouches for it": deployment_at(fake.address),
            "it speaks no TLS": deployment_at(
                plain.address.replace("grpc://", "grpcs://"), credentials=Credentials(tls_ca=authority)
            ),
        }
        for why, deployment in unheard.items():
            outcome = directory.of(deployment).health()
            assert isinstance(outcome, Unknown)
            assert is_heard(outcome), (why, outcome.message)
        address = fake.address
    outcome = directory.of(deployment_at(address, credentials=Credentials(tls_ca=authority))).health()
    assert isinstance(outcome, Unknown)
    assert not is_heard(outcome), outcome.message


def test_a_certificate_that_is_none_raises_nothing(directory: EngineDirectory, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    every = Credentials(
        tls_ca=f"file:{tmp_path}/ca", tls_cert=f"file:{tmp_path}/ca", tls_key=f"file:{tmp_path}/ca"
    )
    for credentials in (every, Credentials(tls_ca=every.tls_ca)):
        outcome = directory.of(deployment_at("grpcs://127.0.0.1:9", credentials=credentials)).health()
        assert isinstance(outcome, Unknown)


def test_mutual_tls(certificate: Certificate, directory: EngineDirectory) -> None:
    authority = f"file:{certificate.chain}"
    mutual = Credentials(tls_ca=authority, tls_cert=authority, tls_key=f"file:{certificate.key}")
    with tls_engine(certificate, wants_client=True) as fake:
        without = deployment_at(fake.address, credentials=Credentials(tls_ca=authority))
        assert isinstance(directory.of(without).health(), Unknown)
        assert directory.of(deployment_at(fake.address, credentials=mutual)).health() == Ok("ok")


def test_plaintext_to_another_machine_reaches_nobody(
    directory: EngineDirectory, scope: OperationScope, claim: Claim
) -> None:
    engine = directory.of(deployment_at("grpc://192.0.2.1:50051"))
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "PLAINTEXT_REFUSED"


@pytest.mark.parametrize("request_bytes", [b"\xff" * 64, b"\x0a\x80", bytes(range(256)), b""])
def test_random_bytes_as_a_request_kill_no_server(
    fake: FakeEngine, engine: Engine, request_bytes: bytes
) -> None:
    with grpc.insecure_channel(re.sub(r"^grpc://", "", fake.address)) as channel:
        raw: Callable[..., Any] = channel.unary_unary(
            "/tern.v1.Tern/Progress", response_deserializer=tern_v1.ProgressResponse.FromString
        )
        with pytest.raises(grpc.RpcError):
            raw(request_bytes, timeout=5)
    assert engine.health() == Ok("ok")
