"""What is asked, with which ids and metadata, and what becomes of the answers."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tern.domain.identity import DispatchKey, RemoteId
from tern.domain.model import (
    Action,
    Capabilities,
    Claim,
    Deployment,
    Forbidden,
    NeverStarted,
    OperationScope,
    PlannedChange,
    Started,
    Unsupported,
)
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.domain.policy import Cutover, Policy
from tern.domain.states import State
from tern.ports import Engine
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.routing import EngineDirectory
from tests.faults.behaviour import altered, answer, fail, garbage, hang, not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import (
    CHANGE,
    NAME,
    accepted,
    call_for,
    claim_on,
    cursor_for,
    deployment_at,
    scope_at,
)

VERBS = ("Stop", "Start", "Cutover", "Cancel")


def test_an_apply_carries_its_own_share_and_nothing_of_a_siblings(
    fake: FakeEngine, engine: Engine, deployment: Deployment
) -> None:
    drop = PlannedChange("audit", "log", "DROP TABLE log", Action.DROP, "it drops data")
    scope = scope_at(deployment, changes=(CHANGE, drop), cutover=Cutover.MANUAL, allow_unsafe=True)
    claim = claim_on(scope)
    engine.apply(scope, claim)
    (call,) = fake.calls("Apply")
    assert call.request == tern_v1.ApplyRequest(
        plan_id="pln-one",
        options={"defer_cutover": "true", "allow_unsafe": "true"},
        database="shop",
        type="postgres",
        environment="production",
        target="shop-us-east",
        caller="ann",
        idempotency_key=claim.key,
        ddl_changes=[
            tern_v1.TableChange(
                table_name="orders",
                ddl=CHANGE.ddl,
                change_type=tern_v1.CHANGE_TYPE_ALTER,
                namespace="public",
            ),
            tern_v1.TableChange(
                table_name="log",
                ddl="DROP TABLE log",
                change_type=tern_v1.CHANGE_TYPE_DROP,
                namespace="audit",
                is_unsafe=True,
                unsafe_reason="it drops data",
            ),
        ],
    )


def test_options_say_no_as_clearly_as_yes(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    engine.apply(scope, claim)
    request = fake.calls("Apply")[0].request
    assert dict(request.options) == {"defer_cutover": "false", "allow_unsafe": "false"}


def test_a_revert_window_is_asked_for_where_the_policy_says_so(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    engine.apply(accepted(replace(scope, policy=Policy(enable_revert=True))), claim)
    assert fake.calls("Apply")[0].request.options["enable_revert"] == "true"


@pytest.mark.parametrize(
    "strayed",
    [
        lambda scope: replace(scope, change_digest=""),
        lambda scope: replace(scope, environment="staging"),
        lambda scope: replace(scope, database="other"),
        lambda scope: replace(scope, allow_unsafe=True),
        lambda scope: replace(scope, policy=Policy(enable_revert=True)),
        lambda scope: replace(scope, deployment=replace(scope.deployment, target="elsewhere")),
        lambda scope: replace(scope, changes=()),
        lambda scope: replace(scope, changes=scope.changes * 2),
    ],
)
def test_what_was_not_accepted_is_not_sent(
    strayed: Callable[[OperationScope], OperationScope],
    fake: FakeEngine,
    engine: Engine,
    scope: OperationScope,
    claim: Claim,
) -> None:
    """G7: the very message is compared with the operation's digest, behind which nobody looks any more."""
    answer = engine.apply(strayed(scope), claim)
    assert isinstance(answer, Refused)
    assert answer.reason in {"CHANGE_DIFFERS", "NO_TABLE_CHANGES"}
    assert fake.calls("Apply") == []


def test_every_call_for_an_operation_names_it_and_shows_its_fence(
    fake: FakeEngine, engine: Engine, scope: OperationScope, started: RemoteId
) -> None:
    call = call_for(started, fence=9)
    engine.resolve(scope, claim_on(scope, fence=9), claim_on(scope).key, forbid=False)
    for ask in (engine.progress, engine.stop, engine.start, engine.cutover, engine.cancel):
        ask(call)
    engine.logs(call, 5)
    later = [seen for seen in fake.calls() if seen.method != "Apply"]
    assert len(later) == 7
    assert {(seen.operation, seen.fence) for seen in later} == {(str(NAME), 9)}
    assert {seen.remote_id for seen in later if seen.method != "Resolve"} == {started}
    assert {seen.request.environment for seen in later} == {"production"}


def test_a_deadline_goes_with_every_call(
    fake: FakeEngine, impatient: EngineDirectory, deployment: Deployment, scope: OperationScope
) -> None:
    engine = impatient.of(deployment)
    asks: dict[str, Callable[[], Outcome[Any]]] = {
        "Apply": lambda: engine.apply(scope, claim_on(scope)),
        "Resolve": lambda: engine.resolve(scope, claim_on(scope), DispatchKey("k"), forbid=True),
        "Progress": lambda: engine.progress(call_for("R-1")),
        "BatchProgress": lambda: engine.batch_progress([cursor_for(1, "R-1")])[0].outcome,
        "Stop": lambda: engine.stop(call_for("R-1")),
        "Start": lambda: engine.start(call_for("R-1")),
        "Cutover": lambda: engine.cutover(call_for("R-1")),
        "Cancel": lambda: engine.cancel(call_for("R-1")),
        "Revert": lambda: engine.revert(call_for("R-1")),
        "SkipRevert": lambda: engine.skip_revert(call_for("R-1")),
        "Volume": lambda: engine.volume(call_for("R-1"), 3),
        "Logs": lambda: engine.logs(call_for("R-1"), 5),
        "Health": engine.health,
        "Preview": lambda: engine.preview(deployment, [CHANGE]),
    }
    for method, ask in asks.items():
        fake.script(method, hang(60, after_effect=False))
        begun = time.monotonic()
        outcome = ask()
        assert isinstance(outcome, Unknown), method
        assert outcome.code == "DEADLINE_EXCEEDED", method
        assert 0.8 * 0.3 < time.monotonic() - begun < 10 * 0.3, method


@pytest.mark.parametrize("verb", VERBS)
def test_a_control_that_is_not_accepted_is_refused_in_the_engines_words(
    verb: str, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    fake.script(verb, not_accepted("busy"))
    outcome = getattr(engine, verb.lower())(call_for(started))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "NOT_ACCEPTED"
    assert "busy" in outcome.message


@pytest.mark.parametrize("verb", VERBS)
def test_a_control_of_another_operation_is_refused_by_the_engine(
    verb: str, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    sibling = type(NAME)(type(NAME.apply_id)("apl-two"), "us-east")
    outcome = getattr(engine, verb.lower())(call_for(started, name=sibling))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "OPERATION_MISMATCH"
    assert not fake.effects(verb.lower())


def test_a_driver_that_woke_up_late_is_refused_by_its_fence(
    fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    assert engine.stop(call_for(started, fence=6)) == Ok(None)
    outcome = engine.start(call_for(started, fence=5))
    assert isinstance(outcome, Refused)
    assert outcome.reason == "STALE_DRIVER"
    assert fake.job(started).state == "stopped"


def test_resolve_finds_the_work_of_a_key(engine: Engine, scope: OperationScope, started: RemoteId) -> None:
    claim = claim_on(scope)
    assert engine.resolve(scope, claim, claim.key, forbid=True) == Ok(Started(started))


def test_resolve_makes_a_key_dead_for_ever(fake: FakeEngine, engine: Engine, scope: OperationScope) -> None:
    claim = claim_on(scope)
    assert engine.resolve(scope, claim, claim.key, forbid=False) == Ok(NeverStarted())
    assert engine.resolve(scope, claim, claim.key, forbid=True) == Ok(Forbidden())
    assert engine.resolve(scope, claim, claim.key, forbid=False) == Ok(Forbidden())
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "KEY_FORBIDDEN"
    assert not fake.effects("apply")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"apply_id": "R-1", "forbidden": True}, "RESOLVE_CONTRADICTORY"),
        ({"apply_id": "R\x00"}, "REMOTE_ID_MALFORMED"),
        ({"apply_id": "apl-one"}, "REMOTE_ID_IS_PUBLIC_ID"),
    ],
)
def test_a_resolve_that_settles_nothing_is_unknown(
    fields: dict[str, object],
    reason: str,
    fake: FakeEngine,
    engine: Engine,
    scope: OperationScope,
) -> None:
    fake.script("Resolve", answer(**fields))
    outcome = engine.resolve(scope, claim_on(scope), DispatchKey("k"), forbid=True)
    assert isinstance(outcome, Unknown)
    assert outcome.reason == reason


def test_an_empty_answer_to_forbid_offers_nothing(
    fake: FakeEngine, engine: Engine, scope: OperationScope
) -> None:
    """G4: it neither found the key nor forbade it, and will not do so when it is asked again."""
    fake.script("Resolve", answer())
    assert engine.resolve(scope, claim_on(scope), DispatchKey("k"), forbid=True) == Ok(Unsupported())


def test_an_empty_answer_without_forbid_means_never_started(
    fake: FakeEngine, engine: Engine, scope: OperationScope
) -> None:
    fake.script("Resolve", answer())
    assert engine.resolve(scope, claim_on(scope), DispatchKey("k"), forbid=False) == Ok(NeverStarted())


def test_progress_of_a_stranger_is_nobodys(fake: FakeEngine, engine: Engine, started: RemoteId) -> None:
    for stranger in ("R-2", ""):
        fake.script("Progress", altered(apply_id=stranger))
        outcome = engine.progress(call_for(started))
        assert isinstance(outcome, Unknown)
        assert outcome.reason == "STRANGER"


def test_progress_not_found_keeps_its_code(engine: Engine) -> None:
    outcome = engine.progress(call_for("R-404"))
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.reason) == ("NOT_FOUND", "APPLY_NOT_FOUND")


def test_progress_without_meaning_has_no_state(fake: FakeEngine, engine: Engine, started: RemoteId) -> None:
    fake.script("Progress", answer(apply_id=started, state=0), answer(apply_id=started, state=77))
    for said in ("no_active_change", "state 77"):
        outcome = engine.progress(call_for(started))
        assert isinstance(outcome, Ok)
        assert (outcome.value.state, outcome.value.said) == (None, said)


def test_a_look_is_a_sample_in_our_words(fake: FakeEngine, engine: Engine, started: RemoteId) -> None:
    fake.set_state(started, "failed", error="the disk is full")
    outcome = engine.progress(call_for(started))
    assert isinstance(outcome, Ok)
    assert (outcome.value.state, outcome.value.error_message) == (State.FAILED, "the disk is full")
    assert outcome.value.tables[0].rows_total == 1000


def test_logs_come_newest_last_and_bounded(fake: FakeEngine, engine: Engine, started: RemoteId) -> None:
    lines = [tern_v1.ApplyLog(id=number, message=f"line {number}") for number in (3, 1, 2)]
    fake.script("Logs", answer(apply_id=started, logs=lines), answer(apply_id="R-2", logs=lines))
    outcome = engine.logs(call_for(started), 2)
    assert isinstance(outcome, Ok)
    assert [line.message for line in outcome.value] == ["line 2", "line 3"]
    assert isinstance(engine.logs(call_for(started), 2), Unknown)


def test_a_preview_says_for_each_change_what_it_would_do(
    fake: FakeEngine, engine: Engine, deployment: Deployment
) -> None:
    seen = engine_v1.ChangePreview(
        namespace="public",
        table="orders",
        change_class=engine_v1.CHANGE_CLASS_REWRITE,
        locks=[engine_v1.PreviewLock(relation="public.orders", mode="AccessExclusiveLock")],
        is_unsafe=True,
        refused=True,
        refused_reason="it rewrites the table",
        estimated_rows=10,
        estimated_seconds=1.5,
    )
    fake.script("Preview", answer(changes=[seen]), answer(changes=[]))
    outcome = engine.preview(deployment, [CHANGE])
    assert isinstance(outcome, Ok)
    assert not isinstance(outcome.value, Unsupported)
    (preview,) = outcome.value
    assert preview.change_class == "rewrite"
    assert preview.locks == ("AccessExclusiveLock on public.orders",)
    assert preview.unsafe_reason == "the engine gives no reason"
    assert preview.refused_reason == "it rewrites the table"
    incomplete = engine.preview(deployment, [CHANGE])
    assert isinstance(incomplete, Unknown)
    assert incomplete.reason == "PREVIEW_INCOMPLETE"


def test_a_probe_finds_everything_and_leaves_nothing(fake: FakeEngine, engine: Engine) -> None:
    assert engine.probe() == Ok(Capabilities(resolve=True, batch_progress=True, preview=True))
    assert not fake.effects(duplicates=True)


def test_a_probe_of_an_engine_that_is_down_says_nothing(fake: FakeEngine, engine: Engine) -> None:
    fake.always("BatchProgress", fail("UNAVAILABLE"))
    assert isinstance(engine.probe(), Unknown)


def test_a_probe_with_wrong_credentials_says_so(fake: FakeEngine, engine: Engine) -> None:
    fake.always("Resolve", fail("PERMISSION_DENIED"))
    outcome = engine.probe()
    assert isinstance(outcome, Refused)
    assert outcome.code == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    "method", ["Progress", "BatchProgress", "Resolve", "Stop", "Preview", "Logs", "Health"]
)
def test_random_bytes_as_an_answer_kill_nothing(
    method: str, fake: FakeEngine, engine: Engine, scope: OperationScope, deployment: Deployment
) -> None:
    fake.script(method, *[garbage(bytes(range(start, start + 50))) for start in (0, 60, 130, 200)])
    asks: dict[str, Callable[[], Any]] = {
        "Progress": lambda: engine.progress(call_for("R-1")),
        "BatchProgress": lambda: engine.batch_progress([cursor_for(1, "R-1")]),
        "Resolve": lambda: engine.resolve(scope, claim_on(scope), DispatchKey("k"), forbid=True),
        "Stop": lambda: engine.stop(call_for("R-1")),
        "Preview": lambda: engine.preview(deployment, [CHANGE]),
        "Logs": lambda: engine.logs(call_for("R-1"), 1),
        "Health": engine.health,
    }
    for _ in range(4):
        outcome = asks[method]()
        assert isinstance(outcome, Unknown | tuple)
    assert engine.health() == Ok("ok")


def test_an_engine_with_the_first_service_only_works(directory: EngineDirectory) -> None:
    with FakeEngine("old", offers_engine_service=False, complete_after_polls=1) as fake:
        deployment = deployment_at(fake.address)
        engine, scope = directory.of(deployment), scope_at(deployment)
        claim = claim_on(scope)
        nothing = Capabilities(resolve=False, batch_progress=False, preview=False)
        assert engine.probe() == Ok(nothing)
        assert engine.resolve(scope, claim, claim.key, forbid=True) == Ok(Unsupported())
        assert engine.preview(deployment, [CHANGE]) == Ok(Unsupported())
        assert engine.apply(scope, claim) == Ok("old-1")
        (looked,) = engine.batch_progress([cursor_for(7, "old-1")])
        assert isinstance(looked.outcome, Ok)
        assert looked.outcome.value.state is State.COMPLETED
