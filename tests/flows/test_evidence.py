"""What an answer proves: findings permit nothing, a taken id is no answer, no id is dropped (G2, G4, G10)."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import Capabilities
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX, FRESHNESS_S, UNANSWERED_S
from tern.ports import Fenced, Resolved, StorageUnavailable
from tern.store.sql import text
from tests.faults.behaviour import Behaviour, altered, answer, behave, fail, hang, lose_answer, not_accepted
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    Frozen,
    dispatch,
    drive,
    engine_says,
    held_targets,
    look,
    meanwhile,
    methods,
    running,
    sighting,
    stopped,
    through,
    wishes,
)
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]
EVERYTHING = Capabilities(resolve=True, batch_progress=True, preview=True)
NOTHING = Capabilities(resolve=False, batch_progress=False, preview=False)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """A, B and C, of whose engines nobody has declared anything."""
    world = make_world("A", "B", "C")
    world.undeclared()
    return world


@pytest.fixture
def one_engine(make_world: MakeWorld) -> World:
    """A and B, two deployments of one engine, of which nobody has declared anything."""
    world = make_world("A")
    world.engines["B"] = world.engines["A"]
    world.add("B", world.engines["A"].address, 1, offers=True)
    world.undeclared()
    return world


def rows(world: World, statement: str, **values: Any) -> list[Any]:
    with world.database.begin() as tx:
        return tx.execute(text(statement), values).all()


def outstanding(world: World) -> list[tuple[str, str | None, str, bool]]:
    """Deployment, id, why and whether it is still open, of everything that was written down."""
    return [
        (row.deployment, row.remote_id, row.why, row.settled_at is None)
        for row in rows(world, "SELECT * FROM outstanding_calls WHERE why <> 'let_go' ORDER BY id")
    ]


def holders(world: World) -> dict[str, str]:
    """Whose each id in use is."""
    return {
        row.remote_id: row.deployment
        for row in rows(
            world,
            "SELECT r.remote_id, o.deployment FROM remote_ids r JOIN apply_operations o ON o.id = r.operation_id",
        )
    }


def resolve(
    world: World,
    found: Resolved,
    name: ScopeName,
    remote_id: str | None = None,
    taken_from: ScopeName | None = None,
) -> None:
    given = None if remote_id is None else RemoteId(remote_id)
    seen = sighting(world, name, given, taken_from) if given else None
    world.store.resolve_uncertain(name, found, given, "eve", "I looked", taken_from=taken_from, sighting=seen)


# Declared and found are two facts


def test_a_lost_answer_is_found_by_the_key_and_nothing_is_sent_twice(world: World) -> None:
    """G4: nobody declared anything, so the engine is asked, and its id adopted."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert methods(world, "A", ("Apply", "Resolve")) == ["Apply", "Resolve"]
    assert_safe(world)


def test_a_forbidden_key_is_no_failure_and_the_next_one_is_sent(world: World) -> None:
    """G4, S5: nothing came of the key and nothing can; the attempt counts, and the apply goes on."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_generation, operation.dispatch_key) == ("pending", 2, None)
    assert (operation.answered_attempts, operation.unanswered_since) == (1, None)
    assert operation.next_attempt_at is not None
    world.run(until=lambda: world.state("A") == "running", rounds=5)
    keys = [call.key for call in world.engines["A"].calls("Apply")]
    assert len(set(keys)) == len(keys) == 2
    assert "failed" not in {event.after for event in world.events("A")}
    assert_safe(world)


def test_a_pending_one_waits_out_its_pause_whoever_rings(world: World) -> None:
    """G11: a stray bell does not shorten what keeps a struggling engine from being hammered."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    dispatch(world, "A")
    dispatch(world, "A")
    assert len(world.engines["A"].calls("Apply")) == 1


def test_an_engine_that_forbids_for_ever_ends_with_a_person(world: World) -> None:
    """G10: the budget counts across keys; spent is uncertain, never failed, and the key is known to be dead."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.run(until=lambda: world.state("A") == "uncertain", step_s=61)
    assert len(world.engines["A"].calls("Apply")) == ANSWERED_ATTEMPTS_MAX
    assert world.operation("A").dispatch_key_is_dead
    world.ask(Verb.CANCEL)
    world.run(until=lambda: world.state("A") == "cancelled", rounds=3)


def test_an_engine_that_was_replaced_by_one_that_offers_neither(world: World) -> None:
    """G4: what the engine before it was found to offer is no permission: uncertain, and nothing more is sent."""
    assert world.one("SELECT capabilities FROM deployments WHERE name = 'A'").capabilities["resolve"]
    world.engines["A"].offer(engine_service=False, deduplicates=False)
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert len(world.engines["A"].calls("Apply")) == len(world.engines["A"].effects("apply")) == 1


def test_an_engine_that_was_found_to_offer_nothing_is_asked_all_the_same(make_world: MakeWorld) -> None:
    """No finding decides: an engine that has learnt to answer settles its key by itself."""
    world = make_world("A")
    world.write("""UPDATE deployments SET deduplicates = false, capabilities = '{"resolve": false}'""")
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A")
    world.answer_bells()
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")


def test_an_empty_answer_settles_nothing(world: World) -> None:
    """G10: it neither found the key nor forbade it."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].script("Resolve", answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "uncertain"
    assert len(world.engines["A"].calls("Apply")) == 1


def test_an_engine_that_does_not_answer_is_asked_again_later(world: World) -> None:
    """G10: the key is asked about again and again and never sent; once it is answered, that counts."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    for _ in range(4):
        world.pass_time(61)
        world.sweep()
    assert world.state("A") == "failed_retryable"
    world.engines["A"].always("Resolve", None)
    world.run(until=lambda: world.state("A") == "running", rounds=3, step_s=61)
    assert len(world.engines["A"].calls("Apply")) == 1


def test_a_key_is_not_asked_about_at_another_engine(world: World) -> None:
    """G4: an engine that never heard of a key forbids it gladly, and that says nothing about the one which did."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].script("Resolve", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.write(
        "UPDATE deployments SET address = :address, target = 'a' WHERE name = 'A'",
        address=world.engines["C"].address,
    )
    world.pass_time(31)
    world.sweep()
    assert world.state("A") == "uncertain"
    assert not world.engines["C"].calls("Apply")
    assert not world.engines["C"].calls("Resolve")


def declared(world: World) -> None:
    """Here nobody has, unless a scenario is about that."""
    world.write("UPDATE deployments SET deduplicates = true, idempotent_dispatch = true")


@pytest.mark.parametrize("declares", [True, False], ids=["declared", "undeclared"])
def test_a_key_is_not_taken_to_an_engine_that_was_found_at_another_database(
    world: World,
    declares: bool,  # noqa: FBT001
) -> None:
    """Behind the same address: neither what was declared of the one before holds for it, nor what it says of a key."""
    if declares:
        declared(world)
    world.write("UPDATE deployments SET engine_identity = 'one' WHERE name = 'A'")
    for method in ("Apply", "Resolve"):
        world.engines["A"].always(method, fail("UNAVAILABLE"))
    world.apply("A")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    for method in ("Apply", "Resolve"):
        world.engines["A"].always(method, None)
    sent = len(methods(world, "A", ("Apply", "Resolve")))
    world.write(
        "UPDATE deployments SET capabilities = capabilities || '{\"identity\"\\: \"another\"}' WHERE name = 'A'"
    )
    world.pass_time(60)
    world.sweep()
    assert world.state("A") == "uncertain"
    assert len(methods(world, "A", ("Apply", "Resolve"))) == sent


def test_a_declared_key_is_not_repeated_where_another_engine_shows_itself(world: World) -> None:
    """It was found to offer Resolve, and the look at the unanswered dispatch is told that nobody knows such a call."""
    declared(world)
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].always("Resolve", fail("UNIMPLEMENTED"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.pass_time(1.01)
    # Due at the same instant as the repetition: the look comes first.
    world.do("poll", "A")
    assert world.state("A") == "uncertain"
    assert "another one answers there" in world.operation("A").error_message
    for _ in range(4):
        world.pass_time(61)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert len(world.engines["A"].calls("Apply")) == 1
    assert_safe(world)


def test_a_finding_is_never_written_down_as_a_declaration(world: World) -> None:
    """What a probe finds stands beside what a person said, and a probe that failed makes it old."""
    world.store.record_probes({"A": EVERYTHING, "B": None})
    found = {row.name: row for row in rows(world, "SELECT * FROM deployments")}
    assert not found["A"].deduplicates
    assert not found["A"].idempotent_dispatch
    assert (found["A"].probe_is_old, found["B"].probe_is_old) == (False, True)
    assert found["B"].capabilities["resolve"]
    world.store.declare("B", deduplicates=True)
    world.store.record_probes({"B": NOTHING})
    row = world.one("SELECT * FROM deployments WHERE name = 'B'")
    assert (row.deduplicates, row.idempotent_dispatch, row.probe_is_old) == (True, True, False)
    assert not row.capabilities["resolve"]


# A taken id is no answer


def test_an_id_that_a_live_operation_has_is_not_stored(one_engine: World) -> None:
    """G2: an engine that lost its memory gives its ids out again. Both are uncertain; nothing of either goes on."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    assert world.remote_id("A") == "A-1"
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    assert (world.state("A", first), world.state("B", second)) == ("uncertain", "uncertain")
    assert (world.remote_id("A", first), world.remote_id("B", second)) == ("A-1", None)
    assert {world.operation("A", first).doubt, world.operation("B", second).doubt} == {"taken"}
    assert holders(world) == {"A-1": "A"}
    for name, apply_id in (("A", first), ("B", second)):
        told = world.operation(name, apply_id)
        assert told.error_reason == "REMOTE_ID_TAKEN"
        assert f"tern resolve {first}/A --as same-work" in told.error_message
        assert f"tern resolve {second}/B --as remote-id=A-1 --taken-from {first}/A" in told.error_message


def test_no_sample_ends_it(one_engine: World) -> None:
    """G10: whatever the engine says of that id may be about the other's work."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    # An engine that binds a job to nobody: whoever asks about the id is answered.
    world.engines["A"].job("A-1").operation = str(world.name("A", first))
    world.engines["A"].set_state("A-1", "completed")
    before = looks(world, "A")
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    assert looks(world, "A") > before
    assert world.state("A", first) == "uncertain"
    assert world.state("B") == "uncertain"


def test_nothing_goes_forward_while_it_is_in_doubt(one_engine: World) -> None:
    """G2, G9: a cutover that was asked for waits, and is not sent to a job that may be another's."""
    world = one_engine
    first = world.apply("A", policy=MANUAL)
    world.answer_bells()
    engine_says(world, "A", "waiting_for_cutover")
    world.engines["A"].forget()
    world.apply("B", policy=MANUAL)
    world.answer_bells()
    world.last = first
    world.ask(Verb.CUTOVER, "A")
    world.ask(Verb.START, "A")
    world.ask(Verb.VOLUME, "A", volume=3)
    for _ in range(3):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert methods(world, "A", ("Start", "Cutover", "Volume")) == []


def test_a_person_says_that_the_holder_has_its_own_work(one_engine: World) -> None:
    """After that its samples count again; the other stays with a person."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    job = world.engines["A"].job("A-1")
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    world.engines["A"].jobs.by_id["A-1"] = job
    resolve(world, Resolved.SAME_WORK, world.name("A", first))
    world.run(until=lambda: world.state("A", first) == "running", rounds=3)
    assert (world.state("B"), world.operation("B").doubt) == ("uncertain", "taken")
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.SAME_WORK, world.name("A", first))
    assert refused.value.reason == "NOT_UNCERTAIN"


def test_a_person_takes_the_id_from_its_holder(one_engine: World) -> None:
    """G2, G5: the guard moves and the holder ends in one transaction; its id stays in its home and is never sent."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["A"].forget()
    second = world.apply("B")
    world.answer_bells()
    world.last = first
    world.ask(Verb.CUTOVER, "A")
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1")
    assert refused.value.reason == "REMOTE_ID_TAKEN"
    assert f"--taken-from {first}/A" in refused.value.next_step
    resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1", taken_from=world.name("A", first))
    holder = world.operation("A", first)
    assert (holder.state, holder.error_reason, world.remote_id("A", first)) == ("failed", "ID_LOST", "A-1")
    assert all(fate in {"failed", "acknowledged"} for _, _, fate in wishes(world))
    assert (world.state("B", second), world.remote_id("B", second)) == ("running", "A-1")
    assert holders(world) == {"A-1": "B"}
    before = len(world.engines["A"].calls("Progress"))
    look(world, "A")
    assert len(world.engines["A"].calls("Progress")) == before
    world.last = second
    engine_says(world, "B", "completed")
    assert world.state("B", second) == "completed"
    assert holders(world) == {}


def test_an_id_is_taken_only_from_whoever_has_it(one_engine: World) -> None:
    """A slip in a name moves nothing."""
    world = one_engine
    first = world.apply("A")
    world.answer_bells()
    world.engines["B"].script("Apply", lose_answer())
    world.engines["B"].script("Resolve", answer())
    second = world.apply("B")
    world.answer_bells()
    world.pass_time(11)
    # The engine says that the job is B's, as one does that gives its ids out again.
    world.engines["A"].job("A-1").operation = f"{second}/B"
    with pytest.raises(Refused) as refused:
        resolve(world, Resolved.REMOTE_ID, world.name("B", second), "A-1", taken_from=world.name("A", first))
    assert refused.value.reason == "REMOTE_ID_NOT_THERE"
    assert world.state("A", first) == "running"
    assert world.state("B", second) == "uncertain"


def test_two_drivers_answered_with_one_id_at_the_same_instant(one_engine: World) -> None:
    """G2, G12: the database refuses the second, and both become uncertain, whoever was first."""
    world = one_engine
    world.engines["A"].always("Apply", altered(apply_id="R-1"))
    world.apply("A", "B", policy=PARALLEL)
    bells = [given for kind, given in world.bells.queue if kind == "dispatch"]
    world.forget_bells()
    meet = threading.Barrier(2)

    def go(number: int, given: tuple[Any, ...]) -> None:
        worker = world.worker(f"w{number}")
        world.do("dispatch", *given, ports=meanwhile(worker, "record_remote_id", lambda: meet.wait(20)))

    threads = [threading.Thread(target=go, args=(n, given)) for n, given in enumerate(bells)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [world.state(name) for name in "AB"] == ["uncertain", "uncertain"]
    assert {world.operation(name).doubt for name in "AB"} == {"taken"}
    assert sorted(filter(None, (world.remote_id(name) for name in "AB"))) == ["R-1"]
    assert len(holders(world)) == 1


def test_its_own_id_is_never_taken(world: World) -> None:
    """Whatever generation asked: the same id for the same operation is its own."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.run(until=lambda: world.state("A") == "running", rounds=5)
    claimed = world.operation("A")
    assert claimed.dispatch_generation == 2
    assert holders(world)["A-1"] == "A"
    assert claimed.doubt == ""


def test_a_stopped_holder_is_in_doubt_as_well(one_engine: World) -> None:
    """What is stopped may be started, so its id is in use."""
    world = one_engine
    stopped(world, "A")
    first = world.last
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    assert (world.state("A", first), world.state("B")) == ("uncertain", "uncertain")


def test_a_finished_holder_lets_its_id_go(one_engine: World) -> None:
    """Its work is over and nothing of it may act: the id is nobody's."""
    world = one_engine
    world.apply("A")
    world.answer_bells()
    engine_says(world, "A", "completed")
    assert holders(world) == {}
    world.engines["A"].forget()
    world.apply("B")
    world.answer_bells()
    assert (world.state("B"), world.remote_id("B")) == ("running", "A-1")


def test_without_its_row_in_the_guard_nothing_is_sent_with_an_id(world: World) -> None:
    """G2: neither a look nor a stop."""
    running(world, "A", "B")
    world.write("DELETE FROM remote_ids WHERE remote_id = 'A-1'")
    calls = len(world.engines["A"].calls())
    world.ask(Verb.STOP, "A")
    drive(world, Verb.STOP, "A")
    world.forget_bells()
    for _ in range(3):
        world.pass_time(5)
        world.sweep()
    sent = [call for call in world.engines["A"].calls()[calls:] if call.method != "Health"]
    assert [call.method for call in sent if call.remote_id] == []
    assert [c for call in sent if call.method == "BatchProgress" for c in call.request.cursors] == []


# Engine numbers


def test_deployments_of_one_address_have_one_engine(one_engine: World) -> None:
    numbers = {row.engine_number for row in rows(one_engine, "SELECT engine_number FROM deployments")}
    assert len(numbers) == 1


def test_the_number_is_that_of_the_dispatch(world: World) -> None:
    """It never follows the deployment."""
    running(world, "A", "B")
    before = world.operation("A")
    assert before.dispatched_to == world.engines["A"].address
    world.write(
        "UPDATE deployments SET address = 'grpc://127.0.0.1:9', target = 'elsewhere' WHERE name = 'A'"
    )
    moved = world.one("SELECT engine_number FROM deployments WHERE name = 'A'").engine_number
    assert moved != before.engine_number
    after = world.operation("A")
    assert (after.engine_number, after.dispatched_to) == (before.engine_number, before.dispatched_to)


def test_two_numbers_turn_out_to_be_one_engine(world: World) -> None:
    """The younger's rows get the older number; an id that stands in both keeps its number, and both are uncertain."""
    world.engines["B"].jobs.name = "A"
    running(world, "A", "B", "C")
    assert world.remote_id("B") == world.remote_id("A") == "A-1"
    numbers = {
        row.name: row.engine_number for row in rows(world, "SELECT name, engine_number FROM deployments")
    }
    world.store.unite_engines(numbers["A"], numbers["C"])
    assert world.operation("C").engine_number == numbers["A"]
    assert world.state("C") == "running"
    world.store.unite_engines(numbers["B"], numbers["A"])
    assert {row.engine_number for row in rows(world, "SELECT engine_number FROM deployments")} == {
        numbers["A"]
    }
    assert world.operation("B").engine_number == numbers["B"]
    assert [world.state(name) for name in "ABC"] == ["uncertain", "uncertain", "running"]
    assert {world.operation(name).doubt for name in "AB"} == {"taken"}


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


# A minute of looks


def looks(world: World, name: str) -> int:
    return len(world.engines[name].calls("BatchProgress")) + len(world.engines[name].calls("Progress"))


def look_for(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.pass_time(1.01)
        world.sweep()


def unanswered_cutover(world: World) -> None:
    running(world, "A", "B", policy=MANUAL)
    engine_says(world, "A", "waiting_for_cutover")
    world.engines["A"].script("Cutover", lose_answer())
    world.ask(Verb.CUTOVER, "A")
    drive(world, Verb.CUTOVER, "A")
    world.forget_bells()


def test_after_an_unanswered_cutover_it_is_looked_at_every_second_whatever_its_state(world: World) -> None:
    """A finished one too, and for a minute only."""
    unanswered_cutover(world)
    assert world.operation("A").unanswered_call == "cutover"
    look(world, "A")
    assert world.state("A") == "completed"
    before = looks(world, "A")
    look_for(world, 10)
    assert looks(world, "A") - before >= 8
    assert holders(world)["A-1"] == "A"
    world.pass_time(UNANSWERED_S)
    world.sweep()
    operation = world.operation("A")
    assert (operation.unanswered_call, operation.unanswered_since, operation.next_poll_at) == ("", None, None)
    assert "A-1" not in holders(world)
    before = looks(world, "A")
    look_for(world, 5)
    assert looks(world, "A") == before


@pytest.mark.parametrize("pace", ["what a person moves on", "what does not answer"])
def test_after_an_unanswered_cutover_no_other_pace_of_looks_counts(world: World, pace: str) -> None:
    """One that waits for a person is looked at rarely, and one out of contact ever more rarely: not this minute."""
    running(world, "A", "B", policy=MANUAL)
    engine_says(world, "A", "waiting_for_cutover")
    if pace == "what does not answer":
        for method in ("BatchProgress", "Progress"):
            world.engines["A"].always(method, fail("UNAVAILABLE"))
        world.write("UPDATE apply_operations SET poll_failures = 20 WHERE deployment = 'A'")
    world.write("UPDATE apply_operations SET unanswered_call = 'cutover', unanswered_since = tern_clock()")
    world.write("UPDATE apply_operations SET next_poll_at = tern_clock() + interval '30 s'")
    before = looks(world, "A")
    look_for(world, 10)
    assert looks(world, "A") - before >= 8
    world.pass_time(UNANSWERED_S)
    world.sweep()
    before = looks(world, "A")
    look_for(world, 10)
    assert looks(world, "A") - before <= 2


def test_what_is_finished_and_works_again_is_outstanding(world: World) -> None:
    """A call that acts late: its job is followed by no operation, and nobody is told that all is well."""
    unanswered_cutover(world)
    look(world, "A")
    assert world.state("A") == "completed"
    engine_says(world, "A", "running", looks=False)
    look_for(world, 3)
    assert world.state("A") == "completed"
    assert outstanding(world) == [("A", "A-1", "contradicted", True)]
    assert holders(world)["A-1"] == "A"
    assert [event.event for event in world.events("A")].count("contradicted") == 1


@pytest.mark.parametrize("verb", [Verb.CUTOVER, Verb.START])
@pytest.mark.parametrize(
    "said",
    [behave(), not_accepted("not now"), fail("FAILED_PRECONDITION")],
    ids=["taken", "not taken", "refused"],
)
def test_an_answered_call_leaves_nothing(world: World, verb: Verb, said: Behaviour) -> None:
    """G10: a refusal is an answer too. Nothing of the call acts late, so nobody waits for it and no target is kept."""
    if verb is Verb.CUTOVER:
        running(world, "A", "B", policy=MANUAL)
        engine_says(world, "A", "waiting_for_cutover")
    else:
        stopped(world, "A", "B")
    world.engines["A"].script(verb.value.capitalize(), said)
    world.ask(verb, "A")
    drive(world, verb, "A")
    assert methods(world, "A")[-1] == verb.value.capitalize()
    operation = world.operation("A")
    assert (operation.unanswered_call, operation.unanswered_since) == ("", None)
    engine_says(world, "A", "cancelled")
    assert (world.state("A"), held_targets(world)) == ("cancelled", {"B"})


def test_a_start_without_an_answer_is_not_forgotten_by_the_answer_to_the_next(world: World) -> None:
    """The first may still be on its way: what was said to the second says nothing about it."""
    stopped(world, "A", "B")
    world.engines["A"].script("Start", fail("UNAVAILABLE"))
    world.ask(Verb.START, "A")
    drive(world, Verb.START, "A")
    assert world.operation("A").unanswered_call == "start"
    world.run(until=lambda: len(world.engines["A"].calls("Start")) == 2, rounds=5)
    assert world.operation("A").unanswered_call == "start"
    world.pass_time(UNANSWERED_S)
    world.run(until=lambda: world.operation("A").unanswered_call == "", rounds=5)


def test_a_crash_between_call_and_answer_is_an_unanswered_call(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    assert world.operation("A").unanswered_call == "apply"
    stopped_one = world.operation("B")
    assert stopped_one.unanswered_call == ""


def test_an_unanswered_dispatch_is_looked_at_by_its_key_and_nothing_is_forbidden(
    make_world: MakeWorld,
) -> None:
    """Its first call may still be on its way. Where a person declared deduplication the next send waits long."""
    world = make_world("A", "B")
    world.engines["A"].script("Apply", hang(5))
    world.apply("A", "B", policy=PARALLEL)
    world.write("UPDATE apply_operations SET attempt = 7")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    look_for(world, 3)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert len(world.engines["A"].calls("Apply")) == 1
    assert {call.request.forbid for call in world.engines["A"].calls("Resolve")} == {False}


@pytest.mark.parametrize("spent_by", ["tries", "age"])
def test_the_last_dispatch_without_an_answer_is_looked_at_by_its_key_too(
    make_world: MakeWorld, spent_by: str
) -> None:
    """G4: nothing is sent again and a person is asked; the job that it began is found all the same."""
    world = make_world("A", "B")
    world.apply("A", "B", policy=PARALLEL)
    if spent_by == "tries":
        world.write("UPDATE apply_operations SET answered_attempts = :tried", tried=ANSWERED_ATTEMPTS_MAX - 1)
    else:
        world.engines["A"].script("Apply", fail("UNAVAILABLE"))
        world.answer_bells()
        world.pass_time(FRESHNESS_S + 1)
    world.engines["A"].script("Apply", lose_answer())
    dispatch(world, "A")
    assert (world.state("A"), world.remote_id("A")) == ("uncertain", None)
    world.forget_bells()
    look_for(world, 3)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)


def test_a_dispatch_that_a_stop_found_unanswered_is_looked_at_by_its_key(world: World) -> None:
    """Its worker died between call and answer, and the engine's word about the key is empty: the call may still come
    through, and then the stop has something to stop.
    """
    world.apply("A", "B", policy=PARALLEL)
    world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.ask(Verb.STOP, "A")
    world.engines["A"].script("Resolve", answer())
    world.pass_time(31)
    drive(world, Verb.STOP, "A")
    assert world.state("A") == "uncertain"
    before = len(world.engines["A"].calls("Resolve"))
    look_for(world, 3)
    assert len(world.engines["A"].calls("Resolve")) > before


def test_what_a_person_is_asked_about_is_not_looked_at_once_its_key_is_dead(world: World) -> None:
    """Nothing can come of it any more."""
    world.apply("A", "B", policy=PARALLEL)
    world.write("UPDATE apply_operations SET answered_attempts = :tried", tried=ANSWERED_ATTEMPTS_MAX - 1)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    dispatch(world, "A")
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key_is_dead) == ("uncertain", True)
    assert (operation.next_poll_at, operation.unanswered_since) == (None, None)


def test_an_engine_without_resolve_is_not_looked_at_by_key(make_world: MakeWorld) -> None:
    """G4: a person declared that it deduplicates, so the key is sent again; it is asked once after each try."""
    world = make_world("A")
    world.engines["A"].offer(engine_service=False, deduplicates=True)
    world.write("UPDATE deployments SET capabilities = '{}'")
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A")
    world.write("UPDATE apply_operations SET attempt = 7")
    world.answer_bells()
    look_for(world, 20)
    assert world.state("A") == "failed_retryable"
    assert len(world.engines["A"].calls("Resolve")) <= len(world.engines["A"].calls("Apply")) < 10
