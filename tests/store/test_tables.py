"""The database defends itself against whoever writes: each guard, tried by hand in plain SQL (G1, G5, G13, G15)."""

from collections.abc import Callable

import pytest
from psycopg import Error

from tern.domain.policy import Copy, Policy
from tern.domain.states import ApplyState, State
from tests.world import World

MakeWorld = Callable[..., World]


@pytest.fixture
def given(world: World) -> World:
    """A multi apply over A and B with an id at A, and a single one over C with its id."""
    world.apply("C")
    world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL))
    world.forget_bells()
    world.write("UPDATE apply_operations SET engine_resume_context = 'R1' WHERE deployment = 'A'")
    world.write("UPDATE applies SET external_id = 'R3' WHERE operation_count = 1")
    return world


def refusal_of(world: World, statement: str) -> str:
    """The rule that refuses the statement, by the name that the server gives."""
    with pytest.raises(Error) as refused:
        world.write(statement)
    return str(refused.value.diag.constraint_name)


MULTI = "WHERE operation_count = 2"
SINGLE = "WHERE operation_count = 1"
OF_A = "WHERE deployment = 'A'"

GUARDS = {
    "G1 no id at a multi parent": (
        f"UPDATE applies SET external_id = 'R9' {MULTI}",
        "applies_only_single_ones_hold_a_remote_id",
    ),
    "G1 no id at the operation of a single one": (
        "UPDATE apply_operations SET engine_resume_context = 'R9' WHERE deployment = 'C'",
        "apply_operations_of_single_hold_no_id",
    ),
    "G1 no new operation comes with an id of a single one": (
        (
            "INSERT INTO apply_operations (apply_id, deployment, position, target, engine_resume_context)"
            f" SELECT id, 'Z', 0, 'z', 'R9' FROM applies {SINGLE}"
        ),
        "apply_operations_of_single_hold_no_id",
    ),
    "G5 not replaced at the operation": (
        f"UPDATE apply_operations SET engine_resume_context = 'R9' {OF_A}",
        "apply_operations_remote_id_is_final",
    ),
    "G5 not taken away from the operation": (
        f"UPDATE apply_operations SET engine_resume_context = NULL {OF_A}",
        "apply_operations_remote_id_is_final",
    ),
    "G5 not emptied at the operation": (
        f"UPDATE apply_operations SET engine_resume_context = '' {OF_A}",
        "apply_operations_remote_id_is_final",
    ),
    "G5 no empty id at an operation": (
        "UPDATE apply_operations SET engine_resume_context = '' WHERE deployment = 'B'",
        "apply_operations_remote_id_is_not_empty",
    ),
    "G5 not replaced at the parent": (
        f"UPDATE applies SET external_id = 'R9' {SINGLE}",
        "applies_remote_id_is_final",
    ),
    "G5 not taken away from the parent": (
        f"UPDATE applies SET external_id = NULL {SINGLE}",
        "applies_remote_id_is_final",
    ),
    "the count never changes": (
        f"UPDATE applies SET operation_count = 3 {MULTI}",
        "applies_are_frozen",
    ),
    "PL1 the policy never changes": (
        f"""UPDATE applies SET policy = '{{"copy": "rolling"}}' {MULTI}""",
        "applies_are_frozen",
    ),
    "the plan never changes": (
        f"UPDATE applies SET plan_id = plan_id + 1 {MULTI}",
        "applies_are_frozen",
    ),
    "the public id never changes": (
        f"UPDATE applies SET apply_identifier = 'apl-other' {MULTI}",
        "applies_are_frozen",
    ),
    "no operation leaves": (
        "DELETE FROM apply_operations WHERE deployment = 'B'",
        "table_changes_operation_id_fkey",
    ),
    "no operation leaves with all that hangs on it": (
        (
            "WITH free AS (UPDATE target_reservations SET operation_id = NULL WHERE deployment = 'B'),"
            " gone AS (DELETE FROM table_changes WHERE operation_id ="
            " (SELECT id FROM apply_operations WHERE deployment = 'B'))"
            " DELETE FROM apply_operations WHERE deployment = 'B'"
        ),
        "applies_operation_count_is_true",
    ),
    "no operation comes": (
        (
            "INSERT INTO apply_operations (apply_id, deployment, position, target)"
            f" SELECT id, 'Z', 2, 'z' FROM applies {MULTI}"
        ),
        "applies_operation_count_is_true",
    ),
    "no second operation for a deployment": (
        (
            "INSERT INTO apply_operations (apply_id, deployment, position, target)"
            f" SELECT id, 'A', 1, 'z' FROM applies {MULTI}"
        ),
        "apply_operations_one_per_deployment",
    ),
    "no two operations at one position": (
        f"UPDATE apply_operations SET position = 1 {OF_A}",
        "apply_operations_one_per_position",
    ),
    "no operation changes its apply": (
        f"UPDATE apply_operations SET apply_id = apply_id - 1 {OF_A}",
        "apply_operations_stay_where_they_are",
    ),
    "no operation changes its deployment": (
        f"UPDATE apply_operations SET deployment = 'Z' {OF_A}",
        "apply_operations_stay_where_they_are",
    ),
    "a fence only rises": (
        f"UPDATE apply_operations SET fence = -1 {OF_A}",
        "apply_operations_fence_only_rises",
    ),
    "a generation only rises": (
        f"UPDATE apply_operations SET dispatch_generation = 0 {OF_A}",
        "apply_operations_fence_only_rises",
    ),
    "a claim is whole": (
        f"UPDATE apply_operations SET claim_token = 't' {OF_A}",
        "apply_operations_claims_are_whole",
    ),
    "an intent is whole": (
        f"UPDATE apply_operations SET dispatch_key = 'k' {OF_A}",
        "apply_operations_intents_are_whole",
    ),
    "an operation's state is a known word": (
        f"UPDATE apply_operations SET state = 'done' {OF_A}",
        "apply_operations_state_is_known",
    ),
    "an apply's state is a known word": (
        f"UPDATE applies SET state = 'uncertain' {MULTI}",
        "applies_state_is_known",
    ),
    "a finished operation is dated": (
        f"UPDATE apply_operations SET state = 'completed' {OF_A}",
        "apply_operations_finished_ones_are_completed",
    ),
    "a stopped operation is not": (
        f"UPDATE apply_operations SET state = 'stopped', completed_at = now() {OF_A}",
        "apply_operations_finished_ones_are_completed",
    ),
    "a finished apply is dated": (
        f"UPDATE applies SET state = 'failed' {MULTI}",
        "applies_finished_ones_are_completed",
    ),
    "G13 one live apply per target": (
        (
            "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
            f" SELECT 'test', 'shop', 'A', id FROM applies {SINGLE}"
        ),
        "target_reservations_one_live_apply_per_target",
    ),
    "ID1 one apply per key": (
        f"UPDATE applies SET idempotency_key = (SELECT idempotency_key FROM applies {SINGLE}) {MULTI}",
        "applies_one_per_key",
    ),
    "a plan is append-only": ("UPDATE plans SET digest = 'x'", "plans_is_append_only"),
    "a plan stays": ("DELETE FROM plan_changes", "plan_changes_is_append_only"),
    "a statement of a plan is append-only": (
        "UPDATE plan_changes SET ddl = 'x'",
        "plan_changes_is_append_only",
    ),
    "G15 an event is append-only": ("UPDATE apply_events SET who = 'nobody'", "apply_events_is_append_only"),
    "G15 an event stays": ("DELETE FROM apply_events", "apply_events_is_append_only"),
    "a password in an address": (
        "UPDATE deployments SET address = 'local:postgresql://u:secret@h/d' WHERE name = 'A'",
        "deployments_address_has_no_password",
    ),
    "a deployment's name is safe": (
        "UPDATE deployments SET name = 'a/b' WHERE name = 'A'",
        "deployments_name_is_safe",
    ),
    "one deployment per address and target": (
        (
            "UPDATE deployments SET address = (SELECT address FROM deployments WHERE name = 'B'), target = 'target-B'"
            " WHERE name = 'A'"
        ),
        "deployments_one_per_target",
    ),
}


def test_the_database_refuses_whoever_writes(given: World) -> None:
    """G1, G5, G13, G15, D15: each by the rule that is there for it."""
    refused = {what: refusal_of(given, statement) for what, (statement, _) in GUARDS.items()}
    assert refused == {what: rule for what, (_, rule) in GUARDS.items()}


def test_a_request_is_append_only(given: World) -> None:
    """G15: who asked for what and why stays as it was written; so does at most one open delivery per verb."""
    given.write(
        "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
        f" SELECT id, 'stop', 'eve', 'why not', '[]' FROM applies {MULTI}"
    )
    assert (
        refusal_of(given, "UPDATE control_requests SET caller = 'bob'") == "control_requests_is_append_only"
    )
    assert refusal_of(given, "DELETE FROM control_requests") == "control_requests_is_append_only"
    deliver = (
        "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb) SELECT r.id, o.apply_id, o.id,"
        " 'stop' FROM control_requests r, apply_operations o WHERE o.deployment = 'A'"
    )
    given.write(deliver)
    assert refusal_of(given, deliver) == "control_deliveries_one_open_per_verb"
    closes = "UPDATE control_deliveries SET state = 'acknowledged', next_attempt_at = NULL"
    assert refusal_of(given, closes) == "control_deliveries_closed_ones_are_dated"
    stays_due = "UPDATE control_deliveries SET state = 'acknowledged', closed_at = now()"
    assert refusal_of(given, stays_due) == "control_deliveries_closed_ones_are_not_due"


def test_a_request_without_a_reason(given: World) -> None:
    statement = (
        "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
        f" SELECT id, 'stop', 'eve', '  ', '[]' FROM applies {MULTI}"
    )
    assert refusal_of(given, statement) == "control_requests_have_a_reason"


def test_an_apply_with_fewer_operations_than_it_says(given: World) -> None:
    """D15: the count is checked at the commit, so an apply without operations never exists."""
    statement = (
        "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy,"
        " idempotency_key, request_digest, caller, reason)"
        " SELECT 'apl-short', plan_id, environment, database, 2, policy, 'k', '', 'eve', 'x' FROM applies"
        f" {SINGLE}"
    )
    assert refusal_of(given, statement) == "applies_operation_count_is_true"


def test_the_first_id_may_be_written_by_hand(given: World) -> None:
    """The control run: what is right is not refused, and the same id again is no change."""
    given.write("UPDATE apply_operations SET engine_resume_context = 'R2' WHERE deployment = 'B'")
    given.write("UPDATE apply_operations SET engine_resume_context = 'R1' WHERE deployment = 'A'")
    given.write(f"UPDATE applies SET external_id = 'R3' {SINGLE}")


def test_the_words_of_states_are_the_same_in_both_places(given: World) -> None:
    """The CHECKs know the words of tern.domain.states, no fewer and no more."""
    words = {"apply_operations_state_is_known": set(State), "applies_state_is_known": set(ApplyState)}
    for rule, known in words.items():
        row = given.one(
            "SELECT pg_get_constraintdef(oid) AS it FROM pg_constraint WHERE conname = :rule", rule=rule
        )
        assert set(row.it.split("'")[1::2]) == {state.value for state in known}
