"""Following: ends with the outcome's code, says every change once, and never touches anything."""

import json
import threading
import time
from collections.abc import Callable

import pytest

from tern.cli import watch
from tern.domain.control import Verb
from tern.domain.policy import Copy, Cutover, OnFailure, Policy
from tern.ports import StorageUnavailable
from tern.store.reading import Reading
from tests.cli.conftest import Tern
from tests.flows.gone import goes, pass_long
from tests.flows.steps import engine_says
from tests.world import World

PARALLEL = Policy(copy=Copy.PARALLEL)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "INTERVAL_S", 0.05)


def later(what: Callable[[], object], seconds: float = 0.4) -> threading.Timer:
    timer = threading.Timer(seconds, what)
    timer.start()
    return timer


def settle(world: World, state: str) -> None:
    """Every engine says the same, and workers see it."""
    world.answer_bells()
    for engine in world.engines.values():
        for remote_id in engine.jobs.by_id:
            engine.set_state(remote_id, state, error="disk full" if state == "failed" else "")
    world.run(until=lambda: world.apply_row().state == state)


@pytest.mark.parametrize(
    ("state", "code"), [("completed", 0), ("failed", 10), ("cancelled", 11), ("stopped", 12)]
)
def test_watch_and_wait_end_with_the_outcome_s_code(state: str, code: int, world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=PARALLEL)
    settle(world, state)
    assert tern("watch", apply_id).code == code
    assert tern("wait", apply_id).code == code
    assert tern("wait", apply_id, "--for", "completed").code == code


def test_watch_tells_each_change_on_a_line_of_its_own(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=PARALLEL)
    timer = later(lambda: settle(world, "completed"))
    done = tern("watch", apply_id)
    timer.join()
    assert done.code == 0
    lines = done.out.splitlines()
    assert any(line.endswith(f"{apply_id}  pending, 0 of 3 completed") for line in lines)
    for name in ("A", "B", "C"):
        assert sum(f"  {name}  ✔ completed" in line for line in lines) == 1
    assert lines[-1] == f"{apply_id} is completed on 3 deployments."


def test_watch_ends_where_a_person_must_act_and_says_how(world: World, tern: Tern) -> None:
    apply_id = world.apply("A", policy=Policy(cutover=Cutover.MANUAL))
    settle(world, "waiting_for_cutover")
    done = tern("watch", apply_id)
    assert done.code == 14
    assert f"tern cutover {apply_id}/A" in done.out
    assert tern("wait", apply_id, "--for", "ready").code == 14
    assert tern("wait", apply_id, "--for", "completed").code == 14


def test_watch_ends_where_a_rollout_is_paused_and_says_what_opens_it(world: World, tern: Tern) -> None:
    """§3, §6: exit 13; the release is printed with its consequence, and every state shows who is next."""
    apply_id = world.apply(policy=Policy(Copy.PARALLEL, OnFailure.PAUSE, max_parallel=1))
    world.answer_bells()
    world.engines["A"].set_state(str(world.remote_id("A")), "failed", error="no space left")
    world.run(until=lambda: world.apply_row().state == "paused")
    done = tern("watch", apply_id)
    assert done.code == 13
    assert f"tern release {apply_id}" in done.out
    assert "no space left" in done.out
    assert tern("wait", apply_id, "--for", "paused").code == 13
    shown = tern("get", apply_id)
    assert "1 at once, pause on failure" in shown.out
    assert f"tern release {apply_id}" in shown.out


def test_a_stream_is_one_document_a_line(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=PARALLEL)
    timer = later(lambda: settle(world, "completed"))
    done = tern("watch", apply_id, "--jsonl")
    timer.join()
    documents = [json.loads(line) for line in done.out.splitlines()]
    assert [document["data"]["state"] for document in documents][-1] == "completed"
    assert len(documents) >= 2
    assert {document["schema"] for document in documents} == {"tern.cli/v1"}


def test_interrupting_a_watch_leaves_the_rollout_alone(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_id = world.apply()
    before = world.picture()
    monkeypatch.setattr(time, "sleep", _interrupt)
    done = tern("watch", apply_id)
    assert done.code == 130
    assert f"Come back with: tern watch {apply_id}" in done.err
    assert world.picture() == before


def test_a_database_that_is_away_for_a_while_ends_no_watch(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_id = world.apply(policy=PARALLEL)
    settle(world, "completed")
    looks = iter([False, True, True, False])
    right = Reading.apply

    def apply(self: Reading, asked: object) -> object:
        if next(looks, False):
            away = "the server is restarting"
            raise StorageUnavailable(away)
        return right(self, asked)  # type: ignore[arg-type]

    monkeypatch.setattr(Reading, "apply", apply)
    done = tern("watch", apply_id)
    assert (done.code, "still trying" in done.err) == (0, True)


def test_waiting_too_long_is_its_own_exit_code_and_shows_the_last_look(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    began = time.monotonic()
    done = tern("wait", apply_id, "--timeout", "0.3", "--json")
    assert done.code == 124
    assert 0.2 < time.monotonic() - began < 10
    assert done.data["state"] == "pending"


def test_wait_for_a_stop_ends_when_it_is_stopped(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.answer_bells()
    world.ask(Verb.STOP)
    timer = later(lambda: world.run(until=lambda: world.state("A") == "stopped"))
    assert tern("wait", apply_id, "--for", "stopped", "--timeout", "20").code == 0
    timer.join()
    assert tern("wait", apply_id).code == 12


def test_wait_for_a_stop_ends_by_the_rule_of_the_stop(world: World, tern: Tern) -> None:
    """A had completed before, B stands, C outran it: done somewhere. Then C is failed, which stands as well."""
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    engine_says(world, "A", "completed")
    world.ask(Verb.STOP)
    world.engines["C"].set_state(str(world.remote_id("C")), "completed")
    world.run(until=lambda: (world.state("B"), world.state("C")) == ("stopped", "completed"))
    assert tern("wait", apply_id, "--for", "stopped").code == 6
    assert tern("wait", apply_id, "--for", "stopped", "--json").data["exit_code"] == 12


@pytest.mark.parametrize(
    ("said", "code"), [({"A": "failed", "B": "cancelled"}, 0), ({"A": "completed", "B": "completed"}, 5)]
)
def test_wait_for_a_stop_that_nobody_asks_for(
    said: dict[str, str], code: int, world: World, tern: Tern
) -> None:
    """What has come to stand by itself stands; what has completed has not."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert tern("wait", apply_id, "--for", "stopped", "--timeout", "0.3").code == 124
    for name, state in said.items():
        engine_says(world, name, state)
    assert tern("wait", apply_id, "--for", "stopped").code == code


def test_wait_for_a_stop_of_which_nobody_knows(world: World, tern: Tern) -> None:
    """As soon as nothing is on its way any more, and not before."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    goes(world, "A")
    pass_long(world, 11)
    world.ask(Verb.STOP, "B")
    assert tern("wait", apply_id, "--for", "stopped", "--timeout", "0.3").code == 124
    world.run(until=lambda: world.state("B") == "stopped")
    assert tern("wait", apply_id, "--for", "stopped", "--timeout", "20").code == 15


def test_what_is_not_there_is_no_watch(tern: Tern) -> None:
    assert tern("watch", "apl-0").code == 3
    assert tern("wait", "apl-0").code == 3
    assert tern("watch", "nonsense").code == 2
    assert tern("wait", "apl-0", "--for", "nonsense").code == 2


def _interrupt(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_a_wait_that_found_what_it_waited_for_says_why_it_does_not_end_with_0(
    world: World, tern: Tern
) -> None:
    """The outcome's code it is, also then: 13 is paused."""
    apply_id = world.apply("A", "B", policy=Policy(on_failure=OnFailure.PAUSE))
    world.answer_bells()
    engine_says(world, "A", "failed")
    done = tern("wait", apply_id, "--for", "paused")
    assert done.code == 13
    assert "exit code 13: a person has to act, which is what was waited for (paused)" in done.err
    assert tern("wait", apply_id, "--for", "paused", "--json").err == ""
