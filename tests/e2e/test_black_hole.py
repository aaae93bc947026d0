"""Forty deployments that swallow packets: they cost themselves, and a stop for one of them is tried all the same."""

import time
from collections.abc import Callable

from celery import Celery

from tasks.bells import CeleryBells
from tern.domain.control import Verb
from tern.ports import Ports
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.faults.black_hole import BlackHoles
from tests.flows.steps import PARALLEL
from tests.tasks.test_bells import app_for
from tests.world import Fixed, World

HOLES = 40
DEADLINE_S = 3
"""Of the fleet's settings."""


def ring_for_real(world: World, app: Celery) -> None:
    world.ports = Ports(world.store, world.directory, CeleryBells(app), Fixed())


def normal_set(fleet: Fleet) -> None:
    """The two workers and beat, as `tern up` starts them."""
    fleet.worker("control,sweep")
    fleet.worker("dispatch,poll")
    fleet.beat()


def dig(world: World, holes: BlackHoles) -> list[str]:
    names = [f"hole-{number:02}" for number in range(HOLES)]
    for number, (name, address) in enumerate(zip(names, holes.addresses, strict=True)):
        world.add(name, address, 100 + number, offers=True)
    return names


def took(what: Callable[[], object], until: Callable[[], bool], fleet: Fleet) -> float:
    begun = time.monotonic()
    what()
    wait_for(until, fleet.picture)
    return time.monotonic() - begun


def test_a_healthy_rollout_beside_forty_black_holes(
    fleet: Fleet, make_world: MakeWorld, broker_url: str
) -> None:
    """It takes no more than half as long again, from the first second on, and its stop is seen done at once."""
    world = make_world("A", "B", "C", complete_after_polls=4)
    normal_set(fleet)
    with app_for(broker_url) as app, BlackHoles(world.engines["A"].port, HOLES, dark=True) as holes:
        ring_for_real(world, app)

        def roll() -> None:
            world.apply("A", "B", "C")

        def is_done() -> bool:
            return bool(world.apply_row().state == "completed")

        took(lambda: world.apply("A"), is_done, fleet)  # once for channels and plans
        alone_s = took(roll, is_done, fleet)
        world.apply(*dig(world, holes), policy=PARALLEL)
        # The better of two, since whatever else the machine does only slows down.
        beside_s = min(took(roll, is_done, fleet) for _ in range(2))
        assert beside_s <= 1.5 * alone_s

        for name in "ABC":
            world.engines[name].jobs._after_polls = None
        world.apply("A", "B", "C", policy=PARALLEL)
        wait_for(lambda: {world.state(name) for name in "ABC"} == {"running"}, fleet.picture)
        stop_s = took(
            lambda: world.ask(Verb.STOP),
            lambda: {world.state(name) for name in "ABC"} == {"stopped"},
            fleet,
        )
        assert stop_s <= 5


def test_a_stop_for_a_black_hole_among_forty(fleet: Fleet, make_world: MakeWorld, broker_url: str) -> None:
    """Every one of them is tried again three seconds after its last try ended; none waits for another's deadline."""
    world = make_world("E")
    normal_set(fleet)
    with app_for(broker_url) as app, BlackHoles(world.engines["E"].port, HOLES) as holes:
        ring_for_real(world, app)
        names = dig(world, holes)
        world.apply(*names, policy=PARALLEL)
        wait_for(lambda: {world.state(name) for name in names} == {"running"}, fleet.picture)
        wait_for(lambda: all(world.remote_id(name) for name in names), fleet.picture)
        holes.is_dark = True

        def tried(times: int) -> bool:
            row = world.one(
                "SELECT count(*) AS n FROM control_deliveries WHERE verb = 'stop' AND attempts >= :times",
                times=times,
            )
            return bool(row.n == HOLES)

        third_s = took(lambda: world.ask(Verb.STOP), lambda: tried(3), fleet)
        # Two whole tries and pauses, and the moments between them.
        assert third_s <= 1.5 * 2 * (DEADLINE_S + 3) + DEADLINE_S
        lit_s = took(
            lambda: setattr(holes, "is_dark", False),
            lambda: {world.state(name) for name in names} == {"stopped"},
            fleet,
        )
        # Nobody stays with a connection that has fallen silent: the next try, or the one after it, gets through.
        assert lit_s <= 2 * third_s
