"""What the server says about statements, on its own terms: the classes of the design, and its surprises."""

import pytest

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours

from .conftest import Database, Driver

METADATA = ours.CHANGE_CLASS_METADATA
SCAN = ours.CHANGE_CLASS_SCAN
INDEX_BUILD = ours.CHANGE_CLASS_INDEX_BUILD
FK_SCAN = ours.CHANGE_CLASS_FK_SCAN
REWRITE = ours.CHANGE_CLASS_REWRITE

SETUP = """
CREATE TABLE parent (id bigint PRIMARY KEY);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE x (
    id bigint PRIMARY KEY, a int NOT NULL, c int, txt text, v varchar(10), n numeric(10,2), ts timestamp,
    tz timestamptz(3), ci cidr, vb varbit(3), ch char(3), j jsonb, arr int[], parent_id bigint,
    CONSTRAINT c_known CHECK (c IS NOT NULL)
);
CREATE INDEX x_txt ON x (txt);
"""

CLASSES = [
    ("ADD COLUMN k int", METADATA),
    ("ADD COLUMN k int DEFAULT 5", METADATA),
    ("ADD COLUMN k int NOT NULL DEFAULT 5", METADATA),
    ("ADD COLUMN k timestamptz DEFAULT now()", METADATA),
    ("ADD COLUMN k timestamptz DEFAULT clock_timestamp()", REWRITE),
    ("ADD COLUMN k float DEFAULT random()", REWRITE),
    ("ADD COLUMN k uuid DEFAULT gen_random_uuid()", REWRITE),
    ("ADD COLUMN k serial", REWRITE),
    ("ADD COLUMN k int GENERATED ALWAYS AS IDENTITY", REWRITE),
    ("ADD COLUMN k int GENERATED ALWAYS AS (a * 2) STORED", REWRITE),
    ("ADD COLUMN k int GENERATED ALWAYS AS (a * 2) VIRTUAL", METADATA),
    ("ADD COLUMN k positive", REWRITE),
    ("ADD COLUMN k int DEFAULT 5 CHECK (k > 0)", SCAN),
    ("ALTER v TYPE varchar(20)", METADATA),
    ("ALTER v TYPE text", METADATA),
    ("ALTER n TYPE numeric(12,2)", METADATA),
    ("ALTER tz TYPE timestamptz", METADATA),
    ("ALTER ci TYPE inet", METADATA),
    ("ALTER vb TYPE varbit(9)", METADATA),
    ("ALTER ts TYPE timestamptz", METADATA),
    ("ALTER txt TYPE varchar(10)", REWRITE),
    ("ALTER n TYPE numeric(10,4)", REWRITE),
    ("ALTER a TYPE bigint", REWRITE),
    ("ALTER ch TYPE text", REWRITE),
    ("ALTER j TYPE json", REWRITE),
    ("ALTER arr TYPE bigint[]", REWRITE),
    ("ALTER c SET NOT NULL", METADATA),
    ("ALTER v SET NOT NULL", SCAN),
    ("ADD CHECK (a > 0)", SCAN),
    ("ADD FOREIGN KEY (parent_id) REFERENCES parent", FK_SCAN),
    ("ADD UNIQUE (a)", INDEX_BUILD),
    ("SET (fillfactor = 70)", METADATA),
    ("ALTER a SET STATISTICS 500", METADATA),
    ("SET UNLOGGED", REWRITE),
]


@pytest.fixture
def ground(db: Database) -> None:
    db.execute(SETUP)


def test_classes_are_the_servers(driver: Driver, ground: None) -> None:
    seen = {ddl: driver.preview(f"ALTER TABLE x {ddl}", table="x")[0] for ddl, _ in CLASSES}
    wrong = {
        ddl: (ours.ChangeClass.Name(seen[ddl].change_class), seen[ddl].refused_reason)
        for ddl, expected in CLASSES
        if seen[ddl].change_class != expected
    }
    assert wrong == {}
    assert {ddl for ddl in seen if seen[ddl].refused} == {ddl for ddl, each in CLASSES if each == REWRITE}


def test_a_rewrite_is_refused_with_its_reason(driver: Driver, ground: None) -> None:
    (seen,) = driver.preview("ALTER TABLE x ALTER a TYPE bigint", table="x")
    assert seen.refused
    assert seen.refused_reason.startswith("REWRITE_REFUSED: ")
    assert seen.recipe == ""


def test_timestamps_are_free_only_in_utc(db: Database, driver: Driver, ground: None) -> None:
    db.execute(f"ALTER DATABASE {db.info.dbname} SET timezone = 'Europe/Berlin'")
    fresh = Driver(
        type(driver.service)(db.info.dsn + f" password={db.info.password}", driver.service.identity)
    )
    fresh.service.start()
    try:
        (seen,) = fresh.preview("ALTER TABLE x ALTER ts TYPE timestamptz", table="x")
    finally:
        fresh.service.close()
    assert seen.change_class == REWRITE


def test_nothing_of_a_preview_lasts(db: Database, driver: Driver, ground: None) -> None:
    counts = ", ".join(f"(SELECT count(*) FROM {each})" for each in ("pg_class", "pg_namespace", "pg_proc"))
    query = f"SELECT {counts}"
    driver.preview("ALTER TABLE x ADD COLUMN warm int", table="x")
    before = db.execute(query).fetchone()
    driver.preview(
        "ALTER TABLE x ADD COLUMN k int UNIQUE REFERENCES parent", "CREATE INDEX ON x (v)", table="x"
    )
    driver.preview("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", table="f")
    assert db.execute(query).fetchone() == before


def test_a_preview_waits_for_no_writer_and_stops_none(db: Database, driver: Driver, ground: None) -> None:
    with db.transaction():
        db.execute("INSERT INTO x (id, a, c) VALUES (1, 1, 1)")
        (seen,) = driver.preview("ALTER TABLE x ADD CHECK (a > 0)", table="x")
    assert not seen.refused


def test_each_change_is_judged_after_the_earlier_ones(driver: Driver, ground: None) -> None:
    first, second, third, fourth = driver.preview(
        "ALTER TABLE x ADD COLUMN k int",
        "CREATE INDEX ON x (k)",
        "ALTER TABLE x DROP COLUMN k",
        "CREATE INDEX ON x (k)",
        table="x",
    )
    assert [first.refused, second.refused, third.refused, fourth.refused] == [False, False, False, True]
    assert "DDL_INVALID" in fourth.refused_reason
    assert "_tern_probe" not in fourth.refused_reason


def test_the_foretold_locks_are_those_that_the_server_takes(
    db: Database, driver: Driver, ground: None
) -> None:
    """The copies can't tell (their creation locks them), so the table of locks is held against real tables."""
    cases = {
        "ALTER TABLE x ADD COLUMN k int": "x",
        "ALTER TABLE x DROP COLUMN v": "x",
        "ALTER TABLE x ALTER v TYPE text": "x",
        "ALTER TABLE x ALTER a SET DEFAULT 3": "x",
        "ALTER TABLE x ALTER a DROP NOT NULL": "x",
        "ALTER TABLE x ALTER a SET STATISTICS 10": "x",
        "ALTER TABLE x ALTER txt SET STORAGE EXTERNAL": "x",
        "ALTER TABLE x SET (fillfactor = 80)": "x",
        "ALTER TABLE x RESET (fillfactor)": "x",
        "ALTER TABLE x SET (user_catalog_table = false)": "x",
        "ALTER TABLE x ALTER a SET (n_distinct = 5)": "x",
        "ALTER TABLE x CLUSTER ON x_txt": "x",
        "ALTER TABLE x REPLICA IDENTITY FULL": "x",
        "ALTER TABLE x DISABLE TRIGGER USER": "x",
        "ALTER TABLE x ENABLE ROW LEVEL SECURITY": "x",
        "ALTER TABLE x DROP CONSTRAINT c_known": "x",
        "ALTER TABLE x ADD CHECK (a > 1) NOT VALID": "x",
        "ALTER TABLE x ADD FOREIGN KEY (parent_id) REFERENCES parent NOT VALID": "x",
        "ALTER TABLE x VALIDATE CONSTRAINT c_known": "x",
        "ALTER TABLE x RENAME COLUMN a TO aa": "x",
        "ALTER TABLE x RENAME TO y": "x",
        "ALTER INDEX x_txt RENAME TO x_text": "x_txt",
        "COMMENT ON COLUMN x.a IS 'a'": "x",
        "CREATE POLICY p ON x USING (true)": "x",
        "CREATE STATISTICS s ON a, c FROM x": "x",
        "CREATE TRIGGER g BEFORE UPDATE ON x FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": "x",
        "DROP TABLE x": "x",
    }
    query = (
        "SELECT c.relname, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
        " WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relname IN ('x', 'parent')"
    )
    strength = [
        "AccessShareLock",
        "RowShareLock",
        "RowExclusiveLock",
        "ShareUpdateExclusiveLock",
        "ShareLock",
    ]
    strength += ["ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]
    too_weak = {}
    for ddl, about in cases.items():
        with db.transaction(force_rollback=True):
            db.execute(ddl)
            real: dict[str, int] = {}
            for relation, mode in db.execute(query).fetchall():
                real[relation] = max(real.get(relation, 0), strength.index(mode))
        (seen,) = driver.preview(ddl, table=about)
        assert not seen.refused, (ddl, seen.refused_reason)
        foretold = {lock.relation.removeprefix("public."): strength.index(lock.mode) for lock in seen.locks}
        for relation, mode in real.items():
            if mode > strength.index("RowExclusiveLock") and foretold.get(relation, 0) < mode:
                too_weak[ddl, relation] = (strength[mode], seen.locks)
    assert too_weak == {}


def test_the_first_wide_column_of_a_table_builds_no_index(db: Database, driver: Driver) -> None:
    """The table gets a TOAST relation with an index of its own, which is empty and none of the plan's."""
    db.execute("CREATE TABLE narrow (id bigint PRIMARY KEY, n int)")
    (seen,) = driver.preview("ALTER TABLE narrow ADD COLUMN note text", table="narrow")
    assert (seen.change_class, seen.refused_reason) == (METADATA, "")
