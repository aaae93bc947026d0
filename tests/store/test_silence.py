"""One memory for all workers of who leaves calls without an answer, and what claims and notifications make of it."""

from tern.domain.silence import LONGEST_PAUSE_S, SLOW_AFTER, CallKind
from tern.flows.sweep import reconcile
from tern.ports import NotClaimed
from tests.flows.steps import PARALLEL, methods
from tests.world import World

DISPATCH, POLL = CallKind.DISPATCH, CallKind.POLL


def silence(world: World, deployment: str, times: int, kind: CallKind = DISPATCH) -> None:
    for _ in range(times):
        world.store.record_silence(deployment, kind)


def test_workers_count_together(world: World) -> None:
    other = world.worker("other").store
    found = [store.record_silence("A", DISPATCH) for store in (world.store, other, world.store)]
    assert [each.in_a_row for each in found if each is not None] == [1, 2, 3]
    assert [each.retry_in_s > 0 for each in found if each is not None] == [False, False, True]
    world.store.record_silence("A", POLL)
    assert {(each.kind, each.in_a_row) for each in other.silences()} == {(DISPATCH, 3), (POLL, 1)}
    other.record_answer("A", DISPATCH)
    assert [each.kind for each in world.store.silences()] == [POLL]


def test_nobody_is_counted_that_is_not_there(world: World) -> None:
    assert world.store.record_silence("nowhere", DISPATCH) is None
    world.store.record_silence("A", DISPATCH)
    world.store.remove_deployment("A")
    assert world.store.silences() == ()


def test_another_address_begins_anew(world: World) -> None:
    silence(world, "A", 4)
    world.write("UPDATE deployments SET position = 9 WHERE name = 'A'")
    assert len(world.store.silences()) == 1
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:1' WHERE name = 'A'")
    assert world.store.silences() == ()


def test_a_pause_under_a_clock_that_was_set_back_is_none(world: World) -> None:
    silence(world, "A", 9)
    (before,) = world.store.silences()
    assert 0 < before.retry_in_s <= LONGEST_PAUSE_S
    world.pass_time(-3600)
    (after,) = world.store.silences()
    assert after.retry_in_s <= 0


def test_a_dispatch_waits_for_the_pause_and_siblings_do_not(world: World) -> None:
    """The claim sees it, and what notifies; when the pause is over, it is tried."""
    silence(world, "A", SLOW_AFTER)
    world.apply("A", "B", policy=PARALLEL)
    claimed = world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    assert isinstance(claimed, NotClaimed)
    assert "3 dispatches in a row without an answer" in claimed.why
    world.answer_bells()
    assert (world.state("A"), world.state("B")) == ("pending", "running")
    world.pass_time(1)
    reconcile("beat", world.ports)
    assert "dispatch" not in [kind for kind, _ in world.bells.queue]
    world.run(until=lambda: world.state("A") == "running")
    assert methods(world, "A") == ["Apply"]


def test_an_unanswered_look_holds_no_dispatch(world: World) -> None:
    silence(world, "A", SLOW_AFTER, POLL)
    world.apply("A")
    world.answer_bells()
    assert world.state("A") == "running"
