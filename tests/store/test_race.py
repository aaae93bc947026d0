"""Two connections at the same instant: each pair queues up behind one lock and is let go together (§4).

What was decided before the lock is wrong after it, so every one of these is red if a gate, a budget or a projection is
read in the statement that waited.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.identity import RemoteId
from tern.domain.outcome import Ok
from tern.domain.policy import Copy, Policy
from tern.domain.samples import Sample
from tern.domain.states import State
from tern.ports import (
    Claim,
    DeliveryClaimed,
    DeliverySettled,
    DispatchClaimed,
    Fenced,
    Looked,
    NotClaimed,
    Poll,
    Resolved,
)
from tern.store import apply as apply_store
from tern.store import dispatch as dispatch_store
from tern.store import gone as gone_store
from tern.store import poll as poll_store
from tern.store.sql import text
from tests.flows.gone import comes_back, given_up, unsettled
from tests.flows.steps import running
from tests.invariants import assert_safe
from tests.store.conftest import QueueBehind, held
from tests.world import World

MakeWorld = Callable[..., World]
APPLY_LOCK = "SELECT 1 FROM applies ORDER BY id FOR UPDATE"


def parallel(at_once: int | None = None) -> Policy:
    return Policy(copy=Copy.PARALLEL, max_parallel=at_once)


def claims(world: World, name: str, owner: str) -> Callable[[], DispatchClaimed | NotClaimed]:
    operation_id, scope, store = world.operation(name).id, world.name(name), world.worker(owner).store
    return lambda: store.claim_dispatch(operation_id, scope)


def looks(world: World, name: str, state: State) -> Callable[[], object]:
    """A poll that has already asked, and found the operation in that state."""
    store = world.worker("poller").store
    poll = store.begin_look(world.operation(name).id, world.name(name))
    assert isinstance(poll, Poll)
    (cursor,) = poll.cursors
    sample = Sample(cursor.call.remote_id, state, state.value, revision=99)
    return lambda: store.record_looks(poll, [Looked(cursor, Ok(sample))])


def dispatched(world: World, *names: str, policy: Policy) -> None:
    """All of these run at their engines."""
    world.apply(*names, policy=policy)
    world.answer_bells()
    world.pass_time(6)
    world.sweep()


def test_cl6_two_claims_of_one_operation(world: World, queue_behind: QueueBehind) -> None:
    """CL1, G12: three workers at once: one has it."""
    world.apply("A", "B")
    world.forget_bells()
    answers = queue_behind(APPLY_LOCK, *[claims(world, "A", f"w{number}") for number in range(3)])
    assert sorted(isinstance(answer, DispatchClaimed) for answer in answers) == [False, False, True]
    assert world.operation("A").attempt == 1
    assert world.operation("A").fence == 1


def test_cl6_two_claims_for_one_slot(world: World, queue_behind: QueueBehind) -> None:
    """CL6, S18: both counted zero running before the lock; after it, one of them counts one."""
    world.apply(policy=parallel(1))
    world.forget_bells()
    answers = queue_behind(APPLY_LOCK, *[claims(world, name, f"w-{name}") for name in "ABC"])
    assert sum(isinstance(answer, DispatchClaimed) for answer in answers) == 1
    assert [world.state(name) for name in "ABC"].count("running") == 1
    assert_safe(world)


@pytest.mark.parametrize("verdict_first", [True, False])
def test_cl7_verdict_and_claim(world: World, queue_behind: QueueBehind, *, verdict_first: bool) -> None:
    """CL7, G14: A fails under halt while B is claimed: B runs and the apply lives, or B is skipped with the verdict."""
    dispatched(world, "A", "B", policy=parallel(1))
    assert [world.state(name) for name in "AB"] == ["running", "pending"]
    pair = [looks(world, "A", State.FAILED), claims(world, "B", "w2")]
    answers = queue_behind(APPLY_LOCK, *(pair if verdict_first else reversed(pair)))
    claimed = any(isinstance(answer, DispatchClaimed) for answer in answers)
    assert not claimed
    assert world.apply_row().state == "failed"
    assert world.state("B") == "skipped"
    assert_safe(world)


@pytest.mark.parametrize("ending_first", [True, False])
def test_cl7_ending_and_claim(world: World, queue_behind: QueueBehind, *, ending_first: bool) -> None:
    """CL7: A completes and frees its slot while B is claimed: never two in one slot, never a settled apply over B."""
    dispatched(world, "A", "B", policy=parallel(1))
    pair = [looks(world, "A", State.COMPLETED), claims(world, "B", "w2")]
    answers = queue_behind(APPLY_LOCK, *(pair if ending_first else reversed(pair)))
    claimed = any(isinstance(answer, DispatchClaimed) for answer in answers)
    assert claimed is ending_first
    assert world.apply_row().state == "running"
    assert_safe(world)


@pytest.mark.parametrize("names", [("A",), ("A", "B")], ids=["alone", "beside-one-that-runs"])
def test_a_rollout_that_is_accepted_while_its_target_is_let_go_waits_for_one_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """It has found something outstanding, and whoever settles that has not seen it, so nobody wakes it: what it waits
    for then is the next sweep, and not what a sibling of it does next, which may take hours.
    """
    running(world, "A", "C")
    given_up(world, "A")
    (line,), first = unsettled(world), world.last
    comes_back(world, "A")
    has_looked, go_on = Event(), Event()
    lock = gone_store.lock_applies

    def freeze(*given: Any) -> None:
        has_looked.set()
        assert go_on.wait(20)
        lock(*given)

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as thread:
        patched.setattr(gone_store, "lock_applies", freeze)
        settled = thread.submit(world.worker("w2").store.settle_by_word, "A", [line.id], "eve", "I looked")
        assert has_looked.wait(20)
        world.apply(*names, policy=parallel())
        world.answer_bells()
        go_on.set()
        assert settled.result(20) == (first,)
    world.answer_bells()
    assert world.state("A") == "pending"
    world.pass_time(2)
    world.sweep()
    assert world.state("A") == "running"
    assert_safe(world)


def test_two_last_operations_finish_together(world: World, queue_behind: QueueBehind) -> None:
    """PR3, G14: both finishers saw the other running before the lock; one verdict is written all the same."""
    dispatched(world, "A", "B", policy=parallel())
    queue_behind(APPLY_LOCK, looks(world, "A", State.COMPLETED), looks(world, "B", State.COMPLETED))
    assert world.apply_row().state == "completed"
    assert [event.event for event in world.events()].count("verdict") == 1
    assert_safe(world)


@pytest.mark.parametrize("stop_first", [True, False])
def test_claim_and_stop(world: World, queue_behind: QueueBehind, *, stop_first: bool) -> None:
    """ST10, G9: a stop comes while a claim waits: not claimed, or claimed and told so by the last look."""
    world.apply("A", "B")
    world.forget_bells()
    operation_id, name, store = world.operation("A").id, world.name("A"), world.worker("w1").store

    def claim() -> bool:
        claimed = store.claim_dispatch(operation_id, name)
        return isinstance(claimed, DispatchClaimed) and store.may_go_forward(claimed.claim)

    def stop() -> None:
        world.ask(Verb.STOP)

    pair = [stop, claim] if stop_first else [claim, stop]
    answers = queue_behind(APPLY_LOCK if stop_first else "SELECT 1", *pair)
    if stop_first:
        assert answers == [None, False]
    world.pass_time(31)
    world.run(until=lambda: world.apply_row().state == "stopped", step_s=6)
    jobs = world.engines["A"].jobs.by_id.values()
    assert all(job.state == "stopped" for job in jobs)
    assert_safe(world)


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
@pytest.mark.parametrize(
    "lock",
    [
        "SELECT 1 FROM applies FOR NO KEY UPDATE",
        "SELECT 1 FROM apply_operations ORDER BY id FOR NO KEY UPDATE",
        "SELECT 1 FROM control_deliveries FOR UPDATE",
        "UPDATE apply_operations SET fence = fence + 1",
        "UPDATE applies SET revision = revision + 1",
    ],
)
def test_st11_a_frozen_worker_keeps_nobody_from_stopping(world: World, verb: Verb, lock: str) -> None:
    """ST11, G9: whatever lock a driver takes, an operator's wish is accepted beside it, at once."""
    dispatched(world, "A", "B", policy=parallel())
    world.ask(Verb.STOP, "B")
    world.forget_bells()
    with held(world, lock):
        receipt = world.ask(verb, "A")
    assert world.outcomes(receipt) == {"A": Receipt.ACCEPTED}


@pytest.mark.parametrize("step", ["claim", "advance", "look"])
def test_st11_a_driver_frozen_in_its_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """ST11: the same with the drivers' real transactions, frozen with all their locks just before the commit."""
    dispatched(world, "A", "B", policy=parallel(1))
    module = {"claim": dispatch_store, "advance": apply_store, "look": poll_store}[step]
    last = "move" if step == "claim" else "project_parent"
    frozen, go_on = Event(), Event()
    do_last = getattr(module, last)

    def freeze(*given: object, **named: object) -> object:
        done = do_last(*given, **named)
        frozen.set()
        assert go_on.wait(10)
        return done

    drives = {
        "claim": claims(world, "B", "w1"),
        "advance": lambda: world.store.advance_apply(world.last),
        "look": looks(world, "A", State.COMPLETED),
    }[step]
    if step == "claim":
        world.write(
            "UPDATE apply_operations SET state = 'completed', completed_at = now() WHERE deployment = 'A'"
        )
    monkeypatch.setattr(module, last, freeze)
    with ThreadPoolExecutor(1) as threads:
        driver = threads.submit(drives)
        assert frozen.wait(10)
        try:
            receipt = world.ask(Verb.STOP)
        finally:
            go_on.set()
        driver.result(timeout=10)
    assert Receipt.ACCEPTED in world.outcomes(receipt).values()


def test_the_locks_that_st11_assumes_are_the_drivers_own(world: World) -> None:
    """The control run of ST11: a lock in full strength would indeed keep the operator waiting."""
    dispatched(world, "A", "B", policy=parallel())
    world.write("SET LOCAL lock_timeout = '1s'")
    with held(world, "SELECT 1 FROM apply_operations FOR UPDATE"), world.database.connect() as other:
        other.execute(text("SET LOCAL lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            other.execute(text("SELECT 1 FROM apply_operations FOR KEY SHARE"))


def test_two_equal_wishes_at_the_same_instant(world: World, queue_behind: QueueBehind) -> None:
    """§2: one of them is accepted, the other answered `already`; one delivery is open."""
    dispatched(world, "A", "B", policy=parallel())
    answers = queue_behind(
        "LOCK TABLE control_requests IN EXCLUSIVE MODE",
        *[lambda: world.outcomes(world.ask(Verb.STOP, "A"))["A"] for _ in range(3)],
    )
    assert sorted(answers) == [Receipt.ACCEPTED, Receipt.ALREADY, Receipt.ALREADY]
    assert world.one("SELECT count(*) AS n FROM control_deliveries WHERE state IN ('pending', 'sent')").n == 1


VERBS = (Verb.STOP, Verb.START, Verb.CANCEL)


@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("second", VERBS)
def test_two_verbs_on_one_operation(
    world: World, queue_behind: QueueBehind, first: Verb, second: Verb
) -> None:
    """§7: every pair of verbs, accepted and driven together: no deadlock, one driver at a time."""
    dispatched(world, "A", "B", policy=parallel())
    if Verb.START in {first, second}:
        world.ask(Verb.STOP)
        world.run(until=lambda: world.state("A") == "stopped", step_s=6)
    for verb in {first, second}:
        with suppress(Exception):
            world.ask(verb, "A")
    world.forget_bells()
    operation_id, name = world.operation("A").id, world.name("A")
    answers = queue_behind(
        APPLY_LOCK,
        *[
            lambda verb=verb, owner=owner: world.worker(owner).store.claim_delivery(operation_id, name, verb)
            for verb, owner in ((first, "w1"), (second, "w2"))
        ],
    )
    assert sum(isinstance(answer, DeliveryClaimed) for answer in answers) <= 1
    assert all(isinstance(answer, DeliveryClaimed | DeliverySettled | NotClaimed) for answer in answers)
    world.pass_time(31)
    wanted = "cancelled" if Verb.CANCEL in {first, second} else None
    for _ in range(6):
        world.pass_time(11)
        world.sweep()
    assert wanted is None or world.state("A") == wanted
    assert_safe(world)


def test_dispatch_and_stop_claim_the_same_operation(world: World, queue_behind: QueueBehind) -> None:
    """G12: a driver that dispatches and one that stops are drivers of one operation: one at a time."""
    world.apply("A", "B")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    operation_id, name = world.operation("A").id, world.name("A")
    answers = queue_behind(
        APPLY_LOCK,
        claims(world, "A", "w1"),
        lambda: world.worker("w2").store.claim_delivery(operation_id, name, Verb.STOP),
    )
    assert isinstance(answers[0], NotClaimed)
    assert isinstance(answers[1], DeliverySettled)
    assert world.state("A") == "stopped"
    assert_safe(world)


def stale(claim: Claim) -> Claim:
    """The same claim with a token that somebody else's has replaced."""
    return replace(claim, token="0" * 24)


def test_every_write_of_a_tick_proves_its_token(world: World) -> None:
    """S7, G12: each durable step of a dispatch, tried by a driver that has lost its claim, changes nothing."""
    world.apply("A", "B")
    world.forget_bells()
    claimed = claims(world, "A", "w1")()
    assert isinstance(claimed, DispatchClaimed)
    store, lost = world.store, stale(claimed.claim)
    before = dict(world.operation("A")._mapping)
    assert not store.may_go_forward(lost)
    for answer in (
        store.withdraw_intent(lost),
        store.record_remote_id(lost, claimed.scope, RemoteId("R9")),
        store.record_dispatched(lost),
        store.record_refused(lost, "no", "", key_is_dead=True),
        store.record_unanswered(lost, "nothing", delay_s=1.0, engine_answers=True),
        store.record_uncertain(lost, "who knows"),
    ):
        assert answer is Fenced.LOST
    assert dict(world.operation("A")._mapping) == before


def test_every_write_of_a_control_proves_its_token(world: World) -> None:
    """S7, G12: and so does each durable step of a control."""
    dispatched(world, "A", "B", policy=parallel())
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    store = world.store
    claimed = store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    assert isinstance(claimed, DeliveryClaimed)
    lost, delivery_id = stale(claimed.claim), claimed.delivery_id
    before = (dict(world.operation("A")._mapping), dict(world.delivery("A", Verb.STOP)._mapping))
    for answer in (
        store.settle_undispatched(lost, delivery_id),
        store.record_sent(lost, delivery_id),
        store.record_undelivered(lost, delivery_id, "nothing", delay_s=1.0),
        store.record_delivery_refused(lost, delivery_id, "no", delay_s=1.0),
        store.hold_uncertain(lost, delivery_id, "who knows"),
    ):
        assert answer is Fenced.LOST
    assert (dict(world.operation("A")._mapping), dict(world.delivery("A", Verb.STOP)._mapping)) == before


def test_a_sample_that_a_control_has_overtaken_is_dropped(world: World) -> None:
    """G12, §8: what was asked before a control may be older than its effect; the fence says so."""
    dispatched(world, "A", "B", policy=parallel())
    late = looks(world, "A", State.COMPLETED)
    world.ask(Verb.STOP, "A")
    world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    late()
    assert world.state("A") == "running"


def test_settling_an_undispatched_operation_that_has_an_id_by_now(world: World) -> None:
    """G3, S17: a person named the id while a stop was asking the engine: what has an id is never settled here."""
    world.apply("A", "B")
    claimed = claims(world, "A", "w1")()
    assert isinstance(claimed, DispatchClaimed)
    world.directory.of(claimed.scope.deployment).apply(claimed.scope, claimed.claim)
    world.store.record_uncertain(claimed.claim, "who knows")
    world.ask(Verb.STOP, "A")
    world.forget_bells()
    stopping = world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    assert isinstance(stopping, DeliveryClaimed)
    world.pass_time(31)
    world.resolve("A", Resolved.REMOTE_ID, "A-1", why="seen there")
    assert world.store.settle_undispatched(stopping.claim, stopping.delivery_id) is Fenced.LOST
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
