"""One test for each refusal before sending. "Nothing was sent" is the fake engine's word, not ours."""

from dataclasses import replace
from typing import Any

import pytest

from tern.domain.identity import ApplyId, DispatchKey, RemoteId, ScopeName
from tern.domain.model import Claim, Deployment, OperationScope, RemoteCall
from tern.domain.outcome import Outcome, Refused
from tern.ports import Cursor, Engine
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import CHANGE, NAME, call_for, claim_on, deployment_at, scope_at

CALLS = ("progress", "batch_progress", "stop", "start", "cutover", "cancel", "logs")


def ask(engine: Engine, method: str, call: RemoteCall) -> Outcome[Any]:
    match method:
        case "batch_progress":
            (looked,) = engine.batch_progress([Cursor(7, call, 0)])
            return looked.outcome
        case "logs":
            return engine.logs(call, 10)
        case _:
            outcome: Outcome[Any] = getattr(engine, method)(call)
            return outcome


def refused(outcome: object, reason: str, fake: FakeEngine) -> None:
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert "nothing was sent" in outcome.message
    assert fake.calls() == []


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("empty", ["", " "])
def test_a_call_without_a_remote_id_is_refused(
    empty: str, method: str, fake: FakeEngine, engine: Engine
) -> None:
    refused(ask(engine, method, call_for(empty)), "EMPTY_REMOTE_ID", fake)


@pytest.mark.parametrize("method", CALLS)
def test_a_call_with_the_public_id_is_refused(method: str, fake: FakeEngine, engine: Engine) -> None:
    refused(ask(engine, method, call_for("apl-one")), "REMOTE_ID_IS_PUBLIC_ID", fake)


@pytest.mark.parametrize("method", CALLS)
def test_a_call_with_an_id_that_no_engine_gave_is_refused(
    method: str, fake: FakeEngine, engine: Engine
) -> None:
    refused(ask(engine, method, call_for("R\n1")), "REMOTE_ID_MALFORMED", fake)


@pytest.mark.parametrize("method", CALLS)
def test_a_call_for_another_deployment_is_refused(method: str, fake: FakeEngine, engine: Engine) -> None:
    sibling = ScopeName(NAME.apply_id, "eu-west")
    refused(ask(engine, method, call_for("R1", name=sibling)), "DEPLOYMENT_MISMATCH", fake)


@pytest.mark.parametrize("method", CALLS)
def test_a_call_without_a_deployment_is_refused(method: str, fake: FakeEngine, engine: Engine) -> None:
    nowhere = ScopeName(NAME.apply_id, "")
    refused(ask(engine, method, call_for("R1", name=nowhere)), "DEPLOYMENT_EMPTY", fake)


@pytest.mark.parametrize("method", CALLS)
def test_a_call_with_a_malformed_scope_is_refused(method: str, fake: FakeEngine, engine: Engine) -> None:
    odd = ScopeName(ApplyId("apl-\u00e9"), "us-east")
    refused(ask(engine, method, call_for("R1", name=odd)), "SCOPE_MALFORMED", fake)


@pytest.mark.parametrize("key", ["", "  "])
def test_an_apply_without_a_key_is_refused(
    key: str, fake: FakeEngine, engine: Engine, scope: OperationScope
) -> None:
    refused(engine.apply(scope, claim_on(scope, key=key)), "EMPTY_KEY", fake)


def test_an_apply_with_a_key_that_nobody_made_is_refused(
    fake: FakeEngine, engine: Engine, scope: OperationScope
) -> None:
    refused(engine.apply(scope, claim_on(scope, key="k\x00")), "KEY_MALFORMED", fake)


def test_a_resolve_without_a_key_is_refused(fake: FakeEngine, engine: Engine, scope: OperationScope) -> None:
    outcome = engine.resolve(scope, claim_on(scope), DispatchKey(""), forbid=True)
    refused(outcome, "EMPTY_KEY", fake)


def test_an_apply_of_an_operation_that_has_an_id_is_refused(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    dispatched = replace(scope, remote_id=RemoteId("R1"))
    refused(engine.apply(dispatched, claim), "ALREADY_DISPATCHED", fake)


def test_an_apply_without_table_changes_is_refused(
    fake: FakeEngine, engine: Engine, deployment: Deployment
) -> None:
    empty = scope_at(deployment, changes=())
    refused(engine.apply(empty, claim_on(empty)), "NO_TABLE_CHANGES", fake)


def test_an_apply_under_another_operations_claim_is_refused(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    refused(engine.apply(scope, replace(claim, operation_id=8)), "CLAIM_OF_ANOTHER_OPERATION", fake)


def test_a_resolve_under_another_operations_claim_is_refused(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    outcome = engine.resolve(scope, replace(claim, operation_id=8), claim.key, forbid=True)
    refused(outcome, "CLAIM_OF_ANOTHER_OPERATION", fake)


def test_an_apply_at_a_siblings_engine_is_refused(fake: FakeEngine, engine: Engine, claim: Claim) -> None:
    sibling = deployment_at(fake.address, name="eu-west")
    scope = scope_at(sibling, name=ScopeName(NAME.apply_id, "eu-west"))
    refused(engine.apply(scope, claim), "DEPLOYMENT_MISMATCH", fake)


def test_an_apply_whose_scope_holds_a_siblings_deployment_is_refused(
    fake: FakeEngine, engine: Engine, claim: Claim
) -> None:
    scope = scope_at(deployment_at(fake.address, name="eu-west"))
    refused(engine.apply(scope, claim), "DEPLOYMENT_MISMATCH", fake)


def test_an_apply_without_a_deployment_is_refused(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    nowhere = replace(scope, name=ScopeName(NAME.apply_id, ""))
    refused(engine.apply(nowhere, claim), "DEPLOYMENT_EMPTY", fake)


def test_a_preview_for_another_deployment_is_refused(fake: FakeEngine, engine: Engine) -> None:
    outcome = engine.preview(deployment_at(fake.address, name="eu-west"), [CHANGE])
    refused(outcome, "DEPLOYMENT_MISMATCH", fake)


def test_one_bad_cursor_does_not_keep_the_others_from_being_asked(
    fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    cursors = [Cursor(1, call_for(""), 0), Cursor(2, call_for(started), 0)]
    outcomes = {looked.cursor.operation_id: looked.outcome for looked in engine.batch_progress(cursors)}
    assert isinstance(outcomes[1], Refused)
    assert len(outcomes) == 2
    (call,) = fake.calls("BatchProgress")
    assert [cursor.apply_id for cursor in call.request.cursors] == [started]
