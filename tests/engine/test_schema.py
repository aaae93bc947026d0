"""The engine's own schema: made once, by whoever comes first, closed to everybody else."""

import threading

import psycopg
import pytest

from tern.engine.errors import EngineError
from tern.engine.schema import ensure_schema
from tern.engine.service import EngineService
from tern.engine.session import connect

from .conftest import IDENTITY, Database, Driver


def test_many_may_start_at_once(database_url: str, db: Database) -> None:
    errors: list[BaseException] = []
    gate = threading.Barrier(4)

    def begin() -> None:
        gate.wait()
        try:
            with connect(database_url, "test", "setup") as connection:
                ensure_schema(connection)
        except BaseException as error:  # noqa: BLE001 - asserted below
            errors.append(error)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert db.execute("SELECT version FROM _tern.meta").fetchall() == [(1,)]


def test_a_newer_schema_is_not_touched(database_url: str, db: Database, driver: Driver) -> None:
    db.execute("UPDATE _tern.meta SET version = 99")
    late = EngineService(database_url, IDENTITY)
    with pytest.raises(EngineError) as refused:
        late.start()
    assert refused.value.reason == "STATE_VERSION"
    late.close()


@pytest.fixture
def roles(db: Database) -> str:
    """An application's role that owns the tables, and an engine's role without any special right."""
    name = db.info.dbname
    db.execute(
        f"CREATE ROLE app_{name} NOLOGIN; CREATE ROLE engine_{name} LOGIN PASSWORD 'x' IN ROLE app_{name}"
    )
    db.execute(f"GRANT CREATE ON DATABASE {name} TO engine_{name}; GRANT pg_read_all_stats TO engine_{name}")
    db.execute(f"CREATE SCHEMA app AUTHORIZATION app_{name}")
    db.execute(f"SET ROLE app_{name}; CREATE TABLE app.t (a int); RESET ROLE")
    db.execute("INSERT INTO app.t SELECT g FROM generate_series(1, 100) AS g")
    return name


def test_no_superuser_is_needed_and_nobody_else_may_look(database_url: str, db: Database, roles: str) -> None:
    url = psycopg.conninfo.make_conninfo(database_url, user=f"engine_{roles}", password="x")
    service = EngineService(url, IDENTITY)
    service.start()
    try:
        driver = Driver(service)
        driver.done(
            "ALTER TABLE t ADD COLUMN k int DEFAULT 1 CHECK (k > 0), ALTER a SET NOT NULL",
            "CREATE INDEX ON t (a)",
            "ALTER TABLE t ADD UNIQUE (a)",
            namespace="app",
        )
    finally:
        service.close()
    owners = (
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'app'::regnamespace"
    )
    assert db.execute(owners).fetchall() == [(f"app_{roles}",)]
    for role in (f"app_{roles}", "pg_monitor"):
        assert db.execute("SELECT has_schema_privilege(%s, '_tern', 'USAGE')", (role,)).fetchone() == (False,)


def test_a_schema_of_somebody_else_s_is_never_used(database_url: str, db: Database, roles: str) -> None:
    """E1a: triggers on tables there would run with the engine's rights, and what they say is the engine's memory."""
    db.execute(f"GRANT CREATE ON DATABASE {db.info.dbname} TO app_{roles}".encode())
    # The engine's role is a member of the application's in `roles`; of this one it is none.
    db.execute(
        f"CREATE ROLE mallory_{roles} NOLOGIN; CREATE SCHEMA _tern AUTHORIZATION mallory_{roles}".encode()
    )
    db.execute(f"GRANT ALL ON SCHEMA _tern TO engine_{roles}".encode())
    url = psycopg.conninfo.make_conninfo(database_url, user=f"engine_{roles}", password="x")
    service = EngineService(url, IDENTITY)
    with pytest.raises(EngineError) as refused:
        service.start()
    service.close()
    assert (refused.value.reason, f"mallory_{roles}" in refused.value.message) == ("STATE_VERSION", True)
    assert db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = '_tern'").fetchone() == (0,)


def test_code_of_the_table_runs_with_its_owners_rights(database_url: str, db: Database, roles: str) -> None:
    """Whoever may write the schema could otherwise have the engine execute anything with the engine's rights."""
    body = f"BEGIN RETURN current_user = 'app_{roles}'; END"
    db.execute(f"CREATE FUNCTION app.me(int) RETURNS bool LANGUAGE plpgsql AS $${body}$$")
    url = psycopg.conninfo.make_conninfo(database_url, user=f"engine_{roles}", password="x")
    service = EngineService(url, IDENTITY)
    service.start()
    try:
        Driver(service).done("ALTER TABLE t ADD CHECK (app.me(a))", namespace="app")
    finally:
        service.close()


def test_a_table_of_a_stranger_is_refused(database_url: str, db: Database, roles: str) -> None:
    db.execute("CREATE TABLE app.theirs (a int)")
    url = psycopg.conninfo.make_conninfo(database_url, user=f"engine_{roles}", password="x")
    service = EngineService(url, IDENTITY)
    service.start()
    try:
        (seen,) = Driver(service).preview("ALTER TABLE theirs ADD k int", table="theirs", namespace="app")
    finally:
        service.close()
    assert seen.refused_reason.startswith("NOT_PREVIEWED: app.theirs belongs to")
