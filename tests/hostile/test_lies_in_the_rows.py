"""What an engine's lies leave in Tern's rows: no verdict, no other id, nothing of a sibling's (G2, G5, G10)."""

from typing import Any

import grpc
import pytest

from tern.domain.control import Verb
from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.faults.behaviour import Behaviour, Rejected, Turn
from tests.flows.steps import PARALLEL, dispatch, drive, look, running
from tests.hostile.garbage import Garbage
from tests.world import World

POLLS = 250
VAGUE = (
    "UNKNOWN",
    "INTERNAL",
    "UNAVAILABLE",
    "ABORTED",
    "RESOURCE_EXHAUSTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
)
MOVING = (tern_v1.STATE_RUNNING, tern_v1.STATE_PENDING, tern_v1.STATE_RECOVERING)
MEANINGLESS = (tern_v1.STATE_NO_ACTIVE_CHANGE, 19, 99, -1, 2**31 - 1)


def lies(garbage: Garbage, *sensible: Behaviour) -> Behaviour:
    """Broken bytes, vague codes, or one of these."""

    def answer(turn: Turn) -> Any:
        match garbage.random.randrange(2 + len(sensible)):
            case 0:
                return garbage.one_of((b"\xff" * 9, b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xc3\x28"))
            case 1:
                raise Rejected(grpc.StatusCode[garbage.one_of(VAGUE)], "", garbage.text().replace("\x00", ""))
            case number:
                return sensible[number - 2](turn)

    return answer


def progress_without_a_verdict(garbage: Garbage, own: str, strangers: tuple[str, ...]) -> Behaviour:
    """Own work that moves on in numbers that can't be, and other people's work that is over."""

    def answer(turn: Turn) -> Any:
        answer = engine_v1.BatchProgressResponse()
        for _ in range(garbage.random.randrange(6)):
            entry = answer.entries.add()
            entry.CopyFrom(garbage.message(engine_v1.ProgressEntry.DESCRIPTOR))
            entry.apply_id = garbage.one_of((own, own, *strangers))
            if entry.apply_id != own:
                entry.progress.state = tern_v1.STATE_COMPLETED
                entry.progress.apply_id = entry.apply_id
                continue
            if entry.WhichOneof("result") == "error":
                entry.error.code = garbage.one_of((0, 1, 2, 4, 8, 10, 13, 14, 17, -1, 2**31 - 1))
                continue
            entry.progress.apply_id = garbage.one_of((own, "", *strangers))
            says = MOVING + MEANINGLESS if entry.progress.apply_id in {own, ""} else tern_v1.State.values()
            entry.progress.state = garbage.one_of(says)
            entry.progress.tables.add(
                namespace="public",
                table_name="orders",
                ddl=garbage.text(),
                status=garbage.text(),
                rows_copied=garbage.one_of((-1, 0, 2**63 - 1, -(2**63))),
                rows_total=garbage.one_of((-1, 0, 1, 2**63 - 1)),
                percent_complete=garbage.one_of((-1, 0, 7, 101, 2**31 - 1, -(2**31))),
                eta_seconds=garbage.one_of((-1, 0, 2**63 - 1)),
                checksum_rows_checked=garbage.one_of((-1, 2**63 - 1)),
                checksum_rows_total=garbage.one_of((-1, 2**63 - 1)),
                progress_detail=garbage.text(),
            )
        return answer

    return answer


@pytest.mark.parametrize("seed", range(3))
def test_polls_full_of_lies_end_nothing(world: World, seed: int) -> None:
    """G2, G10: other people's completed is not ours, and numbers that can't be are not taken over."""
    ids = running(world, "A", "B", "C")
    garbage = Garbage(f"rows {seed}")
    strangers = (ids["A"], ids["C"], world.last, "")
    lie = lies(garbage, progress_without_a_verdict(garbage, ids["B"], strangers))
    world.engines["B"].always("BatchProgress", lie)
    for _ in range(POLLS):
        world.pass_time(31)
        world.do("poll", "B")
    assert world.state("B") in {"running", "uncertain"}
    assert {name: world.remote_id(name) for name in ids} == ids
    assert (world.state("A"), world.state("C")) == ("running", "running")
    assert world.apply_row().completed_at is None
    change = world.one("SELECT * FROM table_changes WHERE operation_id = :id", id=world.operation("B").id)
    assert 0 <= change.percent <= 100
    world.engines["B"].always("BatchProgress", None)
    for name, engine in world.engines.items():
        engine.set_state(ids[name], "completed")
    world.run(until=lambda: world.apply_row().state == "completed")


@pytest.mark.parametrize("seed", range(3))
def test_dispatches_that_are_answered_with_lies_fail_nothing_and_start_once(world: World, seed: int) -> None:
    """G4, G5, G10: one key, at most one effect, no id that could not be sent back, no verdict."""
    garbage = Garbage(f"dispatch {seed}")

    def accepted(turn: Turn) -> Any:
        bad = garbage.one_of(("a\x00b", "x" * 600, "a\nb", "\u202e1", world.last, "\x7f"))
        return tern_v1.ApplyResponse(accepted=True, apply_id=bad)

    def started(turn: Turn) -> Any:
        if garbage.happens(0.5):
            return engine_v1.ResolveResponse(apply_id="a\x00b")
        return engine_v1.ResolveResponse(apply_id="x", forbidden=True)

    world.engines["A"].always("Apply", lies(garbage, accepted))
    world.engines["A"].always("Resolve", lies(garbage, started))
    world.apply("A", "B", policy=PARALLEL)
    for _ in range(6):
        world.answer_bells()
        world.pass_time(200)
        dispatch(world, "A")
        assert world.state("A") in {"failed_retryable", "running", "uncertain"}
        assert world.remote_id("A") is None
    world.ask(Verb.STOP, "A")
    for _ in range(6):
        drive(world, Verb.STOP, "A")
        world.pass_time(60)
        assert world.state("A") not in {"stopped", "failed", "cancelled"}
    world.engines["A"].always("Apply", None)
    world.engines["A"].always("Resolve", None)
    world.run(until=lambda: world.state("A") == "stopped")
    assert len({call.key for call in world.engines["A"].calls("Apply")}) == 1
    assert world.engines["A"].effects("apply") == []


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.CANCEL])
def test_controls_that_are_answered_with_lies_stay_open(world: World, verb: Verb) -> None:
    """G10: an answer that is none closes no wish, and stops nothing in our rows."""
    ids = running(world, "A", "B")
    garbage = Garbage(f"controls {verb}")
    method = verb.value.capitalize()
    world.engines["A"].always(method, lies(garbage))
    world.ask(verb, "A")
    for _ in range(20):
        drive(world, verb, "A")
        world.pass_time(60)
        look(world, "A")
    assert world.state("A") == "running"
    assert world.delivery("A", verb).state in {"pending", "sent"}
    world.engines["A"].always(method, None)
    world.run(until=lambda: world.state("A") != "running")
    assert world.remote_id("B") == ids["B"]
    assert {call.remote_id for call in world.engines["A"].calls(method)} == {ids["A"]}
