"""Following one operation: it ends by its own outcome, also while its siblings go on, and not by theirs."""

import json
import os
import pty
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from tern.cli import picture, watch
from tern.domain.control import Verb
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tests.cli.conftest import Tern
from tests.flows.steps import MANUAL, PARALLEL, engine_says, running
from tests.world import World

SOON = ("--timeout", "0.3")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.05)


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("failed", 10), ("cancelled", 11), ("stopped", 12)]
)
def test_it_ends_with_its_own_outcome_while_its_siblings_run(
    state: str, code: int, world: World, tern: Tern
) -> None:
    running(world)
    engine_says(world, "A", state, error="disk full" if state == "failed" else "")
    name = f"{world.last}/A"
    done = tern("watch", name)
    assert done.code == code
    assert f"{name} is {state}" in done.out.splitlines()[-1]
    assert "B" not in done.out
    assert tern("wait", name).code == code
    assert tern("wait", name, "--for", "completed").code == code
    assert tern("wait", f"{world.last}/B", *SOON).code == 124


def test_a_failed_sibling_is_not_its_outcome(world: World, tern: Tern) -> None:
    running(world)
    engine_says(world, "A", "completed")
    for name in ("B", "C"):
        engine_says(world, name, "failed", error="disk full")
    assert tern("watch", str(world.last)).code == 10
    assert tern("watch", f"{world.last}/A").code == 0
    assert tern("wait", f"{world.last}/A", "--for", "settled").code == 0


def test_what_waits_for_its_turn_is_followed_until_that_needs_somebody(world: World, tern: Tern) -> None:
    """Rolling: C waits for A. While A runs nobody is needed; once A's failure pauses the rollout, somebody is."""
    world.apply(policy=Policy(on_failure=OnFailure.PAUSE))
    world.answer_bells()
    name = f"{world.last}/C"
    assert tern("wait", name, *SOON).code == 124
    engine_says(world, "A", "failed", error="disk full")
    world.run(until=lambda: world.apply_row().state == "paused")
    done = tern("watch", name)
    assert done.code == 13
    assert f"{name} is pending, and somebody must act: tern explain {name}" in done.out
    assert tern("wait", name, "--for", "paused").code == 13
    assert tern("wait", f"{world.last}/A", "--for", "paused").code == 10


def test_a_drained_one_needs_somebody_while_its_siblings_run(world: World, tern: Tern) -> None:
    world.apply(policy=PARALLEL)
    world.store.set_drained("A", drained=True)
    world.answer_bells()
    assert tern("wait", str(world.last), *SOON).code == 124
    done = tern("watch", f"{world.last}/A")
    assert done.code == 13
    assert "needs you: its deployment is drained: tern deployments undrain A" in done.out


def test_ready_is_its_own_readiness(world: World, tern: Tern) -> None:
    running(world, policy=MANUAL)
    engine_says(world, "B", "waiting_for_cutover")
    name = f"{world.last}/B"
    assert tern("wait", name, "--for", "ready").code == 14
    done = tern("watch", name)
    assert done.code == 14
    assert f"tern cutover {name}" in done.out
    assert tern("wait", f"{world.last}/A", "--for", "ready", *SOON).code == 124


def test_one_whose_cutover_has_not_its_turn_is_not_ready(world: World, tern: Tern) -> None:
    world.apply(policy=Policy(cutover=Cutover.MANUAL, copy=Copy.BARRIER))
    world.answer_bells()
    for name in ("A", "B"):
        engine_says(world, name, "waiting_for_cutover")
    assert tern("wait", f"{world.last}/B", "--for", "ready", *SOON).code == 124
    engine_says(world, "C", "waiting_for_cutover")
    assert tern("wait", f"{world.last}/B", "--for", "ready").code == 13
    assert tern("wait", f"{world.last}/A", "--for", "ready").code == 14


def test_stopped_is_told_by_the_rule_of_the_stop(world: World, tern: Tern) -> None:
    running(world)
    name = f"{world.last}/A"
    assert tern("wait", name, "--for", "stopped", *SOON).code == 124
    world.ask(Verb.STOP, "A")
    world.run(until=lambda: world.state("A") == "stopped")
    assert tern("wait", name, "--for", "stopped").code == 0
    engine_says(world, "B", "completed")
    assert tern("wait", f"{world.last}/B", "--for", "stopped").code == 5


def test_a_skipped_one_has_ended_without_the_change(world: World, tern: Tern) -> None:
    world.apply()
    world.ask(Verb.SKIP, "C")
    world.answer_bells()
    assert tern("wait", f"{world.last}/C").code == 11


def test_each_change_is_a_line_and_nothing_else_is(world: World, tern: Tern) -> None:
    running(world)
    timer = _later(lambda: engine_says(world, "A", "completed"))
    done = tern("watch", f"{world.last}/A")
    timer.join()
    lines = [line.partition("  ")[2] for line in done.out.splitlines()]
    assert [line.partition("  ")[2].split("  ")[0] for line in lines[:-1]] == ["◐ running", "✔ completed"]


def test_a_stream_and_a_document_are_those_of_the_operation(world: World, tern: Tern) -> None:
    running(world)
    engine_says(world, "A", "completed")
    name = f"{world.last}/A"
    (line,) = tern("watch", name, "--jsonl").out.splitlines()
    told = json.loads(line)
    assert (told["kind"], told["data"]["scope"], told["data"]["state"]) == ("operation", name, "completed")
    document = tern("wait", name, "--json").document
    assert (document["kind"], document["data"]["scope"]) == ("operation", name)
    late = tern("wait", f"{world.last}/B", "--json", *SOON)
    assert (late.code, late.data["state"]) == (124, "running")
    assert f"{world.last}/B was not settled within 0.3 s" in late.err


def test_what_is_not_there_is_no_watch(world: World, tern: Tern) -> None:
    running(world)
    for verb in ("watch", "wait"):
        gone = tern(verb, f"{world.last}/zz")
        assert (gone.code, "has no operation on 'zz'" in gone.err) == (3, True)


def test_interrupting_says_how_to_come_back(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(world)
    monkeypatch.setattr(time, "sleep", _interrupt)
    done = tern("watch", f"{world.last}/A")
    assert (done.code, f"tern watch {world.last}/A" in done.err) == (130, True)


def test_on_a_terminal_it_is_drawn_and_stays(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(world)
    engine_says(world, "A", "completed")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        right = picture.Console

        def on_terminal(**options: object) -> object:
            return right(**{**options, "file": terminal, "force_terminal": True, "width": 80, "height": 24})

        monkeypatch.setattr(picture, "Console", on_terminal)
        assert tern("watch", f"{world.last}/A").code == 0
    told = everything(master)
    assert told.rstrip().endswith(f"{world.last}/A is completed.")
    assert "remote id" in told


def everything(master: int) -> str:
    """All that was written to a terminal that is closed by now: one read may bring a part of it."""
    found = b""
    with os.fdopen(master, "rb", buffering=0) as terminal, suppress(OSError):
        while part := terminal.read(65536):
            found += part
    return found.decode()


def _interrupt(_seconds: float) -> None:
    raise KeyboardInterrupt


def _later(what: Callable[[], object], seconds: float = 0.4) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.start()
    return timer
