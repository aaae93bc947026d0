"""The failure budget at work: what one failure too many does, what a release opens, what strict never lets happen."""

import random
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.policy import Copy, OnFailure, Policy
from tern.ports import DispatchClaimed, StorageUnavailable
from tern.store.reading import Reading
from tern.view import apply_view
from tests.flows.steps import engine_says, running, settle
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
PAUSE = Policy(Copy.PARALLEL, OnFailure.PAUSE, max_parallel=1)


def states(world: World, names: str = "ABC") -> list[str]:
    return [world.state(name) for name in names]


def rounds(world: World, number: int = 4) -> None:
    for _ in range(number):
        world.answer_bells()
        world.pass_time(3)
        world.sweep()


def release(world: World) -> None:
    """Somebody who has seen the failures lets the rollout go on; the bell for it is lost."""
    (line,) = world.ask(Verb.RELEASE).lines
    assert line.outcome is Receipt.ACCEPTED
    world.forget_bells()


def test_a_failure_too_many_pauses_and_a_release_opens_it_once(world: World) -> None:
    """§6: found by a sweep, whatever became of the bell; and the next failure holds again."""
    world.apply(policy=PAUSE)
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    rounds(world)
    assert states(world) == ["failed", "pending", "pending"]
    assert world.apply_row().state == "paused"
    assert apply_view(Reading(world.database).apply(world.last)).exit_code == 13
    release(world)
    rounds(world)
    assert states(world) == ["failed", "running", "pending"]
    assert world.apply_row().state == "running_degraded"
    engine_says(world, "B", "failed", error="no space")
    rounds(world)
    assert states(world) == ["failed", "failed", "pending"]
    assert world.apply_row().state == "paused"
    release(world)
    rounds(world)
    engine_says(world, "C", "completed")
    assert world.apply_row().state == "failed"
    assert_safe(world)


def test_what_runs_goes_on_beside_a_pause(world: World) -> None:
    """§6: nothing is stopped, nothing new begins."""
    world.apply(policy=Policy(Copy.PARALLEL, OnFailure.PAUSE, max_parallel=2))
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    assert world.apply_row().state == "running_degraded"
    rounds(world)
    assert states(world) == ["failed", "running", "pending"]
    engine_says(world, "B", "completed")
    assert world.apply_row().state == "paused"


def test_a_release_beside_running_ones_opens_the_rest(world: World) -> None:
    """§6: the pause is opened before everything stands still."""
    world.apply(policy=Policy(Copy.PARALLEL, OnFailure.PAUSE, max_parallel=2))
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    release(world)
    rounds(world)
    assert states(world) == ["failed", "running", "running"]
    assert world.apply_row().state == "running_degraded"


@pytest.mark.parametrize("way_out", [Verb.CANCEL, Verb.STOP])
def test_a_pause_can_be_ended_without_going_on(world: World, way_out: Verb) -> None:
    world.apply(policy=PAUSE)
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    world.ask(way_out)
    settle(world)
    rounds(world)
    assert states(world, "BC") == (["cancelled"] * 2 if way_out is Verb.CANCEL else ["stopped"] * 2)
    assert world.apply_row().state == "failed"


def test_a_failed_one_that_is_tried_again_is_no_failure_any_more(world: World) -> None:
    """§6: the budget counts what stands failed; a retry that fails again is one failure too many again."""
    world.apply(policy=PAUSE)
    world.write(
        "UPDATE apply_operations SET state = 'failed', completed_at = tern_clock(), next_attempt_at = NULL"
        " WHERE deployment = 'A'"
    )
    world.forget_bells()
    world.do("advance", world.last)
    assert world.apply_row().state == "paused"
    release(world)
    world.ask(Verb.RETRY, "A")
    rounds(world)
    assert world.state("A") == "running"
    engine_says(world, "A", "failed", error="no space")
    rounds(world)
    assert states(world) == ["failed", "pending", "pending"]
    assert world.apply_row().state == "paused"


def test_halting_and_continuing_are_as_ever(world: World) -> None:
    """PR4: halt skips what never started; continue goes on past any number."""
    world.apply(policy=Policy(Copy.PARALLEL, max_parallel=1))
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    assert states(world) == ["failed", "skipped", "skipped"]
    running(world, policy=Policy(Copy.PARALLEL, OnFailure.CONTINUE))
    for name in "ABC":
        engine_says(world, name, "failed", error="no space")
    assert world.apply_row().state == "failed"


class Crowd:
    """Workers that race for one strict rollout: they claim whatever is due, and half of what they get fails."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)  # noqa: S311 - a story that can be told again, but for the threads
        self.names = sorted(world.engines)

    def work(self, number: int) -> None:
        store = self.world.worker(f"w{number}").store
        chance = random.Random(self.chance.random())  # noqa: S311
        for _ in range(40):
            name = chance.choice(self.names)
            with suppress(StorageUnavailable):
                row = self.world.operation(name)
                claimed = store.claim_dispatch(row.id, self.world.name(name))
                if isinstance(claimed, DispatchClaimed):
                    self.end(store, claimed, chance)
                store.advance_apply(self.world.last)

    def end(self, store: object, claimed: DispatchClaimed, chance: random.Random) -> None:
        how = chance.random()
        if how < 0.6:
            store.record_refused(claimed.claim, "no", "REFUSED", key_is_dead=False)  # type: ignore[attr-defined]
        elif how < 0.8:
            store.record_unanswered(claimed.claim, "?", delay_s=0.0, engine_answers=True)  # type: ignore[attr-defined]


@pytest.mark.parametrize("borne", [0, 1, 2])
def test_a_strict_rollout_never_fails_more_than_once_too_often(make_world: MakeWorld, borne: int) -> None:
    """S18, §6: N + 1 failures are the most, for every interleaving of claims, endings and projections."""
    world = make_world(*(f"d{number:02}" for number in range(16)))
    world.apply(policy=Policy(Copy.PARALLEL, OnFailure.PAUSE, max_failures=borne, strict=True))
    world.forget_bells()
    crowd = Crowd(world, seed=borne)
    threads = [threading.Thread(target=crowd.work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    risk = failed = 0
    started = {"running", "failed_retryable"}
    for event in world.events():
        if event.operation_id is not None:
            risk += (event.after in started) - (event.before in started)
            failed += (event.after == "failed") - (event.before == "failed")
            assert failed + risk <= borne + 1, event
    assert failed <= borne + 1
    assert world.one("SELECT count(*) AS n FROM apply_operations WHERE state = 'failed'").n == failed
    assert failed + risk > 0
    assert_safe(world)
