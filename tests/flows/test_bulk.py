"""A wish on many operations: as many statements as on few, and one outcome for each (G8, G9, G15)."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import psycopg
import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import NotFound, Refused
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.selection import Selection
from tern.domain.states import State
from tern.flows import accept
from tern.flows.advance import advance
from tern.ports import DispatchClaimed
from tests.flows.steps import PARALLEL, open_wishes, running
from tests.invariants import assert_safe
from tests.world import World

MANY, FEW = 300, 3


def fleet(world: World, size: int) -> list[str]:
    """So many deployments, all at one engine."""
    world.write(
        "INSERT INTO deployments (name, environment, database, address, target, labels, capabilities,"
        " idempotent_dispatch) SELECT 'd' || n, 'test', 'shop', :address, 'd' || n,"
        " jsonb_build_object('half', CAST(n % 2 AS text)), '{\"resolve\": true}', true"
        " FROM generate_series(1, :size) AS n ON CONFLICT DO NOTHING",
        address=world.engines["A"].address,
        size=size,
    )
    return [f"d{number}" for number in range(1, size + 1)]


@contextmanager
def counting() -> Iterator[list[str]]:
    """The statements that go to PostgreSQL meanwhile."""
    seen: list[str] = []
    execute = psycopg.Cursor.execute

    def counted(self: object, query: object, *given: object, **named: object) -> object:
        seen.append(str(query))
        return execute(self, query, *given, **named)  # type: ignore[arg-type, type-var]

    with patch.object(psycopg.Cursor, "execute", counted):
        yield seen


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL, Verb.SKIP])
def test_ending_many_takes_as_many_statements_as_ending_few(world: World, verb: Verb) -> None:
    """Accepted and carried out without a call, for all of them."""
    counts = []
    for size in (FEW, MANY):
        names = fleet(world, size)
        world.apply(*names, policy=PARALLEL)
        world.forget_bells()
        with counting() as accepting:
            receipt = world.ask_for(verb, Selection(everywhere=True))
        assert len(receipt.lines) == size
        assert {line.outcome for line in receipt.lines} == {Receipt.ACCEPTED}
        assert receipt.due == ()
        world.forget_bells()
        with counting() as settling:
            assert world.store.settle_uncalled(world.last, size + 1) == size
        counts.append((len(accepting), len(settling)))
        ends = {Verb.STOP: "stopped", Verb.CANCEL: "cancelled", Verb.SKIP: "skipped"}[verb]
        states = "SELECT count(*) AS n FROM apply_operations WHERE apply_id = :id AND state = :state"
        assert world.one(states, id=world.apply_row().id, state=ends).n == size
        assert open_wishes(world) == []
    assert counts[0] == counts[1]
    assert_safe(world)


def test_starting_many_again_takes_as_many_statements_as_starting_few(world: World) -> None:
    """SA1, SA2: a fully stopped fan-out whose operations were never dispatched."""
    counts = []
    for size in (FEW, MANY):
        world.apply(*fleet(world, size), policy=PARALLEL)
        world.forget_bells()
        world.ask(Verb.STOP)
        world.answer_bells()
        assert world.apply_row().state == "stopped"
        with counting() as accepting:
            world.ask_for(Verb.START, Selection(everywhere=True))
        world.forget_bells()
        with counting() as settling:
            assert world.store.settle_uncalled(world.last, size + 1) == size
        counts.append((len(accepting), len(settling)))
        assert world.apply_row().state == "pending"
        world.ask(Verb.CANCEL)
        world.answer_bells()
    assert counts[0] == counts[1]


def test_many_are_carried_out_in_portions(world: World) -> None:
    """No transaction holds the apply's lock for long, and none is left over."""
    world.apply(*fleet(world, 25), policy=PARALLEL)
    world.forget_bells()
    world.ask(Verb.STOP)
    world.forget_bells()
    with patch("tern.flows.advance.AT_ONCE", 10):
        advance(world.last, world.ports)
    assert world.apply_row().state == "stopped"
    assert open_wishes(world) == []


def test_after_a_stop_of_many_nothing_goes_forward_with_no_bell_heard(world: World) -> None:
    """G9, S16: from its commit on, broker or no broker: no operation is claimed, no call is begun."""
    world.apply(*fleet(world, 40), policy=PARALLEL)
    claimed = [
        world.store.claim_dispatch(world.operation(name).id, world.name(name)) for name in ("d1", "d2")
    ]
    world.forget_bells()
    world.ask(Verb.STOP)
    world.forget_bells()
    for attempt in claimed:
        assert isinstance(attempt, DispatchClaimed)
        assert not world.store.may_go_forward(attempt.claim)
    for number in range(3, 41):
        late = world.store.claim_dispatch(world.operation(f"d{number}").id, world.name(f"d{number}"))
        assert not isinstance(late, DispatchClaimed)
    world.pass_time(31)
    world.run(until=lambda: world.apply_row().state == "stopped", step_s=6)
    assert world.engines["A"].calls("Apply") == []
    assert_safe(world)


def test_whoever_asks_for_many_has_an_answer_before_all_bells_are_rung(world: World) -> None:
    """The sweeps ring for the others."""
    names = fleet(world, 12)
    running(world, *names)
    with patch.object(accept, "RUNG_AT_ONCE", 5):
        receipt = world.ask(Verb.STOP)
    assert len(receipt.due) == 12
    assert [kind for kind, _ in world.bells.queue] == ["advance"] + ["stop"] * 5
    world.run(until=lambda: world.apply_row().state == "stopped")


def test_what_is_selected_is_what_the_rows_are_when_it_is_accepted(world: World) -> None:
    """§7: shown by a dry run, and chosen once more; a number that no longer fits writes nothing."""
    names = fleet(world, 6)
    world.apply(*names, policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    world.forget_bells()
    chosen = Selection(states=frozenset({State.PENDING}), labels={"half": "1"})
    shown = world.ask_for(Verb.SKIP, chosen, dry_run=True, expected=3)
    assert [line.deployment for line in shown.lines] == ["d1", "d3", "d5"]
    world.store.claim_dispatch(world.operation("d3").id, world.name("d3"))
    with pytest.raises(Refused) as refusal:
        world.ask_for(Verb.SKIP, chosen, expected=3)
    assert (refusal.value.reason, refusal.value.what) == (
        "EXPECTATION_MISSED",
        "it would be accepted for 2 operations, not 3",
    )
    assert world.one("SELECT count(*) AS n FROM control_requests").n == 0
    done = world.ask_for(Verb.SKIP, chosen, expected=2)
    assert [line.deployment for line in done.lines] == ["d1", "d5"]


def test_a_wish_about_an_apply_that_is_not_there(world: World) -> None:
    """G7: nothing is written, nothing settled."""
    with pytest.raises(NotFound):
        world.store.settle_uncalled(world.apply("A")[:-1] + "x", 10)  # type: ignore[arg-type]
