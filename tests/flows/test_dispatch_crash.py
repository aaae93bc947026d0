"""A dispatch that is cut at every boundary, and everybody who comes after (scenarios K1-K9, D12, D13)."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from tern.domain.control import Verb
from tern.domain.identity import dispatch_key
from tern.domain.policy import Copy, Policy
from tern.ports import Due, Ports, Resolved, StorageUnavailable
from tests.faults.behaviour import fail, hang, lose_answer, then
from tests.faults.cut import Boundaries, Killed, interrupted, kill, lose_storage, spied
from tests.invariants import assert_safe
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)
MakeWorld = Callable[..., World]
SHAPES = pytest.mark.parametrize("deployments", [("A",), ("A", "B")], ids=["single", "multi"])


def dispatch(world: World, ports: Ports, deployment: str = "A") -> None:
    """A dispatch message reaches this worker."""
    world.do("dispatch", world.operation(deployment).id, str(world.name(deployment)), ports=ports)


def kill_in_dispatch(world: World, method: str, *, after: bool) -> None:
    """Worker w1 dies around its first call of the method, while it dispatches A; its bells die with it."""
    boundary = {"after" if after else "before": kill}
    with pytest.raises(Killed):
        dispatch(world, interrupted(world.worker("w1"), method, **boundary))
    world.forget_bells()


def recover(world: World) -> None:
    """The claim runs out, and w2 does what is due."""
    world.pass_time(31)
    world.sweep(world.worker("w2"))


def keys(world: World, deployment: str = "A") -> list[str]:
    return [call.key for call in world.engines[deployment].calls("Apply")]


@SHAPES
def test_k1_killed_after_the_claim(world: World, deployments: tuple[str, ...]) -> None:
    """K1, G6: running without an id is not ambiguous; another worker dispatches under the committed key."""
    world.apply(*deployments)
    kill_in_dispatch(world, "claim_dispatch", after=True)
    assert (world.state("A"), world.operation("A").claim_owner) == ("running", "w1")
    recover(world)
    assert keys(world) == [dispatch_key(world.name("A"), 1)]
    assert world.remote_id("A") == "A-1"
    assert world.operation("A").attempt == 2
    assert_safe(world)


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN"])
def test_k2_k3_answer_lost_after_the_engine_accepted(world: World, code: str) -> None:
    """K2, K3, G4: one effect, found by its key; a reset connection looks like an engine that is down."""
    world.engines["A"].script("Apply", lose_answer(code))
    world.apply("A", "B")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    assert world.remote_id("A") is None
    recover(world)
    assert len(keys(world)) == 1, "asked about first, it need not be sent again"
    assert world.remote_id("A") == "A-1"
    assert_safe(world)


def test_k2_the_engine_answers_after_the_deadline(world: World) -> None:
    """K2: the call is given up, the work goes on, and the repetition finds it."""
    world.engines["A"].script("Apply", hang(3.0))
    world.apply("A", "B")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    recover(world)
    assert world.remote_id("A") == "A-1"
    assert len(world.engines["A"].effects("apply")) == 1


@SHAPES
def test_k2_killed_after_the_call(world: World, deployments: tuple[str, ...]) -> None:
    """K2, G3: nobody wrote the id down, so the same key is asked again, and there is one effect."""
    world.apply(*deployments)
    kill_in_dispatch(world, "apply", after=True)
    assert world.remote_id("A") is None
    recover(world)
    assert len(set(keys(world))) == 1
    assert len(world.engines["A"].effects("apply")) == 1
    assert world.remote_id("A") == "A-1"
    assert_safe(world)


@SHAPES
def test_k4_d12_killed_between_id_and_state(world: World, deployments: tuple[str, ...]) -> None:
    """K4, D12, G3: the id is there and the state is old; the next worker follows the id and calls no Apply."""
    world.apply(*deployments)
    kill_in_dispatch(world, "record_remote_id", after=True)
    assert world.remote_id("A") == "A-1"
    assert world.operation("A").next_poll_at is None
    recover(world)
    assert len(keys(world)) == 1
    world.engines["A"].set_state("A-1", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    assert len(keys(world)) == 1
    assert_safe(world)


@SHAPES
def test_d12_nothing_but_the_id_is_written_with_the_id(world: World, deployments: tuple[str, ...]) -> None:
    """D12, G3: the transaction that stores the id leaves every state as it was."""
    world.apply(*deployments)
    before: list[object] = []

    def note() -> None:
        before.append((world.operation("A").state, world.apply_row().state, world.apply_row().revision))

    worker = interrupted(world.worker("w1"), "record_remote_id", before=note, after=kill)
    with pytest.raises(Killed):
        dispatch(world, worker)
    assert before == [(world.operation("A").state, world.apply_row().state, world.apply_row().revision)]
    assert world.remote_id("A") == "A-1"


def test_d13_storing_the_id_fails(world: World) -> None:
    """D13, G3: PostgreSQL is away when the id comes: nothing is advanced, and the same key is sent again."""
    world.apply("A", "B")
    worker = spied(
        world.worker("w1"),
        lambda name: lose_storage() if name == "record_remote_id" else None,
        lambda _: None,
    )
    with pytest.raises(StorageUnavailable):
        dispatch(world, worker)
    operation = world.operation("A")
    assert (operation.state, operation.engine_resume_context, operation.next_poll_at) == (
        "running",
        None,
        None,
    )
    world.forget_bells()
    recover(world)
    assert len(set(keys(world))) == 1
    assert world.remote_id("A") == "A-1"
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)


def test_d13_storing_the_id_is_tried_again_at_once(world: World) -> None:
    """D13: one hiccup of the storage costs no second Apply."""
    world.apply("A", "B")
    dispatch(world, interrupted(world.worker("w1"), "record_remote_id", before=lose_storage))
    assert world.remote_id("A") == "A-1"
    assert len(keys(world)) == 1


@SHAPES
def test_k5_a_worker_that_wakes_up_late_changes_nothing(world: World, deployments: tuple[str, ...]) -> None:
    """K5, G12: w1 froze between answer and store, w2 finished; w1's writes change 0 rows."""
    world.apply(*deployments)
    rows: list[object] = []

    def others_finish() -> None:
        world.forget_bells()
        recover(world)
        world.engines["A"].set_state("A-1", "completed")
        world.run(until=lambda: world.state("A") == "completed")
        rows.append(dict(world.operation("A")._mapping))

    dispatch(world, interrupted(world.worker("w1"), "record_remote_id", before=others_finish))
    assert rows == [dict(world.operation("A")._mapping)]
    assert world.remote_id("A") == "A-1"
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)


def test_k5_a_worker_that_wakes_up_before_its_call_is_told_by_the_engine(world: World) -> None:
    """G12: w1 passed its last look and froze; by now w2 drives, and the engine refuses w1's lower fence."""
    world.apply("A", "B")
    dispatch(
        world, interrupted(world.worker("w1"), "apply", before=lambda: (world.forget_bells(), recover(world)))
    )
    engine = world.engines["A"]
    assert [call.fence for call in engine.calls("Apply")] == [2, 1]
    assert len(engine.effects("apply", duplicates=True)) == 1
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert_safe(world)


def test_k5_a_worker_that_wakes_up_before_its_look_makes_no_call(world: World) -> None:
    """G12, G9: the last look proves the claim too."""
    world.apply("A", "B")
    recovers = interrupted(
        world.worker("w1"), "may_go_forward", before=lambda: (world.forget_bells(), recover(world))
    )
    dispatch(world, recovers)
    assert len(keys(world)) == 1
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")


def test_k5_an_expired_claim_that_nobody_took_makes_no_call_either(world: World) -> None:
    """G12: a lease that has run out is not lived on, even if nobody else has come yet."""
    world.apply("A", "B")
    dispatch(world, interrupted(world.worker("w1"), "may_go_forward", before=lambda: world.pass_time(31)))
    assert not keys(world)
    assert world.state("A") == "pending"
    world.sweep(world.worker("w2"))
    assert world.remote_id("A") == "A-1"


@pytest.mark.parametrize("when", ["before", "after"])
def test_k6_remote_finished_and_the_rows_were_not_written(world: World, when: str) -> None:
    """K6: the look is lost before or after its commit; it is taken again with the same result and one effect."""
    world.apply("A", "B")
    world.answer_bells()
    world.engines["A"].set_state("A-1", "completed")
    world.pass_time(5)
    worker = interrupted(world.worker("w1"), "record_looks", **{when: kill})  # type: ignore[arg-type]
    with pytest.raises(Killed):
        world.do("poll", "A", ports=worker)
    world.pass_time(31)
    world.sweep(world.worker("w2"))
    assert world.state("A") == "completed"
    completions = [event for event in world.events("A") if event.event == "observe_completed"]
    assert len(completions) == 1
    assert len(world.engines["A"].effects()) == 1
    assert_safe(world)


def test_k7_settled_operations_and_an_old_projection(world: World) -> None:
    """K7, G14: a sweep writes the verdict, frees the targets and makes one summary."""
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET state = 'completed', completed_at = tern_clock(), next_poll_at = NULL"
    )
    assert world.apply_row().state == "running"
    world.pass_time(11)
    world.sweep()
    world.sweep()
    assert world.apply_row().state == "completed"
    assert world.one("SELECT count(*) AS n FROM target_reservations").n == 0
    assert [event.event for event in world.events()].count("summary") == 1


def test_k7_killed_between_verdict_and_its_effect(make_world: MakeWorld) -> None:
    """K7: the summary of a verdict is neither lost nor made twice."""
    world = make_world("A", complete_after_polls=1)
    world.apply("A")
    worker = interrupted(world.worker("w1"), "claim_verdict_effects", before=kill)
    for _ in range(10):
        with suppress(Killed):
            world.answer_bells(worker)
        if world.apply_row().state == "completed":
            break
        world.pass_time(3)
        world.sweep(worker)
    world.forget_bells()
    world.pass_time(11)
    world.sweep(world.worker("w2"))
    world.sweep(world.worker("w3"))
    assert [event.event for event in world.events()].count("summary") == 1


def test_k8_one_message_three_times(world: World) -> None:
    """K8, G11: one claim, one Apply, however often the bell rings."""
    world.apply("A", "B")
    due = Due(world.operation("A").id, world.name("A"))
    for _ in range(3):
        world.bells.dispatch(due)
    world.answer_bells()
    assert len(keys(world)) == 1
    assert world.operation("A").attempt == 1


def test_k8_the_message_arrives_again_while_the_call_is_out(world: World) -> None:
    """K8, G12: the second driver finds the claim and goes away."""
    world.apply("A", "B")
    again = lambda: dispatch(world, world.worker("w2"))  # noqa: E731
    dispatch(world, interrupted(world.worker("w1"), "apply", before=again, after=again))
    assert len(keys(world)) == 1
    assert world.operation("A").attempt == 1
    assert_safe(world)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "method", ["claim_dispatch", "may_go_forward", "record_remote_id", "record_dispatched"]
)
@SHAPES
def test_k9_the_answer_to_commit_is_lost(
    world: World, deployments: tuple[str, ...], method: str, when: str
) -> None:
    """K9, G10: whether the commit had happened or not, both end right and nothing is invented."""
    world.apply(*deployments)
    worker = interrupted(world.worker("w1"), method, **{when: lose_storage})  # type: ignore[arg-type]
    with suppress(StorageUnavailable):
        dispatch(world, worker)
    world.forget_bells()
    recover(world)
    assert world.remote_id("A") == "A-1"
    assert len(set(keys(world))) == 1
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)
    world.engines["A"].set_state("A-1", "completed")
    world.run(until=lambda: world.state("A") == "completed")
    assert len(keys(world)) <= 2
    assert_safe(world)


@pytest.mark.parametrize("method", ["record_refused", "record_unanswered", "record_uncertain"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_k9_the_answer_to_a_verdicts_commit_is_lost(make_world: MakeWorld, method: str, when: str) -> None:
    """K9: a refusal that could not be written is asked for again, and nothing runs twice."""
    is_plain = method == "record_uncertain"
    world = make_world("A", "B", offers_engine_service=not is_plain, deduplicates=not is_plain)
    refusing = method == "record_refused"
    world.engines["A"].script("Apply", fail("INVALID_ARGUMENT") if refusing else lose_answer())
    world.apply("A", "B")
    worker = interrupted(world.worker("w1"), method, **{when: lose_storage})  # type: ignore[arg-type]
    with pytest.raises(StorageUnavailable):
        dispatch(world, worker)
    world.forget_bells()
    world.run(until=lambda: world.state("A") == "uncertain" or world.remote_id("A") is not None or refusing)
    recover(world)
    assert len(world.engines["A"].effects("apply")) <= 1
    assert_safe(world)


def test_a_progress_bell_overtakes_the_dispatch(world: World) -> None:
    """G11: a look between id and state moves the operation on; the dispatcher's late step takes nothing back."""
    world.engines["A"].script(
        "Apply", then(lambda: world.engines["A"].set_state("A-1", "waiting_for_cutover"))
    )
    world.apply("A", "B")

    def look() -> None:
        world.do("progress", world.operation("A").id, str(world.name("A")), ports=world.worker("w2"))

    dispatch(world, interrupted(world.worker("w1"), "record_dispatched", before=look))
    operation = world.operation("A")
    assert (operation.state, operation.claim_token) == ("waiting_for_cutover", None)
    assert operation.next_poll_at is not None
    assert_safe(world)


def boundaries_of_a_dispatch(world: World) -> int:
    """How many boundaries a dispatch without faults crosses; the world is left with its work done."""
    counted = Boundaries()
    world.apply("A")
    world.forget_bells()
    dispatch(world, counted.around(world.worker("dry")))
    finish(world)
    return len(counted.crossed)


def finish(world: World) -> None:
    """The engines complete what they were given, and everybody does what is due."""

    def settled() -> bool:
        for name in world.engines:
            remote_id = world.remote_id(name) if world_has(world, name) else None
            if remote_id and world.engines[name].job(remote_id).state == "running":
                world.engines[name].set_state(remote_id, "completed")
        return str(world.apply_row().state) in {"completed", "failed", "cancelled", "stopped"}

    world.run(until=settled, step_s=11)


def world_has(world: World, deployment: str) -> bool:
    return bool(
        world.one(
            "SELECT count(*) AS n FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
            " WHERE a.apply_identifier = :apply AND o.deployment = :deployment",
            apply=world.last,
            deployment=deployment,
        ).n
    )


@SHAPES
def test_killed_at_every_boundary_of_a_dispatch(world: World, deployments: tuple[str, ...]) -> None:
    """K1-K5 without a gap: wherever w1 dies, the change is done once, under one key, and the rollout completes."""
    for boundary in range(boundaries_of_a_dispatch(world)):
        world.apply(*deployments)
        done = len(world.engines["A"].effects("apply"))
        world.forget_bells()
        worker = Boundaries(at=boundary)
        with suppress(Killed):
            dispatch(world, worker.around(world.worker("w1")))
        world.forget_bells()
        recover(world)
        assert_safe(world)
        finish(world)
        assert world.apply_row().state == "completed", worker.crossed[-1]
        assert len(world.engines["A"].effects("apply")) == done + 1, worker.crossed[-1]
        assert_safe(world)


@SHAPES
def test_killed_at_every_boundary_and_stopped(world: World, deployments: tuple[str, ...]) -> None:
    """G9, S17: wherever w1 dies, a stop that comes then leaves nothing alive at the engine."""
    for boundary in range(boundaries_of_a_dispatch(world)):
        world.apply(*deployments)
        done = len(world.engines["A"].effects("apply"))
        world.forget_bells()
        worker = Boundaries(at=boundary)
        with suppress(Killed):
            dispatch(world, worker.around(world.worker("w1")))
        world.forget_bells()
        world.ask(Verb.STOP)
        world.pass_time(31)
        world.run(until=lambda: world.apply_row().state == "stopped", step_s=11)
        work = world.engines["A"].effects("apply")[done:]
        assert {world.engines["A"].job(effect.remote_id).state for effect in work} <= {"stopped"}, boundary
        assert_safe(world)
        world.ask(Verb.CANCEL)
        world.run(until=lambda: world.apply_row().state == "cancelled", step_s=11)
        assert_safe(world)


def test_killed_at_every_boundary_with_an_engine_that_may_do_it_twice(make_world: MakeWorld) -> None:
    """G4, D16: whatever happens to w1, this engine is asked at most once; what can't be known is uncertain."""
    world = make_world("A", "B", offers_engine_service=False, deduplicates=False)
    for boundary in range(boundaries_of_a_dispatch(world)):
        # Of the one before it nobody can tell.
        world.apply("A", accept_drift=True)
        world.forget_bells()
        calls = len(world.engines["A"].calls("Apply"))
        worker = Boundaries(at=boundary)
        with suppress(Killed):
            dispatch(world, worker.around(world.worker("w1")))
        world.forget_bells()
        world.run(
            until=lambda: world.state("A") == "uncertain" or world.remote_id("A") is not None, step_s=11
        )
        asked = len(world.engines["A"].calls("Apply")) - calls
        assert asked <= 1
        assert_safe(world)
        if world.state("A") == "uncertain":
            world.write(
                "UPDATE apply_operations SET next_attempt_at = tern_clock() WHERE state = 'uncertain'"
            )
            world.sweep()
            assert len(world.engines["A"].calls("Apply")) - calls == asked
            end_by_hand(world)
        finish(world)


def end_by_hand(world: World) -> None:
    """A person looked, and says that it has ended."""
    world.store.resolve_uncertain(world.name("A"), Resolved.ENDED, None, "eve", "looked at the table")
    # What was sent may act for a minute yet, and its target is held as long.
    world.pass_time(61)
