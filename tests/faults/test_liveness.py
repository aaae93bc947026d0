"""What chaos showed to be late."""

from collections.abc import Iterator

import pytest

from tern.domain.control import Verb
from tern.domain.timing import HALT_RETRY_MAX_S
from tern.flows import sweep
from tern.store.schema import migrate
from tern.store.session import connect
from tests.faults.behaviour import fail, not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.world import QueuedBells, World

OUTAGE_S = 600.0
SOON_S = 15.0


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = connect(database_url)
    migrate(database)
    with FakeEngine("A") as engine:
        world = World(database, {"A": engine})
        yield world
        world.directory.close()
    database.dispose()


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
def test_halt_asked_for_in_a_long_outage_is_sent_soon_after_it(world: World, verb: Verb) -> None:
    """Chaos, seed 4: a stop waited for 28 s behind its own backoff while the engine was back long since."""
    engine = world.engines["A"]
    world.apply("A")
    world.answer_bells()
    method = verb.value.capitalize()
    engine.always(method, fail("UNAVAILABLE"))
    world.ask(verb)
    for _ in range(int(OUTAGE_S / 5)):
        world.pass_time(5.0)
        world.sweep()
    tried = len(engine.calls(method))
    assert tried <= OUTAGE_S / HALT_RETRY_MAX_S, "an engine that is down is not hammered"
    engine.always(method, None)
    world.pass_time(SOON_S)
    world.sweep()
    assert len(engine.calls(method)) == tried + 1


def test_stop_does_not_wait_for_a_cancel_that_its_engine_refuses(world: World) -> None:
    """An engine without Cancel is asked again and again, and its work is stopped meanwhile."""
    engine = world.engines["A"]
    world.apply("A")
    world.answer_bells()
    engine.always("Cancel", not_accepted("nothing is cancelled here"))
    world.ask(Verb.CANCEL)
    world.sweep()
    assert engine.calls("Cancel")
    world.ask(Verb.STOP)
    world.pass_time(SOON_S / 3)
    world.sweep()
    assert engine.calls("Stop")
    world.run(until=lambda: world.state("A") == "stopped", rounds=200, step_s=5.0)
    # The cancel stays open: it covers everything, and is repeated until the engine takes it or a person takes it back.
    assert world.delivery("A", Verb.CANCEL).state == "pending"


def test_broker_that_loses_all_bells_of_some_kinds(world: World) -> None:
    """G11: sweeps are heard and rung for, dispatches and polls are not; the rows are driven all the same."""
    world.engines["A"].jobs._after_polls = 2
    world.apply("A")
    own = QueuedBells()
    for _ in range(40):
        world.pass_time(2.0)
        sweep.reconcile("beat", world.ports)
        sweep.sweep_progress("beat", world.ports)
        world.forget_bells()
        sweep.sweep_when_nobody_does("worker-1", world.ports, own)
        while own.queue:
            kind, given = own.queue.popleft()
            world.do(kind, *given)
    assert world.apply_row().state == "completed"
    assert len(world.engines["A"].calls("Apply")) == 1
