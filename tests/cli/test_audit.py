"""`tern audit` and `tern get --at`: the account of a rollout, its proof, and its past."""

import json
import re

import pytest

from tern.domain.control import Verb
from tern.domain.policy import Copy, Policy
from tern.store.sql import text
from tests.cli.conftest import Tern
from tests.flows.steps import engine_says, settle
from tests.world import World


def stopped_once(world: World) -> str:
    apply_id = world.apply()
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    settle(world)
    return apply_id


def test_the_audit_says_who_asked_why_and_what_came_of_it(world: World, tern: Tern) -> None:
    """G15."""
    apply_id = stopped_once(world)
    told = tern("audit", apply_id).out
    assert "bob asked to stop A  the night is long" in told
    assert "A: done after" in told
    assert "hands it to its engine" not in told
    entries = tern("audit", apply_id, "--json").data["entries"]
    (request,) = [entry for entry in entries if entry["kind"] == "request"]
    assert (request["what"], request["who"], request["why"]) == ("stop", "bob", "the night is long")
    assert [fate["state"] for fate in request["came_of_it"]] == ["acknowledged"]
    lines = [json.loads(line) for line in tern("audit", apply_id, "--jsonl").out.splitlines()]
    assert [line["what"] for line in lines] == [entry["what"] for entry in entries]


def test_the_audit_is_narrowed(world: World, tern: Tern) -> None:
    apply_id = stopped_once(world)
    asked = tern("audit", apply_id, "--verb", "stop", "--caller", "bob", "--json").data["entries"]
    assert {entry["what"] for entry in asked} == {"stop", "stop_sent", "stop_acknowledged"}
    assert tern("audit", apply_id, "--since", "0s ago", "--json").data["entries"] == []
    assert {entry["deployment"] for entry in tern("audit", f"{apply_id}/B", "--json").data["entries"]} == {
        None
    }
    short = tern("audit", apply_id, "--limit", "1", "--json")
    assert len(short.data["entries"]) == 1
    assert short.document["warnings"]


def test_without_an_apply_all_are_shown_and_verified(world: World, tern: Tern) -> None:
    """G15: a day of many rollouts in one account."""
    first, second = world.apply("A"), world.apply("B")
    entries = tern("audit", "--json").data["entries"]
    assert {entry["apply_id"] for entry in entries} == {first, second}
    assert tern("audit").out.count(second) >= 1
    done = tern("audit", "--verify", "--json")
    assert (done.code, done.data["applies"], done.data["broken"]) == (0, 2, [])
    assert tern("audit", "--verify", "--since", "0s ago", "--json").data["applies"] == 0
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        tx.execute(text("UPDATE apply_events SET why = 'x' WHERE event = 'accepted' AND who = 'ann'"))
    done = tern("audit", "--verify", "--json")
    assert (done.code, {each["apply_id"] for each in done.data["broken"]}) == (10, {first, second})
    assert "2 of 2 records" in tern("audit", "--verify").out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("apl-0",), 3),
        (("AP/nowhere",), 3),
        (("AP", "--since", "soon"), 2),
        (("AP", "--json", "--jsonl"), 2),
        (("AP/A", "--verify"), 2),
        (("AP", "--verify", "--verb", "stop"), 2),
        (("apl-0", "--verify"), 3),
    ],
)
def test_what_can_t_be_audited_is_said(words: tuple[str, ...], code: int, world: World, tern: Tern) -> None:
    apply_id = world.apply()
    assert tern("audit", *(word.replace("AP", apply_id) for word in words)).code == code


def test_a_whole_record_is_verified_with_its_counts(world: World, tern: Tern) -> None:
    """G15."""
    apply_id = stopped_once(world)
    done = tern("audit", apply_id, "--verify", "--json")
    assert (done.code, done.data["ok"], done.data["findings"]) == (0, True, [])
    assert done.data["events"] == world.one("SELECT count(*) AS n FROM apply_events").n
    shown = tern("audit", apply_id, "--verify")
    assert shown.code == 0
    assert done.data["seal"] in shown.out


def test_a_record_that_was_touched_ends_with_ten_and_names_the_event(world: World, tern: Tern) -> None:
    """G15: behind the back of the triggers."""
    apply_id = stopped_once(world)
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        changed = tx.execute(
            text("UPDATE apply_events SET who = 'nobody' WHERE event = 'stop_sent' RETURNING id, number")
        ).one()
    done = tern("audit", apply_id, "--verify", "--json")
    assert (done.code, done.data["ok"]) == (10, False)
    (finding,) = done.data["findings"]
    assert (finding["chain"], finding["fault"]) == ("A", "changed")
    assert (finding["event_id"], finding["number"]) == (changed.id, changed.number)
    assert f"A, event {changed.id}" in tern("audit", apply_id, "--verify").out


def test_an_apply_is_shown_as_it_was(world: World, tern: Tern) -> None:
    """G15: and what no event tells is left out, which is said."""
    apply_id = world.apply()
    world.answer_bells()
    world.pass_time(600)
    world.ask(Verb.STOP)
    settle(world)
    now = tern("get", apply_id, "--json").data
    past = tern("get", apply_id, "--at", "9m ago", "--json")
    assert (past.document["kind"], past.data["state"], now["state"]) == ("apply_at", "running", "stopped")
    assert [each["state"] for each in past.data["operations"]] == ["running", "pending", "pending"]
    assert past.data["operations"][0]["remote_id"] == world.remote_id("A")
    assert "percent" in past.data["not_told"]
    assert not {"percent", "rows_copied", "eta_s"} & set(past.data["operations"][0])
    shown = tern("get", apply_id, "--at", "9m ago").out
    assert "as it was at" in shown
    assert "Percent" in shown
    one = tern("get", f"{apply_id}/A", "--at", "9m ago", "--json").data
    assert [each["deployment"] for each in one["operations"]] == ["A"]


@pytest.mark.parametrize(
    ("at", "code"), [("10d ago", 3), ("2999-01-01T00:00:00Z", 2), ("noon", 2), ("2026-11-23T03:00:00", 2)]
)
def test_a_time_that_has_no_answer_is_refused(at: str, code: int, world: World, tern: Tern) -> None:
    apply_id = world.apply()
    assert tern("get", apply_id, "--at", at).code == code


def test_logs_are_a_timeline_and_the_audit_is_what_people_asked(world: World, tern: Tern) -> None:
    """The one says how long things took, the other who wanted what; neither speaks in the words of the code."""
    apply_id = world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    world.pass_time(90)
    world.ask(Verb.STOP, "A")
    settle(world)
    engine_says(world, "B", "completed")
    logs, audit = tern("logs", apply_id).out, tern("audit", apply_id).out
    assert re.search(r"A  stopped, after 1 min \d\d s running", logs)
    assert re.search(r"B  completed, after 1 min \d\d s running", logs)
    assert "the stop is done  by bob" in logs
    assert "worker-1" not in logs
    assert [line.split("  ", 1)[1] for line in audit.splitlines()][:2] == [
        "ann: the rollout was accepted  because",
        "bob asked to stop A  the night is long",
    ]
    assert "the rollout is stopped" in audit
    for word in ("moot", "projected", "adopt", "observe", "acknowledged", "claim", "verdict", "lose track"):
        assert word not in logs + audit, word
