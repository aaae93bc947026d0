"""Workers that are killed, frozen or cut off, as processes, in the middle of their work (G3, G4, G11, G12)."""

from tern.domain.control import Verb
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.faults.behaviour import hang
from tests.world import World


def completed(world: World) -> bool:
    return bool(world.apply_row().state == "completed")


def test_worker_killed_in_the_middle_of_a_dispatch(fleet: Fleet, make_world: MakeWorld) -> None:
    """G3, G4: whoever takes over sends the same key, and the engine starts the change once."""
    world = make_world("A", "B", complete_after_polls=2)
    world.engines["A"].script("Apply", hang(60))
    first = fleet.worker()
    world.apply("A", "B")
    wait_for(lambda: bool(world.engines["A"].calls("Apply")), fleet.picture)

    first.kill()
    assert world.state("A") == "running"
    assert world.remote_id("A") is None
    fleet.worker()
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())

    assert len(world.engines["A"].effects("apply")) == 1
    assert len({call.key for call in world.engines["A"].calls("Apply")}) == 1
    assert world.remote_id("A") != world.remote_id("B")


def test_worker_killed_in_the_middle_of_a_poll(fleet: Fleet, make_world: MakeWorld) -> None:
    """G11: the look is repeated by another, nothing else happens twice."""
    world = make_world("A", complete_after_polls=3)
    world.engines["A"].script("BatchProgress", hang(60))
    first = fleet.worker()
    world.apply("A")
    wait_for(lambda: bool(world.engines["A"].calls("BatchProgress")), fleet.picture)

    first.kill()
    fleet.worker()
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())
    assert len(world.engines["A"].effects("apply", duplicates=True)) == 1


def test_frozen_worker_wakes_up_after_its_claim_was_lost(fleet: Fleet, make_world: MakeWorld) -> None:
    """G12: what it writes then changes nothing."""
    world = make_world("A", complete_after_polls=2)
    world.engines["A"].script("Apply", hang(8))
    first = fleet.worker()
    world.apply("A")
    wait_for(lambda: bool(world.engines["A"].calls("Apply")), fleet.picture)

    first.freeze()
    fleet.worker()
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())
    remote_id, events = world.remote_id("A"), len(world.events())
    first.thaw()
    wait_for(lambda: "claim" in first.output(), fleet.picture)
    assert first.terminate() == 0
    assert world.remote_id("A") == remote_id
    assert [event.event for event in world.events()[events:]] in ([], ["summary"])
    assert len(world.engines["A"].effects("apply")) == 1


def test_broker_that_was_never_there(fleet: Fleet, make_world: MakeWorld) -> None:
    """G11: PostgreSQL alone is enough; workers sweep for themselves."""
    world = make_world("A", "B", complete_after_polls=2)
    nowhere = "redis://127.0.0.1:1/0"
    fleet.worker(TERN_BROKER_URL=nowhere)
    fleet.worker(TERN_BROKER_URL=nowhere)
    world.apply("A", "B")
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())
    for engine in world.engines.values():
        assert len(engine.effects("apply", duplicates=True)) == 1


def test_beats_in_any_number(fleet: Fleet, make_world: MakeWorld) -> None:
    """G11: two metronomes and two workers dispatch each operation once."""
    world = make_world("A", "B", "C", complete_after_polls=2)
    for _ in range(2):
        fleet.beat()
        fleet.worker()
    world.apply("A", "B", "C")
    wait_for(lambda: completed(world), lambda: world.picture() + fleet.picture())
    for engine in world.engines.values():
        assert len(engine.effects("apply", duplicates=True)) == 1


def test_stop_is_delivered_without_a_broker(fleet: Fleet, make_world: MakeWorld) -> None:
    """G8, G9: A is stopped by its own id, B is never started."""
    world = make_world("A", "B")
    fleet.worker(TERN_BROKER_URL="redis://127.0.0.1:1/0")
    world.apply("A", "B")
    wait_for(lambda: world.remote_id("A") is not None, fleet.picture)

    world.ask(Verb.STOP)
    wait_for(lambda: world.apply_row().state == "stopped", lambda: world.picture() + fleet.picture())
    assert [call.remote_id for call in world.engines["A"].calls("Stop")] == [world.remote_id("A")]
    assert world.engines["B"].calls() == []


def test_worker_ends_its_tick_on_sigterm(fleet: Fleet, make_world: MakeWorld) -> None:
    """A warm shutdown leaves no claim behind."""
    world = make_world("A")
    world.engines["A"].script("Apply", hang(1))
    worker = fleet.worker()
    world.apply("A")
    wait_for(lambda: bool(world.engines["A"].calls("Apply")), fleet.picture)
    assert worker.terminate() == 0
    assert world.remote_id("A") is not None
    assert world.operation("A").claim_token is None
