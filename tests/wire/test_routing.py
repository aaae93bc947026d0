"""Which engine a deployment has, and which apply may be called without naming an operation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tern.domain.errors import ScopeRefused
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.model import Capabilities, Credentials, Deployment, RemoteCall
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.states import State
from tern.ports import Engine
from tern.wire.routing import ApplyScope, ApplyTarget, ApplyVerb, EngineDirectory
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import CHANGE, NAME, call_for, claim_on, cursor_for, deployment_at, scope_at

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


# Apply-scoped calls

MULTI = ApplyTarget(ApplyId("apl-one"), RemoteId("R-1"), "us-east", "production", 4)


def sends(engine: Engine, verb: ApplyVerb) -> Callable[[RemoteCall], Outcome[Any]]:
    """What would really be sent, were it allowed."""

    def send(call: RemoteCall) -> Outcome[Any]:
        more = (3,) if verb is ApplyVerb.VOLUME else ()
        outcome: Outcome[Any] = getattr(engine, verb.value)(call, *more)
        return outcome

    return send


def refused(
    door: ApplyScope, verb: ApplyVerb, target: ApplyTarget, engine: Engine, fake: FakeEngine
) -> ScopeRefused:
    before = len(fake.calls())
    with pytest.raises(ScopeRefused) as caught:
        door.send(verb, target, sends(engine, verb))
    assert len(fake.calls()) == before
    assert "Nothing was sent" in caught.value.unchanged
    return caught.value


@pytest.mark.parametrize("verb", ApplyVerb)
@pytest.mark.parametrize("count", [2, 3, 1000, 0, -1])
def test_an_apply_scoped_call_on_a_multi_apply_is_refused_with_the_count(
    count: int, verb: ApplyVerb, engine: Engine, fake: FakeEngine
) -> None:
    without_id = replace(MULTI, external_id=None)
    why = refused(ApplyScope(lambda _: count), verb, without_id, engine, fake)
    assert why.reason == "APPLY_SCOPED_CALL_ON_MULTI"
    assert f"{count} operations" in str(why)


@pytest.mark.parametrize("verb", ApplyVerb)
def test_an_id_on_the_parent_opens_nothing(verb: ApplyVerb, engine: Engine, fake: FakeEngine) -> None:
    why = refused(ApplyScope(lambda _: 2), verb, MULTI, engine, fake)
    assert why.reason == "APPLY_SCOPED_CALL_ON_MULTI"


@pytest.mark.parametrize("verb", ApplyVerb)
def test_without_a_lookup_an_apply_scoped_call_is_refused(
    verb: ApplyVerb, engine: Engine, fake: FakeEngine
) -> None:
    assert refused(ApplyScope(None), verb, MULTI, engine, fake).reason == "APPLY_SCOPED_CALL_ON_MULTI"


@pytest.mark.parametrize("verb", ApplyVerb)
@pytest.mark.parametrize("error", [OSError("no database"), KeyError("apl-one"), ScopeRefused("no")])
def test_with_a_failing_lookup_an_apply_scoped_call_is_refused(
    error: Exception, verb: ApplyVerb, engine: Engine, fake: FakeEngine
) -> None:
    def fails(_: ApplyId) -> int:
        raise error

    assert refused(ApplyScope(fails), verb, MULTI, engine, fake).reason == "APPLY_SCOPED_CALL_ON_MULTI"


def test_a_single_apply_without_an_id_is_refused(engine: Engine, fake: FakeEngine) -> None:
    for nothing in (None, RemoteId("")):
        target = replace(MULTI, external_id=nothing)
        assert (
            refused(ApplyScope(lambda _: 1), ApplyVerb.STOP, target, engine, fake).reason == "EMPTY_REMOTE_ID"
        )


def test_a_single_apply_is_called_with_its_own_id(
    engine: Engine, fake: FakeEngine, started: RemoteId
) -> None:
    door = ApplyScope(lambda _: 1)
    target = ApplyTarget(NAME.apply_id, started, "us-east", "production", 5)
    assert door.send(ApplyVerb.STOP, target, engine.stop) == Ok(None)
    look = door.send(ApplyVerb.PROGRESS, target, engine.progress)
    assert isinstance(look, Ok)
    assert look.value.state is State.STOPPED
    assert {call.remote_id for call in fake.calls() if call.method != "Apply"} == {started}


def test_the_operations_are_counted_every_time(engine: Engine, fake: FakeEngine, started: RemoteId) -> None:
    counts = iter([1, 2])
    door = ApplyScope(lambda _: next(counts))
    target = ApplyTarget(NAME.apply_id, started, "us-east", "production", 5)
    assert door.send(ApplyVerb.STOP, target, engine.stop) == Ok(None)
    refused(door, ApplyVerb.START, target, engine, fake)


def test_an_unknown_is_an_unknown_through_the_door_too(engine: Engine, fake: FakeEngine) -> None:
    fake.stop()
    assert isinstance(ApplyScope(lambda _: 1).send(ApplyVerb.STOP, MULTI, engine.stop), Unknown)
