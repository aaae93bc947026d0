"""The public contract for Tern's own applies: routed by operation, refused where the operation is not clear (G7)."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tern.domain.identity import ApplyId, ScopeName
from tern.domain.model import Credentials
from tern.domain.outcome import Ok, Refused
from tern.domain.policy import Copy, Cutover, Policy
from tern.domain.states import State
from tern.ports import StorageUnavailable
from tern.wire.control.server import ControlServer
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.looking import STATES
from tern.wire.routing import EngineDirectory
from tern.wire.transport import Metadata
from tests.doors.calling import ACT, DEADLINE_S, READ, Stubs, bearer, call, ended, refused
from tests.wire.conftest import NAME, accepted, call_for, claim_on, deployment_at, scope_at
from tests.world import World

CALLS: dict[str, Callable[..., Any]] = {
    "Progress": tern_v1.ProgressRequest,
    "Logs": tern_v1.LogsRequest,
    "Stop": tern_v1.StopRequest,
    "Start": tern_v1.StartRequest,
    "Cutover": tern_v1.CutoverRequest,
    "Cancel": tern_v1.CancelRequest,
    "Revert": tern_v1.RevertRequest,
    "SkipRevert": tern_v1.SkipRevertRequest,
    "Volume": lambda **fields: tern_v1.VolumeRequest(volume=3, **fields),
}
CONTROLS = [name for name in CALLS if name not in {"Progress", "Logs"}]
CHANGE = tern_v1.TableChange(
    table_name="orders", ddl="ALTER TABLE orders ADD COLUMN note text", change_type=tern_v1.CHANGE_TYPE_ALTER
)

# Whatever it says: nothing of it is read.
DIRECT = tern_v1.DirectExecutionPolicy.FromString(b"\x08\x01")


def apply_request(**fields: Any) -> tern_v1.ApplyRequest:
    usual = {
        "database": "shop",
        "type": "postgres",
        "environment": "test",
        "target": "target-A",
        "idempotency_key": "k1",
        "ddl_changes": [CHANGE],
    }
    return tern_v1.ApplyRequest(**{**usual, **fields})


def requests(world: World) -> int:
    return int(world.one("SELECT count(*) AS n FROM control_requests").n)


def sent(world: World) -> dict[str, list[str]]:
    """Every control that reached an engine."""
    return {
        name: [verb for verb in CONTROLS for _ in engine.calls(verb)]
        for name, engine in world.engines.items()
    }


@pytest.mark.parametrize("method", sorted(CALLS))
def test_an_apply_of_several_operations_is_refused_with_their_number(
    method: str, world: World, stubs: Stubs
) -> None:
    """G7, S1, visible from outside: nothing is sent, nothing is written."""
    apply_id = world.apply()
    world.answer_bells()
    looks = sum(len(engine.calls("Progress")) for engine in world.engines.values())
    answer = refused(getattr(stubs.tern, method), CALLS[method](apply_id=apply_id))
    assert answer[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "APPLY_SCOPED_CALL_ON_MULTI")
    assert "it has 3 operations" in answer.why[0]
    assert (requests(world), sent(world)) == (0, {"A": [], "B": [], "C": []})
    assert sum(len(engine.calls("Progress")) for engine in world.engines.values()) == looks


@pytest.mark.parametrize("method", sorted(CALLS))
@pytest.mark.parametrize(
    ("error", "code"), [(StorageUnavailable("away"), "UNAVAILABLE"), (KeyError("apl-one"), "INTERNAL")]
)
def test_an_apply_whose_operations_can_t_be_counted_is_not_called(
    error: Exception, code: str, method: str, world: World, stubs: Stubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G7: not even a single one, whose parent holds the id."""
    apply_id = world.apply("A")
    world.answer_bells()
    assert world.apply_row().external_id == world.remote_id("A")

    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr(world.ports.store, "members", fails)
    answer = refused(getattr(stubs.tern, method), CALLS[method](apply_id=apply_id))
    assert answer.code is grpc.StatusCode[code]
    assert (requests(world), sent(world)) == (0, {"A": [], "B": [], "C": []})


@pytest.mark.parametrize("method", sorted(CALLS))
@pytest.mark.parametrize(
    ("apply_id", "code", "reason"),
    [
        ("", "INVALID_ARGUMENT", "USAGE"),
        ("APPLY/", "INVALID_ARGUMENT", "SCOPE_MALFORMED"),
        ("/A", "INVALID_ARGUMENT", "SCOPE_MALFORMED"),
        ("APPLY/nowhere", "NOT_FOUND", "NOT_FOUND"),
        ("apl-0", "NOT_FOUND", "NOT_FOUND"),
        ("apl-0/A", "NOT_FOUND", "NOT_FOUND"),
        ("job-77", "NOT_FOUND", "NOT_FOUND"),
        ("x" * 5000, "NOT_FOUND", "NOT_FOUND"),
    ],
)
def test_an_id_that_is_none_is_refused(
    method: str, apply_id: str, code: str, reason: str, world: World, stubs: Stubs
) -> None:
    known = world.apply()
    asked = CALLS[method](apply_id=apply_id.replace("APPLY", known))
    assert refused(getattr(stubs.tern, method), asked)[:2] == (grpc.StatusCode[code], reason)
    assert requests(world) == 0


def test_a_stop_of_one_operation_reaches_that_one_with_its_own_id(world: World, stubs: Stubs) -> None:
    """G2: the wish goes the way of every wish, and the engine of a sibling hears nothing."""
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    answer = call(stubs.tern.Stop, tern_v1.StopRequest(apply_id=f"{apply_id}/B"))
    assert (answer.accepted, answer.stopped_count) == (True, 1)
    assert sent(world) == {"A": [], "B": [], "C": []}
    world.answer_bells()
    (stop,) = world.engines["B"].calls("Stop")
    assert stop.request.apply_id == world.remote_id("B")
    world.run(until=lambda: world.state("B") == "stopped")
    assert (world.state("A"), sent(world)["A"], sent(world)["C"]) == ("running", [], [])
    again = call(stubs.tern.Stop, tern_v1.StopRequest(apply_id=f"{apply_id}/B"))
    assert (again.accepted, again.stopped_count, again.skipped_count) == (True, 0, 1)
    event = next(each for each in world.events() if each.event == "accepted")
    assert event.who == "ann"
    assert world.one("SELECT caller FROM control_requests LIMIT 1").caller == "deployer"


def test_a_single_apply_is_its_one_operation(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    seen = call(stubs.tern.Progress, tern_v1.ProgressRequest(apply_id=apply_id), READ)
    assert (seen.apply_id, seen.state) == (apply_id, tern_v1.STATE_RUNNING)
    assert call(stubs.tern.Cancel, tern_v1.CancelRequest(apply_id=apply_id)).accepted
    world.run(until=lambda: world.state("A") == "cancelled")
    seen = call(stubs.tern.Progress, tern_v1.ProgressRequest(apply_id=f"{apply_id}/A"), READ)
    assert (seen.state, bool(seen.completed_at)) == (tern_v1.STATE_CANCELLED, True)


@pytest.mark.parametrize("state", State)
def test_nothing_is_told_as_over_that_may_run(state: State, world: World, stubs: Stubs) -> None:
    """G10: whoever reads the contract, such as another Tern, takes the words of an end for one."""
    apply_id = world.apply("A", "B")
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET state = :state, completed_at = CASE WHEN :is_over THEN tern_clock() END,"
        # Of a pending one nothing was sent.
        " dispatch_key = CASE WHEN :was_sent THEN dispatch_key END,"
        " dispatch_intent_at = CASE WHEN :was_sent THEN dispatch_intent_at END WHERE deployment = 'A'",
        state=state.value,
        is_over=state.is_finished,
        was_sent=state is not State.PENDING,
    )
    seen = call(stubs.tern.Progress, tern_v1.ProgressRequest(apply_id=f"{apply_id}/A"), READ)
    read = STATES[seen.state]
    assert (read.is_finished, read.is_settled) == (state.is_finished, state.is_settled)
    assert seen.metadata["state"] == state.value
    own_word = dict(tern_v1.State.items()).get(f"STATE_{state.name}", seen.state)
    assert seen.state == own_word


def test_what_an_operation_does_not_welcome_is_an_answer_and_no_error(world: World, stubs: Stubs) -> None:
    """The contract says no inside an OK answer."""
    apply_id = world.apply("A")
    world.answer_bells()
    for method in ("Cutover", "Revert", "SkipRevert"):
        answer = call(getattr(stubs.tern, method), CALLS[method](apply_id=apply_id))
        assert (answer.accepted, bool(answer.error_message)) == (False, True), method
    wrong = refused(stubs.tern.Volume, tern_v1.VolumeRequest(apply_id=apply_id, volume=12))
    assert wrong[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "USAGE")
    assert not world.engines["A"].calls("Cutover")


def test_a_look_tells_what_tern_knows_and_asks_no_engine(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    looks = len(world.engines["A"].calls("Progress")) + len(world.engines["A"].calls("BatchProgress"))
    for _ in range(3):
        seen = call(stubs.tern.Progress, tern_v1.ProgressRequest(apply_id=f"{apply_id}/A"), READ)
    assert seen.metadata["remote_id"] == world.remote_id("A")
    assert seen.metadata["operation"] == f"{apply_id}/A"
    assert float(seen.metadata["sampled_age_s"]) >= 0
    assert seen.tables[0].table_name == "orders"
    assert len(world.engines["A"].calls("Progress")) + len(world.engines["A"].calls("BatchProgress")) == looks


def test_another_environment_is_refused(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A")
    for method in sorted(CALLS):
        asked = CALLS[method](apply_id=apply_id, environment="elsewhere")
        answer = refused(getattr(stubs.tern, method), asked)
        assert answer[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "TARGET_MISMATCH"), method
    assert requests(world) == 0


def test_logs_are_the_record_of_the_operation(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A", "B")
    world.answer_bells()
    said = call(stubs.tern.Logs, tern_v1.LogsRequest(apply_id=f"{apply_id}/A", limit=100), READ)
    assert {"accepted", "claim"} <= {each.event_type for each in said.logs}
    assert [each.id for each in said.logs] == sorted(each.id for each in said.logs)


def test_an_apply_makes_one_and_its_key_the_same_one(world: World, stubs: Stubs) -> None:
    made = call(stubs.tern.Apply, apply_request(caller="ci", options={"defer_cutover": "true"}))
    assert made.accepted
    assert made.apply_operation_id == f"{made.apply_id}/A"
    row = world.apply_row(made.apply_id)
    assert (row.caller, row.operation_count, row.policy["cutover"]) == ("deployer", 1, Cutover.MANUAL)
    assert "on behalf of ci" in row.reason
    again = call(stubs.tern.Apply, apply_request(options={"defer_cutover": "true"}))
    assert again.apply_id == made.apply_id
    other = refused(stubs.tern.Apply, apply_request())
    assert other[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "KEY_REUSED")
    assert any("policy" in line for line in other.why), other
    world.last = made.apply_id
    world.answer_bells()
    assert world.state("A") == "running"


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"idempotency_key": ""}, "INVALID_ARGUMENT", "USAGE"),
        ({"target": ""}, "INVALID_ARGUMENT", "USAGE"),
        ({"target": "nowhere"}, "FAILED_PRECONDITION", "NO_DEPLOYMENTS"),
        ({"environment": "elsewhere"}, "FAILED_PRECONDITION", "NO_DEPLOYMENTS"),
        ({"ddl_changes": []}, "INVALID_ARGUMENT", "USAGE"),
        ({"ddl_changes": [], "plan_id": "pln-0"}, "NOT_FOUND", "NOT_FOUND"),
        ({"options": {"volume": "3"}}, "UNIMPLEMENTED", "NOT_OFFERED"),
        ({"options": {"enable_revert": "maybe"}}, "INVALID_ARGUMENT", "USAGE"),
        ({"options": {"allow_unsafe": "yes"}}, "INVALID_ARGUMENT", "USAGE"),
        ({"options": {"surprise": "1"}}, "INVALID_ARGUMENT", "USAGE"),
        ({"target_shards": ["a"]}, "UNIMPLEMENTED", "NOT_OFFERED"),
        ({"direct_execution": DIRECT}, "UNIMPLEMENTED", "NOT_OFFERED"),
        ({"options": {"branch": "b"}}, "UNIMPLEMENTED", "NOT_OFFERED"),
        ({"options": {"defer_deploy": "true"}}, "UNIMPLEMENTED", "NOT_OFFERED"),
        ({"options": {"target": "target-B"}}, "INVALID_ARGUMENT", "USAGE"),
        ({"options": {"enable_revert": "true", "skip_revert": "true"}}, "INVALID_ARGUMENT", "USAGE"),
        (
            {"schema_files": {"a": {}}, "ddl_changes": [CHANGE, CHANGE], "plan_id": "plan-of-another"},
            "FAILED_PRECONDITION",
            "PLAN_UNKNOWN",
        ),
        (
            # One table, once with its namespace left out.
            {
                "schema_files": {"a": {}},
                "ddl_changes": [
                    CHANGE,
                    tern_v1.TableChange(table_name="orders", ddl="x", namespace="public"),
                ],
                "plan_id": "plan-of-another",
            },
            "FAILED_PRECONDITION",
            "PLAN_UNKNOWN",
        ),
        (
            {"ddl_changes": [{"table_name": "orders", "ddl": "ALTER TABLE orders DROP COLUMN x"}]},
            "FAILED_PRECONDITION",
            "UNSAFE_CHANGE",
        ),
        (
            {"ddl_changes": [{"table_name": "orders", "ddl": "ALTER TABLE orders ADD a int; DROP TABLE b"}]},
            "FAILED_PRECONDITION",
            "STATEMENT_REFUSED",
        ),
        ({"ddl_changes": [{"table_name": "orders", "ddl": "SELEC"}]}, "FAILED_PRECONDITION", "DDL_INVALID"),
        (
            {"ddl_changes": [{"table_name": "o", "ddl": "x", "is_unsafe": True}], "type": "mysql"},
            "FAILED_PRECONDITION",
            "UNSAFE_CHANGE",
        ),
    ],
)
def test_an_apply_that_can_t_be_taken_writes_nothing(
    fields: dict[str, Any], code: str, reason: str, world: World, stubs: Stubs
) -> None:
    answer = refused(stubs.tern.Apply, apply_request(**fields))
    assert answer[:2] == (grpc.StatusCode[code], reason), answer
    assert world.one("SELECT (SELECT count(*) FROM applies) + (SELECT count(*) FROM plans) AS n").n == 0


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("PullSchema", tern_v1.PullSchemaRequest),
        ("Plan", tern_v1.PlanRequest),
        ("PlanDiff", tern_v1.PlanRequest),
    ],
)
def test_what_is_not_offered_is_unimplemented(method: str, request_type: Any, stubs: Stubs) -> None:
    answer = refused(getattr(stubs.tern, method), request_type())
    assert answer[:2] == (grpc.StatusCode.UNIMPLEMENTED, "NOT_OFFERED")


def test_it_is_well_while_its_database_answers(stubs: Stubs) -> None:
    assert call(stubs.tern.Health, tern_v1.HealthRequest(), READ).status == "ok"


def test_who_may_only_read_controls_nothing(world: World, stubs: Stubs) -> None:
    apply_id = world.apply("A")
    for method in CONTROLS:
        answer = refused(getattr(stubs.tern, method), CALLS[method](apply_id=apply_id), READ)
        assert answer[:2] == (grpc.StatusCode.PERMISSION_DENIED, "NOT_ALLOWED"), method
    assert refused(stubs.tern.Apply, apply_request(), READ).code is grpc.StatusCode.PERMISSION_DENIED
    assert requests(world) == 0


@pytest.mark.parametrize("method", CONTROLS)
def test_a_parent_that_holds_an_id_opens_no_door(method: str, world: World, stubs: Stubs) -> None:
    """S2: even when somebody wrote an id to the parent by hand, past all that forbids it."""
    apply_id = world.apply()
    world.write("ALTER TABLE applies DROP CONSTRAINT applies_only_single_ones_hold_a_remote_id")
    world.write("ALTER TABLE applies DISABLE TRIGGER ALL")
    world.write("UPDATE applies SET external_id = 'job-1'")
    world.write("ALTER TABLE applies ENABLE TRIGGER ALL")
    answer = refused(getattr(stubs.tern, method), CALLS[method](apply_id=apply_id))
    assert answer.reason == "APPLY_SCOPED_CALL_ON_MULTI"
    assert requests(world) == 0


def about(*operations: str, fence: str = "") -> Metadata:
    """The metadata of a driver of engines."""
    named = tuple(("tern-operation", operation) for operation in operations)
    return (*bearer(ACT), *named, *((("tern-fence", fence),) if fence else ()))


@pytest.mark.parametrize("method", sorted(CALLS))
def test_a_call_for_another_operation_than_it_addresses_is_refused(
    method: str, world: World, stubs: Stubs
) -> None:
    """G7: a caller's mistake reaches nobody's work; whatever the name is that it says."""
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    ask, asked = getattr(stubs.tern, method), CALLS[method](apply_id=f"{apply_id}/B")
    for named in ((f"{apply_id}/A",), ("apl-0/B",), (apply_id,), ("x",), (f"{apply_id}/B", f"{apply_id}/A")):
        with pytest.raises(grpc.RpcError) as failed:
            ask(asked, timeout=DEADLINE_S, metadata=about(*named, fence="9"))
        assert ended(failed.value)[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "OPERATION_MISMATCH"), named
    assert (requests(world), sent(world)) == (0, {"A": [], "B": [], "C": []})


def test_a_call_that_says_what_it_addresses_is_answered_whatever_its_fence(
    world: World, stubs: Stubs
) -> None:
    """Fences are between Tern and its engines: a caller's neither helps nor harms."""
    apply_id = world.apply("A")
    world.answer_bells()
    calls = [
        (f"{apply_id}/A", about(f"{apply_id}/A", fence="999")),
        (apply_id, about(f"{apply_id}/A", fence="1")),
        (apply_id, about(f"{apply_id}/A", f"{apply_id}/A", fence="nonsense")),
        (apply_id, about("")),
    ]
    for volume, (addressed, metadata) in enumerate(calls, 1):
        asked = tern_v1.VolumeRequest(apply_id=addressed, volume=volume)
        assert stubs.tern.Volume(asked, timeout=DEADLINE_S, metadata=metadata).accepted
        world.answer_bells()
    seen = [(each.request.volume, each.operation) for each in world.engines["A"].calls("Volume")]
    assert seen == [(volume, f"{apply_id}/A") for volume in range(1, 5)]
    fences = [each.fence or 0 for each in world.engines["A"].calls("Volume")]
    assert fences == sorted(fences)
    assert max(fences) < 999


def test_another_tern_drives_a_rollout_under_its_own_name(
    world: World, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To it this one is an engine: an Apply is bound to its operation, and a call for any other is refused."""
    monkeypatch.setenv("ACT_TOKEN", ACT)
    here = replace(
        deployment_at(f"grpc://127.0.0.1:{server.port}", credentials=Credentials(token="env:ACT_TOKEN")),
        target="target-A",
    )
    asked = accepted(replace(scope_at(here), environment="test"))
    stranger = replace(asked, name=ScopeName(ApplyId("apl-two"), NAME.deployment))
    with closing(EngineDirectory(deadline_s=DEADLINE_S)) as directory:
        engine = directory.of(here)
        made = engine.apply(asked, claim_on(asked))
        assert isinstance(made, Ok), made
        assert engine.apply(asked, claim_on(asked, fence=2)) == made
        world.last = ApplyId(made.value)
        world.answer_bells()
        its = replace(call_for(made.value), environment="test")
        look = engine.progress(its)
        assert isinstance(look, Ok), look
        assert look.value.state is State.RUNNING

        strays = replace(its, name=stranger.name)
        ends = [engine.progress(strays), engine.stop(strays), engine.apply(stranger, claim_on(asked))]
        assert [each.reason for each in ends if isinstance(each, Refused)] == ["OPERATION_MISMATCH"] * 3
        assert requests(world) == 0

        assert engine.stop(its) == Ok(None)
        world.run(until=lambda: world.state("A") == "stopped")


def test_an_apply_that_names_no_one_operation_writes_nothing(world: World, stubs: Stubs) -> None:
    for named in (("apl-one/A", "apl-one/B"), ("apl-one",), ("apl-one/",), ("x" * 2_000,)):
        with pytest.raises(grpc.RpcError) as failed:
            stubs.tern.Apply(apply_request(), timeout=DEADLINE_S, metadata=about(*named))
        assert ended(failed.value).code is grpc.StatusCode.INVALID_ARGUMENT, named
    assert world.one("SELECT count(*) AS n FROM applies").n == 0
