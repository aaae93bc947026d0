"""Which columns the database holds against whoever writes, and which it does not: all of them by name (G1, G5, G15).

test_tables.py says why; here no column is left out, so that one that is added is thought about.
"""

import pytest
from psycopg import Error

from tern.domain.control import Verb
from tern.domain.policy import Copy, Policy
from tern.store.sql import text
from tests.world import World

# What refuses an UPDATE of the column, from triggers alone; a CHECK or a key holds what its name says (test_tables.py).
GUARDED = {
    "applies": {
        "applies_are_frozen": "apply_identifier operation_count plan_id policy",
        "applies_remote_id_is_final": "external_id",
        "applies_is_append_only": "carries_on",
    },
    "apply_operations": {
        "apply_operations_stay_where_they_are": "apply_id change_digest deployment target",
        "apply_operations_remote_id_is_final": "engine_resume_context",
        "apply_operations_fence_only_rises": "dispatch_generation fence",
        "applies_operation_count_is_true": "position",
        "apply_operations_is_append_only": "carries_on",
    },
    "apply_events": {
        "apply_events_is_append_only": (
            "after apply_id at before detail event hash number operation_id previous_hash who why"
        ),
    },
    "control_requests": {
        "control_requests_is_append_only": (
            "apply_id caller created_at failures_released hash outcomes reason verb volume"
        ),
    },
    "event_chains": {"event_chains_is_append_only": "apply_id head length operation_id previous"},
    "plans": {
        "plans_is_append_only": (
            "caller created_at database database_type digest environment plan_identifier policy targets"
        ),
    },
    "plan_changes": {
        "plan_changes_is_append_only": "action ddl namespace ordinal plan_id table_name unsafe_reason",
    },
    "previews": {
        "previews_is_append_only": "apply_id caller changes deployment drift outcome plan_id taken_at words",
    },
    "outstanding_calls": {
        "outstanding_calls_are_kept": (
            "address apply_id caller database deployment dispatch_key environment fence generation"
            " opened_at operation_id reason remote_id why"
        ),
    },
    "table_changes": {
        "table_changes_is_append_only": "action ddl namespace origin_id table_name unsafe_reason",
    },
}
# A tick, a probe or a person's command changes these; or they are the key by which everything finds its row.
FREE = {
    "applies": (
        "caller completed_at created_at database environment error_message id idempotency_key next_advance_at options"
        " advance_began_at reason request_digest revision state state_changed_at verdict_effects_done_at"
    ),
    "apply_events": "id",
    "apply_operations": (
        "answered_attempts attempt claim_expires_at claim_owner claim_token completed_at dispatch_intent_at"
        " dispatch_key dispatch_key_is_dead engine_resume_metadata error_message error_reason first_rung_at id"
        " next_attempt_at"
        " next_poll_at poll_error poll_failures progress_revision repeat_is_safe rung_at runs_though_stopped sampled_at"
        " sampled_attempt start_sent_at started_at state state_changed_at summary volume wave"
        " claim_began_at first_rung_at ended_after_request looks sampled_look"
        " dispatched_to doubt engine_number remote_identity remote_started_at same_work_at unanswered_call"
        " unanswered_since unheard_look unheard_since unheard_tries"
    ),
    "deployment_silences": "deployment in_a_row kind last_at retry_at since",
    "control_deliveries": (
        "although_foreign called_fence called_look"
        " apply_id attempts called_at closed_at created_at engine_words id looks next_attempt_at operation_id"
        " overrides_cancel overrules refusals refused_attempt request_id sent_at state verb"
    ),
    "control_requests": "id",
    "deployments": (
        "address capabilities created_at credentials database drained drained_at drained_by drained_reason environment"
        " idempotent_dispatch labels name position target deduplicates engine_identity engine_number probe_is_old"
        " probed_at"
    ),
    "enqueue_refusals": "at caller id idempotency_key next_step reason what why",
    "operation_counts": "admitted apply_id n state wave",
    "plans": "id",
    "previews": "id",
    "sweep_leases": "began_at expires_at finished_at finished_by name owner token",
    "table_changes": (
        "apply_id checksum_rows_checked checksum_rows_total detail error eta_seconds id operation_id ordinal percent"
        " rows_copied rows_total settled_by state"
    ),
    "target_reservations": "apply_id database deployment environment held_for_s held_since operation_id taken_at",
    "engines": "address created_at environment number",
    "remote_ids": "engine_number operation_id remote_id stored_at",
    "outstanding_calls": (
        "engine_number id last_seen last_seen_at looks next_look_at settled_as settled_at settled_by settled_reason"
        " cancel_asked_at cancel_caller cancel_calls cancel_reason cancel_words proven_address silent_looks"
    ),
    "same_targets": "finding found_at identity one other",
    "worker_canaries": "answered_at answered_by clock_ahead_s queue token",
}
STAY = "apply_events control_requests event_chains outstanding_calls plan_changes plans previews"
# Where a guard asks what is there already.
ONE_ROW = {"apply_operations": "WHERE deployment = 'A'", "applies": "WHERE operation_count = 1"}

TRIALS = {
    "text": ("coalesce({c}, '') || 'x'", "NULL"),
    "integer": ("coalesce({c}, 0) + 1", "coalesce({c}, 0) - 1", "NULL"),
    "bigint": ("coalesce({c}, 0) + 1", "coalesce({c}, 0) - 1", "NULL"),
    "numeric": ("coalesce({c}, 0) + 1", "NULL"),
    "double precision": ("coalesce({c}, 0) + 1", "NULL"),
    "boolean": ("NOT coalesce({c}, false)",),
    "timestamp with time zone": ("coalesce({c}, now()) + interval '1 day'", "NULL"),
    "jsonb": ("""'{{"x": 1}}'""",),
    "json": ("""'{{"x": 1}}'""",),
    "bytea": ("""'\\xff'""",),
}
"""What is tried with a column of each type; a type that is new gets its values here."""


@pytest.fixture
def given(world: World) -> World:
    """At least one row in every table: ids in both of their homes, wishes, a preview, a refusal, a lease, a canary."""
    world.apply("C")
    world.apply("A", "B", policy=Policy(copy=Copy.PARALLEL))
    world.answer_bells()
    world.ask(Verb.STOP, "A")
    world.write(
        "UPDATE apply_operations SET fence = fence + 5, dispatch_generation = dispatch_generation + 5"
    )
    for statement in (
        (
            "INSERT INTO previews (plan_id, apply_id, deployment, outcome, caller)"
            " SELECT plan_id, id, 'Z', 'not_asked', 'ann' FROM applies LIMIT 1"
        ),
        "INSERT INTO engines (address, environment) VALUES ('grpc\\://h\\:1', 'test')",
        (
            "INSERT INTO remote_ids (engine_number, remote_id, operation_id)"
            " SELECT max(e.number), 'R', min(o.id) FROM engines e, apply_operations o"
        ),
        (
            "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id,"
            " fence, address, why, caller)"
            " SELECT apply_id, id, 'test', 'shop', deployment, 'R', 1, 'x', 'given_up', 'ann'"
            " FROM apply_operations LIMIT 1"
        ),
        "INSERT INTO deployment_silences (deployment, kind, in_a_row) VALUES ('A', 'poll', 3)",
        "INSERT INTO same_targets (one, other, finding, identity) VALUES ('A', 'B', 'suspected', 'x')",
        "INSERT INTO enqueue_refusals (idempotency_key, caller, reason, what) VALUES ('k', 'ann', 'r', 'w')",
        "INSERT INTO worker_canaries (queue, token, answered_by) VALUES ('poll', 't', 'w')",
        "INSERT INTO sweep_leases (name, owner, token, expires_at) VALUES ('x', 'w', 't', now())",
    ):
        world.write(statement)
    return world


def columns(world: World) -> dict[str, dict[str, str]]:
    """Every column of every table of ours, with its type."""
    with world.database.begin() as tx:
        rows = tx.execute(
            text(
                "SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c"
                " JOIN information_schema.tables t USING (table_schema, table_name)"
                " WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.table_name <> 'alembic_version'"
                " ORDER BY c.table_name, c.ordinal_position"
            )
        ).all()
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        found.setdefault(row.table_name, {})[row.column_name] = row.data_type
    return found


def refusal(world: World, statement: str) -> str:
    """The trigger that refuses the statement, by the name that it gives; empty if none does. What a CHECK, a key or a
    foreign key refuses is no trigger's, and has no function in its context.
    """
    with world.database.connect() as tx:
        try:
            tx.execute(text(statement.replace(":", "\\:")))
            tx.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
        except Error as error:
            if "PL/pgSQL function" in (error.diag.context or ""):
                return error.diag.constraint_name or ""
    return ""


def refusals(world: World, table: str, column: str, kind: str) -> set[str]:
    """Of every value that is tried."""
    place = ONE_ROW.get(table, "")
    values = [value.format(c=column) for value in TRIALS[kind]]
    found = {refusal(world, f"UPDATE {table} SET {column} = {value} {place}") for value in values}
    return found - {""}


def test_every_column_is_guarded_or_is_named_as_free(given: World) -> None:
    """A column that is new is put on one of the two lists, by somebody who has thought about which."""
    guarded: dict[str, dict[str, str]] = {}
    free: dict[str, set[str]] = {}
    for table, kinds in columns(given).items():
        assert given.one(f"SELECT count(*) AS n FROM {table}").n, f"nothing can be tried: {table} is empty"
        for column, kind in kinds.items():
            if rules := refusals(given, table, column, kind):
                guarded.setdefault(table, {})[column] = " ".join(sorted(rules))
            else:
                free.setdefault(table, set()).add(column)
    assert guarded == {
        table: {column: rule for rule, names in by_rule.items() for column in names.split()}
        for table, by_rule in GUARDED.items()
    }
    assert free == {table: set(names.split()) for table, names in FREE.items()}


def test_from_which_tables_a_row_may_go(given: World) -> None:
    """G15: nothing that was reviewed, asked for or done disappears; a table that is new is named here or guarded."""
    stay = {table for table in columns(given) if refusal(given, f"DELETE FROM {table}")}
    assert stay == set(STAY.split())
