"""A person's word about an uncertain operation."""

import re

import pytest

from tern.domain.model import Deployment
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail, lose_answer
from tests.world import World

WHY = ("--reason", "looked at the engine")


@pytest.fixture
def uncertain(world: World) -> str:
    """An operation whose dispatch was never answered some time ago, at an engine that can't be asked."""
    world.store.remove_deployment("A")
    world.engines["A"].offer(engine_service=False, deduplicates=False)
    world.add("A", world.engines["A"].address, 0, offers=False, deduplicates=False)
    world.engines["A"].script("Apply", lose_answer())
    apply_id = world.apply("A")
    world.answer_bells()
    assert world.state("A") == "uncertain"
    world.pass_time(11)
    return f"{apply_id}/A"


def test_an_uncertain_operation_needs_a_person_and_is_told_how(uncertain: str, tern: Tern) -> None:
    done = tern("watch", uncertain.partition("/")[0])
    assert done.code == 13
    assert f"tern resolve {uncertain} --as" in done.out


def test_ended_is_failed(uncertain: str, world: World, tern: Tern) -> None:
    done = tern("resolve", uncertain, "--as", "ended", *WHY, "--json")
    assert (done.code, done.data["as"]) == (0, "ended")
    assert world.state("A") == "failed"
    assert tern("resolve", uncertain, "--as", "ended", *WHY).code == 5


def test_completed_is_completed_and_says_by_whom(uncertain: str, world: World, tern: Tern) -> None:
    done = tern("resolve", uncertain, "--as", "completed", *WHY, "--json")
    assert (done.code, done.data["as"]) == (0, "completed")
    assert world.state("A") == "completed"
    assert tern("resolve", uncertain, "--as", "completed", *WHY).code == 5
    operation = tern("get", uncertain, "--json").data
    assert "looked at the engine" in operation["summary"]
    apply_id = uncertain.partition("/")[0]
    told = tern("logs", apply_id).out
    assert re.search(
        r"all of it is in, after \d+ s uncertain  by ann@desk  resolved as completed: looked", told
    )
    assert tern("watch", apply_id).code == 0


def test_a_remote_id_is_followed(uncertain: str, world: World, tern: Tern) -> None:
    (remote_id,) = world.engines["A"].jobs.by_id
    assert tern("resolve", uncertain, "--as", f"remote-id={remote_id}", *WHY).code == 0
    assert world.remote_id("A") == remote_id


def test_not_started_waits_for_its_turn_again(uncertain: str, world: World, tern: Tern) -> None:
    assert tern("resolve", uncertain, "--as", "not-started", *WHY).code == 0
    assert world.state("A") == "pending"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("AP/A", "--as", "nonsense", *WHY), 2),
        (("AP/A", "--as", "remote-id", *WHY), 2),
        (("AP/A", "--as", "remote-id=", *WHY), 2),
        (("AP/A", "--as", "ended=x", *WHY), 2),
        (("AP/A", "--as", "ended"), 2),
        (("AP/A", "--as", "ended", "--reason", " "), 2),
        (("AP", "--as", "ended", *WHY), 2),
        (("AP/B", "--as", "ended", *WHY), 3),
    ],
)
def test_what_is_no_answer_is_refused(
    words: tuple[str, ...], code: int, uncertain: str, world: World, tern: Tern
) -> None:
    subject, *rest = words
    assert tern("resolve", subject.replace("AP", uncertain.partition("/")[0]), *rest).code == code
    assert world.state("A") == "uncertain"


def test_a_word_that_comes_while_a_call_may_be_answered_is_refused_with_the_seconds(
    world: World, tern: Tern
) -> None:
    """G12: and nothing is written."""
    world.engines["A"].offer(engine_service=False, deduplicates=False)
    world.undeclared()
    world.engines["A"].script("Apply", lose_answer())
    apply_id = world.apply("A")
    world.answer_bells()
    done = tern("resolve", f"{apply_id}/A", "--as", "ended", *WHY)
    assert done.code == 5
    assert "Say it again in" in done.err
    assert world.state("A") == "uncertain"


def test_an_id_is_taken_from_another_operation_by_its_name(uncertain: str, world: World, tern: Tern) -> None:
    """The command that the refusal prints is the one that works."""
    world.store.save_deployment(Deployment("A2", "test", "shop", world.engines["A"].address, "target-A2"))
    world.engines["A"].jobs.name = "R"
    first = world.apply("A2")
    world.answer_bells()
    taken = str(world.remote_id("A2", first))
    refused = tern("resolve", uncertain, "--as", f"remote-id={taken}", *WHY)
    assert refused.code == 5
    assert f"--taken-from {first}/A2" in refused.err
    words = ("resolve", uncertain, "--as", f"remote-id={taken}", "--taken-from", f"{first}/A2", *WHY)
    # Its engine has given it to nobody else, so nobody takes it away.
    assert tern(*words).code == 5
    world.write("UPDATE apply_operations SET state = 'uncertain', doubt = 'taken' WHERE deployment = 'A2'")
    world.engines["A"].job(taken).operation = uncertain
    assert tern(*words).code == 0
    assert world.operation("A2", first).error_reason == "ID_LOST"
    assert tern("resolve", uncertain, "--as", "ended", "--taken-from", f"{first}/A2", *WHY).code == 2


def test_a_typo_is_asked_about_and_refused(uncertain: str, world: World, tern: Tern) -> None:
    done = tern("resolve", uncertain, "--as", "remote-id=TYPO", *WHY, "--json")
    assert (done.code, done.data["reason"]) == (5, "REMOTE_ID_UNKNOWN")
    world.engines["A"].always("Progress", fail("UNAVAILABLE"))
    (remote_id,) = world.engines["A"].jobs.by_id
    done = tern("resolve", uncertain, "--as", f"remote-id={remote_id}", *WHY)
    assert done.code == 75
    assert "Try again" in done.err
    assert (world.state("A"), world.remote_id("A")) == ("uncertain", None)


def test_a_dry_run_asks_as_well_and_writes_nothing(uncertain: str, world: World, tern: Tern) -> None:
    (remote_id,) = world.engines["A"].jobs.by_id
    dry = ("--dry-run", *WHY)
    assert tern("resolve", uncertain, "--as", "remote-id=TYPO", *dry).code == 5
    assert tern("resolve", uncertain, "--as", f"remote-id={remote_id}", *dry).code == 0
    assert world.remote_id("A") is None


def test_what_explain_prints_leads_out_of_a_doubt(world: World, tern: Tern) -> None:
    """Each command as it is printed, with a reason."""
    apply_id = world.apply("A")
    world.answer_bells()
    job = world.engines["A"].job(world.remote_id("A") or "")
    job.tables, job.revision = (("public", "invoices", ""),), 7
    world.run(until=lambda: world.state("A") == "uncertain")
    told = tern("explain", f"{apply_id}/A").out
    assert "public.invoices" in told
    assert f"tern resolve {apply_id}/A --as same-work" in told
    assert f"tern stop {apply_id}/A --although-foreign={job.remote_id}" in told
    assert tern("stop", f"{apply_id}/A", "--although-foreign", "another", *WHY).code == 5
    done = tern("stop", f"{apply_id}/A", f"--although-foreign={job.remote_id}", *WHY, "--json")
    assert done.code == 0
    world.run(until=lambda: job.state == "stopped")
    assert world.state("A") == "uncertain"
    assert tern("resolve", f"{apply_id}/A", "--as", "same-work", *WHY).code == 0
    world.run(until=lambda: world.state("A") == "stopped")


def test_a_statement_of_unknown_effect_is_settled_by_its_number(
    uncertain: str, world: World, tern: Tern
) -> None:
    said = ("resolve", uncertain, "--statement", "1=not-done", *WHY)
    refused = tern(*said)
    assert refused.code == 5
    assert f"tern resolve {uncertain} --as" in refused.err
    assert tern("resolve", uncertain, "--as", "ended", *WHY).code == 0
    assert "? 1  unknown" in tern("get", uncertain).out
    assert tern(*said, "--as", "ended").code == 2
    assert tern("resolve", uncertain, *WHY).code == 2
    assert tern(*said, "--dry-run").code == 0
    done = tern(*said, "--json")
    assert (done.code, done.data["as"], done.data["accepted"]) == (0, None, 1)
    assert done.data["statements"] == [{"number": 1, "as": "not-done"}]
    (change,) = tern("get", uncertain, "--json").data["tables"]
    assert (change["state"], change["settled_by"]) == ("skipped", world.events("A")[-1].who)
    assert tern(*said).code == 5
    assert tern("resolve", uncertain, "--statement", "2=done", *WHY).code == 5
