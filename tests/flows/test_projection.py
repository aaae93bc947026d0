"""The parent is a function of its operations, written in the transaction that moves one of them (G14)."""

import threading

from tern.domain.control import Verb
from tern.domain.policy import Copy, OnFailure, Policy
from tern.flows.advance import advance
from tern.ports import Looked, Poll
from tests.flows.steps import (
    PARALLEL,
    engine_says,
    held_targets,
    look,
    methods,
    open_wishes,
    running,
    settle,
    tables,
)
from tests.world import World


def verdicts(world: World) -> list[str]:
    return [event.after for event in world.events() if event.event == "verdict"]


def summaries(world: World) -> list[str]:
    return [event.why for event in world.events() if event.event == "summary"]


def test_a_failure_beside_a_running_one_degrades_and_then_fails(world: World) -> None:
    """PR1: under halt."""
    running(world, "A", "B")
    engine_says(world, "A", "failed", error="no space")
    assert world.apply_row().state == "running_degraded"
    assert held_targets(world) == {"B"}
    engine_says(world, "B", "completed")
    assert world.apply_row().state == "failed"
    assert held_targets(world) == set()


def test_between_two_deployments_it_still_reads_running(world: World) -> None:
    """PR2: started work is never pending again."""
    world.apply("A", "B", policy=Policy(copy=Copy.ROLLING))
    assert world.apply_row().state == "pending"
    world.answer_bells()
    engine_says(world, "A", "completed")
    assert (world.state("B"), world.apply_row().state) == ("pending", "running")


def test_two_last_operations_that_finish_together_settle_once(world: World) -> None:
    """PR3 (G14, K7): one verdict, one summary, whoever comes first."""
    ids = running(world, "A", "B")
    polls = []
    for name, remote_id in ids.items():
        world.engines[name].set_state(remote_id, "completed")
        begun = world.store.begin_poll(name) if world.pass_time(3) is None else None
        assert isinstance(begun, Poll)
        polls.append((begun, world.directory.of(begun.deployment).batch_progress(begun.cursors)))
    barrier = threading.Barrier(len(polls))

    def finish(begun: Poll, looks: tuple[Looked, ...]) -> None:
        barrier.wait()
        world.worker("another").store.record_looks(begun, looks)
        advance(world.last, world.worker("another"))

    threads = [threading.Thread(target=finish, args=each) for each in polls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        world.sweep()
    assert verdicts(world) == ["completed"]
    assert len(summaries(world)) == 1
    assert world.apply_row().state == "completed"


def test_a_halted_rollout_skips_what_never_started_in_the_same_transaction(world: World) -> None:
    """PR4: honestly skipped, not stopped, not failed."""
    world.apply("A", "B", "C")
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    assert [world.state(name) for name in "ABC"] == ["failed", "skipped", "skipped"]
    assert tables(world, "B") == {"skipped"}
    assert world.apply_row().state == "failed"
    assert methods(world, "B") == methods(world, "C") == []
    assert held_targets(world) == set()


def test_a_rollout_that_bears_failures_goes_on_and_is_failed_all_the_same(world: World) -> None:
    """PR4: continue decides whether to go on, never whether it failed."""
    world.apply("A", "B", policy=Policy(on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    engine_says(world, "A", "failed", error="no space")
    assert world.apply_row().state == "running_degraded"
    world.run(until=lambda: world.state("B") == "running", rounds=3)
    engine_says(world, "B", "completed")
    assert world.apply_row().state == "failed"


def test_one_stopped_and_one_running_reads_running(world: World) -> None:
    """PR5: one child never decides alone."""
    running(world, "A", "B")
    world.ask(Verb.STOP, "A")
    settle(world)
    assert world.apply_row().state == "running"
    engine_says(world, "B", "completed")
    assert world.apply_row().state == "stopped"


def test_the_message_names_the_first_failed_deployment_in_order(world: World) -> None:
    """PR6: not the first in time."""
    running(world)
    engine_says(world, "B", "failed", error="lock timeout")
    engine_says(world, "A", "failed", error="no space")
    engine_says(world, "C", "completed")
    assert world.apply_row().state == "failed"
    assert world.apply_row().error_message == "A: no space"


def test_a_stopped_operation_in_a_rolling_order_pauses_and_start_leads_out(world: World) -> None:
    """§3: what blocks the order is a person's to clear."""
    world.apply("A", "B")
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    settle(world)
    assert world.apply_row().state == "paused"
    assert held_targets(world) == {"A", "B"}
    world.ask(Verb.START, "A")
    settle(world)
    assert world.apply_row().state == "running"


def test_a_verdict_that_nobody_wrote_is_written_by_a_sweep(world: World) -> None:
    """K7: all operations are settled, the parent still says running."""
    running(world, "A", "B", policy=PARALLEL)
    world.write(
        "UPDATE apply_operations SET state = 'completed', completed_at = tern_clock(), next_poll_at = NULL"
    )
    world.sweep()
    world.sweep()
    assert world.apply_row().state == "completed"
    assert held_targets(world) == set()
    assert verdicts(world) == ["completed"]
    assert len(summaries(world)) == 1


def test_the_effects_of_a_verdict_are_driven_once_even_when_the_driver_died(world: World) -> None:
    """K7 (S14): verdict committed, nobody has told anybody; then everybody wants to."""
    running(world, "A")
    world.engines["A"].set_state(str(world.remote_id("A")), "completed")
    look(world, "A")
    world.forget_bells()
    assert world.apply_row().verdict_effects_done_at is None
    barrier = threading.Barrier(4)

    def drive(number: int) -> None:
        barrier.wait()
        advance(world.last, world.worker(f"worker-{number}"))

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (summary,) = summaries(world)
    assert summary == f"{world.last} completed: 1 completed"


def test_each_verdict_has_effects_of_its_own(world: World) -> None:
    """K7: stopped is a verdict, and completed after a start another."""
    running(world, "A")
    world.ask(Verb.STOP)
    settle(world)
    world.sweep()
    world.ask(Verb.START)
    settle(world)
    engine_says(world, "A", "completed")
    world.sweep()
    assert verdicts(world) == ["stopped", "completed"]
    assert [summary.split(":")[0].split()[-1] for summary in summaries(world)] == ["stopped", "completed"]


def test_a_parent_is_never_settled_while_a_wish_is_open(world: World) -> None:
    """§7: what outran a wish closes it in the same transaction."""
    running(world, "A", "B")
    world.ask(Verb.STOP)
    world.forget_bells()
    engine_says(world, "A", "completed")
    engine_says(world, "B", "completed")
    assert world.apply_row().state == "completed"
    assert open_wishes(world) == []
