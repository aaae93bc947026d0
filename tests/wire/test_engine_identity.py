"""Which database an answer names: in answers and errors, alone and in batches, and what of it is believed."""

import pytest

from tern.domain.identity import RemoteId
from tern.domain.model import Capabilities, Claim, OperationScope
from tern.domain.outcome import Ok, Refused, Unknown
from tern.ports import Engine
from tern.wire.routing import EngineDirectory
from tern.wire.transport import read_identity
from tests.faults.behaviour import Turn, behave, fail
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import call_for, cursor_for, deployment_at

ONE, OTHER = "7401234567890123456/16384", "7401234567890123456/16385"


def test_each_answer_and_each_error_names_it(
    fake: FakeEngine, engine: Engine, scope: OperationScope, claim: Claim, started: RemoteId
) -> None:
    fake.identity = ONE
    fake.job(started).started_at = "2026-05-04T03:02:01.5+02:00"
    sample = engine.progress(call_for(started))
    assert isinstance(sample, Ok)
    assert (sample.value.identity, sample.value.started_at) == (ONE, "2026-05-04T03:02:01.5+02:00")
    unknown_id = engine.progress(call_for("nobody"))
    assert isinstance(unknown_id, Refused)
    assert (unknown_id.code, unknown_id.identity) == ("NOT_FOUND", ONE)
    fake.script("Apply", fail("UNAVAILABLE"))
    down = engine.apply(scope, claim)
    assert isinstance(down, Unknown)
    assert down.identity == ONE
    refused = engine.stop(call_for("nobody"))
    assert isinstance(refused, Refused)
    assert refused.identity == ONE


def test_the_one_name_of_a_batch_counts_for_each_of_its_entries(
    fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    fake.identity = ONE
    known, strange = engine.batch_progress([cursor_for(1, started), cursor_for(2, "nobody")])
    assert isinstance(known.outcome, Ok)
    assert isinstance(strange.outcome, Refused)
    assert (known.outcome.value.identity, strange.outcome.identity) == (ONE, ONE)


def test_an_engine_that_names_none_is_left_at_that(engine: Engine, started: RemoteId) -> None:
    sample = engine.progress(call_for(started))
    assert isinstance(sample, Ok)
    assert (sample.value.identity, sample.value.started_at) == ("", "")
    assert engine.probe() == Ok(Capabilities(resolve=True, batch_progress=True, preview=True))


def test_a_probe_finds_the_name_and_refuses_two(fake: FakeEngine, engine: Engine) -> None:
    fake.identity = ONE
    assert engine.probe() == Ok(Capabilities(resolve=True, batch_progress=True, preview=True, identity=ONE))

    def another(turn: Turn) -> object:
        fake.identity = OTHER
        return turn.perform()

    fake.script("Resolve", behave())
    fake.script("BatchProgress", another)  # type: ignore[arg-type]
    outcome = engine.probe()
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "SEVERAL_ENGINES"


def test_the_name_is_kept_with_what_was_found() -> None:
    found = Capabilities(resolve=True, batch_progress=True, preview=False, identity=ONE)
    assert Capabilities.from_json(found.as_json()) == found
    assert Capabilities.from_json({"resolve": True, "identity": 7}) == Capabilities(resolve=True)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "7/",
        "/7",
        "7",
        "7/7/7",
        "7/7\n",
        " 7/7",
        "-7/7",
        "٣/٣",
        "1" * 21 + "/1",
        "1/" + "1" * 11,
        "x/y",
        b"7/7",
    ],
)
def test_only_what_has_the_shape_is_believed(said: str | bytes) -> None:
    assert read_identity([("tern-engine", said)]) == ""
    assert read_identity([("tern-engine", ONE), ("other", said)]) == ONE


def test_who_names_two_names_none() -> None:
    assert read_identity([("tern-engine", ONE), ("tern-engine", ONE)]) == ONE
    assert read_identity([("tern-engine", ONE), ("tern-engine", OTHER)]) == ""
    assert read_identity([]) == ""


@pytest.mark.parametrize("said", ["x" * 4_000, "y" * 200_000])
def test_a_name_without_end_harms_nobody(
    said: str, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    """A long one is none; one that is longer than gRPC bears ends its call, and nothing else."""
    fake.identity = said
    outcome = engine.progress(call_for(started))
    assert isinstance(outcome, Unknown) or (isinstance(outcome, Ok) and outcome.value.identity == "")
    fake.identity = ONE
    assert isinstance(engine.progress(call_for(started)), Ok)


def test_what_a_started_at_holds_is_text_of_a_bounded_length(
    fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    fake.job(started).started_at = "\x00" + "9" * 100_000
    sample = engine.progress(call_for(started))
    assert isinstance(sample, Ok)
    assert len(sample.value.started_at) == 64
    assert "\x00" not in sample.value.started_at


def test_engines_at_two_addresses_are_told_apart(directory: EngineDirectory, fake: FakeEngine) -> None:
    fake.identity = ONE
    with FakeEngine("S", identity=OTHER) as second:
        found = [directory.of(deployment_at(e.address, name=e.name)).probe() for e in (fake, second)]
    assert [outcome.value.identity for outcome in found if isinstance(outcome, Ok)] == [ONE, OTHER]
