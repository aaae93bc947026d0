"""Who may drive what, and when (scenarios CL1-CL5, PL1, PL2); the races are in tests/store/test_race.py."""

import ast
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from psycopg import IntegrityError

import tern
from tern.domain.identity import dispatch_key
from tern.domain.policy import Copy, OnFailure, Policy
from tern.ports import DispatchClaimed, NotClaimed
from tests.faults.behaviour import fail
from tests.faults.cut import interrupted
from tests.invariants import assert_safe
from tests.world import World

MakeWorld = Callable[..., World]


def parallel(at_once: int | None = None, **policy: object) -> Policy:
    return Policy(copy=Copy.PARALLEL, max_parallel=at_once, **policy)  # type: ignore[arg-type]


def states(world: World, *names: str) -> list[str]:
    return [world.state(name) for name in names or world.engines]


def complete(world: World, name: str, state: str = "completed") -> None:
    """The engine is done with it, and somebody looks."""
    world.engines[name].set_state(str(world.remote_id(name)), state)
    world.do("progress", world.operation(name).id, str(world.name(name)))


def settle(world: World) -> None:
    """All that is due now is done, by sweeps alone."""
    world.answer_bells()
    world.pass_time(11)
    world.sweep()


def claim(world: World, name: str, owner: str = "w1") -> DispatchClaimed | NotClaimed:
    return world.worker(owner).store.claim_dispatch(world.operation(name).id, world.name(name))


def test_cl1_many_workers_claim_each_operation_once(make_world: MakeWorld) -> None:
    """CL1, G12: six workers, eight operations, every message to everybody: one claim and one Apply each."""
    names = [f"cell-{number}" for number in range(8)]
    world = make_world(*names)
    world.apply(policy=parallel())
    world.forget_bells()
    messages = [(world.operation(name).id, str(world.name(name))) for name in names]

    def work(owner: str) -> None:
        ports = world.worker(owner)
        for message in random.sample(messages, len(messages)):
            world.do("dispatch", *message, ports=ports)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, [f"w{number}" for number in range(6)]))
    for name in names:
        assert len(world.engines[name].calls("Apply")) == 1
        assert world.operation(name).attempt == 1
        assert world.state(name) == "running"
    assert_safe(world)


def test_cl2_rolling_goes_one_after_the_other(world: World) -> None:
    """CL2: B is dispatched only after A has completed, C after B; a bell that rings early changes nothing."""
    world.apply()
    settle(world)
    assert states(world) == ["running", "pending", "pending"]
    assert isinstance(claim(world, "B"), NotClaimed)
    complete(world, "A")
    settle(world)
    assert states(world) == ["completed", "running", "pending"]
    complete(world, "B")
    settle(world)
    assert states(world) == ["completed", "completed", "running"]
    assert_safe(world)


def test_cl2_parallel_goes_at_once(world: World) -> None:
    """CL2: without a limit nobody waits."""
    world.apply(policy=parallel())
    settle(world)
    assert states(world) == ["running"] * 3


def test_cl2_parallel_fills_its_slots_in_order(make_world: MakeWorld) -> None:
    """CL2: two at a time, admitted in order; one that waits for its cutover gives its slot to the next."""
    world = make_world("A", "B", "C", "D")
    world.apply(policy=parallel(2))
    settle(world)
    assert states(world) == ["running", "running", "pending", "pending"]
    complete(world, "B", "waiting_for_cutover")
    settle(world)
    assert states(world) == ["running", "waiting_for_cutover", "running", "pending"]
    complete(world, "A")
    settle(world)
    assert states(world) == ["completed", "waiting_for_cutover", "running", "running"]
    assert_safe(world)


def test_cl2_after_a_halting_failure_nobody_new(world: World) -> None:
    """CL2, S18: parallel too starts nothing after a failure too many; who runs, runs on."""
    world.apply(policy=parallel(2))
    settle(world)
    complete(world, "A", "failed")
    settle(world)
    assert states(world) == ["failed", "running", "pending"]
    assert isinstance(claim(world, "C"), NotClaimed)
    assert world.apply_row().state == "running_degraded"
    complete(world, "B")
    settle(world)
    assert states(world) == ["failed", "completed", "skipped"]
    assert world.apply_row().state == "failed"
    assert_safe(world)


def test_cl2_failures_that_are_borne_halt_nothing(world: World) -> None:
    """S18: max_failures 1 bears one; the second halts."""
    world.apply(policy=Policy(max_failures=1))
    settle(world)
    complete(world, "A", "failed")
    settle(world)
    assert states(world) == ["failed", "running", "pending"]
    complete(world, "B", "failed")
    settle(world)
    assert states(world) == ["failed", "failed", "skipped"]
    assert_safe(world)


def test_cl3_a_retry_that_is_being_driven_is_not_claimed_again(world: World) -> None:
    """CL3, G12: the attempt rises by one, the key stays, and a second driver finds the claim."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    refused: list[object] = []
    world.pass_time(5)
    worker = interrupted(world.worker("w1"), "apply", before=lambda: refused.append(claim(world, "A", "w2")))
    world.do("dispatch", world.operation("A").id, str(world.name("A")), ports=worker)
    assert isinstance(refused[0], NotClaimed)
    assert world.operation("A").attempt == 2
    assert {call.key for call in world.engines["A"].calls("Apply")} == {dispatch_key(world.name("A"), 1)}


def test_cl3_a_retry_waits_for_its_time(world: World) -> None:
    """CL3: a bell that comes before the backoff is over calls nobody."""
    world.engines["A"].script("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B")
    world.answer_bells()
    world.do("dispatch", world.operation("A").id, str(world.name("A")))
    assert len(world.engines["A"].calls("Apply")) == 1


def test_cl4_a_poisoned_operation_at_the_head(world: World) -> None:
    """CL4, G7: it settles itself, and the others are served in the same round."""
    world.apply(policy=parallel(on_failure=OnFailure.CONTINUE))
    world.forget_bells()
    world.write(
        "DELETE FROM table_changes WHERE operation_id = (SELECT id FROM apply_operations WHERE deployment = 'A')"
    )
    world.pass_time(11)
    world.sweep()
    assert states(world) == ["failed", "running", "running"]


def many_held(world: World, count: int) -> None:
    """So many operations that were admitted and may not go any more: their rollout has met a failure since."""
    world.write(
        "INSERT INTO deployments (name, environment, database, address, target)"
        " SELECT 'held-' || n, 'test', 'shop', 'grpc://127.0.0.1:1', 'held-' || n FROM generate_series(1, :n) n",
        n=count,
    )
    names = [f"held-{number}" for number in range(1, count + 1)]
    world.apply("A", *names, policy=parallel())
    world.forget_bells()
    world.do("dispatch", world.operation("A").id, str(world.name("A")))
    world.write(
        "UPDATE apply_operations SET state = 'failed', completed_at = tern_clock(), next_attempt_at = NULL"
        " WHERE deployment = 'held-1'"
    )
    world.forget_bells()


def test_cl4_a_crowd_that_may_not_go_does_not_block_the_head(make_world: MakeWorld) -> None:
    """CL4, G7: nine hundred that a halt holds stand before B in the queue, and B is served within the minute."""
    world = make_world("A", "B")
    many_held(world, 900)
    world.pass_time(2)
    healthy = world.apply("B")
    world.forget_bells()
    for _ in range(8):
        world.pass_time(6)
        world.sweep()
        if world.state("B", healthy) == "running":
            break
    assert world.state("B", healthy) == "running"
    assert world.engines["A"].calls("Apply")


def test_a_drained_deployment_is_served_once_it_is_open_again(world: World) -> None:
    """A hold that a person clears elsewhere needs no other event to be noticed."""
    world.apply(policy=parallel())
    world.forget_bells()
    world.store.set_drained("B", drained=True)
    settle(world)
    assert states(world) == ["running", "pending", "running"]
    world.store.set_drained("B", drained=False)
    for _ in range(12):
        settle(world)
    assert world.state("B") == "running"


def test_a_drained_one_leaves_its_slot_to_the_next(world: World) -> None:
    """CL4: what is held for a reason of its own stands in nobody's way where there is no order."""
    world.apply(policy=parallel(1))
    world.forget_bells()
    world.store.set_drained("A", drained=True)
    for _ in range(3):
        settle(world)
    assert states(world) == ["pending", "running", "pending"]
    world.store.set_drained("A", drained=False)
    complete(world, "B")
    for _ in range(3):
        settle(world)
    assert states(world) == ["running", "completed", "pending"]


@pytest.mark.parametrize("part", ["domain", "flows", "store"])
def test_cl5_a_workers_clock_decides_nothing(part: str) -> None:
    """CL5: what decides never asks the machine that it runs on for the time, so a clock off by a day is nothing."""
    for module in (Path(tern.__file__).parent / part).glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                assert not {name.name for name in node.names} & {"time", "datetime"}, module
            if isinstance(node, ast.ImportFrom):
                assert node.module != "time", module
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"now", "utcnow", "today"}, (module, node.lineno)


def test_cl5_a_claim_from_a_future_that_is_gone_ends_after_its_length(world: World) -> None:
    """CL5: the database's clock was set back by a day; the claim of yesterday's tomorrow blocks nobody for a day."""
    world.apply("A", "B")
    world.pass_time(86_400)
    assert isinstance(claim(world, "A"), DispatchClaimed)
    world.forget_bells()
    world.pass_time(-86_400)
    world.sweep(world.worker("w2"))
    assert world.remote_id("A") is None
    world.pass_time(31)
    world.sweep(world.worker("w2"))
    assert world.remote_id("A") == "A-1"


def test_pl1_a_policy_is_frozen_with_its_apply(world: World) -> None:
    """PL1: nobody edits the rules of a rollout under way; the next one may have others."""
    world.apply("A", "B")
    with pytest.raises(IntegrityError, match="frozen"):
        world.write("""UPDATE applies SET policy = policy || '{"copy": "parallel"}'""")
    world.apply("C", policy=parallel())
    settle(world)
    assert states(world, "C") == ["running"]
    assert world.one("SELECT policy->>'copy' AS how FROM applies ORDER BY id LIMIT 1").how == "rolling"


def test_pl2_a_retryable_failure_keeps_its_place(world: World) -> None:
    """PL2: A's engine is away, so B waits and nobody counts a failure; when A succeeds, B goes."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B")
    for _ in range(4):
        settle(world)
    assert states(world, "A", "B") == ["failed_retryable", "pending"]
    assert world.apply_row().state == "running"
    world.engines["A"].always("Apply", None)
    world.run(until=lambda: world.state("A") == "running", step_s=11)
    complete(world, "A")
    settle(world)
    assert states(world, "A", "B") == ["completed", "running"]
    assert_safe(world)


def test_pl2_a_retryable_failure_keeps_its_slot(world: World) -> None:
    """PL2, S18: in parallel too, what may run at the engine counts as running."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply(policy=parallel(1))
    for _ in range(3):
        settle(world)
    assert states(world) == ["failed_retryable", "pending", "pending"]
