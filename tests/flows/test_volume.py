"""How hard an engine works: one call with its own id, acknowledged by its answer, repeated where there was none."""

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import UsageError
from tests.faults.behaviour import fail, lose_answer, not_accepted
from tests.flows.steps import (
    PARALLEL,
    engine_says,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    waiting,
    wishes,
)
from tests.world import World


def test_it_is_set_with_its_own_id_and_kept(world: World) -> None:
    """G2, §7: the answer is the effect."""
    ids = running(world, "A", "B")
    assert world.outcomes(world.ask(Verb.VOLUME, "A", volume=3)) == {"A": Receipt.ACCEPTED}
    world.answer_bells()
    (call,) = world.engines["A"].calls("Volume")
    assert (call.remote_id, call.request.volume) == (ids["A"], 3)
    assert world.engines["B"].calls("Volume") == []
    assert (world.operation("A").volume, world.operation("B").volume) == (3, None)
    delivery = world.delivery("A", Verb.VOLUME)
    assert (delivery.state, delivery.engine_words) == ("acknowledged", "the volume is 3")
    assert delivery.sent_at is not None


def test_an_unanswered_one_is_repeated(world: World) -> None:
    """G10: setting it twice is setting it once."""
    running(world, "A", "B")
    world.engines["A"].script("Volume", fail("UNAVAILABLE"), lose_answer())
    world.ask(Verb.VOLUME, "A", volume=11)
    settle(world)
    assert len(world.engines["A"].calls("Volume")) == 3
    assert (world.operation("A").volume, world.engines["A"].job("A-1").volume) == (11, 11)


def test_a_refused_one_is_visible(world: World) -> None:
    running(world, "A", "B")
    world.engines["A"].script("Volume", not_accepted("it is tuned by hand"))
    world.ask(Verb.VOLUME, "A", volume=1)
    settle(world)
    assert world.operation("A").volume is None
    assert "it is tuned by hand" in world.delivery("A", Verb.VOLUME).engine_words


def test_an_engine_that_does_not_offer_it_fails_it_in_plain_words(world: World) -> None:
    running(world, "A", "B")
    world.engines["A"].script("Volume", fail("UNIMPLEMENTED"))
    world.ask(Verb.VOLUME, "A", volume=1)
    settle(world)
    assert "the engine does not offer Volume" in world.delivery("A", Verb.VOLUME).engine_words


def test_the_same_again_is_already_on_its_way_and_another_one_is_told_to_wait(world: World) -> None:
    """§2: one open delivery per operation and verb."""
    running(world, "A", "B")
    first = world.ask(Verb.VOLUME, "A", volume=3)
    world.forget_bells()
    assert world.outcomes(world.ask(Verb.VOLUME, "A", volume=3)) == {"A": Receipt.ALREADY}
    (line,) = world.ask(Verb.VOLUME, "A", volume=4).lines
    assert line.outcome is Receipt.REFUSED
    assert f"a volume of 3 is on its way, by request {first.request_id}" in line.reason
    settle(world)
    world.ask(Verb.VOLUME, "A", volume=4)
    settle(world)
    assert world.operation("A").volume == 4


@pytest.mark.parametrize("volume", [None, 0, 12, -1])
def test_a_volume_that_no_engine_has_is_refused_at_every_door(world: World, volume: int | None) -> None:
    """§7: 1 to 11."""
    running(world, "A")
    with pytest.raises(UsageError):
        world.ask(Verb.VOLUME, volume=volume)
    with pytest.raises(UsageError):
        world.ask(Verb.STOP, volume=3)
    assert wishes(world) == []


def test_only_what_an_engine_works_on_has_a_volume(world: World) -> None:
    """§7: with every unmet condition."""
    world.apply("A", "B", "C", policy=PARALLEL)
    world.forget_bells()
    receipt = world.ask(Verb.VOLUME, "A", volume=3)
    assert world.outcomes(receipt) == {"A": Receipt.REFUSED}
    assert "no engine works on it" in receipt.lines[0].reason
    world.ask(Verb.STOP, "A")
    (line,) = world.ask(Verb.VOLUME, "A", volume=3).lines
    assert "a stop covers it" in line.reason
    assert "no engine works on it" in line.reason


def test_what_waits_for_its_cutover_still_has_one(world: World) -> None:
    waiting(world, "A", "B")
    world.ask(Verb.VOLUME, "A", volume=2)
    settle(world)
    assert world.operation("A").volume == 2


def test_it_fails_where_the_work_has_ended_or_was_stopped_meanwhile(world: World) -> None:
    """G9: a stop goes first, and then there is nothing to pace."""
    running(world, "A", "B")
    world.ask(Verb.VOLUME, "A", volume=2)
    world.ask(Verb.STOP, "A")
    world.ask(Verb.VOLUME, "B", volume=2)
    world.forget_bells()
    engine_says(world, "B", "completed")
    settle(world)
    assert ("A", "volume", "too_late") in wishes(world)
    assert ("B", "volume", "too_late") in wishes(world)
    assert methods(world, "A", ["Volume"]) == methods(world, "B", ["Volume"]) == []


def test_a_stopped_one_is_refused(world: World) -> None:
    stopped(world, "A", "B")
    assert world.outcomes(world.ask(Verb.VOLUME, "A", volume=2)) == {"A": Receipt.REFUSED}
    assert open_wishes(world) == []
