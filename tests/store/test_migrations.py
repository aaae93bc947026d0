"""Migrations on a database in which rollouts are live: up, down and up again, and nothing is lost."""

from collections.abc import Callable, Iterator

import pytest
from alembic.script import ScriptDirectory
from psycopg import Error

from tern.domain.control import Verb
from tern.domain.effect import Effect
from tern.domain.holds import HoldKind
from tern.domain.policy import Copy, OnFailure, Policy
from tern.domain.selection import Selection
from tern.domain.statement import StatementAnswer
from tern.domain.states import State
from tern.flows.accept import settle_statements
from tern.ports import Resolved
from tern.store.contact import drains
from tern.store.database import Database
from tern.store.schema import alembic_config, migrate
from tern.store.session import connect
from tern.store.sql import text
from tests.faults.behaviour import lose_answer, not_accepted
from tests.faults.fake_engine import FakeEngine
from tests.flows.gone import comes_back, give_up, given_up, goes, lines, look_again, pass_long
from tests.flows.steps import PARALLEL, engine_says, holds_of, running, settle, stopped
from tests.flows.test_effect import STATEMENTS, told
from tests.flows.test_rest import (
    carried,
    fates,
    half_done,
    late_retry,
    out,
    refused_operation,
    shown,
    told_of,
)
from tests.flows.test_tried_again import ended, tried_again_as_of_old
from tests.invariants import assert_safe
from tests.world import World


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    engine = connect(migrated_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def make_world(database: Database) -> Iterator[Callable[..., World]]:
    engines: list[FakeEngine] = []
    worlds: list[World] = []

    def make(*names: str) -> World:
        fakes = {name: FakeEngine(name) for name in names}
        engines.extend(fakes.values())
        worlds.append(World(database, fakes))
        return worlds[-1]

    yield make
    for world in worlds:
        world.directory.close()
    for engine in engines:
        engine.stop()


def below(revision: str) -> str:
    """How far down from the newest schema it is to the one without this migration."""
    history = ScriptDirectory.from_config(alembic_config()).walk_revisions()
    return f"-{[each.revision for each in history].index(revision) + 1}"


def reservations(world: World) -> list[tuple[str, str, bool]]:
    """Deployment, apply, and whether it is known which operation of it holds the target."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT t.deployment, a.apply_identifier, to_jsonb(t) ->> 'operation_id' AS operation"
                " FROM target_reservations t JOIN applies a ON a.id = t.apply_id ORDER BY 1"
            )
        )
        return [(row.deployment, row.apply_identifier, row.operation is not None) for row in rows]


def test_targets_belong_to_operations_and_to_applies_again(make_world: Callable[..., World]) -> None:
    """A completed sibling's is free afterwards, a stopped one's is held; going down, each apply has its own again."""
    world = make_world("A", "B", "C", "D")
    stopped(world, "C", "D")
    before = world.last
    running(world, "A", "B")
    engine_says(world, "A", "completed")
    live = world.last
    assert reservations(world) == [("B", live, True), ("C", before, True), ("D", before, True)]
    migrate(world.database, below("0008"))
    assert reservations(world) == [("A", live, True), ("B", live, True)]
    # A worker of the version before: a sibling's target is held until the verdict, a stopped one's is not.
    migrate(world.database)
    assert reservations(world) == [("B", live, True), ("C", before, True), ("D", before, True)]
    assert_safe(world)
    engine_says(world, "B", "completed")
    world.last = before
    world.ask(Verb.START, "C", "D")
    settle(world)
    assert {world.state("C"), world.state("D")} == {"running"}
    assert_safe(world)


def statements(world: World, name: str) -> list[str]:
    """The states of an operation's statements."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text("SELECT state FROM table_changes WHERE operation_id = :id ORDER BY ordinal"),
            {"id": world.operation(name).id},
        )
        return [row.state for row in rows]


def test_what_nobody_can_know_of_an_older_statement_is_unknown(make_world: Callable[..., World]) -> None:
    """Until 0010 an operation's end was written over every statement that was not done; live ones lose nothing."""
    world = make_world("A", "B", "C", "D")
    world.engines["B"].script("Apply", not_accepted())
    world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE), changes=STATEMENTS)
    world.ask(Verb.STOP, "D")
    world.answer_bells()
    assert {name: world.state(name) for name in "ABCD"} == {
        "A": "running",
        "B": "failed",
        "C": "running",
        "D": "stopped",
    }
    told(world, State.FAILED, "completed", "failed", "pending")
    told(world, State.RUNNING, "completed", "running", "pending", name="C")
    assert statements(world, "A") == ["completed", "failed", "skipped"]
    migrate(world.database, below("0010"))
    assert statements(world, "A") == ["completed", "failed", "failed"]
    assert statements(world, "B") == ["failed"] * 3
    assert statements(world, "D") == ["stopped"] * 3
    migrate(world.database)
    assert statements(world, "A") == ["completed", "unknown", "unknown"]
    assert statements(world, "B") == ["skipped"] * 3
    assert statements(world, "C") == ["completed", "running", "pending"]
    assert statements(world, "D") == ["pending"] * 3
    told(world, State.COMPLETED, *["completed"] * 3, name="C")
    world.ask(Verb.START, "D")
    settle(world)
    assert (world.state("C"), world.state("D")) == ("completed", "running")
    assert_safe(world)


def kept(world: World) -> list[tuple[object, ...]]:
    """Of each line all that a person or an engine has said of it."""
    return [
        (
            *(line.id, line.remote_id, line.dispatch_key, line.fence, line.address, line.proven_address),
            *(line.settled_as, line.settled_reason, line.cancel_caller, line.cancel_asked_at, line.last_seen),
        )
        for line in lines(world)
    ]


def guarded_by(world: World, statement: str, **given: object) -> str:
    """The name of what refuses the write of a worker of the version before."""
    with pytest.raises(Error) as refused:
        world.write(statement, **given)
    return str(refused.value.diag.constraint_name)


FIRST_CLAIM = (
    "UPDATE apply_operations SET state = 'running', dispatch_key = 'k', dispatch_intent_at = tern_clock(),"
    " claim_token = 't', claim_owner = 'old', claim_expires_at = tern_clock() + interval '30 s' WHERE id = :id"
)


def test_what_is_outstanding_holds_its_target_on_the_way_down_and_up(
    make_world: Callable[..., World],
) -> None:
    """One line is live and is to be ended, one waits for an engine that is silent still, one is settled and watched;
    two applies wait behind the open ones, and one that has nothing to do with them runs.
    """
    world = make_world("A", "B", "C", "D")
    running(world, "A", "B", "C")
    first, ids = world.last, {name: given_up(world, name) for name in "ABC"}
    comes_back(world, "A", "C")
    world.engines["C"].set_state(ids["C"], "completed")
    look_again(world)
    world.engines["A"].ignore("Cancel")
    world.ask_for(Verb.CANCEL, Selection(("A",)), outstanding=True)
    world.answer_bells()
    beside = {name: running(world, name)[name] for name in "CD"}
    waiting = {name: world.apply(name, policy=PARALLEL) for name in "AB"}
    world.answer_bells()
    before = kept(world)
    assert [line.settled_at is None for line in lines(world)] == [True, True, False]
    migrate(world.database, below("0009"))
    # The version before asks nobody; what it does not know of keeps it from beginning anything beside it.
    for name, apply_id in waiting.items():
        assert guarded_by(world, FIRST_CLAIM, id=world.operation(name, apply_id).id) == (
            "apply_operations_begin_nothing"
        )
        assert world.state(name, apply_id) == "pending"
    migrate(world.database)
    assert kept(world) == before
    world.last = waiting["B"]
    assert HoldKind.OUTSTANDING in holds_of(world, "B")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["", "", "completed"]
    # The cancel that was asked for on the way is carried out, and the other line is found again.
    world.engines["A"].ignore()
    comes_back(world, "B")
    world.engines["B"].set_state(ids["B"], "failed")
    look_again(world)
    assert [line.settled_as for line in lines(world)] == ["cancelled", "failed", "completed"]
    assert {name: world.state(name, apply_id) for name, apply_id in waiting.items()} == {
        "A": "running",
        "B": "running",
    }
    assert {world.state(name, first) for name in "ABC"} == {"failed"}
    for name, remote_id in beside.items():
        assert world.engines[name].job(remote_id).state == "running"
    assert_safe(world)


def test_what_is_carried_on_is_run_by_its_follow_up_alone_on_the_way_down_and_up(
    make_world: Callable[..., World],
) -> None:
    """A's engine refused it, and a live follow-up has it; of B one statement was settled by a person; C's follow-up has
    completed, D's second statement is of unknown effect.
    """
    world = make_world("A", "B", "C", "D")
    sources = {"A": refused_operation(world)}
    follow_ups = {"A": carried(world)}
    world.answer_bells()
    for name in "CD":
        sources[name] = half_done(world, name)
    sources["B"] = world.apply("B", changes=STATEMENTS)
    world.answer_bells()
    told(world, State.FAILED, "completed", name="B")
    settle_statements(
        StatementAnswer(
            world.name("B", sources["B"]), {2: Effect.NOT_DONE, 3: Effect.DONE}, "eve", "I looked"
        ),
        world.ports,
    )
    follow_ups["C"] = carried(world, "C", apply_id=sources["C"])
    world.answer_bells()
    engine_says(world, "C", "completed")
    world.write(
        "UPDATE table_changes SET state = 'unknown' WHERE ordinal = 2 AND operation_id = :id",
        id=world.operation("D", sources["D"]).id,
    )
    late_retry(world, sources["A"])
    migrate(world.database, below("0010"))
    # A worker of the version before drives a retry that was asked for then, or is asked for now.
    refused = guarded_by(
        world,
        "UPDATE apply_operations SET state = 'pending', completed_at = NULL WHERE id = :id",
        id=world.operation("A", sources["A"]).id,
    )
    assert refused == "apply_operations_are_carried_on_once"
    migrate(world.database, "-1")
    refused = guarded_by(
        world,
        "UPDATE apply_operations SET state = 'pending', completed_at = NULL WHERE id = :id",
        id=world.operation("A", sources["A"]).id,
    )
    assert refused == "apply_operations_are_carried_on_once"
    migrate(world.database)
    world.do("retry", world.operation("A", sources["A"]).id, str(world.name("A", sources["A"])))
    by = f"it is carried on by {follow_ups['A']}/A"
    assert fates(world, "A", sources["A"]) == [("retry", "failed", by)]
    assert out(shown(world, apply_id=sources["A"]))["A"][0].startswith(by)
    assert out(shown(world, apply_id=sources["C"]))["C"][0] == (
        f"it is carried on by {follow_ups['C']}/C, which has completed"
    )
    # That a statement is done stands, whoever said so; of the others a person is asked once more.
    for name, unknown in (("B", "2=… --reason"), ("D", "2=… --statement 3=…")):
        assert unknown in out(shown(world, apply_id=sources[name]))[name][1]
    told_of(world, follow_ups["A"], State.FAILED, "completed", "failed", "pending")
    (group,) = shown(world, apply_id=sources["A"]).groups
    assert group.numbers == (2, 3)
    assert world.state("A", sources["A"]) == "failed"
    assert_safe(world)


def test_a_key_that_was_given_up_is_known_on_the_way_down_and_up(make_world: Callable[..., World]) -> None:
    """A's was forgotten by a worker of a version before there was a guard; B's is not even after the way down."""
    world = make_world("A", "B")
    world.undeclared()
    world.apply(policy=Policy(copy=Copy.PARALLEL, on_failure=OnFailure.CONTINUE))
    goes(world, "A", "B")
    for engine in world.engines.values():
        engine.always("Apply", lose_answer())
    world.answer_bells()
    jobs = {name: next(iter(world.engines[name].jobs.by_id)) for name in "AB"}
    goes(world, "A", "B")
    pass_long(world)
    give_up(world, "A", "B", found=Resolved.NOT_STARTED)
    before = {name: world.operation(name) for name in "AB"}
    migrate(world.database, below("0009"))
    forgets = (
        "UPDATE apply_operations SET state = 'pending', state_changed_at = tern_clock(), completed_at = NULL,"
        " dispatch_key = NULL, dispatch_intent_at = NULL, error_message = '', error_reason = '' WHERE id = :id"
    )
    world.write(forgets, id=before["B"].id)
    world.write("ALTER TABLE apply_operations DISABLE TRIGGER apply_operations_keep_what_was_sent")
    world.write(forgets, id=before["A"].id)
    world.write("ALTER TABLE apply_operations ENABLE TRIGGER apply_operations_keep_what_was_sent")
    assert (world.operation("A").dispatch_key, world.operation("B").dispatch_key) == (
        None,
        before["B"].dispatch_key,
    )
    # What was given up may act at the target: nothing is sent again there either.
    repeats = (
        "UPDATE apply_operations SET state = 'running', unanswered_call = 'apply', unanswered_since = tern_clock(),"
        " claim_token = 't', claim_owner = 'old', claim_expires_at = tern_clock() + interval '30 s' WHERE id = :id"
    )
    assert guarded_by(world, repeats, id=before["B"].id) == "apply_operations_begin_nothing"
    migrate(world.database)
    for name in "AB":
        assert world.operation(name).dispatch_key == before[name].dispatch_key
        assert world.operation(name).engine_number == before[name].engine_number
        world.engines[name].set_state(jobs[name], "completed")
    comes_back(world, "A", "B")
    look_again(world)
    for name in "AB":
        assert [call.method for call in world.engines[name].calls()].count("Apply") == 1
        assert world.state(name) == "completed"


def test_below_what_is_outstanding_no_guard_is_left(make_world: Callable[..., World]) -> None:
    """They read a table that is not there any more; a key is forgotten there as it always was."""
    world = make_world("A", "B")
    running(world, "A")
    migrate(world.database, below("0005"))
    world.write("UPDATE apply_operations SET dispatch_key = NULL, dispatch_intent_at = NULL")
    migrate(world.database)


def test_what_is_left_behind_at_two_addresses_stays_on_the_way_down_and_up(
    make_world: Callable[..., World],
) -> None:
    """A line that has moved by proof, and one for the address that it came from."""
    world = make_world("A", "B")
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    for proven in ("grpc://127.0.0.1:9", ""):
        world.write(
            "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id,"
            " fence, address, proven_address, why, caller) SELECT apply_id, id, 'test', 'shop', deployment, 'R-1', 1,"
            f" 'grpc://127.0.0.1:8', '{proven}', 'address_changed', 'bob' FROM apply_operations"
            " WHERE deployment = 'A'"
        )
    before = kept(world)
    number = world.one("SELECT engine_number AS n FROM deployments WHERE name = 'A'").n
    migrate(world.database, below("0016"))
    # Workers of the version before find engines by the one address that stands with them.
    world.write("UPDATE deployments SET address = 'grpc://127.0.0.1:7' WHERE name = 'A'")
    assert world.one("SELECT engine_number AS n FROM deployments WHERE name = 'A'").n != number
    assert kept(world) == before
    migrate(world.database)
    assert kept(world) == before


def test_what_was_pending_with_a_key_that_may_act_asks_about_it_on_the_way_up(
    make_world: Callable[..., World],
) -> None:
    """It was called ended and tried again by the version before, and its rollout halts meanwhile."""
    world = make_world("A", "B")
    ended(world)
    migrate(world.database, below("0017"))
    tried_again_as_of_old(world)
    assert world.state("A") == "pending"
    migrate(world.database)
    assert world.state("A") == "failed_retryable"
    engine_says(world, "B", "failed", error="disk full")
    world.store.set_drained("A", drained=False)
    world.engines["A"].always("Resolve", None)
    look_again(world)
    assert (world.state("A"), world.remote_id("A")) == ("running", "A-1")
    migrate(world.database, below("0017"))
    assert world.state("A") == "running"
    migrate(world.database)
    assert_safe(world)


def test_what_is_drained_stays_so_and_nobody_is_named_for_it(make_world: Callable[..., World]) -> None:
    """On the way up, and while a worker of the version before writes beside the new ones."""
    world = make_world("A", "B")
    world.apply("B", "A", policy=PARALLEL)
    migrate(world.database, below("0023"))
    world.write("UPDATE deployments SET drained = true WHERE name = 'A'")
    migrate(world.database)
    drain = drains(world.database)
    assert (list(drain), drain["A"].by, drain["A"].age_s) == (["A"], "", None)
    world.store.set_drained("A", drained=False)
    world.store.set_drained("A", drained=True, caller="ann", reason="why")
    assert drains(world.database)["A"].by == "ann"
    world.write("UPDATE deployments SET drained = false WHERE name = 'A'")
    world.write("UPDATE deployments SET drained = true WHERE name = 'A'")
    assert drains(world.database)["A"].by == ""
    migrate(world.database, below("0023"))
    assert world.store.load_deployments(["A"])[0].drained
    migrate(world.database)
    assert_safe(world)
