"""ControlService through a generated stub: enqueue, look, list, every control; capabilities and names."""

import grpc
import pytest

from tern.client import Client
from tern.domain.errors import Misconfigured
from tern.store.sql import text
from tern.wire.control import service
from tern.wire.control.server import ControlServer
from tern.wire.control.words import ALL, OPERATION_STATES, OUTCOMES, VERBS, Words
from tern.wire.generated.tern.control.v1 import apply_pb2, policy_pb2
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tests.doors.calling import ACT, READ, Stubs, call, refused
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text"


def request(*deployments: str, key: str = "k1", ddl: str = DDL) -> control_v1.EnqueueRequest:
    return control_v1.EnqueueRequest(
        idempotency_key=key,
        reason="because",
        ddl=ddl,
        environment="test",
        database="shop",
        targets=control_v1.Targets(deployments=deployments, all=not deployments),
    )


def control(verb: int, subject: str, **fields: object) -> control_v1.ControlRequest:
    return control_v1.ControlRequest(verb=verb, subject=subject, reason="the night is long", **fields)  # type: ignore[arg-type]


def outcomes(answer: control_v1.ControlResponse | control_v1.ResolveResponse) -> dict[str, str]:
    return {each.deployment: OUTCOMES.word(each.outcome).value for each in answer.outcomes}


def test_an_enqueue_is_written_down_in_the_name_of_the_token(world: World, stubs: Stubs) -> None:
    made = call(stubs.control.Enqueue, request("B", "A"))
    assert (made.is_new, list(made.deployments), made.caller) == (True, ["B", "A"], "deployer")
    world.last = made.apply_id
    assert world.apply_row().caller == "deployer"
    world.answer_bells()
    assert (world.state("B"), world.state("A")) == ("running", "pending")
    again = call(stubs.control.Enqueue, request("B", "A"))
    assert (again.apply_id, again.is_new) == (made.apply_id, False)


def test_a_whole_policy_travels_and_comes_back(world: World, stubs: Stubs) -> None:
    asked = request()
    asked.policy.CopyFrom(
        policy_pb2.Policy(
            copy=policy_pb2.COPY_PARALLEL,
            on_failure=policy_pb2.ON_FAILURE_PAUSE,
            cutover=policy_pb2.CUTOVER_MANUAL,
            max_parallel=2,
            max_failures=1,
            strict=True,
            waves=[
                policy_pb2.Wave(deployments=["A"], max_failures=0, bake_seconds=60),
                policy_pb2.Wave(max_parallel=1),
            ],
        )
    )
    made = call(stubs.control.Enqueue, asked)
    shown = call(stubs.control.GetApply, control_v1.GetApplyRequest(subject=made.apply_id), READ)
    assert shown.apply.policy == asked.policy
    assert [operation.wave for operation in shown.operations] == [1, 2, 2]


def test_an_apply_is_shown_in_pages(world: World, stubs: Stubs) -> None:
    apply_id = world.apply()
    first = call(stubs.control.GetApply, control_v1.GetApplyRequest(subject=apply_id, page_size=2), READ)
    assert [each.deployment for each in first.operations] == ["A", "B"]
    assert first.apply.operation_count == 3
    assert first.apply.state == apply_pb2.APPLY_STATE_PENDING
    rest = control_v1.GetApplyRequest(subject=apply_id, page_size=2, page_token=first.next_page_token)
    last = call(stubs.control.GetApply, rest, READ)
    assert ([each.deployment for each in last.operations], last.next_page_token) == (["C"], "")
    one = call(stubs.control.GetApply, control_v1.GetApplyRequest(subject=f"{apply_id}/B"), READ)
    assert [each.scope for each in one.operations] == [f"{apply_id}/B"]
    assert "before it" in one.operations[0].holds[0].detail


def test_applies_are_listed_newest_first_in_pages(world: World, stubs: Stubs) -> None:
    made = [world.apply(name) for name in "ABC"]
    seen: list[str] = []
    token = ""
    while True:
        asked = control_v1.ListAppliesRequest(environment="test", page_size=2, page_token=token)
        page = call(stubs.control.ListApplies, asked, READ)
        seen += [each.apply_id for each in page.applies]
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]
    done = control_v1.ListAppliesRequest(states=[apply_pb2.APPLY_STATE_COMPLETED])
    assert not call(stubs.control.ListApplies, done, READ).applies


def test_a_control_answers_once_for_each_operation(world: World, stubs: Stubs) -> None:
    apply_id = world.apply()
    world.answer_bells()
    rehearsed = call(stubs.control.Control, control(control_v1.VERB_STOP, apply_id, dry_run=True, expect=3))
    assert outcomes(rehearsed) == dict.fromkeys("ABC", "accepted")
    assert not rehearsed.HasField("request_id")
    done = call(stubs.control.Control, control(control_v1.VERB_STOP, apply_id))
    assert outcomes(done) == dict.fromkeys("ABC", "accepted")
    again = call(stubs.control.Control, control(control_v1.VERB_STOP, f"{apply_id}/A"))
    assert outcomes(again) == {"A": "already"}
    world.run(until=lambda: world.apply_row().state == "stopped")
    selection = control_v1.Selection(states=[apply_pb2.OPERATION_STATE_STOPPED], excepted=["C"])
    started = call(stubs.control.Control, control(control_v1.VERB_START, apply_id, selection=selection))
    assert outcomes(started) == {"A": "accepted", "B": "accepted"}
    assert world.one("SELECT caller FROM control_requests LIMIT 1").caller == "deployer"


def test_going_forward_on_several_operations_needs_a_choice(world: World, stubs: Stubs) -> None:
    """G7: refused with the operations' names, and nothing is written."""
    apply_id = world.apply()
    answer = refused(stubs.control.Control, control(control_v1.VERB_START, apply_id))
    assert answer[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "SELECTION_MISSING")
    assert "3 operations" in answer.message
    assert "A (pending), B (pending), C (pending)" in answer.why[0]
    assert world.one("SELECT count(*) AS n FROM control_requests").n == 0


def test_reasons_are_explained_once_with_all_whom_they_hold(world: World, stubs: Stubs) -> None:
    apply_id = world.apply()
    world.write("UPDATE deployments SET drained = true WHERE name IN ('B', 'C')")
    said = call(stubs.control.ExplainApply, control_v1.ExplainApplyRequest(subject=apply_id), READ)
    drained = next(each for each in said.reasons if each.hold.kind == "drained")
    assert (drained.operation_count, list(drained.deployments)) == (2, ["B", "C"])
    assert drained.hold.cleared_by == apply_pb2.CLEARED_BY_ASK
    assert said.apply.headline.startswith("pending")


def test_the_record_comes_in_pages_oldest_first(world: World, stubs: Stubs) -> None:
    apply_id = world.apply()
    world.answer_bells()
    whole = call(stubs.control.ListEvents, control_v1.ListEventsRequest(subject=apply_id), READ)
    assert whole.events[0].event == "accepted"
    assert not whole.next_page_token
    pieces: list[int] = []
    token = ""
    while len(pieces) <= len(whole.events):
        asked = control_v1.ListEventsRequest(subject=apply_id, page_size=1, page_token=token)
        page = call(stubs.control.ListEvents, asked, READ)
        pieces += [each.event_id for each in page.events]
        token = page.next_page_token
        if not token:
            break
    assert pieces == [each.event_id for each in whole.events]


def test_records_are_verified_by_whoever_may_read(world: World, stubs: Stubs) -> None:
    """G15: one message for each apply, the oldest first."""
    made = [world.apply(name) for name in "AB"]
    world.answer_bells()
    said = list(call(stubs.control.VerifyRecords, control_v1.VerifyRecordsRequest(), READ))
    assert [each.record.apply_id for each in said] == made
    counts = world.one("SELECT count(*) AS n FROM apply_events").n
    assert sum(each.record.events for each in said) == counts
    assert all(each.record.seal and not each.record.findings and not each.has_more for each in said)


def test_many_faults_of_one_record_come_in_several_messages(
    world: World, stubs: Stubs, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_id = world.apply()
    world.answer_bells()
    with world.database.begin() as tx:
        # As a superuser who has switched the triggers off.
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("UPDATE apply_events SET why = 'x'"))
    monkeypatch.setattr(service, "LARGEST_PAGE", 2)
    said = list(call(stubs.control.VerifyRecords, control_v1.VerifyRecordsRequest(apply_id=apply_id)))
    assert [len(each.record.findings) for each in said[:-1]] == [2] * (len(said) - 1)
    assert [each.has_more for each in said] == [True] * (len(said) - 1) + [False]
    assert len(said) > 1
    monkeypatch.setenv("ACT_TOKEN", ACT)
    with Client(f"grpc://127.0.0.1:{server.port}", token="env:ACT_TOKEN") as client:
        (found,) = client.verify(apply_id).records
    assert len(found.findings) == sum(len(each.record.findings) for each in said)


def test_an_uncertain_operation_is_resolved_by_who_looked(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A")
    world.write(
        "UPDATE apply_operations SET state = 'uncertain', attempt = 1, dispatch_key = 'k',"
        " dispatch_intent_at = tern_clock(), started_at = tern_clock(), next_attempt_at = NULL"
    )
    asked = control_v1.ResolveRequest(
        subject=f"{apply_id}/A", finding=control_v1.FINDING_ENDED, reason="the table is gone"
    )
    assert outcomes(call(stubs.control.Resolve, asked)) == {"A": "accepted"}
    assert world.state("A") == "failed"
    answer = refused(stubs.control.Resolve, asked)
    assert answer[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_UNCERTAIN")
    assert world.events("A")[-1].who == "deployer"
    said = control_v1.ResolveRequest(
        subject=f"{apply_id}/A",
        reason="the table is gone",
        statements=[control_v1.StatementFinding(number=1, effect=control_v1.EFFECT_NOT_DONE)],
    )
    mixed = control_v1.ResolveRequest(finding=control_v1.FINDING_ENDED)
    mixed.MergeFrom(said)
    assert refused(stubs.control.Resolve, mixed).code is grpc.StatusCode.INVALID_ARGUMENT
    unsaid = control_v1.ResolveRequest()
    unsaid.CopyFrom(said)
    unsaid.statements[0].effect = control_v1.EFFECT_UNSPECIFIED
    assert refused(stubs.control.Resolve, unsaid).code is grpc.StatusCode.INVALID_ARGUMENT
    assert outcomes(call(stubs.control.Resolve, said)) == {"A": "accepted"}
    seen = call(stubs.control.GetApply, control_v1.GetApplyRequest(subject=f"{apply_id}/A"))
    (change,) = seen.operations[0].table_changes
    assert (change.state, change.settled_by) == ("skipped", "deployer")
    assert refused(stubs.control.Resolve, said).reason == "STATEMENT_KNOWN"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("Enqueue", request()),
        ("Control", control(control_v1.VERB_STOP, "apl-1")),
        ("Resolve", control_v1.ResolveRequest(subject="apl-1/A")),
    ],
)
def test_who_may_only_read_does_nothing(method: str, message: object, world: World, stubs: Stubs) -> None:
    answer = refused(getattr(stubs.control, method), message, READ)
    assert answer[:2] == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED")
    assert world.one("SELECT count(*) AS n FROM applies").n == 0


@pytest.mark.parametrize(
    ("method", "message", "code", "reason"),
    [
        ("GetApply", control_v1.GetApplyRequest(subject="apl-0"), "NOT_FOUND", "NOT_FOUND"),
        ("GetApply", control_v1.GetApplyRequest(subject="apl-0/A"), "NOT_FOUND", "NOT_FOUND"),
        ("GetApply", control_v1.GetApplyRequest(), "INVALID_ARGUMENT", "USAGE"),
        ("GetApply", control_v1.GetApplyRequest(subject="APPLY/nowhere"), "NOT_FOUND", "NOT_FOUND"),
        ("GetApply", control_v1.GetApplyRequest(subject="APPLY/"), "INVALID_ARGUMENT", "SCOPE_MALFORMED"),
        ("GetApply", control_v1.GetApplyRequest(subject="APPLY", page_token="x"), "INVALID_ARGUMENT", "USAGE"),
        ("GetApply", control_v1.GetApplyRequest(subject="APPLY", page_size=-1), "INVALID_ARGUMENT", "USAGE"),
        ("ListApplies", control_v1.ListAppliesRequest(page_token="x"), "INVALID_ARGUMENT", "USAGE"),
        ("ListApplies", control_v1.ListAppliesRequest(states=[99]), "INVALID_ARGUMENT", "USAGE"),
        ("ListEvents", control_v1.ListEventsRequest(subject="apl-0"), "NOT_FOUND", "NOT_FOUND"),
        ("ListEvents", control_v1.ListEventsRequest(subject="APPLY", page_token="9" * 30), "INVALID_ARGUMENT", "USAGE"),
        ("ExplainApply", control_v1.ExplainApplyRequest(subject="apl-0"), "NOT_FOUND", "NOT_FOUND"),
        ("WatchApply", control_v1.WatchApplyRequest(apply_id="apl-0"), "NOT_FOUND", "NOT_FOUND"),
        ("WatchApply", control_v1.WatchApplyRequest(apply_id="APPLY/A"), "INVALID_ARGUMENT", "USAGE"),
        ("GetEnqueued", control_v1.GetEnqueuedRequest(), "INVALID_ARGUMENT", "USAGE"),
        ("VerifyRecords", control_v1.VerifyRecordsRequest(apply_id="apl-0"), "NOT_FOUND", "NOT_FOUND"),
        ("VerifyRecords", control_v1.VerifyRecordsRequest(apply_id="APPLY/A"), "INVALID_ARGUMENT", "USAGE"),
        ("VerifyRecords", control_v1.VerifyRecordsRequest(apply_id="APPLY", since={}), "INVALID_ARGUMENT", "USAGE"),
        ("VerifyRecords", control_v1.VerifyRecordsRequest(since={"seconds": 10**15}), "INVALID_ARGUMENT", "USAGE"),
        ("VerifyRecords", control_v1.VerifyRecordsRequest(since={"nanos": -1}), "INVALID_ARGUMENT", "USAGE"),
        ("Resolve", control_v1.ResolveRequest(subject="APPLY/A", reason="x"), "INVALID_ARGUMENT", "USAGE"),
        ("Control", control_v1.ControlRequest(subject="APPLY", reason="x"), "INVALID_ARGUMENT", "USAGE"),
        ("Control", control_v1.ControlRequest(subject="APPLY", reason="x", verb=99), "INVALID_ARGUMENT", "USAGE"),
    ],
)  # fmt: skip
def test_what_can_t_be_is_said_with_its_code_and_reason(
    method: str, message: object, code: str, reason: str, world: World, stubs: Stubs
) -> None:
    apply_id = world.apply()
    asked = type(message)()
    asked.CopyFrom(message)  # type: ignore[attr-defined]
    for field in ("subject", "apply_id"):
        if field in type(message).DESCRIPTOR.fields_by_name:  # type: ignore[attr-defined]
            setattr(asked, field, getattr(asked, field).replace("APPLY", apply_id))
    answer = refused(getattr(stubs.control, method), asked)
    assert answer[:2] == (grpc.StatusCode[code], reason)


@pytest.mark.parametrize("words", ALL, ids=lambda words: words.prefix)
def test_the_contract_has_our_words_and_no_other(words: Words) -> None:  # type: ignore[type-arg]
    ours = {words.name(word) for word in words.kind}
    assert {name for name in words.wrapper.keys() if not name.endswith("_UNSPECIFIED")} == ours  # noqa: SIM118
    assert all(words.word(words.number(word)) is word for word in words.kind)


def test_a_word_of_a_later_contract_is_no_guess() -> None:
    assert (VERBS.said(0), VERBS.said(99)) == (None, "VERB_99")
    with pytest.raises(Misconfigured, match="where this version knows"):
        OPERATION_STATES.word(99)
