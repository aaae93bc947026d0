"""What is refused, with which reason, and that nothing is left of it."""

import pytest

from tern.engine.errors import EngineError

from .conftest import Database, Driver

REFUSED = [
    ("SELEC 1", "DDL_INVALID", "at character 1"),
    ("", "DDL_INVALID", "no statement"),
    ("ALTER TABLE t ADD c int; DROP TABLE t", "STATEMENT_REFUSED", "at character 26"),
    ("ALTER TABLE t ADD c int\0; DROP TABLE t", "DDL_INVALID", "NUL"),
    ("ALTER TABLE t ADD COLUMN " + "x" * 70 + " int", "DDL_INVALID", "63 bytes"),
    (f"ALTER TABLE t ADD CHECK (1{' + 1' * 200} > 0)", "DDL_INVALID", "too deeply"),
    (f"ALTER TABLE t ADD CHECK (1{'+1' * 40_000} > 0)", "DDL_INVALID", "words"),
    ("ALTER TABLE t ADD COLUMN a int", "DDL_INVALID", "already exists"),
    ("ALTER TABLE nowhere ADD COLUMN a int", "TABLE_MISMATCH", "declared for public.t"),
    ("ALTER TABLE other.t ADD COLUMN a int", "TABLE_MISMATCH", "declared for public.t"),
    ("ALTER TABLE t DROP COLUMN nope", "DDL_INVALID", "does not exist"),
    ("ALTER TABLE t DROP COLUMN a CASCADE", "STATEMENT_REFUSED", "CASCADE"),
    ("ALTER TABLE t ADD COLUMN IF NOT EXISTS a text", "STATEMENT_REFUSED", "IF NOT EXISTS"),
    ("ALTER TABLE t ADD COLUMN k int NOT NULL", "STATEMENT_REFUSED", "give the new column a default"),
    ("ALTER TABLE t ADD COLUMN k uuid DEFAULT gen_random_uuid()", "REWRITE_REFUSED", "rewrite"),
    ("ALTER TABLE t ADD COLUMN k int GENERATED ALWAYS AS IDENTITY", "REWRITE_REFUSED", "rewrite"),
    ("ALTER TABLE t ALTER a TYPE bigint", "REWRITE_REFUSED", "rewrite"),
    ("ALTER TABLE t ALTER b TYPE varchar(99)", "REWRITE_REFUSED", "rewrite"),
    ("ALTER TABLE t ALTER v TYPE text", "STATEMENT_REFUSED", "view public.s"),
    ("ALTER TABLE t DROP COLUMN v", "STATEMENT_REFUSED", "view public.s"),
    ("ALTER TABLE t ADD EXCLUDE USING btree (a WITH =)", "STATEMENT_REFUSED", "no online form"),
    ("ALTER TABLE t SET TABLESPACE pg_default", "STATEMENT_REFUSED", "tablespace"),
    ("ALTER TABLE t INHERIT parent", "STATEMENT_REFUSED", "inheritance"),
    ("ALTER TABLE t SET UNLOGGED", "REWRITE_REFUSED", "rewrite"),
    ("DROP TABLE t", "STATEMENT_REFUSED", "fkey of public.child"),
    ("DROP TABLE t, child", "STATEMENT_REFUSED", "one object"),
    ("CREATE TABLE t (a int)", "DDL_INVALID", "exists already"),
    ("CREATE TABLE IF NOT EXISTS t (a int)", "DDL_INVALID", "exists already"),
    ("CREATE INDEX t_pkey ON t (a)", "DDL_INVALID", "already exists"),
    ("CREATE INDEX IF NOT EXISTS t_pkey ON t (a)", "STATEMENT_REFUSED", "differs"),
    ("DROP INDEX t_pkey", "DDL_INVALID", "requires it"),
    ("CREATE TABLE t (a int) PARTITION BY RANGE (a)", "STATEMENT_REFUSED", "partition"),
    ("DO $$BEGIN DROP TABLE t; END$$", "STATEMENT_REFUSED", "kind of statement"),
    ("COPY t FROM PROGRAM 'id'", "STATEMENT_REFUSED", "kind of statement"),
    ("SET ROLE postgres", "STATEMENT_REFUSED", "kind of statement"),
    ("SET search_path = evil", "STATEMENT_REFUSED", "kind of statement"),
    ("DELETE FROM t", "STATEMENT_REFUSED", "kind of statement"),
    ("INSERT INTO t SELECT 1", "STATEMENT_REFUSED", "kind of statement"),
    ("TRUNCATE t", "STATEMENT_REFUSED", "kind of statement"),
    ("SELECT 1", "STATEMENT_REFUSED", "kind of statement"),
    ("CREATE TABLE t2 AS SELECT * FROM t", "STATEMENT_REFUSED", "kind of statement"),
    ("CREATE EXTENSION pgcrypto", "STATEMENT_REFUSED", "kind of statement"),
    ("COMMIT", "STATEMENT_REFUSED", "kind of statement"),
    ("VACUUM FULL t", "STATEMENT_REFUSED", "kind of statement"),
    ("CLUSTER t", "STATEMENT_REFUSED", "kind of statement"),
    ("REINDEX TABLE t", "STATEMENT_REFUSED", "kind of statement"),
    ("LOCK TABLE t", "STATEMENT_REFUSED", "kind of statement"),
    ("DROP SCHEMA public", "STATEMENT_REFUSED", "kind of statement"),
    ("DROP OWNED BY postgres", "STATEMENT_REFUSED", "kind of statement"),
    ("ALTER SYSTEM SET fsync = off", "STATEMENT_REFUSED", "kind of statement"),
    ("CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING", "STATEMENT_REFUSED", "kind of statement"),
    ("CREATE MATERIALIZED VIEW t AS SELECT 1", "STATEMENT_REFUSED", "kind of statement"),
    ("CREATE TEMP TABLE t (a int)", "STATEMENT_REFUSED", "temporary"),
    ("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC", "STATEMENT_REFUSED", "one named object"),
]


@pytest.fixture
def ground(db: Database, table: str) -> None:
    db.execute("CREATE TABLE parent (id int); CREATE VIEW s AS SELECT v FROM t")
    db.execute("CREATE TABLE child (t_id bigint REFERENCES t)")


def test_what_is_refused_says_why(db: Database, driver: Driver, ground: None) -> None:
    relations = db.execute("SELECT count(*) FROM pg_class").fetchone()
    wrong = []
    for ddl, reason, words in REFUSED:
        with pytest.raises(EngineError) as refused:
            driver.apply(ddl, options={"allow_unsafe": "true"})
        error = refused.value
        if error.reason != reason or words not in error.message:
            wrong.append((ddl, str(error)))
        if "\0" not in ddl:  # the contract's strings may hold it, a log line should not
            (seen,) = driver.preview(ddl)
            if not seen.refused or not seen.refused_reason.startswith(f"{reason}: "):
                wrong.append((ddl, seen.refused_reason))
    assert wrong == []
    assert db.execute("SELECT count(*) FROM pg_class").fetchone() == relations
    for kept in ("job", "dispatch_key", "tbl", "event"):
        assert db.execute(f"SELECT count(*) FROM _tern.{kept}").fetchone() == (0,)


@pytest.mark.parametrize("namespace", ["_tern", "pg_catalog", "information_schema"])
def test_reserved_namespaces_are_not_the_plans(driver: Driver, namespace: str) -> None:
    (seen,) = driver.preview(f"ALTER TABLE {namespace}.job ADD k int", table="job", namespace=namespace)
    assert seen.refused_reason.startswith("STATEMENT_REFUSED")


def test_partitioned_tables_and_parents_are_refused(db: Database, driver: Driver) -> None:
    db.execute("CREATE TABLE p (a int) PARTITION BY RANGE (a)")
    db.execute("CREATE TABLE h (a int); CREATE TABLE hc () INHERITS (h)")
    for name in ("p", "h"):
        for ddl in (f"ALTER TABLE {name} ADD k int", f"CREATE INDEX ON {name} (a)"):
            (seen,) = driver.preview(ddl, table=name)
            assert seen.refused_reason.startswith("NOT_PREVIEWED"), seen


def test_an_unsafe_change_wants_to_be_allowed(driver: Driver, table: str) -> None:
    with pytest.raises(EngineError) as refused:
        driver.apply("ALTER TABLE t DROP COLUMN b")
    assert refused.value.reason == "UNSAFE_CHANGE"
    assert "dropping column b loses its data" in refused.value.message
    (seen,) = driver.preview("ALTER TABLE t DROP COLUMN b")
    assert seen.is_unsafe
    assert not seen.refused


def test_unqualified_names_lead_to_the_declared_namespace_only(db: Database, driver: Driver) -> None:
    db.execute("CREATE SCHEMA app; CREATE SCHEMA evil")
    db.execute("CREATE TABLE app.t (a int); CREATE TABLE public.t (a int); CREATE TABLE evil.t (a int)")
    db.execute("CREATE TYPE app.mood AS ENUM ('ok'); CREATE TYPE evil.int4 AS ENUM ('x')")
    db.execute(f"ALTER DATABASE {db.info.dbname} SET search_path = evil, public")
    driver.done("ALTER TABLE t ADD COLUMN k int4, ADD COLUMN m mood", namespace="app")
    columns = db.execute(
        "SELECT attrelid::regclass::text, format_type(atttypid, NULL) FROM pg_attribute"
        " WHERE attname IN ('k', 'm') ORDER BY attnum"
    ).fetchall()
    assert columns == [("app.t", "integer"), ("app.t", "app.mood")]


def test_if_not_exists_believes_only_a_valid_equal_index(db: Database, driver: Driver, table: str) -> None:
    db.execute("CREATE INDEX here ON t (a)")
    (same,) = driver.preview("CREATE INDEX IF NOT EXISTS here ON t (a)")
    assert (same.refused, same.recipe) == (False, "nothing_to_do")
    assert driver.done("CREATE INDEX IF NOT EXISTS here ON t (a)").tables[0].status == "completed"
    db.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'here'::regclass")
    (invalid,) = driver.preview("CREATE INDEX IF NOT EXISTS here ON t (a)")
    assert "is invalid" in invalid.refused_reason
