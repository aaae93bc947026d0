"""Of all operations that share a first one, none runs again what another of them has done, or does (G4, G13)."""

import threading
from typing import Any

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.effect import Effect
from tern.domain.errors import Refused
from tern.domain.moving import DeploymentChange
from tern.domain.policy import OnFailure, Policy
from tern.domain.statement import StatementAnswer
from tern.domain.states import State
from tern.flows.accept import settle_statements
from tern.moving import change_deployment
from tern.ports import Resolved
from tern.store.sql import text
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.flows.gone import given_up
from tests.flows.steps import drive, engine_says, running
from tests.flows.test_effect import STATEMENTS, told
from tests.flows.test_rest import (
    ALL_FAIL,
    asked,
    carried,
    fates,
    half_done,
    late_retry,
    refused_operation,
    shown,
    told_of,
)
from tests.invariants import assert_safe
from tests.world import World


def refused_follow_up(world: World) -> tuple[Any, Any]:
    """A first one that was left half done, and a follow-up that its engine refused."""
    source = half_done(world)
    world.engines["A"].script("Apply", not_accepted())
    follow_up = carried(world)
    world.answer_bells()
    assert world.state("A", follow_up) == "failed"
    return source, follow_up


def test_a_follow_up_is_not_tried_again_once_another_has_done_its_part(world: World) -> None:
    """Both carry on the first one: the refused one by itself is carried on by nobody."""
    source, refused = refused_follow_up(world)
    other = carried(world, apply_id=source)
    world.answer_bells()
    told_of(world, other, State.COMPLETED, "completed", "completed")
    (line,) = world.ask(Verb.RETRY, "A", apply_id=refused).lines
    assert line.outcome is Receipt.REFUSED
    assert f"it is carried on by {other}/A" in line.reason
    world.forget_bells()
    late_retry(world, refused)
    world.store.settle_uncalled(refused, 10)
    world.do("retry", world.operation("A", refused).id, str(world.name("A", refused)))
    assert fates(world, "A", refused)[-1][:2] == ("retry", "failed")
    assert world.state("A", refused) == "failed"
    assert len(world.engines["A"].effects("apply")) == 2
    assert_safe(world)


def test_a_follow_up_is_not_tried_again_once_its_source_was(world: World) -> None:
    """The refused follow-up gave its source back, which was tried again and has done all of it."""
    source = refused_operation(world)
    world.engines["A"].script("Apply", not_accepted())
    follow_up = carried(world)
    world.answer_bells()
    assert world.state("A", follow_up) == "failed"
    world.ask(Verb.RETRY, "A", apply_id=source)
    world.answer_bells()
    assert world.state("A", source) == "running"
    world.last = source
    told(world, State.COMPLETED, "completed", "completed", "completed")
    (line,) = world.ask(Verb.RETRY, "A", apply_id=follow_up).lines
    assert line.outcome is Receipt.REFUSED
    assert f"it is carried on by {source}/A" in line.reason


def test_a_follow_up_that_was_refused_may_be_tried_again(world: World) -> None:
    """Nobody else has done anything of it."""
    _, refused = refused_follow_up(world)
    (line,) = world.ask(Verb.RETRY, "A", apply_id=refused).lines
    assert line.outcome is Receipt.ACCEPTED
    world.answer_bells()
    world.sweep()
    assert world.state("A", refused) == "running"


def test_a_retry_does_not_run_a_statement_that_a_person_has_seen_done(world: World) -> None:
    """It sends all of its statements, so what is left of it is carried on instead."""
    world.engines["A"].always("Apply", lose_answer())
    world.engines["A"].always("Resolve", fail("UNIMPLEMENTED"))
    world.undeclared()
    world.apply("A", "B", policy=ALL_FAIL, changes=STATEMENTS)
    world.answer_bells()
    assert world.state("A") == "uncertain"
    world.pass_time(61)
    world.resolve("A", Resolved.ENDED)
    settle_statements(StatementAnswer(world.name("A"), {1: Effect.DONE}, "eve", "I looked"), world.ports)
    (line,) = world.ask(Verb.RETRY, "A").lines
    assert line.outcome is Receipt.REFUSED
    assert f"tern apply --rest-of {world.name('A')}" in line.reason
    late_retry(world, world.last)
    world.store.settle_uncalled(world.last, 10)
    drive(world, Verb.RETRY, "A")
    assert fates(world, "A", world.last)[-1][:2] == ("retry", "failed")
    assert world.state("A") == "failed"


def test_a_rest_takes_targets_in_the_order_of_all_others(world: World) -> None:
    """What it takes over from its source included: it never has the second while it waits for whoever has the first."""
    world.engines["A"].script("Apply", not_accepted())
    source = world.apply("A", "B", policy=Policy(on_failure=OnFailure.CONTINUE), changes=STATEMENTS)
    world.answer_one()
    assert (world.state("A"), world.state("B")) == ("failed", "pending")
    world.forget_bells()
    (group,) = shown(world).groups
    assert group.deployments == ("A", "B")
    world.apply("C")
    other = world.operation("C")
    said: list[Refused] = []

    def accept() -> None:
        new = asked(world, apply_id=source, digest=group.digest, reason="because", idempotency_key="k")
        with pytest.raises(Refused) as refusal:
            world.store.accept_rest(new)
        said.append(refusal.value)

    thread = threading.Thread(target=accept)
    with world.database.begin() as tx:
        take = (
            "INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)"
            " VALUES ('test', 'shop', :name, :apply, :id) ON CONFLICT DO NOTHING"
        )
        given = {"apply": other.apply_id, "id": other.id}
        tx.execute(text(take), {"name": "A", **given})
        thread.start()
        waiting = (
            "SELECT count(*) AS n FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while not world.one(waiting).n:
            assert thread.is_alive()
        tx.execute(text(take), {"name": "B", **given})
    thread.join()
    assert "A" in " ".join(said[0].why)
    assert world.state("B", source) == "pending"


def test_what_was_left_half_done_last_is_what_ended_last(world: World) -> None:
    """An older rollout that is tried again later, and is left half done, is the newest change at its target."""
    source = refused_operation(world)
    other = world.apply("A", accept_drift=False)
    world.answer_bells()
    engine_says(world, "A", "completed")
    assert world.state("A", other) == "completed"
    world.ask(Verb.RETRY, "A", apply_id=source)
    world.answer_bells()
    world.last = source
    told(world, State.FAILED, "completed", "failed", "pending")
    with pytest.raises(Refused) as refusal:
        world.apply("A", accept_drift=False)
    assert refusal.value.reason == "HALF_DONE"
    assert f"{source}/A" in refusal.value.why[0]


def test_a_moved_name_of_a_target_stays_a_name_of_it(world: World) -> None:
    """What is outstanding under one name holds the other, also after that one's engine has moved."""
    world.write(
        "UPDATE deployments SET engine_identity = '1/1', capabilities ="
        " jsonb_set(capabilities, '{identity}', '\"1/1\"')"
    )
    world.write("INSERT INTO same_targets (one, other, finding, identity) VALUES ('A', 'C', 'same', '1/1')")
    for name in ("A", "C"):
        world.engines[name].identity = "1/1"
    running(world, "A", "B")
    given_up(world, "A")
    world.apply("C", accept_drift=True)
    world.answer_bells()
    assert world.state("C") == "pending"
    with FakeEngine("C-new", identity="1/1") as new:
        new.jobs = world.engines["C"].jobs
        change_deployment(DeploymentChange("C", "bob", "elsewhere", address=new.address), world.ports)
        world.answer_bells()
        for _ in range(3):
            world.pass_time(5)
            world.sweep()
        assert new.calls("Apply") == []
        assert world.state("C") == "pending"
