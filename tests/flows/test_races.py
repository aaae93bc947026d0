"""Two people, or a person and a driver, at the same instant: real threads, real locks, and then quiet.

Whatever the interleaving: a forward call is begun only by a driver whose last look came before the stop's commit,
nothing is doubled, every wish ends, and the row says what the engine says (G8, G9, S16).
"""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tern.domain.control import Receipt, Verb
from tern.domain.errors import Refused
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.selection import Selection
from tern.flows.accept import ask
from tern.ports import Asked, Ports, StorageUnavailable
from tests.faults.behaviour import fail
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    dispatch,
    drive,
    engine_says,
    held_targets,
    look,
    methods,
    open_wishes,
    running,
    settle,
    stopped,
    through,
    waiting,
    wishes,
)
from tests.world import QueuedBells, World

ROUNDS = 2


@dataclass
class Witness:
    """What the drivers did and when, seen from the ports."""

    looks: list[tuple[int, float, bool]] = field(default_factory=list)
    calls: list[tuple[int, float, str]] = field(default_factory=list)
    stopped_at: list[float] = field(default_factory=list)

    def hook(self, name: str, call: Callable[[], Any]) -> Any:
        at = time.monotonic()
        if name in {"apply", "start", "cutover", "revert", "skip_revert", "volume"}:
            self.calls.append((threading.get_ident(), at, name))
        result = call()
        if name == "may_go_forward":
            self.looks.append((threading.get_ident(), at, bool(result)))
        return result

    def assert_no_forward_call_after_a_stop(self, *, started_again: bool) -> None:
        """Each call follows a look of its own thread that began before any stop was committed, or after a start."""
        for thread, at, name in self.calls:
            looks = [look for look in self.looks if look[0] == thread and look[1] <= at]
            assert looks, f"{name} without a look"
            _, looked_at, allowed = looks[-1]
            assert allowed, f"{name} after a look that said no"
            overtaken = any(stop < looked_at for stop in self.stopped_at)
            assert not overtaken or started_again, f"{name} was begun after a stop"


def worker(world: World, owner: str, witness: Witness) -> Ports:
    """A worker with bells of its own."""
    parts = world.worker(owner)
    return through(Ports(parts.store, parts.engines, QueuedBells(), parts.chance), witness.hook)


def hear(world: World, ports: Ports) -> None:
    """Answers the worker's own bells."""
    queue = ports.bells.queue  # type: ignore[attr-defined]
    while queue:
        kind, given = queue.popleft()
        world.do(kind, *given, ports=ports)


def wish(verb: Verb) -> Callable[[World, Ports, Witness], None]:
    """Somebody asks, and the worker that hears the bells drives."""

    def act(world: World, ports: Ports, witness: Witness) -> None:
        volume = 3 if verb is Verb.VOLUME else None
        receipt = ask(Asked(verb, world.last, Selection(("A",)), "bob", "now", volume=volume), ports)
        if verb in {Verb.STOP, Verb.CANCEL} and any(
            line.outcome is Receipt.ACCEPTED for line in receipt.lines
        ):
            witness.stopped_at.append(time.monotonic())
        hear(world, ports)

    act.__name__ = verb.value
    return act


def dispatching(world: World, ports: Ports, witness: Witness) -> None:
    del witness
    dispatch(world, "A", ports)
    hear(world, ports)


def polling(world: World, ports: Ports, witness: Witness) -> None:
    del witness
    for _ in range(4):
        look(world, "A", ports)


def driving(verb: Verb) -> Callable[[World, Ports, Witness], None]:
    """A worker that keeps hearing the same bell."""

    def act(world: World, ports: Ports, witness: Witness) -> None:
        del witness
        for _ in range(3):
            drive(world, verb, "A", ports)
        hear(world, ports)

    act.__name__ = f"driving_{verb.value}"
    return act


def undispatched(world: World) -> None:
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    # the witness can't tell operations apart, so nobody has a reason to call about B
    dispatch(world, "B")
    world.forget_bells()


def dispatched(world: World) -> None:
    running(world, "A", "B")


def before_cutover(world: World) -> None:
    waiting(world, "A", "B", policy=MANUAL)


def in_its_window(world: World) -> None:
    dispatched(world)
    engine_says(world, "A", "revert_window")


def was_refused(world: World) -> None:
    """Failed without an id, and its siblings work."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    world.answer_bells()


def stopped_before(world: World) -> None:
    stopped(world, "A", "B")


def cutover_asked(world: World) -> None:
    before_cutover(world)
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()


def start_asked(world: World) -> None:
    stopped_before(world)
    world.ask(Verb.START, "A")
    world.forget_bells()


STOP, START, CUTOVER, CANCEL = (wish(verb) for verb in (Verb.STOP, Verb.START, Verb.CUTOVER, Verb.CANCEL))
RETRY, SKIP, REVERT, SKIP_REVERT, VOLUME = (
    wish(verb) for verb in (Verb.RETRY, Verb.SKIP, Verb.REVERT, Verb.SKIP_REVERT, Verb.VOLUME)
)
PAIRS = [
    (undispatched, STOP, dispatching),
    (undispatched, CANCEL, dispatching),
    (undispatched, STOP, CANCEL),
    (undispatched, dispatching, dispatching),
    (undispatched, STOP, START),
    (dispatched, STOP, START),
    (dispatched, STOP, CANCEL),
    (dispatched, STOP, STOP),
    (dispatched, STOP, polling),
    (dispatched, CANCEL, polling),
    (stopped_before, START, STOP),
    (stopped_before, START, CANCEL),
    (stopped_before, START, START),
    (stopped_before, START, polling),
    (start_asked, driving(Verb.START), STOP),
    (start_asked, driving(Verb.START), CANCEL),
    (start_asked, driving(Verb.START), driving(Verb.START)),
    (before_cutover, CUTOVER, STOP),
    (before_cutover, CUTOVER, CANCEL),
    (before_cutover, CUTOVER, CUTOVER),
    (before_cutover, CUTOVER, polling),
    (cutover_asked, driving(Verb.CUTOVER), STOP),
    (cutover_asked, driving(Verb.CUTOVER), CANCEL),
    (cutover_asked, driving(Verb.CUTOVER), driving(Verb.CUTOVER)),
    (undispatched, SKIP, dispatching),
    (undispatched, SKIP, STOP),
    (undispatched, SKIP, CANCEL),
    (undispatched, SKIP, SKIP),
    (was_refused, RETRY, STOP),
    (was_refused, RETRY, CANCEL),
    (was_refused, RETRY, RETRY),
    (was_refused, RETRY, dispatching),
    (in_its_window, REVERT, SKIP_REVERT),
    (in_its_window, REVERT, STOP),
    (in_its_window, REVERT, CANCEL),
    (in_its_window, REVERT, REVERT),
    (in_its_window, REVERT, polling),
    (in_its_window, SKIP_REVERT, STOP),
    (dispatched, VOLUME, STOP),
    (dispatched, VOLUME, VOLUME),
    (before_cutover, VOLUME, CUTOVER),
]


def _name(of: Any) -> str:
    return str(of.__name__)


@pytest.mark.parametrize(("given", "one", "other"), PAIRS, ids=_name)
def test_a_pair_of_verbs_at_the_same_instant(world: World, given: Any, one: Any, other: Any) -> None:
    """G8, G9, S14, S16 for this pair, several times over."""
    for number in range(ROUNDS):
        given(world)
        engine = world.engines["A"]
        before, wished = len(engine.effects()), len(wishes(world))
        witness = Witness()
        barrier = threading.Barrier(2)
        broken: list[BaseException] = []

        def run(
            act: Any,
            owner: str,
            *,
            barrier: threading.Barrier = barrier,
            witness: Witness = witness,
            broken: list[BaseException] = broken,
        ) -> None:
            ports = worker(world, owner, witness)
            barrier.wait()
            try:
                act(world, ports, witness)
            except (Refused, StorageUnavailable):
                pass
            except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
                broken.append(error)

        threads = [
            threading.Thread(target=run, args=(act, f"worker-{number}-{side}"))
            for side, act in enumerate((one, other))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert broken == []
        _assert_quiet(world, witness, before, wished, number + 1 if given is was_refused else 0)


def _assert_quiet(world: World, witness: Witness, before: int, wished: int, refused: int) -> None:
    world.forget_bells()
    settle(world, rounds=60, step_s=6)
    # what was unanswered or waited for its turn
    for _ in range(2):
        world.pass_time(31)
        world.sweep()
    # which of two wishes was first, the rows know best
    last = [
        verb
        for name, verb, _ in wishes(world)[wished:]
        if name == "A" and verb in {"stop", "cancel", "start"}
    ]
    witness.assert_no_forward_call_after_a_stop(started_again=last[-1:] == ["start"])
    assert open_wishes(world) == []
    engine = world.engines["A"]
    done = [effect.kind for effect in engine.effects()[before:]]
    assert done.count("apply") <= 1
    assert done.count("cutover") <= 1
    assert all(one != two for one, two in itertools.pairwise(done)), done
    state, remote_id = world.state("A"), world.remote_id("A")
    if remote_id is None:
        assert state in {"stopped", "cancelled", "pending", "skipped", "failed"}
        assert "apply" not in done
    else:
        assert engine.job(remote_id).state == state
    asked = methods(world, "A")
    assert asked.count("Apply") == len(engine.effects("apply")) + refused
    world.ask(Verb.CANCEL)
    settle(world)
    world.sweep()
    assert held_targets(world) == set()


def test_a_stop_while_the_last_one_finishes_is_never_stuck(world: World) -> None:
    """CL7's twin: verdict and wish at the same instant."""
    for _ in range(ROUNDS):
        running(world, "A")
        engine_says(world, "A", "completed", looks=False)
        witness = Witness()
        barrier = threading.Barrier(2)

        def stop(barrier: threading.Barrier = barrier, witness: Witness = witness) -> None:
            barrier.wait()
            STOP(world, worker(world, "one", witness), witness)

        def finish(barrier: threading.Barrier = barrier, witness: Witness = witness) -> None:
            barrier.wait()
            polling(world, worker(world, "two", witness), witness)

        threads = [threading.Thread(target=stop), threading.Thread(target=finish)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        settle(world)
        assert (world.state("A"), world.apply_row().state) == ("completed", "completed")
        assert held_targets(world) == set()
