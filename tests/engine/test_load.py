"""Who checks the checkers of the engine's crash points: what is whole is accepted, and each fault is seen."""

from collections.abc import Iterator

import psycopg
import pytest

from .conftest import Database, Driver, eventually
from .load import LEFTOVERS, Load, left_behind
from .test_recipes import GROUND, catalogue

JOB = (
    "INSERT INTO _tern.job (id, environment, database, target, plan_id, caller, options, time_zone, defer_cutover,"
    " state, completed_at) VALUES ('job-{0}', '', '', '', '', '', '{{}}', 'UTC', false, '{1}', {2})"
)
SETTLED = JOB.format("1", "completed", "now()")
CHANGE = (
    "INSERT INTO _tern.change (job, n, namespace, table_name, ddl, change_type, class, recipe, is_instant)"
    " VALUES ('job-1', 0, 'public', 't', '', 0, '', '', true)"
)

LIES: dict[str, tuple[str, ...]] = {
    "an invalid index": ("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 't_b'::regclass",),
    "a constraint of ours": ("ALTER TABLE t ADD CONSTRAINT _tern_nn_b CHECK (b IS NOT NULL) NOT VALID",),
    "a copy": ("CREATE SCHEMA _tern_probe_1",),
    "a second job": (SETTLED, JOB.format("2", "completed", "now()")),
    "a job that is not over": (JOB.format("1", "running", "NULL"),),
    "a step that is not over": (
        SETTLED,
        CHANGE,
        "INSERT INTO _tern.step (job, n, change, atom, body) VALUES ('job-1', 0, 0, 0, '{}')",
    ),
    "a table that is held": (
        SETTLED,
        "INSERT INTO _tern.tbl (job, namespace, table_name) VALUES ('job-1', 'public', 't')",
    ),
    "an advisory lock": ("SELECT pg_advisory_lock(1, 2)",),
}


@pytest.fixture
def ground(db: Database, driver: Driver) -> Database:
    """The tables of the crash points, with an engine's own beside them."""
    db.execute(GROUND)
    return db


@pytest.fixture
def working(database_url: str, ground: Database) -> Iterator[Load]:
    with Load(database_url, bearable="300ms") as load:
        eventually(lambda: load.reads > 5 and load.writes > 10)
        yield load


def tell(load: Load) -> list[str]:
    """Its violations; the application goes home first."""
    load.__exit__()
    return load.violations()


def test_what_is_whole_is_accepted(database_url: str, ground: Database, working: Load) -> None:
    """Oracle sanity: no fault, no finding; and a lock that is short is borne."""
    with ground.transaction():
        ground.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
    assert tell(working) == []
    assert left_behind(database_url) == []


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("DELETE FROM t WHERE id = (SELECT max(id) FROM t)", "D1"),
        ("UPDATE t SET b = 'other' WHERE id = (SELECT min(id) FROM t)", "D1"),
        ("INSERT INTO t (a, b) VALUES (-1, 'x')", "D1"),
    ],
)
def test_rows_that_are_not_those_of_the_book_are_seen(
    ground: Database, working: Load, statement: str, rule: str
) -> None:
    working.__exit__()
    ground.execute(statement.encode())
    assert [found[:2] for found in working.violations()] == [rule]


@pytest.mark.parametrize(
    "half_made",
    [
        "ALTER TABLE t RENAME TO gone",
        "ALTER TABLE t RENAME COLUMN parent_id TO gone",
        "LOCK TABLE t IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1)",
    ],
)
def test_a_table_that_is_gone_changed_or_locked_for_long_is_seen(
    ground: Database, working: Load, half_made: str
) -> None:
    """D3 and D5: whoever works on it notices."""
    with ground.transaction():
        ground.execute(half_made.encode())
    eventually(lambda: len(working.errors) >= 2)
    assert all("D3" in found for found in working.errors)


def test_a_version_that_comes_back_is_seen(ground: Database, working: Load) -> None:
    shapes = working.shapes
    for statement in ("ADD COLUMN k int", "DROP COLUMN k"):
        before = len(shapes)
        ground.execute(f"ALTER TABLE t {statement}".encode())
        eventually(lambda before=before: len(shapes) > before)
    assert [found[:2] for found in tell(working)] == ["D3"]


@pytest.mark.parametrize("what", [what for what in LEFTOVERS if what != "a session"])
def test_what_is_left_behind_is_seen(database_url: str, ground: Database, what: str) -> None:
    for statement in LIES[what]:
        ground.execute(statement.encode())
    assert f"D4: {what}" in {found.rpartition(":")[0] for found in left_behind(database_url)}


def test_a_session_that_stays_is_seen(database_url: str, ground: Database) -> None:
    with psycopg.connect(database_url, application_name="tern:job-1:work"):
        assert any(found.startswith("D4: a session") for found in left_behind(database_url))


def test_every_leftover_has_a_forgery() -> None:
    assert set(LIES) | {"a session"} == set(LEFTOVERS)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ALTER b SET DEFAULT 'x'",
        "ALTER TABLE t ALTER id DROP IDENTITY",
        "DROP INDEX t_b",
        "ALTER TABLE t DROP CONSTRAINT t_parent_id_fkey",
        "ALTER TABLE t DISABLE TRIGGER touched",
        "GRANT SELECT ON t TO PUBLIC",
        "COMMENT ON TABLE t IS 'x'",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "ALTER TABLE t ALTER a SET STATISTICS 7",
        "DROP POLICY mine ON t",
    ],
)
def test_any_difference_in_the_catalogue_is_seen(ground: Database, statement: str) -> None:
    """D2: what a recipe could lose on the way."""
    before = catalogue(ground)
    ground.execute(statement.encode())
    assert catalogue(ground) != before
