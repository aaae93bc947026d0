"""Nobody waits behind a crowd: so many of each apply are on their way, counted from rows, and applies go in turn."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from tern.domain.crowd import AHEAD_MOST, in_turn, room_for
from tern.domain.policy import Policy
from tern.domain.rest_asked import NewRest, rest_key
from tern.domain.selection import Selection
from tern.flows.accept import answer
from tern.flows.rest import send, show
from tern.flows.sweep import reconcile
from tern.ports import Answered, Resolved
from tern.store.gauge import read_gauges
from tern.store.reading import Reading
from tern.view import UNTAKEN_AFTER_S, apply_view
from tests.e2e.test_crowd import WIDE as WIDEST
from tests.e2e.test_crowd import widen
from tests.flows.steps import PARALLEL, methods
from tests.world import World

WIDE = 200


@pytest.fixture
def crowd(make_world: Callable[..., World]) -> World:
    """Many deployments behind one engine, and a few of another apply's."""
    world = make_world("E")
    address = world.engines["E"].address
    for number in range(WIDE):
        world.add(f"w{number:03}", address, 100 + number, offers=True)
    for name in "xyz":
        world.add(name, address, 900, offers=True)
    return world


def wide(world: World, **more: object) -> list[str]:
    names = [f"w{number:03}" for number in range(WIDE)]
    world.apply(*names, policy=PARALLEL, **more)  # type: ignore[arg-type]
    return names


def rung(world: World) -> list[str]:
    """The deployments whose dispatch was notified, in order."""
    return [given[1].partition("/")[2] for kind, given in world.bells.queue if kind == "dispatch"]


def ahead(world: World) -> int:
    """Counted once more, in other words."""
    return int(
        world.one(
            "SELECT count(*) AS n FROM apply_operations WHERE state = 'pending' AND next_attempt_at IS NOT NULL"
            " AND tern_clock() - rung_at BETWEEN interval '0' AND interval '5 s'"
        ).n
    )


def sent(world: World) -> int:
    return len(methods(world, "E", among=("Apply",)))


def test_of_an_apply_so_many_are_notified_at_once(crowd: World) -> None:
    """Acceptance, the sweep and an advance have the same limit, and it is one limit."""
    names = wide(crowd)
    assert rung(crowd) == names[:AHEAD_MOST]
    reconcile("beat", crowd.ports)
    crowd.do("advance", crowd.last)
    assert rung(crowd) == names[:AHEAD_MOST]
    assert ahead(crowd) == AHEAD_MOST


def test_drivers_notify_the_next_and_never_too_many(crowd: World) -> None:
    """All leave without a single sweep, each notified once, and at no time are more than so many on their way."""
    names = wide(crowd)
    heard: Counter[str] = Counter()
    while crowd.bells.queue:
        if crowd.bells.queue[0][0] == "dispatch":
            heard[crowd.bells.queue[0][1][1]] += 1
        assert len(rung(crowd)) <= AHEAD_MOST
        crowd.answer_one()
    assert sent(crowd) == WIDE
    assert set(heard.values()) == {1}
    assert len(heard) == len(names)


def test_drivers_at_once_keep_the_limit_together(crowd: World) -> None:
    """Two that end at the same instant must not both fill the same room."""
    wide(crowd)
    too_many: list[int] = []

    def drive(number: int) -> None:
        ports = crowd.worker(f"worker-{number}")
        while True:
            try:
                kind, given = crowd.bells.queue.popleft()
            except IndexError:
                return
            crowd.do(kind, *given, ports=ports)
            if (found := ahead(crowd)) > AHEAD_MOST:
                too_many.append(found)

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert too_many == []
    crowd.run(until=lambda: sent(crowd) == WIDE)


def test_sixty_four_notifications_lost_with_the_broker(crowd: World) -> None:
    """G11: nobody claims them and nobody notifies the next; after five seconds the rows alone bring it all back."""
    names = wide(crowd)
    crowd.forget_bells()
    crowd.pass_time(3)
    reconcile("beat", crowd.ports)
    assert rung(crowd) == []
    crowd.pass_time(3)
    reconcile("beat", crowd.ports)
    assert rung(crowd) == names[:AHEAD_MOST]
    crowd.answer_bells()
    assert sent(crowd) == WIDE


def test_those_that_waited_long_for_their_turn_are_found_as_soon(crowd: World) -> None:
    """G11: how long one waited before it was first notified says nothing about how long the queue is."""
    names = wide(crowd)
    crowd.pass_time(50)
    # Until all have been notified, the last ones late, and some of them are not taken up yet.
    while sent(crowd) < WIDE - AHEAD_MOST // 2:
        crowd.answer_one()
    crowd.forget_bells()
    before = sent(crowd)
    assert before < WIDE
    crowd.pass_time(6)
    reconcile("beat", crowd.ports)
    assert len(rung(crowd)) == WIDE - before
    assert set(rung(crowd)) <= set(names)


def untaken(world: World) -> list[str]:
    """Of which deployments a person is told that no worker takes them."""
    view = apply_view(Reading(world.database).apply(world.last))
    return [blocker.deployment for blocker in view.blockers if "no worker" in blocker.what]


def overdue_s(world: World) -> float:
    """What `tern doctor` and the alert are told of dispatches."""
    return read_gauges(world.database).oldest_due_s["dispatch"]


@pytest.mark.parametrize("each_second", [9, 3], ids=["quick", "slow"])
def test_of_what_waits_for_its_turn_nobody_says_that_no_worker_takes_it(
    crowd: World, each_second: int
) -> None:
    """Workers are busy with its siblings: neither is it a blocker, nor is anything wrong with the house."""
    wide(crowd)
    for _ in range(20):
        crowd.pass_time(1)
        heard = sent(crowd) + each_second
        while sent(crowd) < heard:
            crowd.answer_one()
    assert sent(crowd) < WIDE
    assert untaken(crowd) == []
    assert overdue_s(crowd) < UNTAKEN_AFTER_S


def test_what_was_notified_and_nobody_takes_is_told(crowd: World) -> None:
    """All its drivers are gone: those at the front speak for the rest, whoever notifies them again and again."""
    names = wide(crowd)
    for _ in range(6):
        crowd.forget_bells()
        crowd.pass_time(6)
        reconcile("beat", crowd.ports)
    assert untaken(crowd)[:AHEAD_MOST] == names[:AHEAD_MOST]
    assert len(untaken(crowd)) < WIDE
    assert 36 <= overdue_s(crowd) < 50


def test_what_nobody_even_notifies_is_told(crowd: World) -> None:
    """Nobody sweeps: it was made due and its messages were never written down."""
    names = wide(crowd)
    crowd.write("UPDATE apply_operations SET rung_at = NULL, first_rung_at = NULL")
    crowd.pass_time(40)
    assert untaken(crowd) == names
    assert 40 <= overdue_s(crowd) < 50


def test_a_stamp_that_lies_ahead_tells_nothing(crowd: World) -> None:
    """The clock was set back since it was notified."""
    names = wide(crowd)
    crowd.pass_time(40)
    crowd.write(
        "UPDATE apply_operations SET rung_at = rung_at + interval '1 hour', first_rung_at = NULL,"
        " claim_began_at = tern_clock() + interval '1 hour'"
    )
    assert set(names[:AHEAD_MOST]) <= set(untaken(crowd))
    assert overdue_s(crowd) >= 40


def test_a_tick_that_claims_nothing_notifies_the_next_too(crowd: World) -> None:
    """All that were notified step back: the apply does not stand until the next sweep."""
    names = wide(crowd)
    crowd.write("UPDATE deployments SET drained = true WHERE name < :name", name=names[AHEAD_MOST])
    crowd.answer_bells()
    assert sent(crowd) == WIDE - AHEAD_MOST


def test_a_stamp_that_lies_ahead_is_none(crowd: World) -> None:
    """The clock was set back: what was notified in the future of now counts neither as ahead nor as told."""
    names = wide(crowd)
    crowd.forget_bells()
    crowd.write("UPDATE apply_operations SET rung_at = rung_at + interval '1 hour', first_rung_at = NULL")
    reconcile("beat", crowd.ports)
    assert rung(crowd) == names[:AHEAD_MOST]
    assert ahead(crowd) == AHEAD_MOST


def test_the_sweep_takes_applies_in_turn(crowd: World) -> None:
    """The second apply's first operation stands behind one of the first apply's, not behind all of them."""
    wide(crowd)
    crowd.apply("x", "y", "z", policy=PARALLEL)
    crowd.forget_bells()
    crowd.pass_time(6)
    reconcile("beat", crowd.ports)
    assert rung(crowd)[:6] == ["w000", "x", "w001", "y", "w002", "z"]
    assert len(rung(crowd)) == AHEAD_MOST + 3


def test_what_waits_for_its_turn_is_nobodys_failure_to_hear(crowd: World) -> None:
    """A worker that takes what others do not hear takes none that were never told."""
    names = wide(crowd)
    crowd.pass_time(16)
    unheard = crowd.store.unheard_work(15)
    assert sorted(due.scope.deployment for due in unheard.dispatches) == names[:AHEAD_MOST]


def test_one_after_the_other_needs_no_crowd(crowd: World) -> None:
    """The limit changes nothing for who goes one by one."""
    crowd.apply("x", "y", policy=Policy())
    assert rung(crowd) == ["x"]


def test_room_is_made_in_portions() -> None:
    assert [room_for(ahead) for ahead in (0, 1, 48, 49, 64, 70)] == [64, 63, 16, 0, 0, 0]


def test_turns_keep_the_order_of_each() -> None:
    assert in_turn(["a1", "a2", "a3", "b1", "b2"], lambda one: one[0]) == ("a1", "b1", "a2", "b2", "a3")
    assert in_turn([], str) == ()


def test_accepting_a_crowd_costs_the_same_whatever_the_statistics_say(
    make_world: Callable[..., World],
) -> None:
    """After a wide apply that was rolled back they may say that there are no operations at all."""
    world = make_world("E")
    names = widen(world)
    half = len(names) // 2

    def seconds(some: list[str]) -> float:
        began = time.monotonic()
        world.apply(*some, policy=PARALLEL)
        return time.monotonic() - began

    world.write("UPDATE pg_class SET reltuples = 0, relpages = 40 WHERE relname = 'apply_operations'")
    astray = seconds(names[:half])
    world.write("ANALYZE")
    assert astray < 5 * seconds(names[half:])


@pytest.fixture
def many(make_world: Callable[..., World]) -> tuple[World, list[str]]:
    """Two thousand deployments, with an apply over the first fifth of them, and one over all the others."""
    world = make_world("E")
    return world, widen(world)


def test_carrying_on_a_crowd_costs_as_much_for_each(many: tuple[World, list[str]]) -> None:
    """Of four times as many, what is left is shown and accepted in about four times the time."""
    world, names = many

    def seconds(some: list[str]) -> float:
        source = world.apply(*some, policy=PARALLEL)
        world.write(
            "UPDATE table_changes SET state = 'failed' WHERE apply_id = (SELECT id FROM applies"
            " WHERE apply_identifier = :apply)",
            apply=source,
        )
        new = NewRest(source, Selection(), "ann", previews=False)
        began = time.monotonic()
        (group,) = show(new, world.ports).groups
        key = rest_key(group.digest)
        accepted = send(replace(new, digest=group.digest, reason="because", idempotency_key=key), world.ports)
        took = time.monotonic() - began
        assert len(accepted.deployments) == len(some)
        assert world.apply_row(accepted.apply_id).operation_count == len(some)
        assert world.apply_row(source).state == "cancelled"
        world.forget_bells()
        return took

    # The quicker of two: what else the machine had to do for a moment is nothing of theirs.
    tenth = WIDEST // 10
    few = min(seconds(names[:tenth]), seconds(names[tenth : 2 * tenth]))
    assert min(seconds(names[2 * tenth : 6 * tenth]), seconds(names[6 * tenth :])) < 4 * 2.5 * few


def test_giving_a_crowd_up_costs_as_much_for_each(many: tuple[World, list[str]]) -> None:
    """One word for all of a site's engines, with the number that it is meant for."""
    world, names = many

    def seconds(some: list[str]) -> float:
        world.apply(*some, policy=PARALLEL)
        world.forget_bells()
        world.write(
            "UPDATE apply_operations SET state = 'running', started_at = tern_clock(), unheard_tries = 10,"
            " engine_resume_context = 'R' || id, next_attempt_at = NULL,"
            " unheard_since = tern_clock() - interval '601 s' WHERE state = 'pending'"
        )
        said = Answered(
            world.last,
            Selection(everywhere=True),
            Resolved.ENDED,
            None,
            "eve",
            "the site burned down",
            expected=len(some),
            engine_is_gone=True,
        )
        began = time.monotonic()
        answer(said, world.ports)
        took = time.monotonic() - began
        ended = world.one(
            "SELECT count(*) FILTER (WHERE state = 'failed') AS n FROM apply_operations WHERE apply_id ="
            " (SELECT id FROM applies WHERE apply_identifier = :apply)",
            apply=world.last,
        )
        assert ended.n == len(some)
        assert [kind for kind, _ in world.bells.queue] == ["advance"]
        return took

    few = seconds(names[:100])
    assert seconds(names[100:600]) < 5 * 2.5 * few
