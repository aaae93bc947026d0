"""What can be mended in use is mended in use: a deployment's address, how it is trusted, and what it is said to be."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tern.domain.control import Verb
from tern.domain.errors import Refused, TryAgain, UsageError
from tern.domain.model import Deployment
from tern.domain.moving import DeploymentChange
from tern.moving import change_deployment
from tern.store.sql import text
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tests.faults.behaviour import Behaviour, altered, fail, hang, lose_answer
from tests.faults.fake_engine import FakeEngine
from tests.flows.steps import (
    MANUAL,
    PARALLEL,
    Frozen,
    drive,
    engine_says,
    look,
    methods,
    running,
    settle,
    stopped,
)
from tests.invariants import assert_safe
from tests.world import World

SERVER = "7654321/16384"
MakeWorld = Callable[..., World]


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """Two engines that name their databases."""
    found = make_world("A", "B", identity=SERVER)
    found.engines["B"].identity = "1/1"
    found.write(
        "UPDATE deployments SET engine_identity = '1/1', capabilities ="
        " jsonb_set(capabilities, '{identity}', '\"1/1\"') WHERE name = 'B'"
    )
    return found


@pytest.fixture
def open_engine() -> Iterator[Callable[..., FakeEngine]]:
    engines: list[FakeEngine] = []

    def make(name: str = "new", **options: Any) -> FakeEngine:
        engines.append(FakeEngine(name, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.stop()


OpenEngine = Callable[..., FakeEngine]


def moved(world: World, name: str, open_engine: OpenEngine, **options: Any) -> FakeEngine:
    """The engine of that deployment answers at a second address too."""
    old = world.engines[name]
    options = {"identity": old.identity, "offers_engine_service": old.offers_engine_service, **options}
    new = open_engine(f"{name}-moved", **options)
    new.jobs = old.jobs
    return new


def change(world: World, name: str = "A", **said: Any) -> tuple[Deployment, tuple[str, ...]]:
    asked = DeploymentChange(name, "bob", "the machine moves", **said)
    return change_deployment(asked, world.ports)


def refusal(world: World, name: str = "A", **said: Any) -> Refused:
    before = world.one("SELECT d.*, 1 AS one FROM deployments d WHERE name = :name", name=name)
    fences = [row.fence for row in operations(world)]
    with pytest.raises(Refused) as refused:
        change(world, name, **said)
    assert world.one("SELECT d.*, 1 AS one FROM deployments d WHERE name = :name", name=name) == before
    assert [row.fence for row in operations(world)] == fences
    return refused.value


def operations(world: World) -> list[Any]:
    with world.database.begin() as tx:
        return list(tx.execute(text("SELECT * FROM apply_operations ORDER BY id")))


def outstanding(world: World) -> list[Any]:
    with world.database.begin() as tx:
        return list(tx.execute(text("SELECT * FROM outstanding_calls ORDER BY id")))


def in_use_everywhere(world: World) -> str:
    """Work that has its id, at A."""
    return running(world, "A", "B")["A"]


# A new address that is proven


def test_an_engine_that_moves_is_followed_at_its_new_address(world: World, open_engine: OpenEngine) -> None:
    """Its id goes nowhere else, its cursor begins anew, and what was done stands in the record."""
    remote_id = in_use_everywhere(world)
    look(world, "A")
    before = world.operation("A")
    new = moved(world, "A", open_engine)
    after, concerned = change(world, address=new.address)
    now = world.operation("A")
    assert (after.address, concerned) == (new.address, (f"{world.last}/A",))
    assert (now.fence, now.claim_token, int(now.progress_revision)) == (before.fence + 1, None, 0)
    assert (now.state, world.remote_id("A")) == ("running", remote_id)
    event = world.events("A")[-1]
    assert (event.event, event.who) == ("deployment_set", "bob")
    assert world.engines["A"].address in event.why
    assert new.address in event.why
    assert "the machine moves" in event.why
    engine_says(world, "A", "completed")
    assert world.state("A") == "completed"
    assert any(call.method in {"Progress", "BatchProgress"} for call in new.calls())
    assert outstanding(world) == []
    assert_safe(world)


def test_another_engine_is_refused_whatever_a_person_says(world: World, open_engine: OpenEngine) -> None:
    """It has a database of the same identifiers, a copy: both answer, and neither knows the other's key."""
    in_use_everywhere(world)
    copy = open_engine("copy", identity=SERVER)
    for said in ({}, {"same_engine": True}):
        refused = refusal(world, address=copy.address, **said)
        assert refused.reason == "ANOTHER_ENGINE"


def test_another_database_is_refused(world: World, open_engine: OpenEngine) -> None:
    in_use_everywhere(world)
    other = open_engine("other", identity="9/9")
    refused = refusal(world, address=other.address, same_engine=True)
    assert (refused.reason, "9/9" in refused.why[0]) == ("ANOTHER_DATABASE", True)


def test_an_engine_that_does_not_answer_there_is_refused(world: World) -> None:
    in_use_everywhere(world)
    refused = refusal(world, address="grpc://127.0.0.1:1", same_engine=True)
    assert "does not answer at grpc://127.0.0.1:1" in refused.what


@pytest.mark.parametrize(
    "says",
    [
        fail("NOT_FOUND"),
        altered(state=tern_v1.STATE_NO_ACTIVE_CHANGE),
        altered(state=77),
        fail("UNAVAILABLE"),
        fail("FAILED_PRECONDITION"),
    ],
    ids=["not there", "no active change", "a state without a meaning", "no answer", "a refusal"],
)
def test_an_id_that_is_not_known_there_is_uncertain(
    world: World, open_engine: OpenEngine, says: Behaviour
) -> None:
    """The same engine, and it has lost its memory of this job, or can't say: nothing is concluded from that."""
    remote_id = in_use_everywhere(world)
    new = moved(world, "A", open_engine)
    new.always("Progress", says)
    change(world, address=new.address)
    assert world.state("A") == "uncertain"
    assert f"does not know {remote_id}" in world.operation("A").error_message
    assert world.apply_row().state == "running"
    assert_safe(world)


def test_a_stopped_one_is_asked_about_too(world: World, open_engine: OpenEngine) -> None:
    stopped(world, "A", "B")
    new = moved(world, "A", open_engine)
    change(world, address=new.address)
    world.ask(Verb.START, "A")
    settle(world)
    assert world.state("A") == "running"
    assert [call.method for call in new.calls("Start")] == ["Start"]


def test_a_call_under_way_counts_as_unanswered_and_its_driver_has_lost_it(
    world: World, open_engine: OpenEngine
) -> None:
    """It has passed its last look and calls at the old address; whoever comes next asks under a higher fence."""
    world.apply("A", "B", policy=PARALLEL)
    world.forget_bells()
    new = moved(world, "A", open_engine)
    number, scope = world.operation("A").id, str(world.name("A"))
    with Frozen(world.worker("w1"), "apply", lambda ports: world.do("dispatch", number, scope, ports=ports)):
        claimed = world.operation("A")
        change(world, address=new.address)
        now = world.operation("A")
        assert (now.unanswered_call, now.claim_token, now.fence) == ("apply", None, claimed.fence + 1)
        assert now.unanswered_since is not None
    assert world.operation("A").claim_token is None
    # What it was answered is kept, and followed once a look at the new address knows it.
    world.run(until=lambda: world.remote_id("A") is not None, rounds=8)
    assert len(world.engines["A"].effects("apply")) == 1
    assert_safe(world)


def test_a_cutover_under_way_counts_as_unanswered(world: World, open_engine: OpenEngine) -> None:
    running(world, "A", "B", policy=MANUAL)
    engine_says(world, "A", "waiting_for_cutover")
    world.ask(Verb.CUTOVER, "A")
    world.forget_bells()
    new = moved(world, "A", open_engine)
    with Frozen(world.worker("w1"), "cutover", lambda ports: drive(world, Verb.CUTOVER, "A", ports)):
        change(world, address=new.address)
        assert world.operation("A").unanswered_call == "cutover"
    world.run(until=lambda: world.state("A") == "completed", rounds=12)


def test_what_changes_while_engines_are_asked_is_looked_at_again(
    world: World, open_engine: OpenEngine
) -> None:
    """A rollout begins there in between: its work was not asked about."""
    new = moved(world, "A", open_engine)
    asked = DeploymentChange("A", "bob", "the machine moves", address=new.address)
    (before,) = world.store.load_deployments(["A"])
    uses = world.store.uses("A")
    in_use_everywhere(world)
    with pytest.raises(TryAgain):
        world.store.change_deployment(
            asked, before, replace(before, address=new.address), uses, None, frozenset()
        )
    world.write("UPDATE deployments SET position = 9 WHERE name = 'A'")
    with pytest.raises(TryAgain):
        world.store.change_deployment(
            asked, before, replace(before, address=new.address), world.store.uses("A"), None, frozenset()
        )
    assert world.one("SELECT address FROM deployments WHERE name = 'A'").address == before.address


def test_what_was_found_about_the_old_address_is_found_out_anew(
    world: World, open_engine: OpenEngine
) -> None:
    world.write("INSERT INTO same_targets (one, other, finding, identity) VALUES ('A', 'B', 'two', 'x')")
    new = moved(world, "A", open_engine)
    change(world, address=new.address)
    assert world.store.findings() == {}


# Where nobody can prove it


def test_where_the_old_address_is_silent_a_person_speaks_and_what_was_sent_stays_outstanding(
    world: World, open_engine: OpenEngine
) -> None:
    """Nobody knows what still runs behind the old address: its ids may act there too."""
    remote_id = in_use_everywhere(world)
    old = world.engines["A"].address
    new = moved(world, "A", open_engine)
    world.engines["A"].always("Resolve", fail("UNAVAILABLE"))
    refused = refusal(world, address=new.address)
    assert refused.reason == "SAME_ENGINE_UNPROVEN"
    assert refused.next_step.endswith(
        f"tern deployments set A --address {new.address} --same-engine --reason '…'"
    )
    change(world, address=new.address, same_engine=True)
    (left,) = outstanding(world)
    assert (left.why, left.remote_id, left.dispatch_key, left.address) == (
        "address_changed",
        remote_id,
        None,
        old,
    )
    assert (left.caller, left.reason, left.deployment) == ("bob", "the machine moves", "A")
    assert (world.state("A"), world.remote_id("A")) == ("running", remote_id)


def test_an_intent_in_use_becomes_uncertain_and_its_key_outstanding(
    world: World, open_engine: OpenEngine
) -> None:
    """Its dispatch may have worked at the old address; a repetition at the new one would be a second change."""
    world.engines["A"].script("Apply", lose_answer())
    world.engines["A"].always("Resolve", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    assert world.state("A") == "failed_retryable"
    key = world.operation("A").dispatch_key
    new = moved(world, "A", open_engine)
    change(world, address=new.address, same_engine=True)
    assert world.state("A") == "uncertain"
    (left,) = outstanding(world)
    assert (left.dispatch_key, left.remote_id, left.why) == (key, None, "address_changed")
    for _ in range(3):
        world.pass_time(30)
        world.sweep()
    assert new.calls("Apply") == []
    assert_safe(world)


def test_a_proven_engine_keeps_its_intents(world: World, open_engine: OpenEngine) -> None:
    """Its key is known there: the same one is asked again, and there is one effect."""
    world.engines["A"].script("Apply", lose_answer())
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    new = moved(world, "A", open_engine)
    change(world, address=new.address, deduplicates=True)
    assert world.state("A") == "failed_retryable"
    world.run(until=lambda: world.remote_id("A") is not None, rounds=12)
    assert len(world.engines["A"].effects("apply")) == 1
    assert outstanding(world) == []


# Engines that prove nothing


@pytest.fixture
def foreign(make_world: MakeWorld) -> World:
    return make_world("A", "B", offers_engine_service=False)


def test_a_foreign_engine_moves_by_a_person_s_word_and_deduplicates_no_longer(
    foreign: World, open_engine: OpenEngine
) -> None:
    foreign.write("UPDATE deployments SET deduplicates = true, idempotent_dispatch = true")
    remote_id = in_use_everywhere(foreign)
    new = moved(foreign, "A", open_engine)
    refused = refusal(foreign, address=new.address)
    assert "offers no Resolve" in refused.why[0]
    after, _ = change(foreign, address=new.address, same_engine=True)
    assert not after.idempotent_dispatch
    row = foreign.one("SELECT deduplicates, idempotent_dispatch FROM deployments WHERE name = 'A'")
    assert (row.deduplicates, row.idempotent_dispatch) == (False, False)
    assert (foreign.state("A"), foreign.remote_id("A")) == ("running", remote_id)


def test_said_again_it_deduplicates(foreign: World, open_engine: OpenEngine) -> None:
    new = moved(foreign, "A", open_engine)
    after, _ = change(foreign, address=new.address, same_engine=True, deduplicates=True)
    assert after.idempotent_dispatch


@pytest.mark.parametrize("through", ["directly", "by a third address"])
def test_addresses_of_two_siblings_exchanged(foreign: World, open_engine: OpenEngine, through: str) -> None:
    """Both know an id of the same shape, and a stop of the one would stop the other: refused while either has work."""
    ids = running(foreign, "A", "B")
    a, b = foreign.engines["A"], foreign.engines["B"]
    if through == "directly":
        refused = refusal(foreign, "A", address=b.address, same_engine=True)
    else:
        away = moved(foreign, "B", open_engine)
        foreign.write(
            "UPDATE apply_operations o SET dispatched_to = d.address FROM deployments d"
            " WHERE d.name = o.deployment"
        )
        change(foreign, "B", address=away.address, same_engine=True)
        refused = refusal(foreign, "A", address=b.address, same_engine=True)
    assert refused.reason == "ADDRESSES_EXCHANGED"
    assert "B is, or was, reached at" in refused.what
    foreign.ask(Verb.STOP, "A")
    settle(foreign)
    assert [call.remote_id for call in a.calls("Stop")] == [ids["A"]]
    assert b.calls("Stop") == []


def test_addresses_of_two_proven_siblings_are_not_exchanged_either(world: World) -> None:
    """Each engine says that it does not know the other's key."""
    world.write(
        "UPDATE deployments SET engine_identity = :one, capabilities ="
        " jsonb_set(capabilities, '{identity}', to_jsonb(CAST(:one AS text)))",
        one=SERVER,
    )
    world.engines["B"].identity = SERVER
    running(world, "A", "B")
    refused = refusal(world, "A", address=world.engines["B"].address, same_engine=True)
    assert refused.reason == "ANOTHER_ENGINE"


# What else can be said


def test_another_database_is_made_known_while_nothing_of_the_old_one_may_act(world: World) -> None:
    """A dump was restored, or the server upgraded: the identifiers are new."""
    remote_id = in_use_everywhere(world)
    world.engines["A"].identity = "9/9"
    refused = refusal(world, new_identity=True)
    assert (refused.reason, f"{world.last}/A" in refused.why[0]) == ("DEPLOYMENT_IN_USE", True)
    assert refused.next_step == f"End it first: tern cancel {world.last}/A --reason '…'"
    # What another database says of an id is about other work.
    world.engines["A"].identity = SERVER
    world.engines["A"].set_state(remote_id, "completed")
    look(world, "A")
    world.engines["A"].identity = "9/9"
    after, _ = change(world, new_identity=True)
    assert after.engine_identity == "9/9"
    world.apply("A", policy=PARALLEL)


def test_labels_position_and_credentials_change_in_use_and_end_no_claim(world: World) -> None:
    in_use_everywhere(world)
    before = world.operation("A")
    after, concerned = change(
        world,
        position=7,
        labels={"region": "eu", "old": None},
        credentials={"token": "env:NEW_TOKEN"},
    )
    assert (after.position, dict(after.labels), after.credentials.token) == (
        7,
        {"region": "eu"},
        "env:NEW_TOKEN",
    )
    (stored,) = world.store.load_deployments(["A"])
    assert stored == replace(after, capabilities=stored.capabilities)
    assert concerned == (f"{world.last}/A",)
    assert world.operation("A").fence == before.fence
    assert "token: none → env:NEW_TOKEN" in world.events("A")[-1].why
    assert [call for call in world.engines["A"].calls() if call.method == "Resolve"] == []


def test_what_a_probe_found_meanwhile_is_not_written_over(world: World) -> None:
    (before,) = world.store.load_deployments(["A"])
    world.write(
        "UPDATE deployments SET capabilities = jsonb_set(capabilities, '{preview}', 'false') WHERE name = 'A'"
    )
    asked = DeploymentChange("A", "bob", "x", position=3)
    world.store.change_deployment(asked, before, asked.applied_to(before), (), None, frozenset())
    (after,) = world.store.load_deployments(["A"])
    assert (after.position, after.capabilities.preview) == (3, False)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"same_engine": True, "position": 1},
        {"labels": {}},
    ],
)
def test_what_says_nothing_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DeploymentChange("A", "bob", "x", **said)


def test_nothing_changes_without_a_reason() -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        DeploymentChange("A", "bob", "  ", position=1)


def test_an_engine_that_hangs_holds_no_lock(world: World, open_engine: OpenEngine) -> None:
    """Calls are made outside of any transaction."""
    in_use_everywhere(world)
    new = moved(world, "A", open_engine)
    new.script("Progress", hang(1.0))
    seen: list[str] = []
    right = world.store.uses

    def uses(name: str) -> Any:
        seen.append(name)
        return right(name)

    world.store.uses = uses  # type: ignore[method-assign]
    change(world, address=new.address)
    assert seen == ["A"]
    assert methods(world, "A", ["Apply"]) == ["Apply"]
