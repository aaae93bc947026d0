"""A worker that dies at any boundary of bringing a wish forward: another one finishes, and every effect is there once.

Each scenario is walked through boundary by boundary: the k-th call to store or engine is cut, before it is made or
after it had its effect; all bells are lost; the claim expires; another worker recovers by sweeps alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tern.domain.control import Verb
from tern.domain.policy import Copy, OnFailure, Policy
from tests.faults.behaviour import fail, lose_answer
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    Cut,
    WorkerDied,
    engine_says,
    held_targets,
    methods,
    open_wishes,
    settle,
    through,
    wishes,
)
from tests.world import World


@dataclass(frozen=True)
class Scenario:
    """What is given, what is wished, and what must be there once in the end."""

    given: Callable[[World], None]
    verb: Verb
    ends: str
    effects: tuple[str, ...]
    """Effects at A's engine after the given ones, each once."""
    most: dict[str, int]
    """The most calls of a method that the wish may cost."""


def _dispatched(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()


def _undispatched(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()


def _answer_lost(world: World) -> None:
    world.engines["A"].script("Apply", lose_answer())
    _dispatched(world)


def _apply_lost(world: World) -> None:
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    _dispatched(world)


def _stopped(world: World) -> None:
    _dispatched(world)
    world.ask(Verb.STOP, "A")
    settle(world)


def _stopped_undispatched(world: World) -> None:
    _undispatched(world)
    world.ask(Verb.STOP, "A")
    settle(world)


def _waiting(world: World) -> None:
    world.apply("A", "B", policy=MANUAL)
    world.answer_bells()
    engine_says(world, "A", "waiting_for_cutover")


def _refused(world: World) -> None:
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    world.answer_bells()


def _in_its_window(world: World) -> None:
    _dispatched(world)
    engine_says(world, "A", "revert_window")


SCENARIOS = {
    "stop": Scenario(_dispatched, Verb.STOP, "stopped", ("stop",), {"Stop": 2, "Apply": 0}),
    "stop undispatched": Scenario(_undispatched, Verb.STOP, "stopped", (), {"Stop": 0, "Apply": 0}),
    "stop, answer lost": Scenario(_answer_lost, Verb.STOP, "stopped", ("stop",), {"Stop": 2, "Apply": 0}),
    "stop, apply lost": Scenario(_apply_lost, Verb.STOP, "stopped", ("forbid",), {"Stop": 0, "Apply": 0}),
    "start": Scenario(_stopped, Verb.START, "running", ("start",), {"Start": 1, "Apply": 0}),
    "start undispatched": Scenario(
        _stopped_undispatched, Verb.START, "running", ("apply",), {"Start": 0, "Apply": 1}
    ),
    "cutover": Scenario(_waiting, Verb.CUTOVER, "completed", ("cutover",), {"Cutover": 1, "Apply": 0}),
    "cancel": Scenario(_dispatched, Verb.CANCEL, "cancelled", ("cancel",), {"Cancel": 2, "Apply": 0}),
    "cancel stopped": Scenario(_stopped, Verb.CANCEL, "cancelled", ("cancel",), {"Cancel": 2, "Apply": 0}),
    "cancel, answer lost": Scenario(
        _answer_lost, Verb.CANCEL, "cancelled", ("cancel",), {"Cancel": 2, "Apply": 0}
    ),
    "retry": Scenario(_refused, Verb.RETRY, "running", ("apply",), {"Apply": 1}),
    "skip": Scenario(_undispatched, Verb.SKIP, "skipped", (), {"Apply": 0}),
    "skip stopped": Scenario(_stopped_undispatched, Verb.SKIP, "skipped", (), {"Apply": 0}),
    "revert": Scenario(_in_its_window, Verb.REVERT, "reverted", ("revert",), {"Revert": 1, "Apply": 0}),
    "skip-revert": Scenario(
        _in_its_window, Verb.SKIP_REVERT, "completed", ("skip-revert",), {"SkipRevert": 1, "Apply": 0}
    ),
    "volume": Scenario(_dispatched, Verb.VOLUME, "running", ("volume",), {"Volume": 2, "Apply": 0}),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_cut_at_any_boundary_leaves_one_effect_and_no_open_wish(
    world: World, scenario: Scenario, *, after: bool
) -> None:
    """G3, G8, G12, S14, S15."""
    boundary = 0
    while True:
        boundary += 1
        cut = Cut(boundary, after=after)
        _walk(world, scenario, cut)
        if not cut.was_reached:
            break
    assert boundary > 1, "the scenario has no boundary at all"


def _walk(world: World, scenario: Scenario, cut: Cut) -> None:
    scenario.given(world)
    engine = world.engines["A"]
    effects, calls = len(engine.effects()), len(engine.calls())
    fence = world.operation("A").fence
    world.ask(scenario.verb, "A", volume=3 if scenario.verb is Verb.VOLUME else None)
    world.forget_bells()
    try:
        world.do(
            scenario.verb.value,
            world.operation("A").id,
            str(world.name("A")),
            ports=through(world.ports, cut.passing),
        )
        # the bells that the tick rang, driven by the same worker that is about to die
        world.answer_bells(through(world.ports, cut.passing))
    except WorkerDied:
        world.forget_bells()
        world.pass_time(31)
    survivor = world.worker("survivor")
    settle(world, survivor, step_s=8)
    for _ in range(12):
        if world.state("A") == scenario.ends and len(engine.effects()) - effects >= len(scenario.effects):
            break
        world.pass_time(3)
        world.sweep(survivor)
    where = cut.where or "no cut"
    assert world.state("A") == scenario.ends, where
    assert open_wishes(world) == [], where
    assert tuple(effect.kind for effect in engine.effects()[effects:]) == scenario.effects, where
    later = [call.method for call in engine.calls()[calls:]]
    for method, most in scenario.most.items():
        assert later.count(method) <= most, f"{where}: {later}"
    assert [call.method for call in engine.calls() if call.method == "Apply" and not call.key] == []
    assert world.operation("A").fence >= fence
    assert methods(world, "B").count("Apply") == len(world.engines["B"].effects("apply"))
    _end(world)


def _end(world: World) -> None:
    """The targets are free for the next walk."""
    world.ask(Verb.CANCEL)
    settle(world, step_s=8)
    # A call that was cut off may act for a minute yet, and its target is held as long.
    world.run(until=lambda: held_targets(world) == set(), rounds=8, step_s=11)
    assert all(fate not in {"pending", "sent"} for _, _, fate in wishes(world))
