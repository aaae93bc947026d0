"""What a worker logs while it drives: one JSON object a line, about whom, and never a statement."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tern.domain.control import Verb
from tern.domain.model import Action, PlannedChange
from tern.domain.policy import Copy, Policy
from tern.observe import configure
from tests.faults.behaviour import fail, not_accepted
from tests.flows.steps import engine_says, settle
from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN canary text DEFAULT 'canary-4711'"
CHANGE = PlannedChange("public", "orders", DDL, Action.ALTER)


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All lines of this process, as a worker writes them."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure("json", "DEBUG", stream)
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_every_line_of_a_rollout_says_whom_it_is_about(world: World, logged: io.StringIO) -> None:
    """Operator's rule: apply, deployment and remote id where they are known, and no DDL."""
    world.engines["B"].script("Apply", fail("UNAVAILABLE", message=f"while executing {DDL}"))
    world.engines["C"].script("Apply", not_accepted(f'syntax error at or near "ADD"\nLINE 1: {DDL}'))
    world.apply(changes=(CHANGE,), policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    settle(world)
    world.ask(Verb.START, "A")
    settle(world)
    engine_says(world, "A", "failed", error=f"could not execute {DDL}")
    settle(world)
    assert "canary" not in logged.getvalue()
    lines: list[dict[str, Any]] = [json.loads(line) for line in logged.getvalue().splitlines()]
    events = [line for line in lines if line["logger"] == "tern.event"]
    assert len(events) > 12
    assert {line["apply"] for line in events} == {str(world.last)}
    remote_id = str(world.remote_id("A"))
    known = False
    for line in events:
        if line.get("deployment") == "A":
            known = known or line["message"] == "remote_id_stored"
            assert line.get("remote_id") == (remote_id if known else None), line
        if line["message"] in {"accepted", "projected", "verdict", "summary"}:
            assert "deployment" not in line
        else:
            assert line["deployment"] in {"A", "B", "C"}


def test_the_record_still_has_the_engine_s_words(world: World, logged: io.StringIO) -> None:
    """What is kept out of logs is kept in the database, where whoever may read it looks."""
    world.engines["A"].script("Apply", not_accepted(f"could not execute {DDL}"))
    world.apply("A", changes=(CHANGE,))
    world.answer_bells()
    assert "canary" in world.operation("A").error_message
    assert "canary" not in logged.getvalue()
