"""Two wishes on one operation at the same instant, for each pair that can be open together (§4, §7).

Both were accepted on rows as they were a moment ago, and two drivers take them up behind the same lock: one driver at
a time, no deadlock, and in the end every wish has its fate and the row says what the engine says (G8, G12, S14).
"""

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress

import pytest

from tern.domain.control import Verb
from tern.domain.errors import TernError
from tern.domain.policy import Copy, OnFailure, Policy
from tern.ports import DeliveryClaimed, DeliverySettled, DispatchClaimed, NotClaimed
from tests.faults.behaviour import fail
from tests.flows.steps import committed_late, engine_says, open_wishes, running, settle, stopped, waiting
from tests.invariants import assert_safe
from tests.store.conftest import QueueBehind
from tests.world import World

APPLY_LOCK = "SELECT 1 FROM applies ORDER BY id FOR UPDATE"
GOES_ON = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)


def undispatched(world: World) -> None:
    """Nobody has claimed it."""
    world.apply("A", "B", policy=GOES_ON)
    world.forget_bells()


def never_began(world: World) -> None:
    """Stopped before anything was sent."""
    undispatched(world)
    world.ask(Verb.STOP, "A")
    settle(world)


def runs(world: World) -> None:
    running(world, "A", "B", policy=GOES_ON)


def stands_still(world: World) -> None:
    stopped(world, "A", "B", policy=GOES_ON)


def waits(world: World) -> None:
    waiting(world, "A", "B")


def can_be_reverted(world: World) -> None:
    runs(world)
    engine_says(world, "A", "revert_window")


def was_refused(world: World) -> None:
    """Failed without an id."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", policy=GOES_ON)
    world.answer_bells()
    assert world.state("A") == "failed"


WELCOME: Mapping[Callable[[World], None], tuple[Verb, ...]] = {
    undispatched: (Verb.STOP, Verb.CANCEL, Verb.SKIP, Verb.START),
    never_began: (Verb.START, Verb.SKIP, Verb.CANCEL, Verb.STOP),
    runs: (Verb.STOP, Verb.CANCEL, Verb.VOLUME, Verb.START),
    stands_still: (Verb.START, Verb.STOP, Verb.CANCEL),
    waits: (Verb.CUTOVER, Verb.STOP, Verb.CANCEL, Verb.VOLUME),
    can_be_reverted: (Verb.REVERT, Verb.SKIP_REVERT, Verb.STOP, Verb.CANCEL),
    was_refused: (Verb.RETRY, Verb.STOP, Verb.CANCEL),
}
PAIRS = [
    pytest.param(given, first, second, id=f"{given.__name__}-{first}-{second}")
    for given, verbs in WELCOME.items()
    for first, second in itertools.permutations(verbs, 2)
]
FORWARD = {"apply", "start", "cutover", "revert", "skip-revert"}


@pytest.mark.parametrize(("given", "first", "second"), PAIRS)
def test_a_pair_of_wishes(
    given: Callable[[World], None], first: Verb, second: Verb, world: World, queue_behind: QueueBehind
) -> None:
    """G8, G12, S14: and none of it is done twice."""
    given(world)
    before = len(world.engines["A"].effects())
    for verb in (first, second):
        committed_late(world, verb, "A")
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
    settle(world, rounds=30, step_s=11)
    assert open_wishes(world) == []
    # Where the change is live, a cancel comes too late, as one of what has failed does.
    if Verb.CANCEL in {first, second} and given not in {was_refused, can_be_reverted}:
        assert world.state("A") == "cancelled"
    _agree(world)
    done = [effect.kind for effect in world.engines["A"].effects()[before:]]
    assert all(one != two for one, two in itertools.pairwise(done)), done
    assert_safe(world)


def _agree(world: World) -> None:
    """The row says what the engine says."""
    remote_id = world.remote_id("A")
    if remote_id is None:
        assert world.state("A") in {"pending", "stopped", "cancelled", "skipped", "failed", "running"}
    else:
        assert world.engines["A"].job(remote_id).state == world.state("A")


@pytest.mark.parametrize("verb", [Verb.SKIP, Verb.STOP, Verb.CANCEL])
@pytest.mark.parametrize("claim_first", [True, False])
def test_a_claim_and_what_ends_it(
    verb: Verb, world: World, queue_behind: QueueBehind, *, claim_first: bool
) -> None:
    """ST10, G9: not claimed, or the last look says no; what was promised to be left behind never begins."""
    undispatched(world)
    committed_late(world, verb, "A")
    operation_id, name = world.operation("A").id, world.name("A")
    store = world.worker("w1").store

    def claim() -> bool:
        claimed = store.claim_dispatch(operation_id, name)
        return isinstance(claimed, DispatchClaimed) and store.may_go_forward(claimed.claim)

    def settles() -> int:
        return world.worker("w2").store.settle_uncalled(world.last, 10)

    pair = [claim, settles] if claim_first else [settles, claim]
    answers = queue_behind(APPLY_LOCK, *pair)
    assert answers[0 if claim_first else 1] is False
    world.pass_time(31)
    settle(world)
    assert world.engines["A"].calls("Apply") == []
    assert world.state("A") == {"skip": "skipped", "stop": "stopped", "cancel": "cancelled"}[verb]
    assert_safe(world)


@pytest.mark.parametrize("given", [never_began, was_refused])
def test_two_rollouts_take_one_target(
    given: Callable[[World], None], world: World, queue_behind: QueueBehind
) -> None:
    """G13, RA1: back in line here, or a new one there; never both."""
    given(world)
    first = world.last
    verb = Verb.RETRY if given is was_refused else Verb.START
    engine_of_b = world.remote_id("B")
    if engine_of_b is not None:
        engine_says(world, "B", "completed")
    else:
        world.ask(Verb.CANCEL, "B")
        settle(world)
    world.sweep()
    world.ask(verb, "A")
    world.forget_bells()

    def takes_it() -> bool:
        with suppress(TernError):
            world.apply("A", policy=GOES_ON)
            return True
        return False

    answers = queue_behind(
        "LOCK TABLE target_reservations IN EXCLUSIVE MODE",
        lambda: world.worker("w1").store.settle_uncalled(first, 10),
        takes_it,
    )
    assert answers[0] == int(not answers[1])
    world.forget_bells()
    world.last = first
    assert world.state("A") == ("failed" if given is was_refused else "stopped") if answers[1] else "pending"
    assert_safe(world)


def test_two_settle_the_same_wishes(world: World, queue_behind: QueueBehind) -> None:
    """G8: each operation once, with one event."""
    undispatched(world)
    world.ask(Verb.SKIP, "A", "B")
    world.forget_bells()
    answers = queue_behind(
        APPLY_LOCK,
        *[
            lambda owner=owner: world.worker(owner).store.settle_uncalled(world.last, 10)
            for owner in ("w1", "w2")
        ],
    )
    assert sorted(answers) == [0, 2]
    assert [event.event for event in world.events("A")] == ["skip", "skip_acknowledged"]
    assert world.apply_row().state == "cancelled"
    assert_safe(world)
