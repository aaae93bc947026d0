"""Which engine a deployment has."""

from dataclasses import replace
from pathlib import Path

import pytest

from tern.domain.model import Capabilities, Credentials, Deployment
from tern.domain.outcome import Ok, Refused
from tern.wire.routing import EngineDirectory
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import CHANGE, call_for, claim_on, cursor_for, deployment_at, scope_at

UNREACHABLE = (
    ("grpc://ann:hunter2@127.0.0.1:1", Credentials(), "PASSWORD_IN_ADDRESS"),
    ("engine:50051", Credentials(), "ADDRESS_MALFORMED"),
    ("", Credentials(), "ADDRESS_MALFORMED"),
    ("grpc://10.1.2.3:50051", Credentials(), "PLAINTEXT_REFUSED"),
    ("grpcs://127.0.0.1:1", Credentials(tls_ca="file:/no/such/ca"), "SECRET_MISSING"),
    ("grpc://127.0.0.1:1", Credentials(token="hunter2"), "REFERENCE_MALFORMED"),
    ("local:postgresql://ann:hunter2@127.0.0.1/shop", Credentials(), "PASSWORD_IN_ADDRESS"),
    ("local:mysql://127.0.0.1/shop", Credentials(), "ADDRESS_MALFORMED"),
)


@pytest.mark.parametrize(("address", "credentials", "reason"), UNREACHABLE)
def test_a_deployment_without_a_client_refuses_every_call_with_the_reason(
    address: str, credentials: Credentials, reason: str, directory: EngineDirectory
) -> None:
    deployment = deployment_at(address, credentials=credentials)
    engine, scope = directory.of(deployment), scope_at(deployment)
    call, claim = call_for("R1"), claim_on(scope)
    outcomes: list[object] = [
        engine.apply(scope, claim),
        engine.resolve(scope, claim, claim.key, forbid=True),
        engine.progress(call),
        *(look.outcome for look in engine.batch_progress([cursor_for(1, "R1"), cursor_for(2, "R2")])),
        engine.stop(call),
        engine.start(call),
        engine.cutover(call),
        engine.cancel(call),
        engine.revert(call),
        engine.skip_revert(call),
        engine.volume(call, 3),
        engine.health(),
        engine.probe(),
        engine.preview(deployment, [CHANGE]),
        engine.logs(call, 1),
    ]
    for outcome in outcomes:
        assert isinstance(outcome, Refused)
        assert outcome.reason == reason
        assert "nothing was sent" in outcome.message
        assert "deployment us-east" in outcome.message
        assert "hunter2" not in outcome.message


def test_siblings_of_a_deployment_without_a_client_go_on(
    directory: EngineDirectory, fake: FakeEngine
) -> None:
    directory.of(deployment_at("nowhere", name="eu-west"))
    assert directory.of(deployment_at(fake.address)).health() == Ok("ok")


def test_a_deployment_without_a_name_has_no_engine(directory: EngineDirectory, fake: FakeEngine) -> None:
    outcome = directory.of(replace(deployment_at(fake.address), name="")).health()
    assert isinstance(outcome, Refused)
    assert outcome.reason == "DEPLOYMENT_EMPTY"


def test_the_engine_of_a_deployment_is_kept(directory: EngineDirectory, deployment: Deployment) -> None:
    engine = directory.of(deployment)
    assert directory.of(deployment) is engine
    relabelled = replace(
        deployment, labels={"tier": "one"}, position=9, drained=True, capabilities=Capabilities(resolve=True)
    )
    assert directory.of(relabelled) is engine


@pytest.mark.parametrize(
    "changed",
    [
        {"address": "grpc://127.0.0.1:1"},
        {"target": "elsewhere"},
        {"environment": "staging"},
        {"database": "other"},
        {"credentials": Credentials(token="env:OTHER")},
    ],
)
def test_a_changed_deployment_has_a_new_engine(
    changed: dict[str, str], directory: EngineDirectory, deployment: Deployment
) -> None:
    engine = directory.of(deployment)
    assert directory.of(replace(deployment, **changed)) is not engine  # type: ignore[arg-type]


def test_a_secret_that_appears_later_is_used(
    directory: EngineDirectory, fake: FakeEngine, tmp_path: Path
) -> None:
    secret = tmp_path / "token"
    credentials = Credentials(token=f"file:{secret}")
    engine = directory.of(deployment_at(fake.address, credentials=credentials))
    assert isinstance(engine.health(), Refused)
    secret.write_text("token\n")
    assert engine.health() == Ok("ok")
    assert fake.calls()[0].metadata["authorization"] == "Bearer token"
