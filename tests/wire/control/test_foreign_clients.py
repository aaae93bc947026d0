"""Tern's own applies for clients of the public contract that somebody else made from its numbers."""

from typing import Any

import grpc
import pytest

from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Cutover, Policy
from tests.doors.calling import ACT, bearer
from tests.faults.foreign_contract import LATER, MAY, TODAY, Contract, ForeignClient
from tests.flows.steps import engine_says, settle
from tests.world import World

HERE = {"environment": "test", "database": "shop", "target": "target-A", "type": "postgres"}
NOTE = "ALTER TABLE orders ADD COLUMN note text"
INDEX = "CREATE INDEX orders_note ON orders (note)"


@pytest.fixture(params=[TODAY, LATER], ids=["today", "later"])
def client(request: pytest.FixtureRequest, channel: grpc.Channel) -> ForeignClient:
    return Contract(request.param).client(channel, bearer(ACT))


@pytest.fixture
def may(channel: grpc.Channel) -> ForeignClient:
    return Contract(MAY).client(channel, bearer(ACT))


def begin(client: ForeignClient, *ddl: str, **more: Any) -> Any:
    changes = [{"table_name": "orders", "ddl": each, "namespace": "public"} for each in ddl]
    return client.call("Apply", **{**HERE, "idempotency_key": "k1", "ddl_changes": changes, **more})


def refusal(client: ForeignClient, method: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        client.call(method, **fields)
    return raised.value.code(), raised.value.details()


def test_a_rollout_from_apply_to_its_end(client: ForeignClient, world: World) -> None:
    options = {"defer_cutover": "true", "skip_revert": "true", "target": "target-A"}
    answer = begin(client, NOTE, INDEX, options=options, caller="cli:dana")
    assert answer.accepted
    world.last = answer.apply_id
    world.sweep()
    engine_says(world, "A", "waiting_for_cutover")
    scoped = {"apply_id": answer.apply_id, "apply_operation_id": answer.apply_operation_id}
    seen = client.call("Progress", **scoped)
    assert (seen.state, seen.engine, seen.apply_operation_id) == (3, 3, answer.apply_operation_id)
    assert [(each.namespace, each.table_name) for each in seen.tables] == [("public", "orders")]
    assert seen.tables[0].task_id == f"{answer.apply_operation_id}/1"
    assert seen.started_at
    assert client.call("Cutover", caller="cli:dana", **scoped).accepted
    settle(world)
    assert client.call("Progress", apply_id=answer.apply_id).state == 6
    assert client.call("Logs", apply_id=answer.apply_id).logs
    assert client.call("Health").version


def test_stop_start_and_cancel(client: ForeignClient, world: World) -> None:
    answer = begin(client, NOTE)
    world.last = answer.apply_id
    world.sweep()
    engine_says(world, "A", "running")
    assert client.call("Stop", apply_id=answer.apply_id, caller="cli:dana").stopped_count == 1
    settle(world)
    assert client.call("Progress", apply_id=answer.apply_id).state == 8
    assert client.call("Start", apply_id=answer.apply_id).started_count == 1
    settle(world)
    assert client.call("Cancel", apply_id=answer.apply_id).cancelled_count == 1
    reason = world.one("SELECT reason FROM control_requests ORDER BY id LIMIT 1").reason
    assert reason == "stop over tern.v1.Tern, on behalf of cli:dana"


def test_the_order_that_holds_is_the_kept_plan_s(client: ForeignClient, world: World) -> None:
    """Its client sends a plan's statements on one table the last one first."""
    changes = (
        PlannedChange("public", "orders", NOTE, Action.ALTER),
        PlannedChange("public", "orders", INDEX, Action.OTHER),
    )
    plan = world.store.save_plan(
        environment="test", database="shop", database_type="postgres", changes=changes, caller="ann"
    )
    files = {"public": {"files": {"orders.sql": "CREATE TABLE orders ()"}}}
    answer = begin(client, INDEX, NOTE, plan_id=plan.plan_id, schema_files=files)
    world.last = answer.apply_id
    world.sweep()
    (request,) = world.engines["A"].calls("Apply")
    assert [change.ddl for change in request.request.ddl_changes] == [NOTE, INDEX]


def test_statements_that_are_not_the_plan_s_are_refused(client: ForeignClient, world: World) -> None:
    changes = (PlannedChange("public", "orders", NOTE, Action.ALTER),)
    plan = world.store.save_plan(
        environment="test", database="shop", database_type="postgres", changes=changes, caller="ann"
    )
    code, message = refusal(
        client,
        "Apply",
        **HERE,
        idempotency_key="k1",
        plan_id=plan.plan_id,
        ddl_changes=[{"table_name": "orders", "ddl": "DROP TABLE orders"}],
    )
    assert (code, "PLAN_MISMATCH" in message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    assert world.one("SELECT count(*) AS n FROM applies").n == 0


def test_causes_and_the_next_step_stand_in_the_message(client: ForeignClient, world: World) -> None:
    """A client decodes no details: why, and what to do, are in the words that it has."""
    apply_id = world.apply()
    code, message = refusal(client, "Stop", apply_id=str(apply_id))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "APPLY_SCOPED_CALL_ON_MULTI" in message
    assert "it has 3 operations" in message


@pytest.mark.parametrize("method", ["Stop", "Start", "Cutover", "Progress", "Revert", "SkipRevert", "Volume"])
@pytest.mark.parametrize("where", [{"database": "shop", "type": "postgres"}, {}])
def test_the_older_numbering_is_told_so(
    method: str, where: dict[str, str], may: ForeignClient, world: World
) -> None:
    apply_id = world.apply("A", policy=Policy(cutover=Cutover.MANUAL))
    world.answer_bells()
    code, message = refusal(may, method, **where, environment="test", apply_id=str(apply_id))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("this client speaks an older numbering")
    assert "(OLDER_NUMBERING)" in message
    assert world.one("SELECT count(*) AS n FROM control_requests").n == 0


def test_a_call_for_another_operation_is_refused(client: ForeignClient, world: World) -> None:
    apply_id = world.apply("A", "B")
    world.answer_bells()
    for method in ("Progress", "Cutover"):
        code, message = refusal(client, method, apply_id=f"{apply_id}/A", apply_operation_id=f"{apply_id}/B")
        assert (code, "OPERATION_MISMATCH" in message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
