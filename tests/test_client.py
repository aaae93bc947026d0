"""tern.Client: both ways answer alike, errors are Tern's own, and importing it costs what it must."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest

import tern
from tern.client import Client
from tern.domain.control import Receipt as Outcome
from tern.domain.control import Verb
from tern.domain.errors import (
    Misconfigured,
    NotAllowed,
    NotFound,
    Refused,
    TernError,
    Unreachable,
    UsageError,
)
from tern.domain.policy import Copy, Cutover, OnFailure, Policy, Wave
from tern.domain.states import ApplyState, State
from tern.ports import Resolved
from tern.store.database import Database
from tern.wire.control.server import ControlServer
from tests.doors.calling import ACT, READ
from tests.doors.conftest import channel, database, desk, make_world, server, stubs, world
from tests.flows.gone import given_up
from tests.flows.steps import settle
from tests.flows.test_effect import STATEMENTS, told
from tests.world import World

__all__ = ["channel", "database", "desk", "make_world", "server", "stubs", "world"]

DDL = "ALTER TABLE orders ADD COLUMN note text"
PLACE = {"environment": "test", "database": "shop", "reason": "because"}


@pytest.fixture
def direct(world: World, migrated_url: str, database: Database) -> Iterator[Client]:
    with Client(database_url=migrated_url, caller="deployer", bells=world.bells) as opened:
        yield opened


@pytest.fixture
def remote(server: ControlServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("TERN_CONTROL_ADDRESS", f"grpc://127.0.0.1:{server.port}")
    monkeypatch.setenv("TERN_CONTROL_TOKEN", ACT)
    with Client() as opened:
        yield opened


@pytest.fixture(params=["direct", "remote"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each test with each of the two."""
    found: Client = request.getfixturevalue(request.param)
    return found


def test_the_package_offers_it_and_costs_nothing_until_then() -> None:
    assert tern.Client is Client
    with pytest.raises(AttributeError):
        _ = tern.Nothing
    program = (
        "import sys, tern; early = set(sys.modules); tern.Client;"
        "heavy = {'celery', 'kombu', 'redis', 'click', 'rich', 'grpc', 'sqlalchemy', 'pydantic', 'postgast'};"
        "print(sorted(heavy & set(sys.modules)), 'tern.ports' in early)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_a_rollout_from_the_first_line_to_the_verdict(world: World, client: Client) -> None:
    policy = Policy(
        copy=Copy.PARALLEL,
        cutover=Cutover.MANUAL,
        max_failures=1,
        waves=(Wave(deployments=("A",)), Wave(max_parallel=1)),
    )
    made = client.enqueue(ddl=DDL, **PLACE, deployments=["A", "B"], key="k1", policy=policy)
    assert (made.is_new, made.deployments, made.caller) == (True, ("A", "B"), "deployer")
    assert client.enqueue(ddl=DDL, **PLACE, deployments=["A", "B"], key="k1", policy=policy).is_new is False
    with pytest.raises(UsageError):
        client.enqueue(ddl=DDL, **PLACE, deployments=["C"], key="")
    assert client.enqueued("k1").apply_id == made.apply_id
    world.last = made.apply_id
    shown = client.get(made.apply_id)
    assert (shown.state, shown.policy, shown.caller) == (ApplyState.PENDING, policy, "deployer")
    assert shown.operation("B").wave == 2
    assert any(hold.kind == "wave" for hold in shown.operation("B").holds)
    assert any("B" in reason.deployments for reason in client.explain(f"{made.apply_id}/B").reasons)

    world.answer_bells()
    world.engines["A"].set_state(world.remote_id("A") or "", "waiting_for_cutover")
    world.run(until=lambda: world.state("A") == "waiting_for_cutover")
    assert client.get(made.apply_id).operation("A").state is State.WAITING_FOR_CUTOVER
    refused = client.cutover(made.apply_id, "now", everywhere=True, dry_run=True)
    assert (refused.having(Outcome.ACCEPTED), refused.having(Outcome.REFUSED)) == (("A",), ("B",))
    assert client.cancel(made.apply_id, "enough").having(Outcome.ACCEPTED) == ("A", "B")
    world.run(until=lambda: world.apply_row().state == "cancelled")
    seen = list(client.watch(made.apply_id))
    assert (seen[-1].state, seen[-1].exit_code) == (ApplyState.CANCELLED, 11)
    assert [line.apply_id for line in client.applies(states=[ApplyState.CANCELLED])] == [made.apply_id]
    assert client.applies(before=made.apply_id) == ()
    events = client.events(made.apply_id)
    assert events[0].event == "accepted"
    assert client.events(f"{made.apply_id}/A", after=events[-1].event_id) == ()


def test_both_ways_show_the_same(world: World, direct: Client, remote: Client) -> None:
    """Whatever can be shown: ages apart, not a field differs."""
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL, max_parallel=2))
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    world.write("UPDATE deployments SET drained = true WHERE name = 'C'")
    one, other = direct.get(apply_id), remote.get(apply_id)
    assert one == other
    assert any(operation.wishes for operation in one.operations)
    assert any(operation.holds for operation in one.operations)
    assert any(operation.tables for operation in one.operations)
    assert one.blockers
    assert direct.applies() == remote.applies()
    assert direct.events(apply_id) == remote.events(apply_id)
    assert direct.explain(apply_id) == remote.explain(apply_id)
    assert next(direct.watch(apply_id)) == next(remote.watch(apply_id))
    assert direct.enqueued("nobody's") == remote.enqueued("nobody's")
    assert direct.verify() == remote.verify()
    assert direct.verify(apply_id).records[0].events > 0


def test_both_show_what_needs_a_person_and_what_may_still_act(
    world: World, direct: Client, remote: Client
) -> None:
    """Nobody else would tell a service that something which it no longer follows is outstanding at its target."""
    apply_id = world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    remote_id = given_up(world, "A")
    world.ask(Verb.STOP, "B", "C")
    settle(world)
    one, other = direct.get(apply_id), remote.get(apply_id)
    assert one == other
    (line,) = other.operation("A").outstanding
    assert (line.remote_id, line.is_own, line.in_doubt) == (remote_id, True, False)
    assert line.ways[0].command == "tern deployments check A"
    stopped = next(cause for cause in other.needs_you if cause.deployments == ("B", "C"))
    assert (stopped.operation_count, stopped.what) == (2, "stopped")
    assert stopped.ways[0].command == f"tern start {apply_id} --state stopped --reason '…'"


def test_what_is_refused_is_an_error_of_tern_s(world: World, client: Client) -> None:
    apply_id = world.apply()
    with pytest.raises(Refused) as refusal:
        client.start(apply_id, "go on")
    assert (refusal.value.reason, refusal.value.exit_code) == ("SELECTION_MISSING", 5)
    assert "A (pending)" in refusal.value.why[0]
    with pytest.raises(NotFound):
        client.get("apl-0")
    with pytest.raises(UsageError):
        client.get(f"{apply_id}/A")
    with pytest.raises(UsageError, match="no time zone"):
        client.verify(since=datetime(2026, 11, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(UsageError, match="no list of names"):
        client.enqueue(ddl=DDL, **PLACE, deployments="A,B")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        client.volume(apply_id, 12, "louder", everywhere=True)
    with pytest.raises(Refused, match="not uncertain"):
        client.resolve(f"{apply_id}/A", Resolved.ENDED, "I looked")
    many = client.resolve(apply_id, Resolved.ENDED, "I looked", everywhere=True, dry_run=True)
    assert many.having(Outcome.REFUSED) == ("A", "B", "C")
    with pytest.raises(UsageError, match="a whole apply"):
        client.resolve(apply_id, Resolved.ENDED, "I looked")
    with pytest.raises(Refused, match="not over"):
        client.settle_statements(f"{apply_id}/A", "I looked", "1=done")
    with pytest.raises(UsageError, match="can't be read"):
        client.settle_statements(f"{apply_id}/A", "I looked", "1=perhaps")


@pytest.mark.parametrize("verb", sorted(Verb))
def test_every_verb_has_its_method(verb: Verb, world: World, client: Client) -> None:
    apply_id = world.apply()
    extra = (3,) if verb is Verb.VOLUME else ()
    ask = getattr(client, verb.value.replace("-", "_"))
    # A release is of the apply as a whole.
    selectors, named = ({}, [""]) if verb is Verb.RELEASE else ({"everywhere": True}, ["A", "B", "C"])
    receipt = ask(apply_id, *extra, "the night is long", dry_run=True, **selectors)
    assert [line.deployment for line in receipt.lines] == named
    assert receipt.request_id is None


def test_a_token_that_may_only_read(
    world: World, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READ_TOKEN", READ)
    apply_id = world.apply()
    with Client(f"grpc://127.0.0.1:{server.port}", token="env:READ_TOKEN", caller="root") as reader:
        assert reader.get(apply_id).operation_count == 3
        with pytest.raises(NotAllowed):
            reader.stop(apply_id, "please")
    with Client(f"grpc://127.0.0.1:{server.port}") as nobody, pytest.raises(NotAllowed) as refusal:
        nobody.get(apply_id)
    assert refusal.value.reason == "UNAUTHENTICATED"


def test_nobody_there_is_unreachable_and_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    """G10: whether an enqueue was taken is not known then, and it says so."""
    with Client("grpc://127.0.0.1:1") as client:
        with pytest.raises(Unreachable) as silence:
            client.enqueue(ddl=DDL, **PLACE, everywhere=True)
        assert "repeat with the same key" in silence.value.unchanged
        with pytest.raises(Unreachable):
            list(client.watch("apl-1"))
    with pytest.raises(Misconfigured, match="closed"):
        client.get("apl-1")
    with pytest.raises(TernError):
        Client(database_url="postgresql://nobody@127.0.0.1:1/none")


@pytest.mark.parametrize(
    ("address", "given", "reason"),
    [
        ("tern.internal:7430", {}, "ADDRESS_MALFORMED"),
        ("grpc://u:secret@h:1", {}, "PASSWORD_IN_ADDRESS"),
        ("grpc://tern.internal:7430", {}, "PLAINTEXT_REFUSED"),
        ("grpc://127.0.0.1:7430", {"tls_ca": "file:/ca.pem"}, "TLS_NOT_USED"),
        ("grpcs://tern.internal:7430", {"tls_cert": "file:/c.pem"}, "TLS_INCOMPLETE"),
    ],
)
def test_an_address_that_can_t_be_used_is_said_before_anything_is_sent(
    address: str, given: dict[str, str], reason: str
) -> None:
    with pytest.raises(Misconfigured) as trouble:
        Client(address, **given)
    assert trouble.value.reason == reason
    assert "secret" not in str(trouble.value)


def test_what_is_left_is_shown_and_carried_on_by_every_client(
    world: World, migrated_url: str, server: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same groups, the same digests; and the same digest sent by another door is the same follow-up."""
    world.apply(
        "A", "B", policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE), changes=STATEMENTS
    )
    world.answer_bells()
    told(world, State.FAILED, "completed", "failed", "pending", name="A")
    told(world, State.FAILED, "running", name="B")
    source = str(world.last)
    monkeypatch.setenv("ACT_TOKEN", ACT)
    with (
        Client(database_url=migrated_url, caller="ann@desk") as direct,
        Client(f"grpc://127.0.0.1:{server.port}", token="env:ACT_TOKEN") as remote,
    ):
        assert direct.rest(source) == remote.rest(source)
        (group,) = remote.rest(source).groups
        assert [each.number for each in group.statements] == [2, 3]
        assert [each.carries_on for each in group.deployments] == [f"{source}/A"]
        (other,) = remote.rest(source).left_out
        assert f"tern resolve {source}/B --statement 1=… --statement 2=…" in other.command
        with pytest.raises(Refused, match="not what was shown"):
            remote.carry_on(source, "nonsense", "mended")
        with pytest.raises(UsageError):
            remote.carry_on(source, group.digest, " ")
        first = remote.carry_on(source, group.digest, "mended")
        again = direct.carry_on(source, group.digest, "mended")
        assert (first.is_new, again.is_new, again.apply_id) == (True, False, first.apply_id)
        for client in (direct, remote):
            operation = client.get(source).operation("A")
            assert (operation.carried_on_by, operation.follow_ups) == (
                f"{first.apply_id}/A",
                (f"{first.apply_id}/A",),
            )
            assert client.get(first.apply_id).operation("A").carries_on == f"{source}/A"
            newest, oldest = client.applies()
            assert (newest.carries_on, oldest.follow_ups) == (source, (first.apply_id,))
