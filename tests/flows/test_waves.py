"""Waves: who goes with which, when the next begins, and what keeps it from beginning."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, OnFailure, Policy, Wave
from tests.flows.steps import engine_says, held_targets, methods, settle
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
CANARY, REST = Wave({"tier": "canary"}), Wave()
PARALLEL = Policy(Copy.PARALLEL, waves=(CANARY, REST))


@pytest.fixture
def canary(make_world: MakeWorld) -> World:
    """C and D are canaries; A and B are not."""
    world = make_world("A", "B", "C", "D")
    label(world, {"C": "canary", "D": "canary", "A": "many", "B": "many"})
    return world


def label(world: World, tiers: Mapping[str, str]) -> None:
    for name, tier in tiers.items():
        world.write(
            "UPDATE deployments SET labels = jsonb_build_object('tier', CAST(:tier AS text)) WHERE name = :name",
            tier=tier,
            name=name,
        )


def states(world: World, names: str = "ABCD") -> list[str]:
    return [world.state(name) for name in names]


def rounds(world: World, number: int = 4) -> None:
    for _ in range(number):
        world.answer_bells()
        world.pass_time(3)
        world.sweep()


def test_waves_renumber_the_order(canary: World) -> None:
    """§6: the canaries go first, whatever the order in which they were named; waves count from one."""
    canary.apply("A", "B", "C", "D", policy=PARALLEL)
    rows = [(canary.operation(name).position, canary.operation(name).wave) for name in "ABCD"]
    assert rows == [(2, 2), (3, 2), (0, 1), (1, 1)]


def test_without_waves_positions_are_as_given(canary: World) -> None:
    canary.apply("D", "A", "C", "B")
    assert [(canary.operation(name).position, canary.operation(name).wave) for name in "DACB"] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
    ]


@pytest.mark.parametrize("last", ["completed", "cancelled"])
def test_the_next_wave_begins_when_all_of_the_one_before_are_through(canary: World, last: str) -> None:
    """§6: through in any way that the policy bears."""
    canary.apply(policy=PARALLEL)
    canary.answer_bells()
    assert states(canary) == ["pending", "pending", "running", "running"]
    engine_says(canary, "C", "completed")
    rounds(canary)
    assert states(canary, "AB") == ["pending", "pending"]
    engine_says(canary, "D", last)
    rounds(canary)
    assert states(canary, "AB") == ["running", "running"]
    assert_safe(canary)


def test_a_wave_has_slots_of_its_own(canary: World) -> None:
    waves = (replace(CANARY, max_parallel=1), REST)
    canary.apply(policy=replace(PARALLEL, waves=waves))
    rounds(canary)
    assert states(canary) == ["pending", "pending", "running", "pending"]
    for name in "CD":
        engine_says(canary, name, "completed")
        rounds(canary)
    assert states(canary) == ["running", "running", "completed", "completed"]


def test_a_baked_wave_lets_the_next_one_in_by_itself(canary: World) -> None:
    """§6: by the database's clock, found by a sweep alone: no bell waits for it and nothing asks in between."""
    canary.apply(policy=replace(PARALLEL, waves=(replace(CANARY, bake_s=600.0), REST)))
    canary.answer_bells()
    engine_says(canary, "C", "completed")
    canary.pass_time(500)
    engine_says(canary, "D", "completed")
    rounds(canary)
    assert states(canary, "AB") == ["pending", "pending"]
    assert canary.apply_row().state == "running"
    assert held_targets(canary) == {"A", "B"}
    due_s = canary.one("SELECT extract(epoch FROM next_advance_at - tern_clock()) AS s FROM applies").s
    assert 500 < due_s < 600
    # while it bakes, no sweep is busy with it
    canary.forget_bells()
    assert canary.store.due_work().applies == ()
    canary.pass_time(560)
    rounds(canary)
    assert states(canary, "AB") == ["pending", "pending"]
    canary.pass_time(40)
    rounds(canary)
    assert states(canary, "AB") == ["running", "running"]
    assert canary.apply_row().next_advance_at is None
    assert_safe(canary)


def test_a_failure_beyond_the_waves_budget_ends_the_rollout(canary: World) -> None:
    """§6: a canary that fails keeps everybody else as they are."""
    policy = replace(PARALLEL, max_failures=3, waves=(replace(CANARY, max_failures=0), REST))
    canary.apply(policy=policy)
    canary.answer_bells()
    engine_says(canary, "C", "failed", error="no space")
    assert canary.apply_row().state == "running_degraded"
    engine_says(canary, "D", "completed")
    assert states(canary) == ["skipped", "skipped", "failed", "completed"]
    assert canary.apply_row().state == "failed"
    assert methods(canary, "A") == methods(canary, "B") == []


def test_a_borne_failure_of_one_wave_is_no_failure_of_the_next(canary: World) -> None:
    canary.apply(policy=replace(PARALLEL, max_failures=1))
    canary.answer_bells()
    engine_says(canary, "C", "failed", error="no space")
    engine_says(canary, "D", "completed")
    rounds(canary)
    engine_says(canary, "A", "failed", error="no space")
    assert states(canary) == ["failed", "running", "failed", "completed"]
    engine_says(canary, "B", "completed")
    assert canary.apply_row().state == "failed"


def test_a_stopped_canary_pauses_the_rollout_and_a_person_leads_out(canary: World) -> None:
    """§3: in parallel order too, a stopped one keeps the next wave from beginning."""
    canary.apply(policy=PARALLEL)
    canary.answer_bells()
    engine_says(canary, "C", "completed")
    canary.ask(Verb.STOP, "D")
    settle(canary)
    assert canary.apply_row().state == "paused"
    canary.ask(Verb.CANCEL, "D")
    settle(canary)
    rounds(canary)
    assert states(canary) == ["running", "running", "completed", "cancelled"]
    assert canary.apply_row().state == "running_degraded"


def test_rolling_waves_go_one_after_the_other(canary: World) -> None:
    canary.apply(policy=Policy(waves=(CANARY, REST)))
    for name in "CDAB":
        rounds(canary, 2)
        assert [each for each in "ABCD" if canary.state(each) == "running"] == [name]
        engine_says(canary, name, "completed")
    assert canary.apply_row().state == "completed"


def test_a_deployment_that_no_wave_selects_is_refused_by_name(canary: World) -> None:
    """§10: all of it at once, and nothing is written."""
    policy = replace(PARALLEL, strict=True, on_failure=OnFailure.CONTINUE, waves=(CANARY,))
    with pytest.raises(Refused) as refused:
        canary.apply(policy=policy)
    why = refused.value.why
    assert {"no wave selects deployment A", "no wave selects deployment B"} <= set(why)
    assert any("strict never goes beyond" in words for words in why)
    assert canary.one("SELECT count(*) AS n FROM applies").n == 0


def test_two_waves_that_match_the_first_takes_it(canary: World) -> None:
    waves = (Wave(deployments=("B", "C")), CANARY, REST)
    canary.apply(policy=replace(PARALLEL, waves=waves))
    assert [canary.operation(name).wave for name in "ABCD"] == [3, 1, 1, 2]
