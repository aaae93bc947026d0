"""Revert, SkipRevert and Volume on the wire: the same rules as for every other call about a job (G2)."""

from collections.abc import Callable

import pytest

from tern.domain.control import VOLUMES
from tern.domain.identity import RemoteId
from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok, Outcome, Refused, Unknown
from tern.engine.identity import EngineIdentity
from tern.engine.keys import CallContext
from tern.engine.service import EngineService
from tern.ports import Engine
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.faults.behaviour import answer, fail, not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.wire.conftest import NAME, call_for

Ask = Callable[[Engine, RemoteCall], Outcome[object]]
ASKS: dict[str, Ask] = {
    "Revert": lambda engine, call: engine.revert(call),
    "SkipRevert": lambda engine, call: engine.skip_revert(call),
    "Volume": lambda engine, call: engine.volume(call, 3),
}
EACH = pytest.mark.parametrize("method", ASKS)


def prepared(fake: FakeEngine, started: RemoteId) -> RemoteCall:
    fake.set_state(started, "revert_window")
    return call_for(started, fence=9)


@EACH
def test_it_carries_its_own_id_its_name_and_its_fence(
    method: str, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    call = prepared(fake, started)
    assert isinstance(ASKS[method](engine, call), Ok)
    (seen,) = fake.calls(method)
    assert (seen.remote_id, seen.operation, seen.fence) == (started, str(NAME), 9)
    assert seen.request.environment == "production"


@EACH
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (call_for(""), "EMPTY_REMOTE_ID"),
        (call_for("apl-one"), "REMOTE_ID_IS_PUBLIC_ID"),
        (call_for("R\n1"), "REMOTE_ID_MALFORMED"),
    ],
)
def test_what_could_reach_a_siblings_work_is_not_sent(
    method: str, call: RemoteCall, reason: str, fake: FakeEngine, engine: Engine
) -> None:
    outcome = ASKS[method](engine, call)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.was_sent) == (reason, False)
    assert fake.calls() == []


@EACH
def test_an_engine_that_does_not_offer_it_says_so_in_plain_words(
    method: str, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    fake.script(method, fail("UNIMPLEMENTED"))
    outcome = ASKS[method](engine, prepared(fake, started))
    assert isinstance(outcome, Refused)
    assert outcome.message.startswith(f"the engine does not offer {method}")
    assert (outcome.code, outcome.was_sent) == ("UNIMPLEMENTED", True)


@EACH
def test_refused_and_unanswered_are_told_apart(
    method: str, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    call = prepared(fake, started)
    fake.script(method, not_accepted("busy"), fail("UNAVAILABLE"), fail("FAILED_PRECONDITION"))
    refused, unknown, later = (ASKS[method](engine, call) for _ in range(3))
    assert isinstance(refused, Refused)
    assert "busy" in refused.message
    assert isinstance(unknown, Unknown)
    assert isinstance(later, Refused)


@pytest.mark.parametrize(("said", "holds"), [(7, 7), (0, 3), (12, 3), (-1, 3)])
def test_the_volume_that_holds_is_the_engines_word_where_it_is_one(
    said: int, holds: int, fake: FakeEngine, engine: Engine, started: RemoteId
) -> None:
    fake.script("Volume", answer(accepted=True, new_volume=said))
    assert engine.volume(call_for(started), 3) == Ok(holds)
    assert holds in VOLUMES


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("revert", tern_v1.RevertRequest),
        ("skip_revert", tern_v1.SkipRevertRequest),
        ("volume", tern_v1.VolumeRequest),
    ],
)
def test_the_postgresql_engine_says_that_it_offers_none_of_them(method: str, request_type: type) -> None:
    service = EngineService(
        "postgresql://nobody@127.0.0.1:1/x", EngineIdentity("e", "d", "t"), runs_jobs=False
    )
    with pytest.raises(Exception, match="is not offered: this engine") as caught:
        getattr(service, method)(request_type(), CallContext(operation=None, fence=None))
    assert caught.value.code.name == "UNIMPLEMENTED"  # type: ignore[attr-defined]
