"""One order of locks, everywhere: applies by id, operations by id, deliveries, reservations (§4).

Two that take them in two orders wait for each other until one is thrown out, in the middle of somebody's night.

One way of looking for all: somebody holds what comes first; whoever waits for it must hold nothing of what comes later.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tern.domain.control import Verb
from tern.domain.effect import Effect
from tern.domain.errors import Refused
from tern.domain.identity import ApplyId, RemoteId
from tern.domain.moving import DeploymentChange, Sameness
from tern.domain.outcome import Ok
from tern.domain.outstanding import Fate, Found
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.rest_asked import NewRest
from tern.domain.samples import Sample
from tern.domain.selection import Selection
from tern.domain.statement import StatementAnswer
from tern.domain.states import State
from tern.ports import Asked, DeliveryClaimed, DispatchClaimed, Looked, Poll, Resolved
from tern.store.sql import text
from tests.faults.behaviour import not_accepted
from tests.flows.steps import PARALLEL, running, settle
from tests.invariants import assert_safe
from tests.store.conftest import QueueBehind, held, waiting
from tests.store.test_engines import numbers
from tests.world import World

Call = Callable[[], Any]
# Rows of each level, locked as a driver does.
LEVELS = {
    "applies": "SELECT 1 FROM applies ORDER BY id FOR NO KEY UPDATE",
    "operations": "SELECT 1 FROM apply_operations ORDER BY id FOR NO KEY UPDATE",
    "deliveries": "SELECT 1 FROM control_deliveries ORDER BY id FOR UPDATE",
    "reservations": "SELECT 1 FROM target_reservations ORDER BY deployment FOR UPDATE",
}


@contextmanager
def waits(world: World, statement: str, call: Call) -> Iterator[bool]:
    """The call while somebody holds what the statement locks; whether it waits for that."""
    with ThreadPoolExecutor(1) as threads:
        future: Future[Any]
        with held(world, statement):
            future = threads.submit(call)
            while not (waits_now := bool(waiting(world))) and not future.done():
                pass
            yield waits_now
        with suppress(Exception):
            future.result(timeout=20)


def is_free(world: World, statement: str) -> bool:
    """Nobody holds what the statement would lock or write."""
    with world.database.connect() as tx:
        tx.execute(text("SET LOCAL lock_timeout = '150ms'"))
        try:
            tx.execute(text(statement))
        except psycopg.errors.LockNotAvailable:
            return False
    return True


# Every durable step that changes an operation, each ready to be called


def claimed_dispatch(world: World) -> DispatchClaimed:
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    found = world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    assert isinstance(found, DispatchClaimed)
    return found


def claimed_stop(world: World) -> DeliveryClaimed:
    running(world, "A", "B")
    world.ask(Verb.STOP)
    world.forget_bells()
    found = world.store.claim_delivery(world.operation("A").id, world.name("A"), Verb.STOP)
    assert isinstance(found, DeliveryClaimed)
    return found


def a_claim(world: World) -> Call:
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    operation, name = world.operation("A").id, world.name("A")
    return lambda: world.store.claim_dispatch(operation, name)


def a_withdrawal(world: World) -> Call:
    claimed = claimed_dispatch(world)
    world.ask(Verb.STOP)
    return lambda: world.store.withdraw_intent(claimed.claim)


def dispatched(world: World) -> Call:
    claimed = claimed_dispatch(world)
    world.store.record_remote_id(claimed.claim, claimed.scope, RemoteId("R1"))
    return lambda: world.store.record_dispatched(claimed.claim)


def refused(world: World) -> Call:
    claimed = claimed_dispatch(world)
    world.ask(Verb.STOP)
    return lambda: world.store.record_refused(claimed.claim, "no", "NO", key_is_dead=True)


def unanswered(world: World) -> Call:
    claimed = claimed_dispatch(world)
    return lambda: world.store.record_unanswered(claimed.claim, "gone", delay_s=1.0, engine_answers=True)


def held_uncertain(world: World) -> Call:
    claimed = claimed_dispatch(world)
    return lambda: world.store.record_uncertain(claimed.claim, "who knows")


def resolved(world: World) -> Call:
    claimed = claimed_dispatch(world)
    world.store.record_uncertain(claimed.claim, "who knows")
    world.ask(Verb.STOP)
    name = world.name("A")
    return lambda: world.store.resolve_uncertain(name, Resolved.ENDED, None, "ann", "looked")


def a_look(world: World) -> Call:
    running(world, "A", "B")
    world.ask(Verb.STOP)
    poll = world.store.begin_look(world.operation("A").id, world.name("A"))
    assert isinstance(poll, Poll)
    (cursor,) = poll.cursors
    sample = Sample(cursor.call.remote_id, State.COMPLETED, "completed", revision=99)
    return lambda: world.store.record_looks(poll, [Looked(cursor, Ok(sample))])


def a_wish_s_claim(world: World) -> Call:
    running(world, "A", "B")
    world.ask(Verb.STOP)
    world.forget_bells()
    operation, name = world.operation("A").id, world.name("A")
    return lambda: world.store.claim_delivery(operation, name, Verb.STOP)


def a_wish_sent(world: World) -> Call:
    found = claimed_stop(world)
    return lambda: world.store.record_sent(found.claim, found.delivery_id)


def a_wish_undelivered(world: World) -> Call:
    found = claimed_stop(world)
    return lambda: world.store.record_undelivered(found.claim, found.delivery_id, "gone", delay_s=1.0)


def a_wish_refused(world: World) -> Call:
    found = claimed_stop(world)
    return lambda: world.store.record_delivery_refused(found.claim, found.delivery_id, "no", delay_s=1.0)


def many_wishes(world: World) -> Call:
    world.apply("A", "B", "C", policy=Policy(copy=Copy.PARALLEL))
    world.ask(Verb.STOP)
    world.forget_bells()
    return lambda: world.store.settle_uncalled(world.last, 10)


def many_starts(world: World) -> Call:
    world.apply("C", "B", "A", policy=PARALLEL)
    world.ask(Verb.STOP)
    settle(world)
    world.ask_for(Verb.START, _everything())
    world.forget_bells()
    return lambda: world.store.settle_uncalled(world.last, 10)


def an_advance(world: World) -> Call:
    world.apply("A", "B", policy=PARALLEL)
    return lambda: world.store.advance_apply(world.last)


def effects(world: World) -> Call:
    world.apply("A", policy=PARALLEL)
    world.ask(Verb.CANCEL)
    settle(world)
    world.write("UPDATE applies SET verdict_effects_done_at = NULL")
    return lambda: world.store.claim_verdict_effects(world.last)


def a_rest(world: World) -> Call:
    """B was never sent, and gives its target to the follow-up."""
    world.apply("A", "B")
    world.answer_bells()
    assert (world.state("A"), world.state("B")) == ("running", "pending")
    return carrying_on(world, world.last, "B")


def carrying_on(world: World, apply_id: ApplyId, name: str) -> Call:
    asked = NewRest(apply_id, Selection((name,)), "ann", accept_drift=True)
    (group,) = world.store.rest(asked).groups
    new = replace(asked, digest=group.digest, reason="because", idempotency_key=f"rest {group.digest}")
    return lambda: world.store.accept_rest(new)


def is_long_silent(world: World) -> None:
    """As if there had been ten tries in ten minutes."""
    world.write(
        "UPDATE apply_operations SET unheard_tries = 10, unheard_since = tern_clock() - interval '601 s',"
        " unheard_look = sampled_look"
    )


def given_up(world: World) -> Call:
    """With a wish that is moot from then on."""
    running(world, "A", "B")
    world.ask(Verb.STOP)
    world.forget_bells()
    is_long_silent(world)
    name = world.name("A")
    return lambda: world.store.give_up(name, Resolved.ENDED, "eve", "it burned down")


def settled(world: World) -> Call:
    """Another apply waits for the target."""
    given_up(world)()
    world.apply("A", policy=PARALLEL, accept_drift=True)
    world.forget_bells()
    lines = [each.call_id for each in world.store.outstanding_at("A")]
    return lambda: world.store.settle_by_word("A", lines, "eve", "nothing is there")


def settled_by_a_look(world: World) -> Call:
    settled(world)
    (line,) = world.store.outstanding_at("A")
    found = Found(Fate.SETTLED, "not_found")
    return lambda: world.store.record_outstanding(line.call_id, found, line.address)


def a_statement_s_word(world: World) -> Call:
    running(world, "A", "B")
    world.write("UPDATE table_changes SET state = 'unknown'")
    world.write("UPDATE apply_operations SET state = 'failed', completed_at = tern_clock()")
    answer = StatementAnswer(world.name("A"), {1: Effect.DONE}, "eve", "I looked")
    return lambda: world.store.settle_statements(answer)


def an_end_of_what_is_outstanding(world: World) -> Call:
    given_up(world)()
    apply_id = world.last
    wanted = Asked(Verb.CANCEL, apply_id, Selection(("A",)), "bob", "enough", outstanding=True)
    return lambda: world.store.accept_wish(wanted)


def moved_by_proof(world: World) -> Call:
    """With a line of an operation that is finished, which stands at the new address as well."""
    given_up(world)()
    world.write(
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id, fence,"
        " engine_number, address, why, caller) SELECT apply_id, operation_id, environment, database, deployment,"
        " remote_id, fence, engine_number, 'grpc://127.0.0.1:9', why, caller FROM outstanding_calls"
    )
    change = DeploymentChange("A", "bob", "the machine moves", address="grpc://127.0.0.1:9")
    (before,) = world.store.load_deployments(["A"])
    after, uses = change.applied_to(before), world.store.uses("A")
    return lambda: world.store.change_deployment(change, before, after, uses, Sameness.PROVEN, frozenset())


def united(world: World) -> Call:
    given_up(world)()
    return lambda: world.store.unite_engines(
        *(number for name, number in numbers(world).items() if name in "AB")
    )


STEPS = {
    step.__name__: step
    for step in (
        a_claim, a_withdrawal, dispatched, refused, unanswered, held_uncertain, resolved, a_look, a_wish_s_claim,
        a_wish_sent, a_wish_undelivered, a_wish_refused, many_wishes, many_starts, an_advance, effects, a_rest,
        given_up, settled, settled_by_a_look, a_statement_s_word, an_end_of_what_is_outstanding,
        moved_by_proof, united,
    )
}  # fmt: skip

ALONE = {"dispatched", "an_end_of_what_is_outstanding"}
"""These change no state, only who drives the operation or what is wanted: nobody has to wait for the apply."""


def _everything() -> Selection:
    return Selection(everywhere=True)


@pytest.mark.parametrize("step", STEPS)
def test_an_apply_is_locked_before_everything_of_it(world: World, step: str) -> None:
    """Whoever waits for an apply holds none of its operations, none of their wishes, no target."""
    call = STEPS[step](world)
    with waits(world, LEVELS["applies"], call) as waits_now:
        assert waits_now is (step not in ALONE), "it moves an operation without its apply's lock"
        for level in ("operations", "deliveries", "reservations"):
            assert is_free(world, f"{LEVELS[level]} NOWAIT"), level


@pytest.mark.parametrize("step", STEPS)
def test_an_operation_is_locked_before_its_wishes_and_its_target(world: World, step: str) -> None:
    """It waits, or leaves the operation to the one who has it; wishes and targets are free in either case."""
    call = STEPS[step](world)
    with waits(world, LEVELS["operations"], call):
        for level in ("deliveries", "reservations"):
            assert is_free(world, f"{LEVELS[level]} NOWAIT"), level


@pytest.mark.parametrize("step", STEPS)
def test_a_wish_is_locked_before_a_target(world: World, step: str) -> None:
    call = STEPS[step](world)
    with waits(world, LEVELS["deliveries"], call):
        assert is_free(world, f"{LEVELS['reservations']} NOWAIT")


# Several rows of one kind: in one order, whatever the order in which somebody names them


def reserves(name: str) -> str:
    return (
        "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
        f" SELECT 'test', 'shop', '{name}', min(id) FROM applies"
    )


def an_earlier_one(world: World) -> None:
    """An apply that holds nothing any more."""
    world.apply("A", policy=PARALLEL)
    world.ask(Verb.CANCEL)
    settle(world)


@pytest.mark.parametrize("names", [("C", "B", "A"), ("B", "C", "A"), ("A", "C", "B")])
def test_targets_are_taken_in_one_order(world: World, names: tuple[str, ...]) -> None:
    """G13: two rollouts over the same deployments, written in two orders: one has them all, the other is refused."""
    an_earlier_one(world)
    with waits(world, reserves("A"), lambda: world.apply(*names, policy=PARALLEL)) as waits_now:
        assert waits_now
        assert is_free(world, reserves("B"))
        assert is_free(world, reserves("C"))


def test_targets_are_taken_back_in_the_same_order(world: World) -> None:
    """A start of a whole rollout takes its targets again, against whoever takes them for a new one."""
    call = many_starts(world)
    world.write("DELETE FROM target_reservations")
    with waits(world, reserves("A"), call) as waits_now:
        assert waits_now
        assert is_free(world, reserves("B"))
        assert is_free(world, reserves("C"))


def test_two_rollouts_over_the_same_targets_never_deadlock(world: World) -> None:
    """The same with everything real, again and again: one is accepted, the other refused with the holder's name."""
    for _ in range(10):
        with ThreadPoolExecutor(2) as threads:
            futures = [
                threads.submit(world.apply, *names, policy=PARALLEL)
                for names in (("A", "B", "C"), ("C", "B", "A"))
            ]
            errors = [str(error) for each in futures if (error := each.exception(timeout=20)) is not None]
        assert len(errors) == 1
        assert "deadlock" not in errors[0]
        world.last = world.one("SELECT max(apply_identifier) AS it FROM applies WHERE state = 'pending'").it
        world.ask(Verb.CANCEL)
        settle(world)


@pytest.mark.parametrize("turn", range(8))
def test_what_is_said_of_one_apply_at_once_never_deadlocks(world: World, turn: int) -> None:
    """A is given up, and another apply waits for it; B can be given up; C, which was refused, is carried on and tried
    again. All of it at the same instant, each time begun by another one: some are refused, and nobody is thrown out.
    """
    world.engines["C"].script("Apply", not_accepted())
    world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    source = world.last
    assert {name: world.state(name) for name in "ABC"} == {"A": "running", "B": "running", "C": "failed"}
    is_long_silent(world)
    world.store.give_up(world.name("A"), Resolved.ENDED, "eve", "it burned down")
    world.apply("A", policy=PARALLEL)
    world.forget_bells()
    lines = [each.call_id for each in world.store.outstanding_at("A")]

    def safely(call: Call) -> Call:
        def run() -> str:
            try:
                call()
            except Refused as refusal:
                return refusal.reason
            return ""

        return run

    key, name = world.operation("C", source).id, world.name("C", source)
    calls: list[Call] = [
        carrying_on(world, source, "C"),
        lambda: world.store.give_up(world.name("B", source), Resolved.ENDED, "eve", "it burned down"),
        lambda: world.store.settle_by_word("A", lines, "eve", "nothing is there"),
        lambda: world.ask_for(Verb.CANCEL, Selection(("A",)), apply_id=source, outstanding=True),
        lambda: world.ask(Verb.STOP, apply_id=source),
        lambda: world.store.settle_uncalled(source, 10),
        lambda: (world.ask(Verb.RETRY, "C", apply_id=source), world.do("retry", key, str(name))),
        lambda: world.apply("C", "A", "B", policy=PARALLEL),
    ]
    calls = [safely(call) for call in (*calls[turn:], *calls[:turn])]
    before = deadlocks(world)
    with ThreadPoolExecutor(len(calls)) as threads:
        with held(world, LEVELS["applies"]):
            futures = [threads.submit(call) for call in calls]
            while sum(each.done() for each in futures) + waiting(world) < len(calls):
                pass
        said = [future.result(timeout=20) for future in futures]
    assert "" in said
    assert deadlocks(world) == before
    live = world.one(
        "SELECT count(*) AS n FROM apply_operations WHERE deployment = 'C' AND completed_at IS NULL"
    )
    assert live.n <= 1
    assert_safe(world)


def deadlocks(world: World) -> int:
    """How many transactions of this database were thrown out because two waited for each other."""
    with world.database.begin() as tx:
        tx.execute(text("SELECT pg_stat_force_next_flush()"))
    found = world.one("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(found.deadlocks)


def test_deployments_are_held_in_one_order(world: World) -> None:
    """A rollout holds its deployments so that none is removed, in the order of their names."""
    call = lambda: world.apply("C", "B", "A", policy=PARALLEL)  # noqa: E731 - one line
    with waits(world, "SELECT 1 FROM deployments WHERE name = 'A' FOR UPDATE", call) as waits_now:
        assert waits_now
        assert is_free(world, "SELECT 1 FROM deployments WHERE name > 'A' FOR UPDATE NOWAIT")


def test_what_is_rung_for_is_noted_in_one_order(world: World) -> None:
    """Two sweeps at the same instant, which a lease that ran out makes possible."""
    running(world, "A", "B", "C")
    world.pass_time(60)
    world.store.due_deployments()
    world.pass_time(60)
    first = "SELECT 1 FROM sweep_leases WHERE name = 'bell:A' FOR UPDATE"
    with waits(world, first, world.store.due_deployments) as waits_now:
        assert waits_now
        assert is_free(
            world, "SELECT 1 FROM sweep_leases WHERE name IN ('bell:B', 'bell:C') FOR UPDATE NOWAIT"
        )


def test_applies_that_a_poll_moves_are_locked_in_one_order(world: World) -> None:
    """One deployment's answers are about several applies; another's about the same ones in another order."""
    running(world, "B")
    first = world.last
    cursors = [_cursor(world, "B")]
    running(world, "A")
    second = world.last
    cursors.append(_cursor(world, "A"))
    looks = [
        Looked(cursor, Ok(Sample(cursor.call.remote_id, State.COMPLETED, "completed", revision=9)))
        for cursor in reversed(cursors)
    ]
    poll = world.store.begin_look(world.operation("A", second).id, world.name("A", second))
    assert isinstance(poll, Poll)
    both = Poll(poll.deployment, poll.owner, tuple(reversed(cursors)), has_retryable=False)
    hold = f"SELECT 1 FROM applies WHERE apply_identifier = '{first}' FOR NO KEY UPDATE"
    with waits(world, hold, lambda: world.store.record_looks(both, looks)) as waits_now:
        assert waits_now
        assert is_free(
            world, f"SELECT 1 FROM applies WHERE apply_identifier = '{second}' FOR NO KEY UPDATE NOWAIT"
        )


def _cursor(world: World, name: str) -> Any:
    poll = world.store.begin_look(world.operation(name).id, world.name(name))
    assert isinstance(poll, Poll)
    return poll.cursors[0]


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_no_deployment_changes_under_a_rollout_that_is_just_accepted(
    world: World, queue_behind: QueueBehind, change: str
) -> None:
    """G7: what was read before the lock is read again after it. Its operation would belong to nowhere."""
    before = world.store.load_deployments(["A"])[0]

    def accept() -> str:
        return str(world.apply("A", policy=PARALLEL))

    def changes() -> str:
        try:
            if change == "removed":
                world.store.remove_deployment("A")
            else:
                world.store.replace_deployment(replace(before, target="elsewhere"))
        except Refused as refusal:
            return refusal.reason
        return "done"

    answers = queue_behind("LOCK TABLE target_reservations IN EXCLUSIVE MODE", accept, changes)
    assert answers[0].startswith("apl-")
    assert answers[1] == "DEPLOYMENT_IN_USE"
    assert world.store.load_deployments(["A"])[0] == before
