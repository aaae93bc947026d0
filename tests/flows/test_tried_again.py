"""A retry of what a person called ended: nobody knows what its key started, so that is settled before anything else.

Such an operation is retryable, never pending: whoever halts, skips, counts or drains sees that something was sent.
"""

from collections.abc import Callable

import pytest
from psycopg import Error

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.selection import Selection
from tern.flows.outstanding import look_at_outstanding
from tern.ports import Resolved
from tern.settling import settle_outstanding
from tests.faults.behaviour import fail, lose_answer
from tests.flows.gone import comes_back, commands, give_up, goes, lines, look_again, pass_long, unsettled
from tests.flows.steps import (
    PARALLEL,
    Frozen,
    committed_late,
    engine_says,
    held_targets,
    meanwhile,
    methods,
    open_wishes,
    settle,
    wishes,
)
from tests.flows.test_rest import carried, refused_operation
from tests.invariants import assert_safe
from tests.world import World

OLD_RETRY = (
    "WITH taken AS (INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)"
    "   SELECT a.environment, a.database, o.deployment, a.id, o.id FROM apply_operations o"
    "   JOIN applies a ON a.id = o.apply_id WHERE o.deployment = 'A')"
    " UPDATE apply_operations SET state = 'pending', state_changed_at = tern_clock(), completed_at = NULL,"
    " dispatch_intent_at = tern_clock(), next_attempt_at = NULL, rung_at = NULL, answered_attempts = 0,"
    " error_message = '', error_reason = '' WHERE deployment = 'A'"
)
OLD_EVENT = (
    "INSERT INTO apply_events (apply_id, operation_id, event, who, why, before, after)"
    " SELECT apply_id, id, 'retry', 'bob', 'once more', 'failed', 'pending' FROM apply_operations"
    " WHERE deployment = 'A'"
)
"""What a worker of the version before writes, in its order."""

GOES_ON = Policy(copy=Copy.ROLLING, on_failure=OnFailure.CONTINUE)


def tried_again_as_of_old(world: World) -> None:
    world.write(OLD_RETRY)
    world.write(OLD_EVENT)


def until_uncertain(world: World, step_s: float) -> None:
    for _ in range(40):
        if world.state("A") == "uncertain":
            world.pass_time(61)
            return
        world.pass_time(step_s)
        world.sweep()
    raise AssertionError(world.picture())


def ended(world: World) -> None:
    """Its Apply has worked, its answer is lost; a person says ended, and drains it."""
    world.undeclared()
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    until_uncertain(world, 3000)
    world.resolve("A", Resolved.ENDED)
    world.store.set_drained("A", drained=True)


def called_ended(world: World) -> None:
    """It was called ended, and is tried again."""
    ended(world)
    world.ask(Verb.RETRY, "A")
    world.answer_bells()


def called_gone(world: World, *, cancels: bool = False) -> None:
    """Its Apply has worked, its answer is lost; then its engine is called gone."""
    goes(world, "A")
    world.engines["A"].always("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    if cancels:
        world.ask(Verb.CANCEL, "A")
    pass_long(world)
    give_up(world, "A")


def tried_again(world: World) -> None:
    """It was called gone and tried again, and its engine is back, with the job."""
    called_gone(world)
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    comes_back(world, "A")


def never_arrived(world: World, *, policy: Policy) -> None:
    """Nothing of it ever came to an engine that was declared to deduplicate; a person says ended."""
    world.engines["A"].always("Apply", fail("UNAVAILABLE"))
    world.apply("A", "B", policy=policy)
    world.answer_bells()
    until_uncertain(world, 80)
    world.resolve("A", Resolved.ENDED)
    world.engines["A"].always("Apply", None)


def running_jobs(world: World) -> list[str]:
    return [job.remote_id for job in world.engines["A"].jobs.by_id.values() if job.state == "running"]


def test_one_whose_key_may_act_is_retryable_and_not_pending(world: World) -> None:
    """§3: of a pending one nothing was sent."""
    called_ended(world)
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key_is_dead) == ("failed_retryable", False)
    assert operation.dispatch_key is not None
    assert wishes(world) == [("A", "retry", "acknowledged")]
    assert held_targets(world) == {"A", "B"}
    assert_safe(world)


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
@pytest.mark.parametrize("begins", [called_ended, tried_again])
def test_a_halt_finds_and_ends_what_the_earlier_key_started(
    world: World, begins: Callable[[World], None], verb: Verb
) -> None:
    """G8, G9: what it started is followed, and then halted."""
    begins(world)
    world.engines["A"].always("Resolve", None)
    world.ask(verb, "A")
    settle(world)
    assert world.state("A") == ("stopped" if verb is Verb.STOP else "cancelled")
    assert running_jobs(world) == []
    assert_safe(world)


def test_a_halted_rollout_does_not_skip_what_may_run(world: World) -> None:
    """G13: its target is its own until its engine has told what became of the key."""
    called_ended(world)
    engine_says(world, "B", "failed", error="disk full")
    world.sweep()
    assert (world.state("A"), world.apply_row().state) == ("failed_retryable", "running_degraded")
    with pytest.raises(Refused):
        world.apply("A")
    world.engines["A"].always("Resolve", None)
    world.store.set_drained("A", drained=False)
    look_again(world)
    assert (world.state("A"), running_jobs(world)) == ("running", [str(world.remote_id("A"))])
    assert_safe(world)


def test_a_retry_follows_its_own_work_that_waits_for_its_cutover(world: World) -> None:
    """G4: it is not kept from its own job by that job."""
    tried_again(world)
    world.engines["A"].set_state("A-1", "waiting_for_cutover")
    look_again(world)
    assert world.remote_id("A") == "A-1"
    assert world.state("A") in {"waiting_for_cutover", "cutting_over", "completed"}
    assert unsettled(world) == []


def test_nothing_that_is_printed_for_a_retry_ends_it(world: World) -> None:
    """G2: what came back is its own work, and followed before anybody is told to end it."""
    tried_again(world)
    look_again(world, 1)
    assert f"tern cancel {world.last}/A --outstanding --reason '…'" not in commands(world)
    look_again(world)
    assert world.state("A") == "running"


def test_whether_an_engine_is_gone_is_counted_anew_for_a_retry(world: World) -> None:
    """G10: what was not heard before the retry says nothing of an engine that answers."""
    called_gone(world)
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    world.pass_time(61)
    with pytest.raises(Refused, match="nothing says that the engine of"):
        give_up(world, "A")
    pass_long(world)
    give_up(world, "A")
    assert world.state("A") == "failed"


def test_the_new_try_has_its_own_key_and_its_own_turn(world: World) -> None:
    """§3, G4: its earlier key is forbidden at once, and then it is held by the order like any other."""
    never_arrived(world, policy=GOES_ON)
    world.run(until=lambda: world.state("B") == "running", rounds=5)
    before = len(methods(world, "A"))
    world.ask(Verb.RETRY, "A")
    look_again(world)
    assert (world.state("A"), world.operation("A").dispatch_generation) == ("pending", 2)
    assert len(methods(world, "A")) == before
    engine_says(world, "B", "completed")
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    assert_safe(world)


def test_asking_in_vain_is_no_leave_to_send_the_earlier_key_again(world: World) -> None:
    """§3: out of its turn it would be new work."""
    never_arrived(world, policy=GOES_ON)
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    world.run(until=lambda: world.state("B") == "running", rounds=5)
    before = len(methods(world, "A"))
    world.ask(Verb.RETRY, "A")
    look_again(world, 5)
    assert (world.state("A"), len(methods(world, "A"))) == ("failed_retryable", before)
    world.engines["A"].always("Resolve", None)
    look_again(world, 5)
    assert (world.state("A"), len(methods(world, "A"))) == ("pending", before)


def test_a_retry_after_its_watched_key_was_forbidden(world: World) -> None:
    """G4, §3: the watch asks with a Resolve that forbids; the retry has the next generation, and does not fail."""
    never_arrived(world, policy=PARALLEL)
    for _ in range(3):
        world.pass_time(20)
        world.sweep()
    assert [line.last_seen for line in lines(world)] == ["forbidden"]
    assert world.operation("A").dispatch_key_is_dead
    world.ask(Verb.RETRY, "A")
    settle(world)
    assert (world.state("A"), world.operation("A").dispatch_generation) == ("running", 2)


def test_a_word_and_a_look_of_another_worker_at_the_same_instant(world: World) -> None:
    """G4: the engine has forbidden the key, and nobody has written that down when the retry goes on."""
    goes(world, "A")
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    pass_long(world)
    give_up(world, "A")
    world.ask(Verb.RETRY, "A")
    world.answer_bells()
    comes_back(world, "A")
    (line,) = unsettled(world)
    others: list[Frozen] = []

    def another_looks() -> None:
        late = Frozen(
            world.worker("worker-2"), "record_outstanding", lambda ports: look_at_outstanding(line.id, ports)
        )
        others.append(late.__enter__())

    settle_outstanding(
        "A", "eve", "nothing runs", meanwhile(world.ports, "begin_outstanding_look", another_looks)
    )
    world.sweep()
    others[0].wake()
    look_again(world)
    assert (world.state("A"), world.operation("A").dispatch_generation) == ("running", 2)


def test_a_refusal_of_the_key_is_none_of_the_change(world: World) -> None:
    """G10: whoever forbade the key while its operation went on, the change was not looked at; it is tried under the
    next one.
    """
    refuses = fail("FAILED_PRECONDITION", reason="KEY_FORBIDDEN")
    world.engines["A"].script("Apply", fail("UNAVAILABLE"), refuses)
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    look_again(world)
    assert (world.state("A"), world.operation("A").dispatch_generation) == ("running", 2)


def test_a_refusal_of_a_first_key_is_none_of_the_change_either(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.engines["A"].always("Apply", fail("FAILED_PRECONDITION", reason="KEY_FORBIDDEN"))
    world.answer_bells()
    assert world.state("A") == "pending"
    world.engines["A"].always("Apply", None)
    look_again(world)
    assert (world.state("A"), world.operation("A").dispatch_generation) == ("running", 2)


def test_a_retry_is_refused_while_a_cancel_of_what_was_sent_is_open(world: World) -> None:
    """§7, G9: no start supersedes a cancel, and this one would end what the retry follows."""
    called_gone(world, cancels=True)
    receipt = world.ask(Verb.RETRY, "A")
    assert world.outcomes(receipt) == {"A": Receipt.REFUSED}
    assert "a cancel of that is open" in receipt.lines[0].reason
    assert "tern deployments settle A --reason '…'" in receipt.lines[0].reason
    comes_back(world, "A")
    look_again(world, 5)
    assert (unsettled(world), running_jobs(world)) == ([], [])
    assert world.outcomes(world.ask(Verb.RETRY, "A")) == {"A": Receipt.ACCEPTED}
    look_again(world)


def test_a_retry_that_a_cancel_of_what_was_sent_came_before_fails(world: World) -> None:
    """The same again under the apply's lock: it was accepted on rows as they were a moment ago."""
    called_gone(world)
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    committed_late(world, Verb.RETRY, "A")
    for _ in range(10):
        world.pass_time(5)
        world.sweep()
    assert open_wishes(world) == []
    assert (world.state("A"), world.delivery("A", Verb.RETRY).state) == ("failed", "failed")
    assert "a cancel of what was sent for it is open" in world.delivery("A", Verb.RETRY).engine_words


def test_a_worker_of_the_version_before_makes_nothing_pending_whose_key_may_act(world: World) -> None:
    """Migration 0017: it puts every retry back in line as pending; the database knows better."""
    ended(world)
    tried_again_as_of_old(world)
    operation = world.operation("A")
    assert (operation.state, operation.dispatch_key is None) == ("failed_retryable", False)
    world.engines["A"].always("Resolve", None)
    look_again(world)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    assert_safe(world)


def test_the_database_refuses_what_is_carried_on_in_this_way_too(world: World) -> None:
    source = refused_operation(world)
    carried(world)
    world.answer_bells()
    with pytest.raises(Error) as refused:
        world.write(
            "UPDATE apply_operations SET state = 'failed_retryable', completed_at = NULL WHERE id = :id",
            id=world.operation("A", source).id,
        )
    assert refused.value.diag.constraint_name == "apply_operations_are_carried_on_once"
