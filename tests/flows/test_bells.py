"""The broker may forget, double and mix up everything: the verdict is the same (scenario BR1, G11, S20)."""

import random
from collections.abc import Callable

import pytest

from tern.domain.control import Verb
from tern.domain.policy import Copy, OnFailure, Policy
from tern.flows.sweep import reconcile, sweep_progress
from tern.ports import Ports, StorageUnavailable
from tests.faults.behaviour import fail, lose_answer
from tests.faults.cut import interrupted, lose_storage
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
NAMES = ("A", "B", "C", "D")


def answer_all(world: World, ports: Ports) -> None:
    """A broker that works."""
    world.answer_bells(ports)


def forget_all(world: World, ports: Ports) -> None:
    """A broker that is wiped after every single message."""
    if world.bells.queue:
        world.answer_one(ports)
    world.forget_bells()


def double_all(world: World, ports: Ports) -> None:
    """A broker that delivers everything twice, and what it had before once more at the end."""
    seen = []
    for _ in range(300):
        if not world.bells.queue:
            break
        bell = world.bells.queue[0]
        seen.append(bell)
        world.answer_one(ports)
        world.do(bell[0], *bell[1], ports=ports)
    for kind, given in seen:
        world.do(kind, *given, ports=ports)
    world.forget_bells()


def shuffle_and_lose(seed: int) -> Callable[[World, Ports], None]:
    """A broker that mixes the order and loses every third message."""
    chance = random.Random(seed)  # noqa: S311 - repeatable by its seed

    def answer(world: World, ports: Ports) -> None:
        for _ in range(300):
            if not world.bells.queue:
                return
            world.bells.queue.rotate(chance.randrange(len(world.bells.queue)))
            if chance.random() < 0.3:
                world.bells.queue.popleft()
            else:
                world.answer_one(ports)

    return answer


def rollout(world: World, broker: Callable[[World, Ports], None]) -> dict[str, str]:
    """A's answer is lost, B fails in the end, C completes, D is stopped; the verdict by operation."""
    world.engines["A"].script("Apply", lose_answer(), fail("UNAVAILABLE"))
    world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    ends = {"A": "completed", "B": "failed", "C": "completed"}
    asked = False
    for turn in range(400):
        ports = world.worker(f"w{turn % 3}")
        broker(world, ports)
        if not asked and world.remote_id("D") is not None:
            world.ask(Verb.STOP, "D")
            asked = True
            broker(world, ports)
        for name, state in ends.items():
            remote_id = world.remote_id(name)
            if remote_id and world.engines[name].job(remote_id).state == "running":
                world.engines[name].set_state(remote_id, state)
        if world.apply_row().state == "failed":
            break
        world.pass_time(6)
        for sweep in ("reconcile", "progress"):
            ring(world, sweep, ports)
            broker(world, ports)
    assert_safe(world)
    for engine in world.engines.values():
        assert len(engine.effects("apply")) == 1
    return {name: world.state(name) for name in NAMES} | {"apply": world.apply_row().state}


def ring(world: World, sweep: str, ports: Ports) -> None:

    (reconcile if sweep == "reconcile" else sweep_progress)("sweeper", ports)


VERDICT = {"A": "completed", "B": "failed", "C": "completed", "D": "stopped", "apply": "failed"}


@pytest.mark.parametrize(
    "broker",
    [answer_all, forget_all, double_all, shuffle_and_lose(1), shuffle_and_lose(2), shuffle_and_lose(3)],
    ids=["works", "forgets", "doubles", "mixes-1", "mixes-2", "mixes-3"],
)
def test_br1_whatever_the_broker_does_the_verdict_is_the_same(
    make_world: MakeWorld, broker: Callable[[World, Ports], None]
) -> None:
    """BR1, G11, S20: only latency changes."""
    assert rollout(make_world(*NAMES), broker) == VERDICT


def test_br1_storage_that_hiccups_at_every_step(make_world: MakeWorld) -> None:
    """K9, G10: each durable step of the first worker loses its answer once; the verdict is the same."""
    world = make_world(*NAMES)
    methods = iter(
        (
            "claim_dispatch",
            "record_dispatched",
            "advance_apply",
            "begin_poll",
            "record_looks",
            "record_unanswered",
        )
        * 3
        + ("claim_delivery", "record_sent", "claim_verdict_effects") * 3
    )

    def broker(world: World, ports: Ports) -> None:
        for _ in range(300):
            if not world.bells.queue:
                return
            method = next(methods, None)
            hiccups = ports if method is None else interrupted(ports, method, after=lose_storage)
            try:
                world.answer_one(hiccups)
            except StorageUnavailable:
                continue

    assert rollout(world, broker) == VERDICT
