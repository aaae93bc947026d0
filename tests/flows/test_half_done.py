"""A new rollout to a target at which the last change was left half done begins only if its asker knows."""

from dataclasses import replace

import pytest

from tern.domain.choice import Choice
from tern.domain.control import Verb
from tern.domain.effect import Effect
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import Refused
from tern.domain.model import Deployment
from tern.domain.statement import StatementAnswer
from tern.domain.states import State
from tern.flows.accept import enqueue, settle_statements
from tern.store.sql import text
from tests.flows.steps import engine_says, settle
from tests.flows.test_effect import STATEMENTS, begun, told
from tests.flows.test_rest import carried, half_done, told_of
from tests.world import CHANGE, World

DEPLOYMENT = Deployment("D", "test", "shop", "", "")


def refused(world: World, *names: str) -> Refused:
    with pytest.raises(Refused) as refusal:
        world.apply(*(names or ("A",)), accept_drift=False)
    assert refusal.value.reason == "HALF_DONE"
    return refusal.value


def test_a_new_rollout_is_told_and_needs_consent(world: World) -> None:
    source = half_done(world, "A", "B")
    before = world.one("SELECT count(*) AS n FROM applies").n
    refusal = refused(world, "A", "C")
    words = f"A: its last change, {source}/A, ended half done (failed): of its 3 statements, done: 1"
    assert refusal.why == (words,)
    assert f"tern apply --rest-of {source}/A" in (refusal.next_step or "")
    assert world.one("SELECT count(*) AS n FROM applies").n == before
    world.apply("C", accept_drift=False)
    asked = Enqueue(
        change=NewChange("test", "shop", "postgres", (CHANGE,)),
        choice=Choice(("A",)),
        caller="ann",
        reason="because",
        key="k",
        accept_drift=True,
    )
    assert words in enqueue(asked, world.ports).warnings


def test_a_statement_of_unknown_effect_is_half_done(world: World) -> None:
    begun(world)
    told(world, State.FAILED, "failed", "running", "pending")
    name = world.name("A")
    assert "unknown: 2" in refused(world).why[0]
    settle_statements(StatementAnswer(name, {2: Effect.NOT_DONE}, "eve", "I looked"), world.ports)
    world.apply("A", accept_drift=False)


def test_what_has_changed_nothing_is_in_nobodys_way(world: World) -> None:
    world.apply("A", changes=STATEMENTS)
    world.answer_bells()
    told(world, State.FAILED, "failed", "pending", "pending")
    world.apply("A", accept_drift=False)
    world.answer_bells()
    engine_says(world, "A", "completed")
    world.apply("A", accept_drift=False)


def test_what_was_carried_on_to_its_end_is_half_done_no_more(world: World) -> None:
    half_done(world)
    follow_up = carried(world)
    world.answer_bells()
    told_of(world, follow_up, State.FAILED, "completed", "failed")
    assert f"{follow_up}/A" in refused(world).why[0]
    third = carried(world, apply_id=follow_up)
    world.answer_bells()
    told_of(world, third, State.COMPLETED, "completed")
    world.apply("A", accept_drift=False)


def test_the_last_change_counts_and_what_was_never_sent_is_none(world: World) -> None:
    source = half_done(world)
    world.apply("A", accept_drift=True)
    world.ask(Verb.CANCEL)
    settle(world)
    assert f"{source}/A" in refused(world).why[0]
    world.apply("A", accept_drift=True)
    world.answer_bells()
    engine_says(world, "A", "completed")
    world.apply("A", accept_drift=False)


def test_a_target_under_another_name_is_the_same_target(world: World) -> None:
    half_done(world)
    world.write("INSERT INTO same_targets (one, other, finding, identity) VALUES ('A', 'B', 'same', 'x')")
    assert refused(world, "B").why[0].startswith("B: its last change")


def renamed(world: World, old: str, new: str) -> None:
    """A person forgets a deployment, and makes the same target known under another name."""
    world.store.remove_deployment(old)
    world.engines[new] = world.engines[old]
    world.store.save_deployment(
        replace(DEPLOYMENT, name=new, address=world.engines[old].address, target=f"target-{old}")
    )


def test_a_target_whose_name_is_forgotten_is_the_same_target(world: World) -> None:
    """Removed and added again under another name: its engine and what that calls the target are what they were."""
    source = half_done(world)
    renamed(world, "A", "D")
    refusal = refused(world, "D")
    assert refusal.why[0].startswith(f"D: its last change, {source}/A, ended half done (failed)")
    assert "--rest-of" not in (refusal.next_step or ""), "there is no deployment A to carry it on at"
    assert "--accept-drift" in (refusal.next_step or "")
    world.apply("D", accept_drift=True)
    world.answer_bells()
    engine_says(world, "D", "completed")
    world.apply("D", accept_drift=False)


def test_the_name_of_a_twin_that_is_forgotten_is_the_same_target(world: World) -> None:
    """Proven to be one engine by a key: the operation has that engine's number from then on."""
    source = half_done(world)
    world.store.save_deployment(
        replace(DEPLOYMENT, name="D", address=world.engines["B"].address, target="target-A")
    )
    numbers = [
        world.one("SELECT engine_number AS n FROM deployments WHERE name = :name", name=name).n
        for name in "AD"
    ]
    world.store.unite_engines(*numbers)
    world.store.remove_deployment("A")
    assert refused(world, "D").why[0].startswith(f"D: its last change, {source}/A,")


def test_another_target_of_the_same_engine_is_another_target(world: World) -> None:
    """One engine may serve several databases."""
    half_done(world)
    world.engines["D"] = world.engines["A"]
    world.store.save_deployment(
        replace(DEPLOYMENT, name="D", address=world.engines["A"].address, target="target-D")
    )
    world.apply("D", accept_drift=False)


def test_what_is_left_half_done_at_this_very_instant_counts(world: World) -> None:
    """Its target is held until then, so it is asked about under the reservation."""
    begun(world)
    with world.database.begin() as tx:
        assert tx.execute(text("SELECT count(*) FROM target_reservations")).scalar_one() == 1
    with pytest.raises(Refused) as refusal:
        world.apply("A", accept_drift=False)
    assert refusal.value.reason == "TARGET_HELD"
    told(world, State.FAILED, "completed", "failed", "pending")
    refused(world)
