"""An engine that is gone, from the command line: what is printed, what is refused, and how it ends."""

import threading
from pathlib import Path

import pytest

from tern.domain.timing import RPC_DEADLINE_S
from tests.cli.conftest import Tern
from tests.flows.gone import comes_back, goes, look_again, pass_long, unsettled
from tests.flows.steps import PARALLEL, engine_says
from tests.world import World

WHY = ("--reason", "it burned down")
GONE = ("--engine-is-gone", *WHY)


@pytest.fixture
def gone(world: World) -> str:
    """Work runs everywhere, and A's engine has been gone for long; the apply."""
    apply_id = world.apply("A", "B", policy=PARALLEL)
    world.run(until=lambda: world.state("A") == "running")
    goes(world, "A")
    pass_long(world)
    return apply_id


def test_the_command_that_explain_prints_works(gone: str, world: World, tern: Tern) -> None:
    """Ready to copy, one for each thing that a person may have found, with what it comes to."""
    said = " ".join(tern("explain", f"{gone}/A").out.split())
    for word in ("ended", "completed", "not-started"):
        assert f"tern resolve {gone}/A --engine-is-gone --as {word} --reason '…' if " in said
    done = tern("resolve", f"{gone}/A", "--as", "completed", *GONE, "--json")
    assert (done.code, done.data["engine_is_gone"], done.data["accepted"]) == (0, True, 1)
    assert world.state("A") == "completed"


def test_it_says_what_it_leaves_behind(gone: str, tern: Tern) -> None:
    done = tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    assert "what was sent stays outstanding there" in done.out


@pytest.mark.parametrize("word", ["remote-id=R", "repeat-apply", "same-work"])
def test_what_follows_or_repeats_is_refused(word: str, gone: str, tern: Tern) -> None:
    assert tern("resolve", f"{gone}/A", "--as", word, *GONE).code == 2


def test_several_are_given_up_by_their_number(gone: str, world: World, tern: Tern) -> None:
    """B answers, so of two selected one is accepted."""
    both = (gone, "--deployment", "A", "--deployment", "B", "--as", "ended", *GONE)
    assert tern("resolve", *both).code == 2
    assert tern("resolve", *both, "--expect", "2").code == 5
    assert world.state("A") == "running"
    assert tern("resolve", *both, "--expect", "1").code == 6
    assert (world.state("A"), world.state("B")) == ("failed", "running")


def test_too_early_is_refused_with_the_seconds_to_wait(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.run(until=lambda: world.state("A") == "running")
    goes(world, "A")
    world.pass_time(61)
    world.sweep()
    done = tern("resolve", f"{apply_id}/A", "--as", "ended", *GONE)
    assert done.code == 5
    assert "Say it again in" in done.err + done.out


def test_an_engine_that_answers_is_refused_with_how_that_is_mended(world: World, tern: Tern) -> None:
    apply_id = world.apply("A")
    world.run(until=lambda: world.state("A") == "running")
    done = tern("resolve", f"{apply_id}/A", "--as", "ended", *GONE)
    assert done.code == 5
    assert "tern deployments set A --token-ref" in done.err + done.out


def test_the_moment_between_two_calls_is_waited_for(gone: str, world: World, tern: Tern) -> None:
    """An open stop at an engine that swallows everything is called nearly all the time."""
    world.write(
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w', claim_began_at = tern_clock(),"
        " claim_expires_at = tern_clock() + interval '30 s' WHERE deployment = 'A'"
    )
    free = threading.Timer(
        1.0,
        lambda: world.write(
            "UPDATE apply_operations SET claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"
        ),
    )
    free.start()
    assert tern("resolve", f"{gone}/A", "--as", "ended", *GONE).code == 0
    free.join()
    assert world.state("A") == "failed"


def test_settle_has_an_outcome_for_each(gone: str, world: World, tern: Tern) -> None:
    """One is known and silent, one has nothing outstanding; a name that is not there refuses all."""
    tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    done = tern("deployments", "settle", "A", "B", *WHY, "--json")
    outcomes = {each["deployment"]: (each["outcome"], each["reason"]) for each in done.data["deployments"]}
    assert done.code == 5
    assert "no engine answers" in outcomes["A"][1]
    # A command with everything in it but what only the reader knows.
    where = "tern deployments add A --replace -e test -d shop --target target-A --address grpc://HOST:PORT"
    assert where in outcomes["A"][1]
    assert outcomes["B"][1].startswith("nothing is outstanding at B")
    assert tern("deployments", "settle", "A", "nowhere", *WHY).code == 3
    comes_back(world, "A")
    world.engines["A"].always("Progress", None)
    world.engines["A"].forget()
    assert tern("deployments", "settle", "A", *WHY).code == 0
    assert unsettled(world) == []


def test_cancel_outstanding_waits_until_it_is_over(gone: str, world: World, tern: Tern) -> None:
    tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    comes_back(world, "A")
    look_again(world)
    done = tern("cancel", f"{gone}/A", "--outstanding", *WHY, "--wait", "--timeout", "0.3")
    assert done.code == 124
    world.pass_time(RPC_DEADLINE_S)
    world.sweep()
    assert unsettled(world) == []
    assert tern("cancel", f"{gone}/A", "--outstanding", *WHY).code == 5


def test_whoever_plans_or_rolls_out_there_is_told(
    gone: str, world: World, tern: Tern, tmp_path: Path
) -> None:
    """It is accepted, and waits: the plan, the apply and the list of deployments say so, until it is settled."""
    change = tmp_path / "change.sql"
    change.write_text("ALTER TABLE orders ADD COLUMN other text")
    place = ("--ddl", str(change), "-e", "test", "-d", "shop", "--deployments", "A,B")
    tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    comes_back(world, "A")
    look_again(world)
    command = f"tern cancel {gone}/A --outstanding --reason"
    for words in (("plan", *place), ("apply", *place, "--accept-drift", "--reason", "because")):
        if words[0] == "apply":
            engine_says(world, "B", "completed")
        told = tern(*words, "--json").document["warnings"]
        assert [command in each for each in told if "outstanding" in each] == [True], words
    assert command in " ".join(tern("plan", *place).out.split())
    listed = {
        each["name"]: each["outstanding"] for each in tern("deployments", "ls", "--json").data["deployments"]
    }
    assert (listed["A"]["scope"], listed["B"]) == (f"{gone}/A", None)
    assert "outstanding" in tern("deployments", "ls").out
    assert tern("cancel", f"{gone}/A", "--outstanding", *WHY).code == 0
    look_again(world)
    assert "outstanding" not in tern("deployments", "ls").out
    assert [
        each for each in tern("plan", *place, "--json").document["warnings"] if "outstanding" in each
    ] == []


def test_doctor_names_it(gone: str, world: World, tern: Tern) -> None:
    tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    done = tern("doctor", "--json")
    (found,) = [each for each in done.data["findings"] if each["about"] == "outstanding"]
    assert (found["ok"], f"{gone}/A" in found["said"]) == (False, True)


def commands(out: str) -> list[str]:
    """Every command that is printed on a line of its own."""
    return [line.strip() for line in out.splitlines() if line.strip().startswith("tern ")]


@pytest.mark.parametrize("verb", ["get", "explain"])
def test_an_operation_shows_what_is_outstanding_and_an_apply_says_it_once(
    verb: str, gone: str, world: World, tern: Tern
) -> None:
    """What, where, since when, and how it is settled or ended: at whose it is, and at whoever waits for it."""
    tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    remote_id, address = str(world.remote_id("A")), world.engines["A"].address
    look_again(world)
    waits = world.apply("A")
    world.answer_bells()
    what = f"the job {remote_id} of {gone}/A is outstanding at {address}"
    ways = ["tern deployments check A"]
    for apply_id in (gone, str(waits)):
        whole, one = tern(verb, apply_id).out, tern(verb, f"{apply_id}/A").out
        for out in (whole, one):
            assert " ".join(out.split()).count(what) == 1, out
            assert [each for each in commands(out) if "deployments" in each] == ways, out
        assert "since 3 min" in one
    comes_back(world, "A")
    look_again(world)
    cancel = f"tern cancel {gone}/A --outstanding --reason '…'"
    for subject in (gone, f"{gone}/A", str(waits), f"{waits}/A"):
        out = tern(verb, subject).out
        assert (commands(out).count(cancel), out.count("its engine says running")) == (1, 1), out
    assert tern("cancel", f"{gone}/A", "--outstanding", *WHY).code == 0
    out = tern(verb, f"{waits}/A").out
    assert (commands(out).count(cancel), "it is asked to end" in out) == (0, True)
    (line,) = tern("get", f"{gone}/A", "--json").data["outstanding"]
    assert (line["remote_id"], line["cancel_asked"], line["ways"]) == (remote_id, True, [])


def test_what_is_outstanding_at_an_old_address_sends_nobody_to_the_new_one_for_it(
    gone: str, world: World, tern: Tern
) -> None:
    """A check asks who is there now, and says so; the old place is looked at by itself."""
    tern("resolve", f"{gone}/A", "--as", "ended", *GONE)
    old = world.engines["A"].address
    told = " ".join(tern("get", f"{gone}/A").out.split())
    assert "asks whether an engine answers there" in told
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:1' WHERE name = 'A'")
    told = " ".join(tern("get", f"{gone}/A").out.split())
    assert f"asks the engine that is at grpc://127.0.0.1:1 now; {old} is looked at by itself" in told
