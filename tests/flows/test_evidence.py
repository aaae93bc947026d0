"""Declared and found are two facts, and a finding permits nothing (G4, G10)."""

import pytest

from tern.domain.control import Verb
from tern.domain.timing import ANSWERED_ATTEMPTS_MAX
from tests.faults.behaviour import answer, fail, lose_answer
from tests.faults.cut import Killed, interrupted, kill
from tests.flows.evidence import (
    EVERYTHING,
    NOTHING,
    MakeWorld,
    rows,
    world,
)
from tests.flows.steps import (
    PARALLEL,
    dispatch,
    meanwhile,
    methods,
)
from tests.invariants import assert_safe
from tests.world import World

__all__ = ["world"]


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


@pytest.mark.parametrize("is_swept", [False, True], ids=["in-the-claim", "after-a-check"])
def test_a_repetition_asks_first_who_is_there(world: World, is_swept: bool) -> None:  # noqa: FBT001
    """The look at the unanswered dispatch is due at the same instant, and the repetition wins: it asks as well, before
    the key can reach an engine that never saw it, also where that one's poverty is in the register already.
    """
    declared(world)
    if is_swept:
        # As of an engine that names its database: what was found there since is no word about what was sent.
        world.write("UPDATE deployments SET engine_identity = '1/1' WHERE name = 'A'")
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.engines["A"].offer(engine_service=False, deduplicates=False)
    if is_swept:
        world.store.record_probes({"A": NOTHING})
    world.pass_time(1.5)
    dispatch(world, "A")
    assert world.state("A") == "uncertain"
    assert "another one answers there" in world.operation("A").error_message
    for _ in range(4):
        world.pass_time(61)
        world.sweep()
    assert world.state("A") == "uncertain"
    assert len(world.engines["A"].calls("Apply")) == 1
    assert_safe(world)


@pytest.mark.parametrize("kind", ["dispatch", "poll"])
@pytest.mark.parametrize("declares", [True, False], ids=["declared", "undeclared"])
def test_the_engine_of_another_database_is_sent_no_key_again(
    make_world: MakeWorld,
    kind: str,
    declares: bool,  # noqa: FBT001
) -> None:
    """It answers by keys as the one before did, and its answers name its database: that is one rule for whoever asks,
    be it before a repetition, at a look, or to settle what nobody declared.
    """
    world = make_world("A", "B", identity="1/1")
    if not declares:
        world.undeclared()
        world.engines["A"].script("Resolve", fail("UNAVAILABLE"))
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    world.engines["A"].forget()
    world.engines["A"].identity = "2/2"
    world.pass_time(1.5)
    if kind == "poll":
        world.do("poll", "A")
    else:
        dispatch(world, "A")
    assert world.state("A") == "uncertain"
    words = world.operation("A").error_message
    assert "it names 2/2, not 1/1" in words
    assert "another one answers there" in words
    for _ in range(4):
        world.pass_time(61)
        world.sweep()
    assert len(world.engines["A"].calls("Apply")) == 1


def test_what_came_of_a_key_is_found_before_it_is_sent_again(world: World) -> None:
    declared(world)
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.pass_time(1.5)
    dispatch(world, "A")
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert len(world.engines["A"].calls("Apply")) == 1
    assert_safe(world)


def test_a_key_that_is_dead_already_makes_way_for_the_next(world: World) -> None:
    """Whoever forbade it died before writing that down: sent again it would be refused, and that is no failure."""
    declared(world)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    claimed = world.operation("A")
    world.engines["A"].jobs.forbidden.add(claimed.dispatch_key)
    world.pass_time(1.5)
    dispatch(world, "A")
    assert world.operation("A").dispatch_generation == claimed.dispatch_generation + 1
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)


def test_nobody_s_answer_is_no_leave_to_repeat(world: World) -> None:
    """Who is there is not known then: asked again later, and it goes on by itself."""
    declared(world)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.engines["A"].script("Resolve", fail("UNAVAILABLE"))
    world.pass_time(1.5)
    dispatch(world, "A")
    assert world.state("A") == "failed_retryable"
    assert len(world.engines["A"].calls("Apply")) == 1
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("apply")) == 1


def test_a_stop_that_comes_while_the_engine_is_asked_is_seen(world: World) -> None:
    """G9: the question before a repetition may take its time, so the last look comes after it."""
    declared(world)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.pass_time(1.5)
    dispatch(world, "A", meanwhile(world.ports, "resolve", lambda: world.ask(Verb.STOP, "A")))
    assert len(world.engines["A"].calls("Apply")) == 1
    assert_safe(world)


@pytest.mark.parametrize("where", ["resolve", "may_go_forward"])
def test_a_crash_around_the_question_costs_nothing(world: World, where: str) -> None:
    """Nothing was written of it: whoever comes next asks again."""
    declared(world)
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.pass_time(1.5)
    with pytest.raises(Killed):
        dispatch(world, "A", interrupted(world.worker("w1"), where, after=kill))
    assert len(world.engines["A"].calls("Apply")) == 1
    for _ in range(4):
        world.pass_time(31)
        world.sweep()
    assert world.state("A") == "running"
    assert len(world.engines["A"].effects("apply")) == 1
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
