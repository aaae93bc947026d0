"""Fail closed on scope: each refusal of G7 as a scenario of its own (S3-S10)."""

from collections.abc import Callable

import pytest
from psycopg import IntegrityError

from tern.domain.control import Verb
from tern.domain.errors import NotFound, Refused, ScopeRefused
from tern.domain.identity import ApplyId
from tern.domain.policy import Copy, OnFailure, Policy
from tern.store.sql import text
from tests.world import World

MakeWorld = Callable[..., World]
PARALLEL = Policy(copy=Copy.PARALLEL)
KINDS = ("dispatch", "stop", "start", "cutover", "cancel", "progress")
TABLES = (
    "deployments",
    "plans",
    "plan_changes",
    "applies",
    "apply_operations",
    "table_changes",
    "control_requests",
    "control_deliveries",
    "target_reservations",
    "apply_events",
    "sweep_leases",
)


def everything(world: World) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    with world.database.begin() as tx:
        return {
            table: sorted(tx.execute(text(f"SELECT CAST(t AS text) FROM {table} t")).scalars())
            for table in TABLES
        }


def calls(world: World) -> int:
    return sum(len(engine.calls()) for engine in world.engines.values())


def assert_refused(world: World, operation_id: object, scope: object, reason: str) -> None:
    """Every kind of message raises, names the rule, and leaves no trace anywhere."""
    before, asked = everything(world), calls(world)
    for kind in KINDS:
        with pytest.raises(ScopeRefused) as refusal:
            world.do(kind, operation_id, scope)
        assert refusal.value.reason == reason
    assert everything(world) == before
    assert calls(world) == asked
    assert not world.bells.queue


def write_behind_the_guards(world: World, *statements: str) -> None:
    """What no program of ours can write: the triggers are asleep, as after a restore gone wrong."""
    with world.database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            tx.execute(text(statement))


@pytest.fixture
def under_way(make_world: MakeWorld) -> World:
    """A rollout over A and B, with every verb asked for, all bells lost."""
    world = make_world("A", "B", "C")
    world.apply("A", "B", policy=PARALLEL)
    world.answer_bells()
    world.ask(Verb.STOP)
    world.forget_bells()
    return world


def test_s3_an_operation_that_does_not_exist(under_way: World) -> None:
    """S3, G7: id 0, negative, unknown or beyond all numbers is an error, and nothing is written."""
    for operation_id in (0, -1, 999_999, "999999", 2**63, 10**30):
        assert_refused(under_way, operation_id, str(under_way.name("A")), "OPERATION_UNKNOWN")


def test_s3_something_that_is_no_operation_id(under_way: World) -> None:
    """S3, G7: what can't be read as an id is refused before any row is read."""
    for operation_id in (None, True, 1.5, "one", "", [1], {}):
        assert_refused(under_way, operation_id, str(under_way.name("A")), "OPERATION_MALFORMED")


def test_s4_an_operation_of_another_apply(under_way: World) -> None:
    """S4, G7: the id is real, the scope is real, but they are not each other's."""
    first = under_way.name("A")
    second = under_way.apply("C")
    under_way.forget_bells()
    theirs = under_way.operation("C", second).id
    assert_refused(under_way, theirs, str(first), "OPERATION_OF_ANOTHER_APPLY")


@pytest.mark.parametrize("name", ["", "a\x00b", "\ud800", "x" * 5_000, "é", 5, None, ["A"], {"A": 1}])
@pytest.mark.parametrize("kind", ["poll", "advance"])
def test_something_that_is_no_name(under_way: World, kind: str, name: object) -> None:
    before, asked = everything(under_way), calls(under_way)
    with pytest.raises(ScopeRefused):
        under_way.do(kind, name)
    assert (everything(under_way), calls(under_way)) == (before, asked)


def test_a_poll_of_a_deployment_that_is_not_there_leaves_nothing(under_way: World) -> None:
    before = everything(under_way)
    under_way.do("poll", "nowhere")
    assert everything(under_way) == before


def test_s5_an_empty_deployment_or_no_scope_at_all(under_way: World) -> None:
    """S5, G7: `apl-…/` names no operation, and neither does anything else that is not written as a scope."""
    apply, operation_id = under_way.last, under_way.operation("A").id
    for scope in (f"{apply}/", apply, "/A", "", "A", f"{apply}/A/B", f"{apply}/ A", f"{apply}/A\n"):
        assert_refused(under_way, operation_id, scope, "SCOPE_MALFORMED")


def test_s5_a_scope_that_is_no_text(under_way: World) -> None:
    """S5, G7: JSON can carry anything; only a text can be a scope."""
    for scope in (None, 7, b"apl-1/A", ["apl-1", "A"]):
        assert_refused(under_way, under_way.operation("A").id, scope, "SCOPE_MALFORMED")


def test_s5_the_database_knows_no_operation_without_a_deployment(under_way: World) -> None:
    """S5, G7: an empty deployment can't be stored either."""
    with pytest.raises(IntegrityError, match="belongs to its apply and its deployment"):
        under_way.write("UPDATE apply_operations SET deployment = '' WHERE deployment = 'A'")


def test_s6_another_deployment_than_the_one_asked_for(under_way: World) -> None:
    """S6, G7: A's id with B's name is neither A nor B."""
    operation = under_way.operation("A")
    assert_refused(under_way, operation.id, str(under_way.name("B")), "DEPLOYMENT_MISMATCH")


def test_s7_a_wish_for_a_deployment_that_is_not_in_the_set(under_way: World) -> None:
    """S7, G7: C exists, but not in this apply; nothing is accepted for the others either."""
    before = everything(under_way)
    with pytest.raises(NotFound, match="no operation on 'C'"):
        under_way.ask(Verb.STOP, "A", "C")
    assert everything(under_way) == before


def test_s7_a_wish_for_an_apply_that_does_not_exist(under_way: World) -> None:
    before = everything(under_way)
    with pytest.raises(NotFound):
        under_way.ask(Verb.STOP, apply_id=ApplyId("apl-0"))
    assert everything(under_way) == before


def test_s7_an_operation_outside_of_its_applys_set(make_world: MakeWorld) -> None:
    """S7, G7: the apply says two and has three; who was not in the set when it was counted is not known."""
    world = make_world("A", "B", "C")
    world.apply("A", "B")
    world.forget_bells()
    write_behind_the_guards(
        world,
        "INSERT INTO apply_operations (apply_id, deployment, position, target)"
        " SELECT id, 'C', 2, 'target-C' FROM applies",
        "INSERT INTO table_changes (operation_id, apply_id, ordinal, namespace, table_name, ddl, action)"
        " SELECT o.id, o.apply_id, 0, 'public', 'orders', 'ALTER TABLE orders ADD x int', 'alter'"
        " FROM apply_operations o WHERE deployment = 'C'",
    )
    operation = world.operation("C")
    world.do("dispatch", operation.id, str(world.name("C")))
    assert calls(world) == 0
    settled = world.operation("C")
    assert (settled.state, settled.error_reason) == ("failed", "OPERATION_NOT_IN_SET")


@pytest.mark.parametrize("on_failure", [OnFailure.CONTINUE, OnFailure.HALT])
def test_s8_an_operation_without_table_changes(world: World, on_failure: OnFailure) -> None:
    """S8, G7: only this operation fails, with the reason, and without a call; the policy decides about the rest."""
    world.apply("A", "B", policy=Policy(on_failure=on_failure))
    world.write(
        "DELETE FROM table_changes WHERE operation_id = (SELECT id FROM apply_operations WHERE deployment = 'A')"
    )
    world.answer_bells()
    world.pass_time(3)
    world.sweep()
    operation = world.operation("A")
    assert (operation.state, operation.error_reason) == ("failed", "NO_TABLE_CHANGES")
    assert "no table changes" in operation.error_message
    assert not world.engines["A"].calls("Apply")
    assert world.state("B") == ("running" if on_failure is OnFailure.CONTINUE else "skipped")
    assert world.apply_row().external_id is None


def test_s9_a_table_change_of_another_apply(world: World) -> None:
    """S9, G7: a statement that somebody else reviewed is not sent; nothing of the other apply is touched."""
    other = world.apply("C")
    world.forget_bells()
    world.apply("A", "B", policy=Policy(on_failure=OnFailure.CONTINUE))
    world.write(
        "UPDATE table_changes SET apply_id = (SELECT id FROM applies WHERE apply_identifier = :other)"
        " WHERE operation_id = (SELECT id FROM apply_operations WHERE deployment = 'A')",
        other=other,
    )
    world.answer_bells()
    operation = world.operation("A")
    assert (operation.state, operation.error_reason) == ("failed", "TABLE_CHANGE_OF_ANOTHER_APPLY")
    assert not world.engines["A"].calls()
    assert world.operation("C", other).state == "pending"
    world.pass_time(3)
    world.sweep()
    assert world.state("B") == "running"


def test_s10_no_client_for_a_deployment(world: World) -> None:
    """S10, G7: its token can't be read, so nothing is sent; the reason is visible and the siblings go on."""
    world.write(
        """UPDATE deployments SET credentials = '{"token": "env:TERN_NO_SUCH_TOKEN"}' WHERE name = 'A'"""
    )
    world.apply("A", "B", policy=Policy(on_failure=OnFailure.CONTINUE))
    world.answer_bells()
    world.pass_time(3)
    world.sweep()
    operation = world.operation("A")
    assert operation.state == "failed"
    assert "TERN_NO_SUCH_TOKEN" in operation.error_message
    assert "nothing was sent" in operation.error_message
    assert not world.engines["A"].calls()
    assert world.state("B") == "running"


def test_s10_a_deployment_that_is_gone(world: World) -> None:
    """S10, G7: somebody removed the row by hand; its operation is settled and its siblings go on."""
    world.apply("A", "B", policy=Policy(on_failure=OnFailure.CONTINUE))
    world.write("DELETE FROM deployments WHERE name = 'A'")
    world.answer_bells()
    world.pass_time(3)
    world.sweep()
    assert (world.state("A"), world.operation("A").error_reason) == ("failed", "DEPLOYMENT_UNKNOWN")
    assert world.state("B") == "running"


@pytest.mark.parametrize("deployments", [("A",), ("A", "B")], ids=["single", "multi"])
def test_a_poisoned_row_with_an_intent_or_an_id_is_uncertain(
    world: World, deployments: tuple[str, ...]
) -> None:
    """G7, G10: whatever may run at the engine is not called failed; its id stays where it is."""
    world.apply(*deployments)
    world.store.claim_dispatch(world.operation("A").id, world.name("A"))
    world.forget_bells()
    world.write(
        "DELETE FROM table_changes WHERE operation_id = (SELECT id FROM apply_operations WHERE deployment = 'A')"
    )
    world.pass_time(31)
    world.sweep()
    assert (world.state("A"), world.operation("A").error_reason) == ("uncertain", "NO_TABLE_CHANGES")
    assert calls(world) == 0


@pytest.mark.parametrize("deployments", [("A",), ("A", "B")], ids=["single", "multi"])
def test_a_poisoned_row_keeps_its_id(world: World, deployments: tuple[str, ...]) -> None:
    """G5, G7: settled as uncertain, with the id in its place and the siblings as they were."""
    world.apply(*deployments)
    world.answer_bells()
    world.write(
        "UPDATE apply_operations SET next_attempt_at = tern_clock(), dispatch_key = NULL,"
        " dispatch_intent_at = NULL WHERE deployment = 'A'"
    )
    world.write(
        "DELETE FROM table_changes WHERE operation_id = (SELECT id FROM apply_operations WHERE deployment = 'A')"
    )
    world.do("dispatch", world.operation("A").id, str(world.name("A")))
    assert world.state("A") == "uncertain"
    assert world.remote_id("A") == "A-1"


@pytest.mark.parametrize("verb", [Verb.START, Verb.CUTOVER])
def test_a_forward_verb_on_a_multi_apply_needs_a_choice(under_way: World, verb: Verb) -> None:
    """G7: without a selection nothing is sent, nothing is written, and the operations are named."""
    before, asked = everything(under_way), calls(under_way)
    with pytest.raises(Refused, match="2 operations") as refusal:
        under_way.ask(verb)
    assert refusal.value.reason == "SELECTION_MISSING"
    assert "A (" in " ".join(refusal.value.why)
    assert everything(under_way) == before
    assert calls(under_way) == asked


def test_a_message_for_the_right_operation_is_taken(under_way: World) -> None:
    """The control run: the same door lets the right message in."""
    under_way.do("stop", under_way.operation("A").id, str(under_way.name("A")))
    assert len(under_way.engines["A"].calls("Stop")) == 1
