"""Every query that looks for what is due finds it by its index: cost follows what is due, not what exists."""

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tern.store import clock, gate, gauge, notify, poll, projection, reservation, seen, sweep, tally
from tern.store.database import Database
from tern.store.schema import migrate
from tern.store.session import connect
from tern.store.sql import TextClause, text

APPLIES = 5_000
OPERATIONS = 6
DUE = 25


@pytest.fixture(scope="module")
def crowd(postgres_server: Any) -> Iterator[Database]:
    """Thirty thousand settled or sleeping operations, and a few that are due for each kind of work."""
    from tern.local.postgres import drop_database, ensure_database  # noqa: PLC0415

    url = postgres_server.database("plans_at_work")
    ensure_database(url)
    engine = connect(url, pool_size=2)
    migrate(engine)
    with engine.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in _FILL:
            tx.execute(text(statement))
    with engine.begin() as tx:
        tx.execute(text("ANALYZE"))
    yield engine
    engine.dispose()
    drop_database(url)


_FILL = (
    (
        "INSERT INTO deployments (name, environment, database, address, target)"
        " SELECT 'd' || n, 'test', 'shop', 'grpc://h:1', 't' || n FROM generate_series(0, 5) n"
    ),
    (
        "INSERT INTO plans (plan_identifier, environment, database, database_type, digest, caller)"
        " VALUES ('pln-1', 'test', 'shop', 'postgres', 'x', 'ann')"
    ),
    (
        "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy, "
        "idempotency_key, request_digest, caller, reason, state, completed_at, verdict_effects_done_at)"
        f" SELECT 'apl-' || n, 1, 'test', 'shop', {OPERATIONS}, '{{}}', 'k' || n, '', 'ann', 'x', 'completed', now(),"
        f" now() FROM generate_series(1, {APPLIES}) n"
    ),
    (
        "INSERT INTO apply_operations (apply_id, deployment, position, target, state, completed_at)"
        f" SELECT a.id, 'd' || n, n, 't' || n, 'completed', now()"
        f" FROM applies a, generate_series(0, {OPERATIONS - 1}) n"
    ),
    (
        "INSERT INTO control_requests (apply_id, verb, caller, reason, outcomes)"
        " SELECT id, 'stop', 'eve', 'x', '[]' FROM applies"
    ),
    (
        "INSERT INTO control_deliveries (request_id, apply_id, operation_id, verb, state, closed_at, next_attempt_at)"
        " SELECT r.id, o.apply_id, o.id, 'stop', 'too_late', now(), NULL FROM control_requests r"
        " JOIN apply_operations o ON o.apply_id = r.apply_id"
    ),
    (
        "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
        " SELECT 'e' || a.id, 'shop', 'd1', a.id FROM applies a"
    ),
    # A few of each kind are due.
    f"UPDATE apply_operations SET next_attempt_at = now(), state = 'pending', completed_at = NULL WHERE id <= {DUE}",
    (
        "UPDATE apply_operations SET next_poll_at = now(), state = 'running', completed_at = NULL,"
        f" engine_resume_context = 'R' || id WHERE id BETWEEN {DUE + 1} AND {2 * DUE}"
    ),
    (
        "UPDATE apply_operations SET state = 'failed_retryable', completed_at = NULL, next_attempt_at = now() + '1min'"
        f" WHERE id BETWEEN {2 * DUE + 1} AND {3 * DUE}"
    ),
    (
        "UPDATE apply_operations SET claim_token = 't', claim_owner = 'w', claim_expires_at = now()"
        f" WHERE id BETWEEN {DUE + 1} AND {DUE + 5}"
    ),
    "UPDATE applies SET state = 'running', completed_at = NULL WHERE id <= 4",
    "UPDATE applies SET verdict_effects_done_at = NULL WHERE id BETWEEN 5 AND 6",
    (
        "UPDATE control_deliveries SET state = 'pending', closed_at = NULL, next_attempt_at = now()"
        f" WHERE operation_id BETWEEN {DUE + 1} AND {DUE + 9}"
    ),
)

HOT: dict[str, tuple[TextClause, dict[str, object], set[str]]] = {
    "applies with something to notify": (
        notify.LOCK_BUSY,
        {},
        {"apply_operations_due_of_apply"},
    ),
    "what is notified next": (
        notify.NEXT,
        {"applies": [1, 2, 3, 4, 5]},
        {"apply_operations_due_of_apply", "apply_operations_ahead_of_apply"},
    ),
    "what nobody hears": (
        notify.UNHEARD,
        {"after_s": 15},
        {"apply_operations_due_of_apply"},
    ),
    "claims that nobody takes over": (
        sweep._END_DEAD_CLAIMS,
        {},
        {"apply_operations_claimed"},
    ),
    "whether anything lies ahead": (
        clock.LIES_AHEAD,
        {"longest_dispatch_s": 75, "longest_control_s": 85, "longest_poll_s": 30},
        {
            "apply_operations_claimed",
            "apply_operations_finished_at",
            "apply_operations_due_for_dispatch",
            "apply_operations_due_for_poll|apply_operations_polled_at",
            "control_deliveries_due",
        },
    ),
    "due wishes": (
        sweep._DUE_CONTROLS,
        {"longest_control_s": 85, "alone_s": 0},
        {"control_deliveries_due"},
    ),
    "due applies": (
        sweep._DUE_APPLIES,
        {"longest_control_s": 85},
        {
            "applies_due_for_advance",
            "applies_verdict_effects_due",
            "applies_live",
            "apply_operations_by_state|apply_operations_one_per_position",
        },
    ),
    "due deployments": (
        sweep._DUE_DEPLOYMENTS,
        {"longest_poll_s": 30},
        {"apply_operations_due_for_poll|apply_operations_polled_at", "apply_operations_retryable_at"},
    ),
    "a deployment's cursors": (
        poll._CURSORS,
        {"deployment": "d3", "longest_poll_s": 30},
        {"apply_operations_polled_at|apply_operations_due_for_poll"},
    ),
    "an apply's tally": (
        tally.TALLY,
        {"apply": 3},
        {"apply_operations_by_state|apply_operations_one_per_deployment|apply_operations_one_per_position"},
    ),
    "the front of an order": (
        projection._ADMIT_ANY,
        {"id": 3, "wave": 0, "room": 1},
        {"apply_operations_by_state|apply_operations_one_per_position"},
    ),
    "what a scrape is told": (
        gauge.GAUGES,
        {},
        {
            "applies_live",
            "apply_operations_by_state|apply_operations_one_per_deployment|apply_operations_one_per_position",
            "apply_operations_due_of_apply",
            "apply_operations_due_for_poll",
            "apply_operations_claimed",
            "control_deliveries_due|control_deliveries_open_of_apply",
        },
    ),
    "looks, and who had their ids before": (
        seen._SEEN_NOW,
        {"ids": list(range(DUE + 1, DUE + 9)), "lease": "w:1", "polled": "d1", "deadline_s": 10},
        {"apply_operations_by_remote_id", "applies_by_remote_id"},
    ),
    "an apply by its key": (
        text("SELECT 1 FROM applies WHERE idempotency_key = :key"),
        {"key": "k7"},
        {"applies_one_per_key"},
    ),
    "what an operation holds": (
        reservation._LET_GO,
        {"ids": [3]},
        {"target_reservations_of_operation"},
    ),
    "an operation's wishes": (
        text(
            "SELECT id FROM control_deliveries d WHERE d.operation_id = :id AND d.state IN ('pending', 'sent')"
            " ORDER BY d.id"
        ),
        {"id": 30},
        {"control_deliveries_one_open_per_verb|control_deliveries_by_operation"},
    ),
}


def explain(
    engine: Database, statement: TextClause, values: dict[str, object], *, may_scan: bool = True
) -> list[dict[str, Any]]:
    """The nodes of the plan, as it was run: the one that a worker keeps, made without a look at the values."""
    names = list(values)
    numbered = re.sub(r"(?<![:\w\\]):(\w+)(?!:)", lambda bind: f"${names.index(bind[1]) + 1}", statement.text)
    given = (
        sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, values.values())))
        if values
        else sql.SQL("")
    )
    with psycopg.connect(engine.url) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan")
        for how in ("enable_seqscan", "enable_bitmapscan"):
            connection.execute(f"SET {how} = {'on' if may_scan else 'off'}".encode())
        connection.execute(f"PREPARE hot AS {numbered}".replace("\\:", ":").encode())
        row = connection.execute(sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE hot") + given).fetchone()
        connection.rollback()
    assert row is not None
    found = row[0]
    plan = json.loads(found) if isinstance(found, str) else found
    nodes: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        nodes.append(node)
        for child in node.get("Plans", ()):
            walk(child)

    walk(plan[0]["Plan"])
    return nodes


@pytest.mark.parametrize("what", HOT)
def test_a_due_query_uses_its_index(crowd: Database, what: str) -> None:
    """Sequential scans are allowed to the planner, and it does not want one of the large tables."""
    statement, values, wanted = HOT[what]
    nodes = explain(crowd, statement, values)
    used = {node["Index Name"] for node in nodes if "Index Name" in node}
    for index in wanted:
        assert used & set(index.split("|")), (index, used)
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    assert not scanned & {"apply_operations", "control_deliveries", "applies", "control_requests"}
    read = max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes)
    assert read <= 12 * DUE, [
        (node["Node Type"], node.get("Index Name"), node["Actual Rows"]) for node in nodes
    ]


def test_nothing_that_is_due_is_missed(crowd: Database) -> None:
    """The control run: the same statements find the rows that are there."""
    with crowd.connect() as connection:
        applies = connection.execute(notify.LOCK_BUSY).scalars().all()
        assert len(connection.execute(notify.NEXT, {"applies": applies}).all()) == DUE
        assert (
            len(connection.execute(sweep._DUE_CONTROLS, {"longest_control_s": 85, "alone_s": 0}).all()) == 9
        )
        assert connection.execute(sweep._DUE_DEPLOYMENTS, {"longest_poll_s": 30}).all()


AT_EVERY_STEP: dict[str, tuple[TextClause, dict[str, object]]] = {
    "what a claim looks at": (gate._CLAIMABLE, {"id": 1, "apply": "apl-1", "deployment": "d1"}),
    "the apply of a claim": (gate._LOCK_APPLY, {"id": 1, "apply": "apl-1", "deployment": "d1"}),
    "the tally of a claim": (gate._TALLY, {"id": 1, "apply": "apl-1", "deployment": "d1"}),
    "what is ahead of a claim": (gate._ROOM, {"id": 1, "apply": "apl-1", "deployment": "d1"}),
    "what a claim notifies": (notify.NEXT, {"applies": [1]}),
    "what is seen": (seen._SEEN_LOCKED, {"ids": [1], "lease": "", "polled": "d1", "deadline_s": 10}),
    "what is written of it": (
        poll._WRITE_SAMPLES,
        {"ids": [1], "lines": '[{"id": 1, "fence": 1, "failures": 0, "error": ""}]'},
    ),
}


@pytest.fixture
def empty_house(database_url: str) -> Iterator[Database]:
    engine = connect(database_url)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("what", AT_EVERY_STEP)
def test_what_was_planned_in_an_empty_house_does_for_a_full_one(empty_house: Database, what: str) -> None:
    """A worker plans each statement once, and nobody tells it that there are more rows now before the next ANALYZE."""
    nodes = explain(empty_house, *AT_EVERY_STEP[what], may_scan=False)
    scanned = {node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"}
    assert not scanned & {"apply_operations", "control_deliveries", "applies", "table_changes"}


_CROWD = (
    *_FILL[:2],
    (
        "INSERT INTO applies (apply_identifier, plan_id, environment, database, operation_count, policy,"
        " idempotency_key, request_digest, caller, reason, state)"
        " SELECT 'apl-1', 1, 'test', 'shop', 5000, '{}', 'k', '', 'ann', 'x', 'running'"
    ),
    (
        "INSERT INTO apply_operations (apply_id, deployment, position, target, next_attempt_at, rung_at, first_rung_at)"
        " SELECT 1, 'd' || n, n, 't', tern_clock() - interval '1 min', CASE WHEN n < 60 THEN tern_clock() END,"
        " CASE WHEN n < 60 THEN tern_clock() END FROM generate_series(0, 4999) n"
    ),
)


@pytest.mark.parametrize(
    ("statement", "values"),
    [(gate._ROOM, {"id": 1, "apply": "apl-1", "deployment": "d1"}), (notify.NEXT, {"applies": [1]})],
    ids=["counted", "notified"],
)
def test_a_claim_reads_what_is_ahead_and_not_all_that_wait(
    empty_house: Database, statement: TextClause, values: dict[str, object]
) -> None:
    """Five thousand of an apply wait: if each claim read them all, all of them together would read their square."""
    with empty_house.begin() as tx:
        tx.execute(text("SET LOCAL session_replication_role = replica"))
        for each in _CROWD:
            tx.execute(text(each))
    nodes = explain(empty_house, statement, values, may_scan=False)
    read = max(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in nodes)
    assert read <= 200, "\n".join(
        f"{node['Node Type']} {node.get('Index Name', '')} {node['Actual Rows']} {node.get('Index Cond', '')}"
        for node in nodes
    )
