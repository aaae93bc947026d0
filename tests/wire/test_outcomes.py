"""Every line of the classification table, against a real server."""

import grpc
import pytest

from tern.domain.identity import RemoteId
from tern.domain.model import Claim, OperationScope
from tern.domain.outcome import Ok, Refused, Unknown
from tern.ports import Engine
from tern.wire.outcomes import REFUSING, About, tidy
from tern.wire.routing import EngineDirectory
from tests.faults.behaviour import altered, answer, fail, garbage, hang, lose_answer, not_accepted, then
from tests.faults.fake_engine import FakeEngine
from tests.faults.relay import Relay
from tests.wire.conftest import NAME, call_for, claim_on, deployment_at, scope_at

REFUSED_CODES = (
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "DATA_LOSS",
    "UNIMPLEMENTED",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
)
UNKNOWN_CODES = (
    "CANCELLED",
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "INTERNAL",
    "UNAVAILABLE",
)


def test_the_table_has_a_line_for_every_status_code() -> None:
    assert {*REFUSED_CODES, *UNKNOWN_CODES, "OK"} == {code.name for code in grpc.StatusCode}
    assert set(REFUSED_CODES) == REFUSING


@pytest.mark.parametrize("code", REFUSED_CODES)
def test_a_code_that_an_engine_at_work_would_not_send_is_a_refusal(
    code: str, fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", fail(code, "SOME_REASON", "because"))
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.reason) == (code, "SOME_REASON")


@pytest.mark.parametrize("code", UNKNOWN_CODES)
def test_any_other_code_may_hide_work_that_was_begun(
    code: str, fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", lose_answer(code))
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Unknown)
    assert outcome.code == code
    assert len(fake.effects("apply")) == 1


def test_an_accepted_change_is_ok_with_its_id(engine: Engine, scope: OperationScope, claim: Claim) -> None:
    assert engine.apply(scope, claim) == Ok("R-1")


def test_accepted_false_is_a_refusal_in_the_engines_words(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", not_accepted("the table is a view"))
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "NOT_ACCEPTED"
    assert "the table is a view" in outcome.message


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_remote_id_is_never_stored(
    empty: str, fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", altered(apply_id=empty))
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "EMPTY_REMOTE_ID"


@pytest.mark.parametrize("odd", ["R\x001", "R\n1", "R" * 600])
def test_an_id_that_cannot_be_stored_leaves_the_matter_open(
    odd: str, fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", answer(accepted=True, apply_id=odd))
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "REMOTE_ID_MALFORMED"


def test_an_engine_that_is_down_is_unknown(
    directory: EngineDirectory, scope: OperationScope, claim: Claim, fake: FakeEngine
) -> None:
    engine = directory.of(deployment_at(fake.address))
    fake.stop()
    outcome = engine.apply(scope, claim)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "UNAVAILABLE"


def test_an_answer_past_the_deadline_is_unknown_though_the_work_was_begun(
    fake: FakeEngine, impatient: EngineDirectory, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", hang(30))
    outcome = impatient.of(scope.deployment).apply(scope, claim)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "DEADLINE_EXCEEDED"
    assert len(fake.effects("apply")) == 1


def test_a_connection_reset_after_the_effect_is_unknown_and_the_same_key_finds_the_work(
    fake: FakeEngine, directory: EngineDirectory
) -> None:
    with Relay(fake.port) as relay:
        deployment = deployment_at(relay.address)
        engine, scope = directory.of(deployment), scope_at(deployment)
        fake.script("Apply", then(relay.cut))
        first = engine.apply(scope, claim_on(scope))
        assert isinstance(first, Unknown)
        assert first.code == "UNAVAILABLE"
        again = engine.apply(scope, claim_on(scope, fence=5))
        while isinstance(again, Unknown):  # the channel may still be in its backoff
            again = engine.apply(scope, claim_on(scope, fence=5))
    assert again == Ok("R-1")
    assert len(fake.effects("apply")) == 1


@pytest.mark.parametrize("content", [b"\xff" * 40, b"\x0a\xff", b"\x1a\x02\xff\xfe", b"\x00"])
def test_garbage_instead_of_an_answer_is_unknown(
    content: bytes, fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim
) -> None:
    fake.script("Apply", garbage(content))
    assert isinstance(engine.apply(scope, claim), Unknown)
    assert engine.health() == Ok("ok")


def test_a_message_names_operation_deployment_and_that_scopes_own_remote_id(
    fake: FakeEngine, engine: Engine
) -> None:
    fake.script("Stop", fail("NOT_FOUND"), fail("UNAVAILABLE"))
    for _ in range(2):
        message = engine.stop(call_for("R-9")).message  # type: ignore[union-attr]
        assert str(NAME) in message
        assert "deployment us-east" in message
        assert "remote id R-9" in message


@pytest.mark.parametrize(
    ("reason", "domain"), [("KEY_FORBIDDEN", "elsewhere.example"), ("key forbidden; --", "tern")]
)
def test_a_reason_of_another_domain_or_form_is_not_taken_for_ours(
    reason: str, domain: str, fake: FakeEngine, engine: Engine
) -> None:
    fake.script("Stop", fail("FAILED_PRECONDITION", reason, "no", domain))
    outcome = engine.stop(call_for("R-1"))
    assert isinstance(outcome, Refused)
    assert outcome.reason == ""


def test_a_number_that_is_no_status_code_refuses_nothing() -> None:
    about = About("Progress", "us-east", NAME, RemoteId("R1"))
    assert isinstance(about.coded("CODE_77", "", ""), Unknown)
    assert isinstance(about.coded("OK", "", ""), Unknown)


def test_an_engines_text_fits_a_log_and_a_database() -> None:
    assert tidy("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    assert len(tidy("x" * 10_000)) == 2_000
