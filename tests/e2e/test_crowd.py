"""A second apply beside a wide one, driven by real workers: it does not wait behind the crowd."""

import time
from pathlib import Path

import pytest
from celery import Celery

from tasks.bells import CeleryBells
from tern.domain.crowd import AHEAD_MOST
from tern.domain.model import Capabilities, Deployment
from tern.domain.register import Entry
from tern.domain.timing import SWEEP_PERIOD_S
from tern.ports import Ports
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.flows.steps import PARALLEL
from tests.tasks.test_bells import app_for
from tests.world import Fixed, World

WIDE = 2_000
IN_HAND = 40
"""Taken up by workers already when the second apply comes, or by their sweeps while it is being noticed."""


def widen(world: World) -> list[str]:
    """Two thousand places behind one engine."""
    names = [f"w{number:04}" for number in range(WIDE)]
    entries = [
        Entry(
            number,
            Deployment(
                name=name,
                environment="test",
                database="shop",
                address=world.engines["E"].address,
                target=f"target-{name}",
                position=number,
                capabilities=Capabilities(resolve=True, batch_progress=True, preview=True),
            ),
            declared=True,
        )
        for number, name in enumerate(names, 1)
    ]
    world.store.import_deployments(entries, replaces=False)
    return names


def sent_to(world: World) -> list[str]:
    """The targets of all dispatches, in the order in which they left."""
    return [call.request.target for call in world.engines["E"].calls("Apply")]


def overtaken_by(world: World, fleet: Fleet) -> tuple[int, float]:
    """How many of the wide apply leave between the acceptance of a second one and its first dispatch; and seconds."""
    world.apply(*widen(world), policy=PARALLEL)
    wait_for(lambda: len(sent_to(world)) > AHEAD_MOST, fleet.picture)
    begun = time.monotonic()
    world.apply("E")
    wait_for(lambda: "target-E" in sent_to(world), fleet.picture)
    seconds = time.monotonic() - begun
    # By its row's own stamp, a moment before it is committed: what left while its plan was saved was there before it.
    accepted_at = world.apply_row().created_at.timestamp()
    before_it = world.engines["E"].calls("Apply")[: sent_to(world).index("target-E")]
    return sum(call.at > accepted_at for call in before_it), seconds


def test_a_second_apply_leaves_at_once(fleet: Fleet, make_world: MakeWorld, broker_url: str) -> None:
    world = make_world("E")
    fleet.worker()
    fleet.beat()
    with app_for(broker_url) as app:
        ring_for_real(world, app)
        overtaken, _ = overtaken_by(world, fleet)
        assert overtaken <= AHEAD_MOST + IN_HAND


@pytest.fixture
def deaf(migrated_url: str, tmp_path: Path) -> Fleet:
    """Workers whose broker is gone."""
    return Fleet(
        {
            "TERN_DATABASE_URL": migrated_url,
            "TERN_BROKER_URL": "redis://127.0.0.1:1/0",
            "PYTHONWARNINGS": "ignore",
        },
        tmp_path,
    )


def test_a_second_apply_leaves_soon_with_the_broker_gone(deaf: Fleet, make_world: MakeWorld) -> None:
    """A worker's own sweep looks every second; what goes on until it has looked is all that may overtake."""
    world = make_world("E")
    with deaf as fleet:
        fleet.worker()
        overtaken, seconds = overtaken_by(world, fleet)
        # A quick machine sends half of the crowd before the next sweep, a slow one takes long for that sweep.
        assert overtaken <= WIDE // 2 or seconds <= 3 * SWEEP_PERIOD_S["reconcile"]


def ring_for_real(world: World, app: Celery) -> None:
    world.ports = Ports(world.store, world.directory, CeleryBells(app), Fixed())
