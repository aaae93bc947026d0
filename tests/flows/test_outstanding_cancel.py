"""A cancel of what is outstanding that was accepted is never lost: it goes along, whatever becomes of the line."""

from tern.domain.control import Receipt, Verb
from tern.domain.selection import Selection
from tern.flows.outstanding import look_at_outstanding
from tests.faults.behaviour import fail
from tests.flows.gone import comes_back, give_up, goes, key_given_up, lines, look_again, pass_long, unsettled
from tests.flows.steps import (
    PARALLEL,
    Frozen,
    committed_late,
    dispatch,
    methods,
    open_wishes,
    running,
    wishes,
)
from tests.world import World

SILENT = ("Resolve", "Progress", "BatchProgress")


def end(world: World) -> None:
    """A person wants it ended, and is told that it goes out."""
    receipt = world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    assert world.outcomes(receipt) == {"A": Receipt.ACCEPTED}


def kept_beside_its_operation(world: World) -> None:
    """The answer came when the claim was over: its id is kept, and nobody could ask yet whose it is."""
    world.undeclared()
    world.apply("A", "B", policy=PARALLEL)
    for method in SILENT:
        world.engines["A"].always(method, fail("UNAVAILABLE"))
    with Frozen(world.ports, "record_remote_id", lambda ports: dispatch(world, "A", ports)):
        world.pass_time(31)
        dispatch(world, "A", world.worker("worker-2"))
        assert world.state("A") == "failed_retryable"
    assert [line.why for line in unsettled(world)] == ["not_stored"]


def test_it_survives_a_second_look_at_the_key_that_comes_late(world: World) -> None:
    """Somebody pressed settle, so two look at one key; the cancel comes between their answers."""
    key_given_up(world, "A", "B")
    (line,) = unsettled(world)
    world.store.make_outstanding_due("A")
    with Frozen(world.ports, "record_outstanding", lambda ports: look_at_outstanding(line.id, ports)):
        world.store.make_outstanding_due("A")
        look_at_outstanding(line.id, world.ports)
        end(world)
    look_again(world)
    assert methods(world, "A", ("Cancel",)) == ["Cancel"]


def test_a_late_look_opens_nothing_that_is_settled_by_now(world: World) -> None:
    """What the first look found has been ended meanwhile."""
    key_given_up(world, "A", "B")
    (line,) = unsettled(world)
    world.store.make_outstanding_due("A")
    with Frozen(world.ports, "record_outstanding", lambda ports: look_at_outstanding(line.id, ports)):
        world.store.make_outstanding_due("A")
        look_at_outstanding(line.id, world.ports)
        end(world)
        look_again(world, 1)
        assert unsettled(world) == []
    assert unsettled(world) == []


def test_it_goes_over_to_an_id_that_was_written_down_before(world: World) -> None:
    """The key is found to have started what stands there already, kept by whoever was answered too late."""
    kept_beside_its_operation(world)
    (kept,) = unsettled(world)
    pass_long(world)
    give_up(world, "A")
    (key,) = [line for line in unsettled(world) if line.remote_id is None]
    world.write(
        "UPDATE outstanding_calls SET cancel_asked_at = tern_clock(), cancel_caller = 'bob' WHERE id = :id",
        id=key.id,
    )
    for method in SILENT:
        world.engines["A"].always(method, None)
    world.engines["A"].ignore("Cancel")
    look_again(world)
    (line,) = unsettled(world)
    assert (line.id, line.cancel_caller, line.cancel_calls > 0) == (kept.id, "bob", True)


def test_it_goes_over_to_the_operation_that_finds_the_id_by_itself(world: World) -> None:
    """Its dispatch finds it by its key and follows it: it is to be ended all the same, by a wish in the record."""
    kept_beside_its_operation(world)
    end(world)
    for method in SILENT:
        world.engines["A"].always(method, None)
    world.pass_time(20)
    dispatch(world, "A")
    look_again(world, 5)
    assert [line.settled_as for line in lines(world)] == ["followed"]
    assert methods(world, "A", ("Cancel",)) == ["Cancel"]
    assert (world.state("A"), open_wishes(world)) == ("cancelled", [])
    request = world.one("SELECT * FROM control_requests ORDER BY id DESC LIMIT 1")
    assert (request.verb, request.caller) == ("cancel", "bob")
    assert request.reason.startswith("the night is long (")


def test_it_goes_over_to_the_operation_that_adopts_the_id(world: World) -> None:
    """A look that knows the kept id gives it to the operation."""
    kept_beside_its_operation(world)
    end(world)
    for method in SILENT[1:]:
        world.engines["A"].always(method, None)
    world.engines["A"].ignore("Cancel")
    look_again(world, 1)
    assert [line.settled_as for line in lines(world)] == ["adopted"]
    world.engines["A"].ignore()
    look_again(world, 3)
    assert (world.state("A"), open_wishes(world)) == ("cancelled", [])


def test_one_that_is_pressed_while_its_operation_is_given_up_goes_over_too(world: World) -> None:
    """It was accepted on rows as they were a moment ago; the word about the engine does not see it."""
    running(world, "A", "B")
    goes(world, "A")
    pass_long(world)
    give_up(world, "A")
    committed_late(world, Verb.CANCEL, "A")
    look_again(world, 1)
    assert wishes(world) == [("A", "cancel", "too_late")]
    (line,) = unsettled(world)
    assert (line.cancel_caller, line.cancel_reason) == ("bob", "a moment ago")
    comes_back(world, "A")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["cancelled"]
