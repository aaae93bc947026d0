"""Every rule that a column or a row has in itself, tried: what no code of Tern writes, nobody else writes either.

Guards over time are in test_guards.py, uniqueness in test_tables.py.
"""

import pytest
from psycopg import Error

from tern.domain.control import Verb
from tern.store.sql import text
from tests.store.test_guards import given
from tests.world import World

__all__ = ["given"]

_OF_A = "WHERE deployment = 'A'"
_REQUEST = (
    "INSERT INTO control_requests (apply_id, verb, volume, failures_released, caller, reason, outcomes)"
    " SELECT min(id), {verb}, {volume}, {released}, 'eve', {reason}, '[]' FROM applies"
)
_PLAN = (
    "INSERT INTO plan_changes (plan_id, ordinal, namespace, table_name, ddl, action)"
    " SELECT min(id), 9, 'public', 't', {ddl}, {action} FROM plans"
)


def _request(
    *, verb: str = "'stop'", volume: str = "NULL", released: str = "NULL", reason: str = "'x'"
) -> str:
    return _REQUEST.format(verb=verb, volume=volume, released=released, reason=reason)


# The rule, and statements that it refuses.
# What was sent is never written anew, so each is tried with another row.
_OUTSTANDING = (
    "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, dispatch_key, remote_id,"
    " fence, address, why, caller) SELECT apply_id, operation_id, environment, database, deployment, {}, {}, fence,"
    " address, {}, caller FROM outstanding_calls"
)
REFUSED = {
    "deployment_silences_kind_is_known": ["UPDATE deployment_silences SET kind = 'stop'"],
    "deployment_silences_are_counted": ["UPDATE deployment_silences SET in_a_row = 0"],
    "deployments_name_is_safe": [
        f"UPDATE deployments SET name = '{name}' WHERE name = 'A'"
        for name in ("a/b", "-a", "a b", "", "a" * 64)
    ],
    "deployments_address_has_no_password": [
        "UPDATE deployments SET address = 'grpc://u:secret@h:1' WHERE name = 'A'",
        "UPDATE deployments SET address = 'local:postgresql://u:secret@h/d' WHERE name = 'A'",
    ],
    "plans_identifier_has_its_prefix": [
        (
            "INSERT INTO plans (plan_identifier, environment, database, database_type, digest, caller)"
            " VALUES ('apl-1', 'e', 'd', 'postgres', 'x', 'ann')"
        )
    ],
    "plan_changes_ddl_is_not_empty": [_PLAN.format(ddl=ddl, action="'alter'") for ddl in ("''", "'  '")],
    "plan_changes_action_is_known": [_PLAN.format(ddl="'x'", action="'destroy'")],
    "applies_identifier_has_its_prefix": [
        (
            "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy,"
            " idempotency_key, request_digest, caller, reason) SELECT 'pln-1', min(id), 'e', 'd', 1, '{}', 'k', '',"
            " 'a', 'x' FROM plans"
        )
    ],
    "applies_state_is_known": ["UPDATE applies SET state = 'uncertain'"],
    "applies_external_id_is_not_empty": [
        (
            "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy,"
            " external_id, idempotency_key, request_digest, caller, reason)"
            " SELECT 'apl-1', min(id), 'e', 'd', 1, '{}', '', 'k', '', 'a', 'x' FROM plans"
        )
    ],
    "applies_have_operations": [
        (
            "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy,"
            " idempotency_key, request_digest, caller, reason) SELECT 'apl-1', min(id), 'e', 'd', 0, '{}', 'k', '',"
            " 'a', 'x' FROM plans"
        )
    ],
    "applies_only_single_ones_hold_a_remote_id": [
        "UPDATE applies SET external_id = 'R9' WHERE operation_count = 2"
    ],
    "applies_finished_ones_are_completed": [
        "UPDATE applies SET state = 'completed', completed_at = NULL",
        "UPDATE applies SET state = 'running', completed_at = now()",
        "UPDATE applies SET state = 'stopped', completed_at = now()",
    ],
    "apply_operations_have_a_deployment": [
        (
            "INSERT INTO apply_operations (apply_id, deployment, position, target)"
            " SELECT id, '', 0, 'z' FROM applies WHERE operation_count = 2"
        )
    ],
    "apply_operations_waves_count_from_one": [f"UPDATE apply_operations SET wave = -1 {_OF_A}"],
    "apply_operations_state_is_known": [f"UPDATE apply_operations SET state = 'paused' {_OF_A}"],
    "apply_operations_remote_id_is_not_empty": [
        "UPDATE apply_operations SET engine_resume_context = '' WHERE deployment = 'D'"
    ],
    "apply_operations_volume_is_one": [
        f"UPDATE apply_operations SET volume = {volume} {_OF_A}" for volume in (0, 12, -1)
    ],
    "apply_operations_fence_only_rises": [
        (
            "INSERT INTO apply_operations (apply_id, deployment, position, target, fence)"
            " SELECT id, 'Z', 0, 'z', -1 FROM applies WHERE operation_count = 2"
        )
    ],
    "apply_operations_claims_are_whole": [
        f"UPDATE apply_operations SET claim_token = 't' {_OF_A}",
        f"UPDATE apply_operations SET claim_token = 't', claim_owner = 'w' {_OF_A}",
        f"UPDATE apply_operations SET claim_expires_at = now() {_OF_A}",
    ],
    "apply_operations_intents_are_whole": [
        f"UPDATE apply_operations SET dispatch_key = NULL {_OF_A}",
        f"UPDATE apply_operations SET dispatch_intent_at = NULL {_OF_A}",
    ],
    "apply_operations_finished_ones_are_completed": [
        f"UPDATE apply_operations SET state = '{state}', completed_at = NULL {_OF_A}"
        for state in ("completed", "failed", "cancelled", "reverted", "skipped")
    ]
    + [
        f"UPDATE apply_operations SET state = '{state}', completed_at = now() {_OF_A}"
        for state in ("stopped", "uncertain", "running")
    ],
    "table_changes_percent_is_one": [
        f"UPDATE table_changes SET percent = {percent}" for percent in (-1, 101)
    ],
    "control_requests_verb_is_known": [_request(verb="'destroy'")],
    "control_requests_have_a_reason": [_request(reason="''"), _request(reason="'  '")],
    "control_requests_releases_say_how_much": [
        _request(verb="'release'"),
        _request(released="1"),
        _request(verb="'release'", released="-1"),
    ],
    "control_requests_volumes_are_named": [
        _request(verb="'volume'"),
        _request(volume="3"),
        _request(verb="'volume'", volume="0"),
        _request(verb="'volume'", volume="12"),
    ],
    "control_deliveries_state_is_known": [
        "UPDATE control_deliveries SET state = 'gone', closed_at = now(), next_attempt_at = NULL"
    ],
    "control_deliveries_sent_ones_are_dated": ["UPDATE control_deliveries SET state = 'sent'"],
    "control_deliveries_closed_ones_are_dated": [
        "UPDATE control_deliveries SET state = 'acknowledged', next_attempt_at = NULL",
        "UPDATE control_deliveries SET closed_at = now()",
    ],
    "control_deliveries_closed_ones_are_not_due": [
        "UPDATE control_deliveries SET state = 'moot', closed_at = now(), next_attempt_at = now()"
    ],
    "remote_ids_are_not_empty": ["UPDATE remote_ids SET remote_id = ''"],
    "outstanding_calls_why_is_known": [_OUTSTANDING.format("NULL", "'R9'", "'no reason'")],
    "outstanding_calls_are_a_key_or_an_id": [
        _OUTSTANDING.format("NULL", "NULL", "why"),
        _OUTSTANDING.format("'k'", "'R9'", "why"),
    ],
    "same_targets_finding_is_known": ["UPDATE same_targets SET finding = 'perhaps'"],
    "same_targets_are_ordered": [
        "INSERT INTO same_targets (one, other, finding, identity) VALUES ('B', 'A', 'same', 'x')"
    ],
    "target_reservations_waits_are_whole": [
        "UPDATE target_reservations SET held_since = now()",
        "UPDATE target_reservations SET held_for_s = 3",
    ],
    "apply_operations_unanswered_call_is_known": [
        f"UPDATE apply_operations SET unanswered_call = 'stop', unanswered_since = now() {_OF_A}"
    ],
    "apply_operations_unanswered_calls_are_whole": [
        f"UPDATE apply_operations SET unanswered_call = 'apply' {_OF_A}",
        f"UPDATE apply_operations SET unanswered_since = now() {_OF_A}",
    ],
    "apply_operations_doubt_is_known": [f"UPDATE apply_operations SET doubt = 'some' {_OF_A}"],
    "previews_outcome_is_known": [
        "INSERT INTO previews (plan_id, deployment, outcome, caller) SELECT min(id), 'A', 'maybe', 'ann' FROM plans"
    ],
}


def refusal(world: World, statement: str) -> str:
    with world.database.connect() as tx:
        try:
            tx.execute(text(statement))
        except Error as error:
            return str(error.diag.constraint_name)
    return "nobody"


@pytest.fixture
def rows(given: World) -> World:
    """One wish that is open and not sent, and one multi apply whose second operation has no id."""
    given.add("D", "grpc://127.0.0.1:1", 9, offers=True)
    given.add("E", "grpc://127.0.0.1:2", 10, offers=True)
    given.apply("D", "E")
    given.forget_bells()
    given.ask(Verb.STOP, "D")
    given.forget_bells()
    return given


def test_every_rule_of_the_schema_is_tried_here(rows: World) -> None:
    with rows.database.connect() as tx:
        known = set(
            tx.execute(
                text(
                    "SELECT conname FROM pg_constraint WHERE contype = 'c'"
                    " AND connamespace = 'public'\\:\\:regnamespace AND conrelid <> 0"
                )
            ).scalars()
        )
    assert known == set(REFUSED)


def test_what_breaks_a_rule_is_refused_by_it(rows: World) -> None:
    refused = {
        (rule, each): refusal(rows, each) for rule, statements in REFUSED.items() for each in statements
    }
    wrong = [f"{rule}: {by} refuses {each}" for (rule, each), by in refused.items() if by != rule]
    assert wrong == [], "\n".join(wrong)
