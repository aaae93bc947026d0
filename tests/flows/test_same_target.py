"""One target is one target, however it is spelled: found out by a key, held under all of its names (G13)."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tern.domain.choice import Choice
from tern.domain.control import Receipt, Verb
from tern.domain.enqueue import Enqueue, NewChange
from tern.domain.errors import Refused
from tern.domain.policy import Copy, Cutover, Policy
from tern.domain.targets import Finding, Found, Pair
from tern.flows.accept import enqueue
from tern.proving import prove_targets
from tern.store.reading import Reading
from tern.view import apply_view
from tests.faults.behaviour import fail, lose_answer
from tests.faults.fake_engine import FakeEngine
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    dispatch,
    drive,
    engine_says,
    held_targets,
    methods,
    running,
    settle,
)
from tests.invariants import assert_safe
from tests.world import CHANGE, World

SERVER = "7654321/16384"
MakeWorld = Callable[..., World]


def one_server(world: World, *names: str) -> World:
    """These deployments lead to one database: whatever is forbidden by one address is forbidden by the others."""
    for name in names[1:]:
        world.engines[name].jobs = world.engines[names[0]].jobs
    return world


@pytest.fixture
def twins(make_world: MakeWorld) -> World:
    """A and B are one server under two names, C is a copy of it, D is something else."""
    world = make_world("A", "B", "C", "D", identity=SERVER)
    return one_server(world, "A", "B")


def proven(world: World, *names: str) -> dict[tuple[str, str], Finding]:
    found = prove_targets(names, world.directory, world.store)
    return {(each.pair.one.name, each.pair.other.name): each.finding for each in found}


def say(world: World, one: str, other: str, finding: Finding) -> None:
    """As if it had been found just now."""
    pair = Pair(*world.store.load_deployments(sorted((one, other))))
    world.store.record_findings([Found(pair, finding)])


def held_by(world: World, name: str) -> list[tuple[str, str]]:
    view = apply_view(Reading(world.database).apply(world.last))
    return [(hold.kind.value, hold.detail) for hold in view.operation(name).holds]


# What is found


def test_a_key_forbidden_at_one_and_known_at_the_other_proves_that_they_are_one(twins: World) -> None:
    """Equal identifiers alone prove nothing: C has the same and is a copy."""
    assert proven(twins, "A") == {
        ("A", "B"): Finding.SAME,
        ("A", "C"): Finding.TWO,
        ("A", "D"): Finding.TWO,
    }
    assert twins.store.findings()["B"] == {"A": Finding.SAME}
    # What stands is not asked again, what has not been compared is.
    asked = len(twins.engines["A"].calls("Resolve"))
    assert proven(twins, "A") == {}
    assert len(twins.engines["A"].calls("Resolve")) == asked
    assert set(proven(twins, "B")) == {("B", "C"), ("B", "D")}


def test_many_are_compared_with_one_key_each(twins: World) -> None:
    proven(twins, "A", "B", "C", "D")
    keys = {
        call.key
        for engine in twins.engines.values()
        for call in engine.calls("Resolve")
        if call.request.forbid
    }
    assert len(keys) == 4


def test_other_identifiers_are_never_compared(make_world: MakeWorld) -> None:
    world = make_world("A", "B")
    assert proven(world, "A", "B") == {}
    assert [call for engine in world.engines.values() for call in engine.calls()] == []


@pytest.mark.parametrize("trouble", [lose_answer(), fail("UNAVAILABLE"), fail("PERMISSION_DENIED")])
@pytest.mark.parametrize("silent", ["A", "B"])
def test_whoever_could_not_be_asked_is_suspected_and_asked_again(
    twins: World, silent: str, trouble: object
) -> None:
    twins.engines[silent].always("Resolve", trouble)  # type: ignore[arg-type]
    assert proven(twins, "A")["A", "B"] is Finding.SUSPECTED
    twins.engines[silent].always("Resolve", None)
    assert proven(twins, "A")["A", "B"] is Finding.SAME
    assert proven(twins, "A") == {}


def test_one_way_is_no_proof_of_anything(twins: World) -> None:
    """A replica that lags knows the one key and not the other; an answer that is lost proves neither one nor two."""
    twins.engines["B"].script("Resolve", lose_answer())
    assert proven(twins, "A")["A", "B"] is Finding.SUSPECTED


def test_a_suspicion_takes_no_proof_back(twins: World) -> None:
    proven(twins, "A")
    say(twins, "A", "B", Finding.SUSPECTED)
    say(twins, "A", "C", Finding.SUSPECTED)
    assert twins.store.findings()["A"] == {"B": Finding.SAME, "C": Finding.TWO, "D": Finding.TWO}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        # At another address of the same database it may be the same target still: it counts as one until it is asked.
        ("address = 'grpc://127.0.0.1:9'", {"B": Finding.SUSPECTED}),
        ("engine_identity = '1/1'", {}),
    ],
    ids=["address", "identity"],
)
def test_a_finding_falls_with_the_address_or_the_identity(
    twins: World, change: str, left: dict[str, Finding]
) -> None:
    proven(twins, "A")
    twins.write(f"UPDATE deployments SET {change} WHERE name = 'B'")
    assert twins.store.findings()["A"] == {"C": Finding.TWO, "D": Finding.TWO, **left}


def test_a_finding_about_an_address_that_changed_meanwhile_is_none(twins: World) -> None:
    pair = Pair(*twins.store.load_deployments(["A", "B"]))
    twins.write("UPDATE deployments SET address = 'grpc://127.0.0.1:9' WHERE name = 'B'")
    twins.store.record_findings([Found(pair, Finding.SAME)])
    assert twins.store.findings() == {}


def test_another_identity_is_not_taken_over_by_itself_and_refuses_new_rollouts(twins: World) -> None:
    """Behind the address another database stands: a person says that it is meant, or mends the address."""
    (before,) = twins.store.load_deployments(["A"])
    found = FakeEngine("X", identity="9/9")
    try:
        twins.write(
            "UPDATE deployments SET capabilities = jsonb_set(capabilities, '{identity}', '\"9/9\"')"
            " WHERE name = 'A'"
        )
        (after,) = twins.store.load_deployments(["A"])
        assert (before.engine_identity, after.engine_identity) == (SERVER, SERVER)
        with pytest.raises(Refused) as refused:
            twins.apply("A", policy=PARALLEL)
        assert "names another database than before (9/9, not 7654321/16384)" in refused.value.why[0]
        assert "tern deployments set A --new-identity" in refused.value.why[0]
    finally:
        found.stop()


# What it is good for


@pytest.mark.parametrize("finding", [Finding.SAME, Finding.SUSPECTED])
def test_a_rollout_holds_all_names_of_its_target(twins: World, finding: Finding) -> None:
    """Issue 8, number 4: localhost and 127.0.0.1 get one live rollout, and not two."""
    say(twins, "A", "B", finding)
    first = twins.apply("A", policy=PARALLEL)
    twins.answer_bells()
    assert held_targets(twins) == {"A", "B"}
    with pytest.raises(Refused) as refused:
        twins.apply("B", policy=PARALLEL)
    assert f"B is held by {first}/A (running)" in refused.value.why[0]
    engine_says(twins, "A", "completed")
    twins.apply("B", policy=PARALLEL)
    twins.answer_bells()
    assert twins.state("B") == "running"
    assert held_targets(twins) == {"A", "B"}
    assert_safe(twins)


def test_two_are_two(twins: World) -> None:
    say(twins, "A", "C", Finding.TWO)
    running(twins, "A")
    running(twins, "C")
    assert held_targets(twins) == {"A", "C"}


def test_names_are_one_target_across_a_third(twins: World) -> None:
    say(twins, "A", "B", Finding.SAME)
    say(twins, "B", "C", Finding.SUSPECTED)
    running(twins, "A")
    assert held_targets(twins) == {"A", "B", "C"}


def test_names_in_other_environments_are_names_of_the_target_too(twins: World) -> None:
    """Somebody called the same server staging, and its database otherwise."""
    twins.write("UPDATE deployments SET environment = 'staging', database = 'store' WHERE name = 'B'")
    say(twins, "A", "B", Finding.SAME)
    running(twins, "A")
    row = twins.one("SELECT environment, database FROM target_reservations WHERE deployment = 'B'")
    assert (row.environment, row.database) == ("staging", "store")


def test_one_target_twice_in_a_rollout_is_refused(twins: World) -> None:
    """The same change would run there twice: no order makes that right."""
    say(twins, "A", "B", Finding.SAME)
    with pytest.raises(Refused) as refused:
        twins.apply("A", "B", "C", policy=PARALLEL)
    assert refused.value.why == ("deployments A and B are one target under two names: choose one of them",)


def test_what_is_only_suspected_to_be_one_waits_for_the_other_in_the_same_rollout(twins: World) -> None:
    say(twins, "A", "B", Finding.SUSPECTED)
    twins.apply("A", "B", "D", policy=PARALLEL)
    twins.answer_bells()
    assert [twins.state(name) for name in "ABD"] == ["running", "pending", "running"]
    (hold,) = held_by(twins, "B")
    assert hold[0] == "same_target"
    assert hold[1] == f"its target is, or may be, the same as that of A, and held by {twins.last}/A (running)"
    assert methods(twins, "B") == []
    engine_says(twins, "A", "completed")
    twins.run(until=lambda: twins.state("B") == "running", rounds=4)
    assert_safe(twins)


def test_what_waits_in_another_rollout_is_let_in_when_the_target_is_free(twins: World) -> None:
    """Nothing else of its own rollout moves meanwhile, and nobody rings for it."""
    first = twins.apply("B", "D", policy=Policy(copy=Copy.PARALLEL, max_parallel=1))
    twins.forget_bells()
    second = twins.apply("A", policy=PARALLEL)
    twins.answer_bells()
    say(twins, "A", "B", Finding.SAME)
    twins.last = first
    dispatch(twins, "B")
    assert twins.state("B") == "pending"
    assert held_by(twins, "B")[0][0] == "same_target"
    twins.run(until=lambda: twins.state("D") == "running", rounds=4)
    twins.last = second
    engine_says(twins, "A", "completed")
    twins.last = first
    twins.forget_bells()
    engine_says(twins, "D", "completed")
    twins.forget_bells()
    twins.run(until=lambda: twins.state("B") == "running", rounds=4)
    assert held_targets(twins) == {"A", "B"}


def test_two_live_rollouts_that_turn_out_to_be_at_one_target_go_on_and_the_later_waits(twins: World) -> None:
    """Nothing is stopped; the later cutover holds until the earlier change is through, and both show it."""
    twins.apply("A", policy=MANUAL)
    first = twins.last
    twins.apply("B", policy=MANUAL)
    second = twins.last
    twins.answer_bells()
    for apply_id, name in ((first, "A"), (second, "B")):
        twins.last = apply_id
        engine_says(twins, name, "waiting_for_cutover")
    say(twins, "A", "B", Finding.SAME)
    twins.last = second
    assert held_by(twins, "B")[0][0] == "same_target"
    twins.ask(Verb.CUTOVER, "B")
    twins.answer_bells()
    drive(twins, Verb.CUTOVER, "B")
    assert methods(twins, "B", ["Cutover"]) == []
    twins.last = first
    twins.ask(Verb.CUTOVER, "A")
    settle(twins)
    twins.run(until=lambda: twins.state("A", first) == "completed", rounds=5)
    twins.run(until=lambda: twins.state("B", second) == "completed", rounds=5)
    assert methods(twins, "B", ["Cutover"]) == ["Cutover"]


def test_of_two_that_were_not_sent_yet_the_older_goes_first_and_neither_waits_for_ever(twins: World) -> None:
    first = twins.apply("B", policy=PARALLEL)
    second = twins.apply("A", policy=PARALLEL)
    twins.forget_bells()
    say(twins, "A", "B", Finding.SAME)
    twins.last = second
    dispatch(twins, "A")
    assert twins.state("A", second) == "pending"
    twins.last = first
    dispatch(twins, "B")
    assert twins.state("B", first) == "running"
    engine_says(twins, "B", "completed")
    twins.run(until=lambda: twins.state("A", second) == "running", rounds=4)
    assert held_targets(twins) == {"A", "B"}


def test_one_that_was_sent_goes_before_an_older_one_that_was_not(twins: World) -> None:
    first = twins.apply("B", policy=PARALLEL)
    twins.forget_bells()
    second = twins.apply("A", policy=PARALLEL)
    twins.answer_bells()
    say(twins, "A", "B", Finding.SAME)
    twins.last = first
    dispatch(twins, "B")
    assert (twins.state("B", first), twins.state("A", second)) == ("pending", "running")


def test_a_start_needs_the_target_under_all_of_its_names(twins: World) -> None:
    """It was never sent, so it held nothing; what holds its target now is named, with where it works."""
    first = twins.apply("B", "D", policy=PARALLEL)
    twins.forget_bells()
    twins.ask(Verb.STOP)
    twins.answer_bells()
    say(twins, "A", "B", Finding.SAME)
    running(twins, "A")
    second = twins.last
    line = twins.ask(Verb.START, "B", apply_id=first).lines[0]
    assert (line.outcome, f"{second}/A (running)" in line.reason) == (Receipt.REFUSED, True)
    assert held_targets(twins) == {"A", "B"}


@pytest.mark.parametrize("copy", list(Copy))
def test_a_suspected_pair_ends_in_every_order(twins: World, copy: Copy) -> None:
    """Whatever the policy: the second waits for the first and for nothing that waits for the second."""
    say(twins, "A", "B", Finding.SUSPECTED)
    twins.apply("B", "A", policy=Policy(copy=copy, cutover=Cutover.AUTO))
    for name in "BA":
        twins.run(until=lambda name=name: twins.state(name) == "running", rounds=6)
        engine_says(twins, name, "completed")
    twins.run(until=lambda: twins.apply_row().state == "completed", rounds=5)


def test_one_server_under_two_addresses_gets_one_live_rollout(make_world: MakeWorld) -> None:
    """Issue 8, number 4, by the way that everybody takes: nobody compared the two before, and nobody has to."""
    world = one_server(make_world("A", "B", identity=SERVER), "A", "B")
    first = enqueue(_asked("A", "one"), world.ports)
    assert world.store.findings() == {"A": {"B": Finding.SAME}, "B": {"A": Finding.SAME}}
    with pytest.raises(Refused) as refused:
        enqueue(_asked("B", "two"), world.ports)
    assert (refused.value.reason, str(first.apply_id) in refused.value.why[0]) == ("TARGET_HELD", True)
    assert methods(world, "B") == []
    row = world.one("SELECT count(DISTINCT engine_number) AS n FROM deployments")
    assert row.n == 1


def test_who_was_never_asked_is_asked_before_it_is_compared_even_without_previews(
    make_world: MakeWorld,
) -> None:
    """An import asks no engine, so B's database is not known before the first rollout that names it."""
    world = one_server(make_world("A", "B", identity=SERVER), "A", "B")
    world.write("UPDATE deployments SET capabilities = '{}', engine_identity = '' WHERE name = 'B'")
    enqueue(_asked("A", "one"), world.ports)
    assert world.store.findings() == {}
    with pytest.raises(Refused):
        enqueue(replace(_asked("B", "two"), previews=False), world.ports)
    assert world.store.findings()["A"] == {"B": Finding.SAME}


def _asked(name: str, key: str) -> Enqueue:
    change = NewChange("test", "shop", "postgres", (CHANGE,))
    return Enqueue(change, Choice((name,)), caller="ann", reason="because", key=key)
