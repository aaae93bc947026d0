"""No id is dropped, and nobody speaks for an operation while a call for it is under way (G4, G10)."""

from collections.abc import Callable

import pytest

from tern.domain.errors import Refused
from tern.domain.identity import RemoteId
from tern.ports import Fenced, Resolved, StorageUnavailable
from tests.faults.behaviour import answer, lose_answer
from tests.flows.evidence import holders, one_engine, outstanding, resolve, rows, world
from tests.flows.steps import (
    PARALLEL,
    Frozen,
    dispatch,
    through,
)
from tests.invariants import assert_safe
from tests.world import World

__all__ = ["one_engine", "world"]

# No id is dropped


def test_an_id_that_arrives_after_its_operation_was_resolved(world: World) -> None:
    """G4, G15: a person said that it ended; the answer comes after that, and is kept with where it came from."""
    world.apply("A", "B", policy=PARALLEL)
    operation, name = world.operation("A"), world.name("A")
    late = world.worker("w1")
    with Frozen(late, "record_remote_id", lambda ports: dispatch(world, "A", ports)) as worker:
        world.pass_time(31)
        world.write("UPDATE apply_operations SET state = 'uncertain' WHERE id = :id", id=operation.id)
        resolve(world, Resolved.ENDED, name)
        worker.wake()
    assert (world.state("A"), world.remote_id("A")) == ("failed", None)
    assert outstanding(world) == [("A", "A-1", "not_stored", True)]
    (kept,) = rows(world, "SELECT * FROM outstanding_calls WHERE why <> 'let_go'")
    assert kept.address == world.engines["A"].address
    assert kept.engine_number == world.operation("A").engine_number
    assert (kept.generation, kept.fence) == (1, 1)
    assert holders(world)["A-1"] == "A"
    assert "remote_id_kept" in {event.event for event in world.events("A")}


def test_an_id_is_kept_although_the_storage_stumbles(world: World) -> None:
    """G4: writing it down again is harmless, and losing it may cost a person's night."""
    world.apply("A", "B", policy=PARALLEL)
    operation, name = world.operation("A"), world.name("A")
    stumbles = [2]

    def hook(called: str, call: Callable[[], object]) -> object:
        if called == "keep_id" and stumbles[0]:
            stumbles[0] -= 1
            message = "the connection is lost"
            raise StorageUnavailable(message)
        return call()

    with Frozen(
        through(world.worker("w1"), hook), "record_remote_id", lambda ports: dispatch(world, "A", ports)
    ) as worker:
        world.pass_time(31)
        world.write("UPDATE apply_operations SET state = 'uncertain' WHERE id = :id", id=operation.id)
        resolve(world, Resolved.ENDED, name)
        worker.wake()
    assert stumbles == [0]
    assert outstanding(world) == [("A", "A-1", "not_stored", True)]


def test_an_id_that_arrives_after_a_later_one_was_sent(world: World) -> None:
    """Two may be at work: the operation follows the later one, the first stays outstanding."""
    world.apply("A", "B", policy=PARALLEL)
    name = world.name("A")
    late = world.worker("w1")
    with Frozen(late, "record_remote_id", lambda ports: dispatch(world, "A", ports)) as worker:
        world.pass_time(31)
        world.write("UPDATE apply_operations SET state = 'uncertain' WHERE deployment = 'A'")
        resolve(world, Resolved.NOT_STARTED, name)
        world.run(until=lambda: world.state("A") == "running", rounds=3)
        worker.wake()
    assert world.remote_id("A") == "A-2"
    assert outstanding(world) == [("A", "A-1", "not_stored", True)]


def test_an_id_whose_claim_was_lost_is_adopted_where_a_look_knows_it(world: World) -> None:
    """Nothing else was sent and no other id stands: what the engine knows by it is the operation's work."""
    world.apply("A", "B", policy=PARALLEL)
    late = world.worker("w1")
    with Frozen(late, "record_remote_id", lambda ports: dispatch(world, "A", ports)) as worker:
        world.pass_time(31)
        other = world.worker("w2").store.claim_dispatch(world.operation("A").id, world.name("A"))
        worker.wake()
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert outstanding(world) == [("A", "A-1", "not_stored", False)]
    # Whoever had the claim has lost it, and what the engine said to that one is the same or is kept.
    assert world.store.record_key_dead(other.claim, "late", delay_s=0.0) is Fenced.LOST
    assert_safe(world)


def test_an_id_that_its_engine_does_not_know_is_not_adopted(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    late = world.worker("w1")
    with Frozen(late, "record_remote_id", lambda ports: dispatch(world, "A", ports)) as worker:
        world.pass_time(31)
        world.worker("w2").store.claim_dispatch(world.operation("A").id, world.name("A"))
        world.engines["A"].forget()
        worker.wake()
    assert world.remote_id("A") is None
    assert outstanding(world) == [("A", "A-1", "not_stored", True)]


def test_another_id_than_the_one_that_stands_is_kept(world: World) -> None:
    """G5: the first stays, and the second is not forgotten."""
    world.apply("A", "B", policy=PARALLEL)
    claimed = world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.write("UPDATE apply_operations SET engine_resume_context = 'R-0' WHERE deployment = 'A'")
    assert world.store.record_remote_id(claimed.claim, claimed.scope, RemoteId("R-1")) is Fenced.CONFLICT
    kept = world.store.keep_id(claimed.claim, claimed.scope, RemoteId("R-1"))
    assert kept.call_id is not None
    assert not kept.may_be_adopted
    assert world.store.keep_id(claimed.claim, claimed.scope, RemoteId("R-1")).call_id == kept.call_id
    assert world.store.keep_id(claimed.claim, claimed.scope, RemoteId("R-0")).call_id is None
    assert outstanding(world) == [("A", "R-1", "not_stored", True)]
    assert holders(world) == {"R-0": "A", "R-1": "A"}


def test_a_kept_id_that_another_operation_has_puts_that_one_in_doubt(one_engine: World) -> None:
    """G2: the engine gives its ids out again, whoever hears of it."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["A"].forget()
    world.apply("B")
    late = world.worker("w1")
    with Frozen(late, "record_remote_id", lambda ports: dispatch(world, "B", ports)) as worker:
        world.pass_time(31)
        world.write("UPDATE apply_operations SET state = 'uncertain' WHERE deployment = 'B'")
        resolve(world, Resolved.ENDED, world.name("B"))
        worker.wake()
    assert outstanding(world) == [("B", "A-1", "not_stored", True)]
    assert (world.state("A", first), world.operation("A", first).doubt) == ("uncertain", "taken")
    assert holders(world) == {"A-1": "A"}


# No word of a person's while a call is under way


def test_a_person_waits_for_a_claim_and_for_a_calls_deadline(world: World) -> None:
    """G12: refused with the seconds to wait, and nothing is written."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].script("Resolve", answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "uncertain"
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.ENDED, world.name("A"))
    assert refused.value.reason == "CALL_UNDER_WAY"
    assert " s" in refused.value.next_step
    world.pass_time(11)
    world.write(
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w',"
        " claim_expires_at = tern_clock() + interval '30 s' WHERE deployment = 'A'"
    )
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.ENDED, world.name("A"))
    assert refused.value.reason == "CALL_UNDER_WAY"
    assert world.state("A") == "uncertain"
    world.pass_time(31)
    resolve(world, Resolved.ENDED, world.name("A"))
    assert world.state("A") == "failed"
