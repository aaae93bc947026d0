"""What a session of the engine is, whatever its role and its database would have it be: every setting by its value."""

from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import pytest

from tern.engine import attempt
from tern.engine.recipes.model import Step, StepKind
from tern.engine.session import Connection, connect, is_readable

from .conftest import Database, Driver, eventually

# Name, what somebody has set for the role, and what a session of the engine has.
SETTINGS = {
    "statement_timeout": ("0", "10s"),
    "lock_timeout": ("0", "3s"),
    "idle_in_transaction_session_timeout": ("0", "30s"),
    "client_connection_check_interval": ("0", "5s"),
    "tcp_keepalives_idle": ("7200", "10"),
    "tcp_keepalives_interval": ("75", "5"),
    "tcp_keepalives_count": ("9", "3"),
    "search_path": ("public, evil", "pg_catalog, pg_temp"),
    "row_security": ("on", "off"),
    "default_transaction_isolation": ("serializable", "read committed"),
    "default_transaction_read_only": ("on", "off"),
    "synchronous_commit": ("off", "on"),
    "client_min_messages": ("debug5", "warning"),
}
# What a literal in a statement means is its owner's choice.
LEFT_ALONE = {
    "TimeZone": "Asia/Tokyo",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "default_tablespace": "pg_default",
}


@pytest.fixture
def hostile_url(db: Database, database_url: str) -> str:
    """The same database for a role whose defaults are the worst that there are."""
    role = f"hostile_{db.info.dbname}"
    db.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'x'".encode())
    for name, (worst, _) in SETTINGS.items():
        value = worst if name == "search_path" else f"'{worst}'"
        db.execute(f"ALTER ROLE {role} SET {name} = {value}".encode())
    for name, value in LEFT_ALONE.items():
        quoted = value if name == "DateStyle" else f"'{value}'"
        db.execute(f"ALTER ROLE {role} SET {name} = {quoted}".encode())
    parts = urlsplit(database_url)
    return parts._replace(netloc=f"{role}:x@{parts.hostname}:{parts.port}").geturl()


def shown(connection: Connection, names: dict[str, object]) -> dict[str, str]:
    found = connection.execute(
        "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", (list(names),)
    )
    return {str(name): str(value) for name, value in found.fetchall()}


def test_the_worst_defaults_are_really_there(hostile_url: str) -> None:
    """The control run."""
    with psycopg.connect(hostile_url) as plain:
        assert shown(plain, {"search_path": ""}) == {"search_path": "public, evil"}
        assert shown(plain, {"row_security": ""}) == {"row_security": "on"}


def test_a_session_has_our_settings_whatever_its_role_s_are(hostile_url: str) -> None:
    with connect(hostile_url, "job", "test") as session:
        assert shown(session, dict(SETTINGS)) == {name: ours for name, (_, ours) in SETTINGS.items()}
        assert shown(session, dict(LEFT_ALONE)) == LEFT_ALONE
        assert shown(session, {"application_name": ""}) == {"application_name": "tern:job:test"}
        assert session.autocommit


def test_what_is_built_concurrently_goes_on_without_its_client(hostile_url: str) -> None:
    with connect(hostile_url, "job", "builder", survives_client=True) as session:
        others = {name: ours for name, (_, ours) in SETTINGS.items()}
        others["client_connection_check_interval"] = "0"
        assert shown(session, dict(SETTINGS)) == others


def test_a_name_that_is_not_qualified_finds_nothing_of_the_application_s(
    db: Database, hostile_url: str
) -> None:
    """E1a: neither a table, nor a function that is called like one of the catalogue's."""
    db.execute("CREATE TABLE public.secrets (a int)")
    db.execute("CREATE FUNCTION public.lower(int) RETURNS text LANGUAGE sql AS $$ SELECT 'theirs' $$")
    db.execute("CREATE VIEW public.pg_class AS SELECT 1::oid AS oid, 'theirs'::name AS relname")
    with connect(hostile_url, "job", "test") as session:
        assert session.execute("SELECT to_regclass('secrets')").fetchone() == (None,)
        assert session.execute("SELECT 'theirs' IN (SELECT relname FROM pg_class)").fetchone() == (False,)
        with pytest.raises(psycopg.errors.UndefinedFunction):
            session.execute("SELECT lower(1)")


@pytest.mark.parametrize("namespace", ["public", 'od"d', "pg_catalog"])
def test_a_statement_sees_its_own_namespace_and_no_other(namespace: str) -> None:
    """pg_catalog is before it implicitly, and temporary tables are behind it; nothing else is there."""
    step = Step(StepKind.DIRECT, "", namespace)
    quoted = '"' + namespace.replace('"', '""') + '"'
    assert attempt._path(step) == f"{quoted}, pg_temp"


def test_what_a_statement_was_lent_is_taken_back(
    db: Database, driver: Driver, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """The engine's own statements of the same transaction run as the engine, and find nothing of the application's."""
    seen: list[tuple[str, bool]] = []
    right = attempt._note_done

    def look(connection: Connection, *given: object) -> None:
        found = connection.execute(
            "SELECT current_setting('search_path'), current_user = session_user"
        ).fetchone()
        assert found is not None
        seen.append((found[0], found[1]))
        right(connection, *given)  # type: ignore[arg-type]

    name = db.info.dbname
    db.execute(f"CREATE ROLE shop_{name} NOLOGIN; GRANT ALL ON SCHEMA public TO shop_{name}".encode())
    db.execute(f"ALTER TABLE t OWNER TO shop_{name}".encode())
    monkeypatch.setattr(attempt, "_note_done", look)
    driver.done("ALTER TABLE t ADD COLUMN k int")
    driver.done("ALTER TABLE t ADD CONSTRAINT positive CHECK (a >= 0)")
    assert len(seen) >= 2
    assert set(seen) == {("pg_catalog, pg_temp", True)}


def test_every_session_of_an_engine_is_found_by_its_name(db: Database, driver: Driver, table: str) -> None:
    """Whoever looks in pg_stat_activity knows what it is, and that it belongs to a job."""
    with (
        psycopg.connect(db.info.dsn, password=db.info.password, autocommit=True) as holder,
        holder.transaction(),
    ):
        holder.execute("SELECT FROM t LIMIT 1")
        job = driver.apply("ALTER TABLE t ADD COLUMN k int")
        eventually(lambda: driver.progress(job).tables[0].status == "waiting_for_lock")
        found = db.execute(
            "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND pid <> ALL (%s)",
            ([db.info.backend_pid, holder.info.backend_pid],),
        ).fetchall()
    driver.wait(job, "COMPLETED")
    names = {str(row[0]) for row in found}
    assert all(name.startswith("tern:") for name in names)
    assert any(name.startswith(f"tern:{job}:") for name in names), names


UNREADABLE: dict[str, Callable[[], str]] = {
    "an @ in a password": lambda: "postgresql://ann:p@ss@host/db",
    "a slash in a password": lambda: "postgresql://ann:p/ss@host/db",
    "words": lambda: "host",
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_address_that_would_be_read_wrongly_is_not_used(what: str) -> None:
    assert not is_readable(UNREADABLE[what]())
    assert is_readable("postgresql://ann:p%40ss@host:5432/db")
    assert is_readable("host=h port=1 password='p@s/s'")
