"""The record of an apply, as text, as one document, as a stream; and the engine's own words."""

import json

import pytest

from tern.cli import logs
from tern.store.sql import Connection, text
from tests.cli.conftest import Tern
from tests.faults.behaviour import fail
from tests.world import World


def test_the_record_says_who_what_why_and_from_where_to_where(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    text = tern("logs", apply_id).out
    assert "the rollout was accepted  by ann  because" in text
    assert "A  a worker hands it to its engine" in text
    events = tern("logs", apply_id, "--json").data["events"]
    assert (events[0]["event"], events[0]["who"], events[0]["why"]) == ("accepted", "ann", "because")
    assert {"deployment", "before", "after", "at", "age_s", "event_id"} <= set(events[0])


def test_one_operation_s_record_leaves_its_siblings_out(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    world.answer_bells()
    events = tern("logs", f"{apply_id}/B", "--json").data["events"]
    assert {event["deployment"] for event in events} == {None}
    assert tern("logs", f"{apply_id}/nowhere").code == 3


def test_lines_of_a_stream_are_documents(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    documents = [json.loads(line) for line in tern("logs", apply_id, "--jsonl").out.splitlines()]
    assert documents[0]["kind"] == "event"
    assert tern("logs", apply_id, "--json", "--jsonl").code == 2
    assert tern("logs", apply_id, "--json", "--follow").code == 2


def test_following_shows_what_comes_and_ends_with_an_interrupt(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_id = world.apply()
    rounds = iter([world.answer_bells])

    def sleep(_seconds: float) -> None:
        try:
            next(rounds)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(logs.time, "sleep", sleep)
    done = tern("logs", apply_id, "--follow")
    assert done.code == 130
    assert done.out.count("accepted  by ann") == 1
    assert "a worker hands it to its engine" in done.out


def test_following_misses_no_event_that_is_committed_late(
    world: World, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations write side by side: the first to take a number may be the last to commit."""
    apply_id = world.apply()
    raw = world.database.open()
    late = Connection(raw)
    insert = (
        "INSERT INTO apply_events (apply_id, operation_id, event, who)"
        " SELECT apply_id, id, :event, 'eve' FROM apply_operations WHERE deployment = :deployment"
    )
    late.execute(text(insert), {"event": "late", "deployment": "A"})
    rounds = iter(
        [lambda: world.write(insert, event="early", deployment="B"), raw.commit, lambda: None, lambda: None]
    )

    def sleep(_seconds: float) -> None:
        try:
            next(rounds)()
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(logs.time, "sleep", sleep)
    done = tern("logs", apply_id, "--follow")
    raw.close()
    assert (done.out.count("early"), done.out.count("late")) == (1, 1)


def test_the_engine_s_own_log_is_asked_for_by_its_own_id(world: World, tern: Tern) -> None:
    apply_id = world.apply()
    assert tern("logs", f"{apply_id}/A", "--engine").code == 5
    world.answer_bells()
    done = tern("logs", f"{apply_id}/A", "--engine", "--json")
    assert (done.code, done.data["remote_id"]) == (0, world.remote_id("A"))
    (call,) = world.engines["A"].calls("Logs")
    assert call.request.apply_id == world.remote_id("A")
    assert tern("logs", apply_id, "--engine").code == 2
    world.engines["A"].always("Logs", fail("UNAVAILABLE"))
    assert tern("logs", f"{apply_id}/A", "--engine").code == 69
    world.engines["A"].always("Logs", fail("PERMISSION_DENIED"))
    assert tern("logs", f"{apply_id}/A", "--engine").code == 5
