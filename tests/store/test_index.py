"""Each index is there for a statement that is run all the time, and that statement is lost without it.

Every story below is the product at work on a crowd of rows; what it says to PostgreSQL is written down, and explained
with an index and without it. An index that no story needs is one that every write pays for.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tern.domain.identity import ApplyId, PlanId, ScopeName
from tern.domain.policy import Copy, Policy
from tern.domain.timing import PollPace
from tern.store.database import Database
from tern.store.gauge import read_gauges
from tern.store.paging import Paging
from tern.store.record import Record
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.sql import Connection, text
from tern.store.store import PostgresStore
from tern.store.trouble import old_halts

SMALL, WIDE = 3_000, 10_000
LONGEST_S = 7_200
"""Under such a lease and pace nothing of the crowd is due further ahead than it may be."""

LOST = 30
"""So many blocks of 8 kB more are touched without the index, by rows of which nearly none is wanted."""

_POLICY = json.dumps(Policy(copy=Copy.PARALLEL).as_json()).replace(":", "\\:")
_SETTLED = "'completed', now(), now()"
_FILL = (
    (
        "INSERT INTO deployments (name, environment, database, address, target)"
        f" SELECT 'd' || n, 'test', 'shop', 'grpc://h:1', 't' || n FROM generate_series(0, {WIDE}) n"
    ),
    (
        "INSERT INTO plans (plan_identifier, environment, database, database_type, digest, caller)"
        f" SELECT 'pln-' || n, 'test', 'shop', 'postgres', 'x' || n, 'ann' FROM generate_series(1, {SMALL}) n"
    ),
    # Small ones that are through, with three operations each; then a wide one under way, and a wide one nearly through.
    (
        "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy, "
        "idempotency_key, request_digest, caller, reason, state, completed_at, verdict_effects_done_at)"
        f" SELECT 'apl-' || lpad(n::text, 16, '0'), n, 'test', 'shop', 3, '{_POLICY}', 'k' || n, '', 'ann', 'x',"
        f" {_SETTLED} FROM generate_series(1, {SMALL}) n"
    ),
    (
        "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy, "
        "idempotency_key, request_digest, caller, reason, state)"
        f" SELECT 'apl-' || lpad(n::text, 16, 'f'), 1, 'test', 'shop', 10000, '{_POLICY}', 'w' || n, '', 'ann', 'x',"
        " 'running'"
        " FROM generate_series(1, 3) n"
    ),
    (
        "INSERT INTO apply_operations (apply_id, deployment, position, target, state, completed_at)"
        " SELECT a.id, 'd' || n, n, 't' || n, 'completed', now()"
        f" FROM applies a, generate_series(0, 2) n WHERE a.id <= {SMALL} ORDER BY a.id, n"
    ),
    # The wide one: all of them run and are polled, as many deployments as operations, and none is due.
    (
        "INSERT INTO apply_operations (apply_id, deployment, position, target, state, engine_resume_context,"
        " next_poll_at, started_at)"
        " SELECT a.id, 'd' || n, n, 't' || n, 'running', 'R' || n, now() + interval '1 h', now()"
        f" FROM applies a, generate_series(0, {WIDE} - 1) n WHERE a.apply_identifier LIKE 'apl-%f1'"
    ),
    (
        "INSERT INTO apply_operations (apply_id, deployment, position, target, state, completed_at)"
        " SELECT a.id, 'd' || n, n, 't' || n, CASE WHEN n = 9999 THEN 'pending' ELSE 'completed' END,"
        " CASE WHEN n < 9999 THEN now() END"
        f" FROM applies a, generate_series(0, {WIDE} - 1) n WHERE a.apply_identifier LIKE 'apl-%f2'"
    ),
    # All of the third one are due, and some were notified just now.
    (
        "INSERT INTO apply_operations (apply_id, deployment, position, target, next_attempt_at, rung_at, first_rung_at)"
        " SELECT a.id, 'd' || n, n, 't' || n, now() - interval '1 min', CASE WHEN n < 60 THEN now() END,"
        " CASE WHEN n < 60 THEN now() END"
        f" FROM applies a, generate_series(0, {WIDE} - 1) n WHERE a.apply_identifier LIKE 'apl-%f3'"
    ),
    (
        "INSERT INTO operation_counts (apply_id, wave, state, n, admitted)"
        " SELECT apply_id, wave, state, count(*), 0 FROM apply_operations GROUP BY 1, 2, 3"
    ),
    (
        "INSERT INTO table_changes (operation_id, apply_id, ordinal, namespace, table_name, ddl, action)"
        " SELECT id, apply_id, 1, 'public', 'orders', 'ALTER TABLE orders', 'alter' FROM apply_operations"
    ),
    (
        "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
        " SELECT id, 'stop', 'eve', 'x', '[]' FROM applies"
    ),
    # Somebody's script has asked the second wide one for the same thing again and again.
    (
        "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
        f" SELECT {SMALL} + 2, 'start', 'eve', 'x', '[]' FROM generate_series(1, {WIDE})"
    ),
    (
        "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb, state, closed_at, next_attempt_at)"
        " SELECT r.id, o.apply_id, o.id, 'stop', 'too_late', now(), NULL FROM control_requests r"
        " JOIN apply_operations o ON o.apply_id = r.apply_id WHERE r.verb = 'stop'"
    ),
    # And the whole of the first one is being stopped, not due before an hour.
    (
        "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb, state, next_attempt_at)"
        " SELECT r.id, o.apply_id, o.id, 'stop', 'pending', now() + interval '1 h' FROM control_requests r"
        f" JOIN apply_operations o ON o.apply_id = r.apply_id WHERE r.apply_id = {SMALL} + 1"
    ),
    (
        "INSERT INTO previews (plan_id, apply_id, deployment, outcome, caller)"
        " SELECT p.id, CASE WHEN n = 0 THEN NULL ELSE p.id END, 'd' || n, 'previewed', 'ann'"
        " FROM plans p, generate_series(0, 3) n"
    ),
    (
        "INSERT INTO enqueue_refusals (idempotency_key, caller, reason, what)"
        f" SELECT 'k' || n, 'ann', 'NO', 'no' FROM generate_series(1, {WIDE}) n"
    ),
    (
        "INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)"
        " SELECT 'e' || o.id, 'shop', o.deployment, o.apply_id, o.id FROM apply_operations o WHERE o.state <> 'pending'"
    ),
    # The one that is claimed finds its target held.
    (
        "INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)"
        f" SELECT 'test', 'shop', 'd{WIDE - 1}', min(o.apply_id), min(o.id) FROM apply_operations o"
    ),
    (
        "INSERT INTO engines (address, environment)"
        f" SELECT 'grpc\\://h\\:' || n, 'test' FROM generate_series(1, {WIDE}) n"
    ),
    (
        "INSERT INTO remote_ids (engine_number, remote_id, operation_id)"
        " SELECT 1, engine_resume_context, id FROM apply_operations WHERE engine_resume_context IS NOT NULL"
    ),
    # Single ones hold the id that an engine gave them.
    (
        "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy, "
        "idempotency_key, request_digest, caller, reason, external_id, state, completed_at, verdict_effects_done_at)"
        f" SELECT 'apl-' || lpad(n::text, 16, 'e'), 1, 'test', 'shop', 1, '{_POLICY}', 's' || n, '', 'ann', 'x',"
        f" 'R' || n, {_SETTLED} FROM generate_series(1, {SMALL}) n"
    ),
    # Much was once outstanding, and half of it still is; nobody is due to look at that.
    (
        "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, remote_id, fence,"
        " address, why, caller, next_look_at, settled_at)"
        " SELECT o.apply_id, o.id, 'test', 'shop', 'z' || o.id, 'R' || o.id, 1, 'grpc\\://z\\:1', 'given_up', 'eve',"
        " NULL,"
        " CASE WHEN o.id % 2 = 0 THEN now() - interval '1 d' END FROM apply_operations o WHERE o.state = 'running'"
    ),
    # No clock was set back: a sweep mends nothing, which would cover everything else that it does.
    "INSERT INTO sweep_leases (name, owner, token, began_at, expires_at) VALUES ('clock', 'sweep', '', now(), now())",
    "UPDATE deployments SET engine_identity = '1/1' WHERE name IN ('d7', 'd8')",
    (
        "INSERT INTO same_targets (one, other, finding, identity)"
        f" SELECT 'x' || n, 'y' || n, 'two', '1/2' FROM generate_series(1, 4 * {WIDE}) n"
    ),
    (
        "INSERT INTO apply_events (apply_id, operation_id, number, event, who, previous_hash, hash)"
        " SELECT apply_id, id, 1, 'observed', 'tern', '', '' FROM apply_operations"
    ),
    (
        "INSERT INTO apply_events (apply_id, number, event, who, previous_hash, hash)"
        " SELECT id, 1, 'accepted', 'ann', '', '' FROM applies"
    ),
)

STORIES: dict[str, Callable[["Staff"], object]] = {
    "a sweep": lambda staff: (staff.store.due_work(), staff.store.due_deployments()),
    "a worker's own sweep": lambda staff: staff.store.unheard_work(15.0),
    "a scrape": lambda staff: read_gauges(staff.database),
    "a poll of one deployment among ten thousand": lambda staff: staff.store.begin_poll("d7"),
    "an apply that is through": lambda staff: staff.store.advance_apply(small(7)),
    "a step of a wide apply": lambda staff: staff.store.advance_apply(wide(2)),
    "wishes that need no call": lambda staff: staff.store.settle_uncalled(wide(2), 10),
    "a claim": lambda staff: staff.store.claim_dispatch(
        3 * SMALL + 2 * WIDE, ScopeName(wide(2), f"d{WIDE - 1}")
    ),
    "a tick that claims nothing": lambda staff: staff.store.next_dispatches(wide(3)),
    "what doctor asks": lambda staff: old_halts(staff.database, 60.0),
    "get": lambda staff: staff.reading.apply(small(7)),
    "logs": lambda staff: staff.reading.events(small(7)),
    "audit": lambda staff: staff.record.entries(small(7)),
    "a plan beside what was foretold": lambda staff: staff.store.reviewed_previews(PlanId("pln-7"), ["d0"]),
    "a deployment that is opened again": lambda staff: staff.store.set_drained("d7", drained=False),
    "a deployment that is compared with others": lambda staff: staff.store.unproven_pairs(["d7"]),
    "what became of a key": lambda staff: staff.reading.fate_of_key("k7"),
}

# The index, and the story that can't do without it.
WITNESS = {
    "apply_operations_due_for_dispatch": "a sweep",
    "apply_operations_due_of_apply": "a sweep",
    "apply_operations_finished_at": "a sweep",
    "apply_operations_ahead_of_apply": "a tick that claims nothing",
    "apply_operations_due_for_poll": "a sweep",
    "apply_operations_polled_at": "a poll of one deployment among ten thousand",
    "apply_operations_retryable_at": "a sweep",
    "apply_operations_claimed": "a scrape",
    "apply_operations_by_state": "a step of a wide apply",
    "apply_operations_ended_at": "a step of a wide apply",
    "applies_live": "a sweep",
    "applies_due_for_advance": "a sweep",
    "applies_verdict_effects_due": "a sweep",
    "table_changes_of_apply": "get",
    "control_deliveries_due": "a sweep",
    "control_deliveries_by_operation": "a claim",
    "control_deliveries_open_of_apply": "an apply that is through",
    "control_requests_of_apply": "audit",
    "control_requests_releases": "a step of a wide apply",
    "previews_of_plan": "a plan beside what was foretold",
    "enqueue_refusals_of_key": "what became of a key",
    "target_reservations_held": "a sweep",
    "target_reservations_of_name": "a deployment that is opened again",
    "deployments_by_identity": "a deployment that is compared with others",
    "same_targets_are_one": "a sweep",
    "outstanding_calls_of_target": "a claim",
    "outstanding_calls_due": "a sweep",
    "outstanding_calls_settled_at": "a sweep",
    "apply_events_of_apply": "logs",
}
# What a trigger says is heard by nobody, and an answer needs an engine: it is said here once more.
TRIGGERED = {
    "engines_by_address": "SELECT min(number) FROM engines WHERE environment = 'test' AND address = 'grpc://h:7'",
    "remote_ids_of_operation": "SELECT 1 FROM remote_ids WHERE operation_id = 7",
    "applies_by_remote_id": "SELECT 1 FROM applies WHERE external_id = 'R7'",
    "apply_operations_by_remote_id": "SELECT 1 FROM apply_operations WHERE engine_resume_context = 'R7'",
    "apply_operations_finished_of_deployment": (
        "SELECT 1 FROM apply_operations WHERE deployment = 'd7' AND completed_at IS NOT NULL"
        " ORDER BY completed_at DESC, id DESC LIMIT 1"
    ),
    "apply_operations_finished_at_engine": (
        "SELECT 1 FROM apply_operations WHERE engine_number = 7 AND target = 't7' AND completed_at IS NOT NULL"
        " ORDER BY completed_at DESC, id DESC LIMIT 1"
    ),
    "applies_carrying_on": "SELECT 1 FROM applies WHERE carries_on = 7",
    "apply_operations_carrying_on": "SELECT tern_carried_on_by(7)",
    "table_changes_by_origin": "SELECT 1 FROM table_changes WHERE origin_id = 7",
    "same_targets_by_other": "SELECT 1 FROM same_targets WHERE one = 'x7' OR other = 'x7'",
    "target_reservations_of_operation": "SELECT 1 FROM target_reservations WHERE operation_id = 7",
    "outstanding_calls_of_operation": "SELECT 1 FROM outstanding_calls WHERE operation_id = 7",
}
# These refuse what must not be there twice; test_tables.py and test_event.py try it.
KEYS = {
    "control_deliveries_one_open_per_verb",
    "previews_of_apply",
    "apply_events_of_operation",
    "apply_events_of_apply_alone",
    "outstanding_calls_once",
}


def small(number: int) -> ApplyId:
    return ApplyId(f"apl-{number:016d}")


def wide(number: int) -> ApplyId:
    return ApplyId("apl-" + str(number).rjust(16, "f"))


@dataclass
class Staff:
    """Whoever works on the crowd."""

    database: Database
    store: PostgresStore
    reading: Paging
    record: Record


@pytest.fixture(scope="module")
def staff(postgres_server: Any) -> Iterator[Staff]:
    """Thirty thousand operations, ten thousand of them under way, and nearly nothing due."""
    from tern.local.postgres import drop_database, ensure_database  # noqa: PLC0415

    url = postgres_server.database("indexes_at_work")
    ensure_database(url)
    database = connect(url, pool_size=2)
    migrate(database)
    with database.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in _FILL:
            tx.execute(text(statement))
    with psycopg.connect(url, autocommit=True) as connection:
        # Of all rows: what is drawn by lot would now and then choose another plan.
        connection.execute("SET default_statistics_target = 10000")
        connection.execute("VACUUM ANALYZE")
        # Statistics of another moment would choose another plan between two measurements.
        for table in (
            "apply_operations",
            "applies",
            "control_deliveries",
            "outstanding_calls",
            "target_reservations",
        ):
            connection.execute(
                sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(sql.Identifier(table))
            )
    store = PostgresStore(database, owner="w", lease_s=LONGEST_S, pace=PollPace(slow_s=LONGEST_S))
    yield Staff(database, store, Paging(database), Record(database))
    database.dispose()
    drop_database(url)


Said = dict[str, list[tuple[bytes, Mapping[str, object]]]]


@pytest.fixture(scope="module")
def said(staff: Staff) -> Said:
    """What each story says to PostgreSQL, with the values."""
    found: Said = {}
    right = Connection.execute
    for name, story in STORIES.items():
        heard: list[tuple[bytes, Mapping[str, object]]] = []

        def listen(self: Connection, statement: Any, values: Any = (), *, heard: Any = heard) -> Any:
            if isinstance(values, Mapping) or not values:
                heard.append((text(statement.text).sql, dict(values or {})))
            return right(self, statement, values or {})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Connection, "execute", listen)
            story(staff)
        found[name] = [each for each in heard if not each[0].startswith((b"SET", b"LOCK"))]
        assert found[name], name
    return found


def blocks(connection: psycopg.Connection[Any], statement: bytes, values: Mapping[str, object]) -> int:
    """How many blocks the statement touches; what it writes is taken back."""
    with connection.transaction(force_rollback=True):
        row = connection.execute(b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, values).fetchone()
    assert row is not None
    plan = (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def indexes(url: str) -> set[str]:
    """Those that no constraint brings with it."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE c.relnamespace = 'public'::regnamespace"
            " AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)"
        ).fetchall()
    return {str(row[0]) for row in rows}


def test_every_index_is_needed_by_a_story_or_is_a_key(staff: Staff) -> None:
    """A new one is named with the story that it is for; one that nobody names is paid for and used by nobody."""
    assert indexes(staff.database.url) == set(WITNESS) | KEYS | set(TRIGGERED)
    assert set(WITNESS.values()) <= set(STORIES)


@pytest.mark.parametrize("index", [*WITNESS, *TRIGGERED])
def test_a_story_is_lost_without_its_index(staff: Staff, said: Said, index: str) -> None:
    with psycopg.connect(staff.database.url) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        lines = [(TRIGGERED[index].encode(), {})] if index in TRIGGERED else said[WITNESS[index]]
        before = [blocks(connection, *line) for line in lines]
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
            without = [blocks(connection, *line) for line in lines]
        # What is taken back stays in the tables as dead rows: what grows by these alone has grown here as well.
        after = [blocks(connection, *line) for line in lines]
        connection.rollback()
    found = list(zip(before, without, after, strict=True))
    assert max(more - max(less) for *less, more in zip(before, after, without, strict=True)) >= LOST, (
        f"{WITNESS.get(index, 'a trigger')} does as well without {index}: {found}"
    )
