"""Every verb as it is typed: the same selectors, the same dry run, the same receipt."""

import shlex
import threading
import time
from types import SimpleNamespace

import pytest

from tern.cli import control
from tern.domain.control import Verb
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.flows.steps import engine_says
from tests.world import World

WHY = ("--reason", "the night is long")
PARALLEL = Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE)
SELECTING = [verb.value for verb in Verb if verb is not Verb.RELEASE]


def typed(verb: str, subject: str, *selectors: str) -> tuple[str, ...]:
    """The words of one control."""
    level = ("3",) if verb == "volume" else ()
    return (verb, subject, *level, *selectors, *WHY)


def outcomes(data: dict[str, object]) -> dict[str, str]:
    targets = data["targets"]
    assert isinstance(targets, list)
    return {target["deployment"]: target["outcome"] for target in targets}


def requests(world: World) -> int:
    return int(world.one("SELECT count(*) AS n FROM control_requests").n)


@pytest.mark.parametrize("verb", SELECTING)
def test_every_selector_chooses_the_same_operations_for_every_verb(
    verb: str, world: World, tern: Tern
) -> None:
    """Operation, deployments, label, wave, state, all, except: selected where it is accepted, and counted there."""
    world.write("""UPDATE deployments SET labels = '{"region": "eu"}' WHERE name IN ('A', 'C')""")
    waves = (Wave(deployments=("A",)), Wave(deployments=("B", "C")))
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL, waves=waves))
    world.answer_bells()
    assert [world.state(name) for name in "ABC"] == ["running", "pending", "pending"]
    for selectors, chosen in (
        (("--deployment", "A,B"), ["A", "B"]),
        (("--deployment", "C", "--deployment", "A"), ["A", "C"]),
        (("-l", "region=eu"), ["A", "C"]),
        (("--wave", "2"), ["B", "C"]),
        (("--wave", "2", "-l", "region=eu"), ["C"]),
        (("--state", "pending"), ["B", "C"]),
        (("--all",), ["A", "B", "C"]),
        (("--all", "--except", "B"), ["A", "C"]),
    ):
        told = tern(*typed(verb, apply_id, *selectors), "--dry-run", "--json")
        assert list(outcomes(told.data)) == chosen, selectors
        number = ("--expect", str(len(chosen)))
        assert tern(*typed(verb, apply_id, *selectors), "--dry-run", *number).code in {0, 5, 6}
        missed = tern(*typed(verb, apply_id, *selectors), "--expect", "7", "--json")
        assert (missed.code, missed.data["reason"]) == (5, "EXPECTATION_MISSED")
    assert list(outcomes(tern(*typed(verb, f"{apply_id}/B"), "--dry-run", "--json").data)) == ["B"]
    assert requests(world) == 0


@pytest.mark.parametrize("verb", [verb for verb in SELECTING if verb not in {"stop", "cancel"}])
def test_what_is_not_a_stop_needs_a_choice_among_several(verb: str, world: World, tern: Tern) -> None:
    """G7: nothing is sent and nothing written, and the operations are named."""
    apply_id = world.apply()
    for selectors in ((), ("--except", "A")):
        done = tern(*typed(verb, apply_id, *selectors))
        assert done.code == 5
        assert "it has 3 operations" in done.err
        assert "A (pending), B (pending), C (pending)" in done.err
    assert requests(world) == 0


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("volume", ("AP", "0")),
        ("volume", ("AP", "12")),
        ("volume", ("AP",)),
        ("release", ("AP", "--all")),
        ("release", ("AP", "--expect", "1")),
        ("skip", ("AP", "--wave", "0")),
        ("retry", ("AP/A", "--wave", "1")),
        ("retry", ("AP", "--all", "--wave", "1")),
    ],
)
def test_what_can_not_be_read_is_told_so(verb: str, words: tuple[str, ...], world: World, tern: Tern) -> None:
    apply_id = world.apply()
    given = [word.replace("AP", apply_id) for word in words]
    assert tern(verb, *given, *WHY).code == 2
    assert requests(world) == 0


def test_a_retry_is_accepted_partly_and_says_why_not(world: World, tern: Tern) -> None:
    """Exit 6: one outcome per operation; the one that has an id is told the command for its rest."""
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    apply_id = world.apply(policy=PARALLEL)
    world.answer_bells()
    engine_says(world, "B", "failed", error="disk full")
    done = tern("retry", apply_id, "--state", "failed", *WHY, "--json")
    assert done.code == 6
    assert outcomes(done.data) == {"A": "accepted", "B": "refused"}
    assert f"tern apply --rest-of {apply_id}/B" in done.data["targets"][1]["reason"]
    world.run(until=lambda: world.state("A") == "running", rounds=3)
    again = tern("retry", f"{apply_id}/A", *WHY)
    assert (again.code, "already: it is running" in again.out) == (0, True)


def test_the_command_for_a_new_apply_can_be_copied_as_it_stands(world: World, tern: Tern) -> None:
    """D18: what is refused here is done there, once nobody holds the target any more."""
    apply_id = world.apply("A")
    world.answer_bells()
    engine_says(world, "A", "failed", error="disk full")
    world.sweep()
    (target,) = tern("retry", apply_id, *WHY, "--json").data["targets"]
    command = shlex.split(target["reason"].partition("`tern ")[2].partition("`")[0])
    (group,) = tern(*command, "--json").data["groups"]
    done = tern(*shlex.split(group["command"].replace("'…'", "mended"))[1:], "--json")
    assert (done.code, done.data["deployments"]) == (0, ["A"])
    assert done.data["apply_id"] != apply_id


def test_what_an_engine_said_to_a_wish_is_shown_until_somebody_asks_again(world: World, tern: Tern) -> None:
    """PO2: the words name the way out of a job that its engine does not know."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    for method in ("Progress", "BatchProgress", "Cancel"):
        world.engines["A"].always(method, fail("NOT_FOUND"))
    assert tern("cancel", f"{apply_id}/A", *WHY).code == 0
    world.run(until=lambda: world.delivery("A", Verb.CANCEL).refusals > 0, step_s=4)
    told = f"tern resolve {apply_id}/A --as ended"
    assert told in tern("get", f"{apply_id}/A").out
    world.run(until=lambda: world.delivery("A", Verb.CANCEL).refusals > 2, step_s=30)
    assert told in tern("get", f"{apply_id}/A").out


def test_a_skip_is_waited_for(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=Policy(copy=Copy.ROLLING))
    world.answer_bells()
    late = threading.Timer(0.5, lambda: world.run(until=lambda: world.state("C") == "skipped"))
    late.start()
    done = tern("skip", apply_id, "--deployment", "B,C", *WHY, "--wait")
    late.join()
    assert done.code == 0
    assert done.out.count("accepted, acknowledged") == 2


def test_a_release_is_answered_for_the_whole_apply(world: World, tern: Tern) -> None:
    world.engines["A"].script("Apply", fail("FAILED_PRECONDITION"))
    apply_id = world.apply(policy=Policy(copy=Copy.ROLLING, on_failure=OnFailure.PAUSE))
    world.answer_bells()
    world.sweep()
    assert world.apply_row().state == "paused"
    rehearsed = tern("release", apply_id, *WHY, "--dry-run")
    assert (rehearsed.code, f"{apply_id}  would be accepted" in rehearsed.out) == (0, True)
    late = threading.Timer(0.5, lambda: world.run(until=lambda: world.state("B") == "running"))
    late.start()
    done = tern("release", apply_id, *WHY, "--wait", "--json")
    late.join()
    assert (done.code, outcomes(done.data)) == (0, {None: "accepted"})
    again = tern("release", apply_id, *WHY)
    assert (again.code, "already: that pause has been released" in again.out) == (0, True)
    assert tern("release", f"{apply_id}/A", *WHY).code == 5


def test_a_release_whose_pause_is_followed_by_the_next_is_done(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opened that one; the next operation failed between two looks, and the rollout is paused once more."""
    for name in "AB":
        world.engines[name].script("Apply", fail("FAILED_PRECONDITION"))
    apply_id = world.apply("A", "B", "C", policy=Policy(copy=Copy.ROLLING, on_failure=OnFailure.PAUSE))
    world.answer_bells()
    world.sweep()

    def between_two_looks(_seconds: float) -> None:
        world.sweep()
        assert (world.state("B"), world.apply_row().state) == ("failed", "paused")

    monkeypatch.setattr(control, "time", SimpleNamespace(monotonic=time.monotonic, sleep=between_two_looks))
    assert world.apply_row().state == "paused"
    assert tern("release", apply_id, *WHY, "--wait", "--timeout", "9").code == 0
    assert world.apply_row().state == "paused"


def test_a_revert_and_a_volume_reach_their_engine(world: World, tern: Tern) -> None:
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL, cutover=Cutover.MANUAL))
    world.answer_bells()
    assert tern("volume", apply_id, "2", "--deployment", "A", *WHY, "--json").data["volume"] == 2
    world.sweep()
    assert world.engines["A"].calls("Volume")[0].request.volume == 2
    assert "volume        2" in tern("get", f"{apply_id}/A").out
    assert tern("get", f"{apply_id}/A", "--json").data["volume"] == 2
    for name in "AB":
        engine_says(world, name, "revert_window")
    assert tern("revert", f"{apply_id}/A", *WHY).code == 0
    assert tern("skip-revert", f"{apply_id}/B", *WHY).code == 0
    world.run(until=lambda: world.state("A") == "reverted" and world.state("B") == "completed")
    assert tern("revert", apply_id, "--all", *WHY).code == 6


@pytest.mark.parametrize("verb", [verb.value for verb in Verb])
def test_the_help_of_every_verb_is_short(verb: str, bare: Tern) -> None:
    told = bare(verb, "--help").out
    assert len(told.splitlines()) <= 40
    assert "--dry-run" in told
    assert "--reason" in told
