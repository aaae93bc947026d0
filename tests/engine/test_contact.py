"""The first connection: through a transaction pooler none is taken, and what is in the way is told in words, once."""

import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from structlog.testing import capture_logs

from tern.engine import adopt
from tern.engine.contact import Contact, refuse_transaction_pooler
from tern.engine.errors import EngineError
from tern.engine.keys import CallContext
from tern.engine.service import EngineService
from tern.local import postgres
from tern.local.account import make_folder, server_account
from tern.local.embedded import free_port
from tern.local.supervisor import Program, Supervisor
from tern.wire.generated.tern.v1 import tern_pb2 as contract

from .conftest import IDENTITY, Database, eventually
from .pooler import Pooler

# Of those that the engine sets in each of its sessions, some that would harm an application most.
SET_BY_US = ("search_path", "lock_timeout", "statement_timeout", "row_security", "application_name")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "RETRY_SECONDS", 0.05)


def settings(session: Database) -> list[str]:
    found = [session.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in SET_BY_US]
    session.commit()
    return [str(row[0]) for row in found if row]


def health(service: EngineService) -> str:
    return service.health(contract.HealthRequest(), CallContext()).status


def trouble(service: EngineService) -> EngineError:
    with pytest.raises(EngineError) as raised:
        health(service)
    return raised.value


@pytest.mark.parametrize("sessions", [1, 3])
def test_a_transaction_pooler_is_refused_and_nothing_is_left_in_its_sessions(
    database_url: str, sessions: int
) -> None:
    """The sessions behind it are the application's next ones."""
    with Pooler(database_url, sessions) as pooler:
        before = [settings(session) for session in pooler.sessions]
        service = EngineService(pooler.url, IDENTITY)
        with pytest.raises(EngineError) as raised:
            service.start()
        assert raised.value.reason == "TRANSACTION_POOLER"
        assert "pool_mode=session" in raised.value.message
        # Nothing terminal may follow from it for a change that is under way.
        assert raised.value.code is grpc.StatusCode.UNAVAILABLE
        assert [settings(session) for session in pooler.sessions] == before


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_a_pooler_that_gives_its_sessions_in_turn_is_refused_too(sessions: int, database_url: str) -> None:
    """Of two, the one that is not held is the first one's own again."""
    with (
        Pooler(database_url, sessions, in_turn=True) as pooler,
        pytest.raises(EngineError, match="transaction") as refused,
    ):
        refuse_transaction_pooler(pooler.url)
    assert refused.value.reason == "TRANSACTION_POOLER"


def test_a_server_itself_is_none(database_url: str) -> None:
    refuse_transaction_pooler(database_url)


def test_a_server_that_is_slow_to_answer_is_not_called_a_pooler(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tern.engine import contact  # noqa: PLC0415

    monkeypatch.setattr(
        contact, "_WHICH_SESSION", b"SELECT pg_catalog.pg_sleep(30), pg_catalog.pg_backend_pid()"
    )
    monkeypatch.setattr(contact, "ANSWER_SECONDS", 0.1)
    with pytest.raises(EngineError, match="DATABASE_UNAVAILABLE"):
        refuse_transaction_pooler(database_url)


def test_a_pooler_that_comes_later_is_found_when_the_engine_connects_again(database_url: str) -> None:
    """An address may come to lead elsewhere while the engine lives."""
    with Pooler(database_url, 2) as pooler:
        service = EngineService("postgresql://nobody@127.0.0.1:1/none", IDENTITY)
        service.start()
        try:
            assert service._adopter is not None
            service._dsn = service._adopter._dsn = pooler.url
            assert eventually(lambda: trouble(service)).reason == "TRANSACTION_POOLER"
        finally:
            service.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
        ({"port": "1"}, "Connection refused"),
        ({"host": "no.such.host.invalid"}, "resolve"),
        ({"sslmode": "require"}, "server does not support SSL"),
    ],
    ids=["password", "database", "port", "host", "tls"],
)
def test_what_is_in_the_way_is_told_to_callers_and_logged_once(
    database_url: str, change: dict[str, str], words: str
) -> None:
    service = EngineService(make_conninfo(database_url, **change), IDENTITY)
    with capture_logs() as lines:
        service.start()
        try:
            for _ in range(3):
                found = trouble(service)
                assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                assert words in found.message
                assert "\n" not in found.message
            # Long enough for many a try of its own.
            time.sleep(20 * adopt.RETRY_SECONDS)
        finally:
            service.close()
    told = [line for line in lines if line["log_level"] in {"warning", "error"}]
    assert [(line["event"], words in line["error"]) for line in told] == [("engine.database.lost", True)]


def test_a_server_without_a_free_place_is_told_as_that(db: Database, database_url: str) -> None:
    db.execute("CREATE ROLE crowded LOGIN PASSWORD 'c' CONNECTION LIMIT 0")
    db.execute(f"GRANT CREATE ON DATABASE {db.info.dbname} TO crowded".encode())
    service = EngineService(make_conninfo(database_url, user="crowded", password="c"), IDENTITY)
    try:
        service.start()
        assert "too many connections for role" in trouble(service).message
        db.execute("ALTER ROLE crowded CONNECTION LIMIT -1")
        assert health(service).startswith("ok")
    finally:
        service.close()
        db.execute("DROP OWNED BY crowded CASCADE")
        db.execute("DROP ROLE crowded")


def test_a_database_that_goes_away_under_the_engine_is_told_at_once_and_found_again(
    db: Database, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool alone would let each caller wait for all of its patience, and say no more than that it waited."""
    name = db.info.dbname
    service = EngineService(database_url, IDENTITY)
    with capture_logs() as lines:
        service.start()
        assert health(service).startswith("ok")
        with psycopg.connect(make_conninfo(database_url, dbname="postgres"), autocommit=True) as admin:
            try:
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
                )
                eventually(lambda: "not currently accepting connections" in trouble(service).message)
                begun = time.monotonic()
                trouble(service)
                assert time.monotonic() - begun < 2
            finally:
                admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())
        assert health(service).startswith("ok")
        service.close()
    told = [line["event"] for line in lines if line["event"].startswith("engine.database.")]
    assert told[-1] == "engine.database.found"
    causes = [line["error"] for line in lines if line["event"] == "engine.database.lost"]
    assert len(causes) == len(set(causes))
    # The pool would say the same at each of its tries.
    assert [each for each in caplog.records if each.name == "psycopg.pool"] == []


def test_a_cause_is_told_again_only_after_the_database_was_back() -> None:
    contact = Contact()
    with capture_logs() as lines:
        for words in ("refused", "starting up", "refused", "refused"):
            contact.lost(words)
        contact.found()
        contact.found()
        contact.lost("refused")
    assert [(line["event"], line.get("error")) for line in lines] == [
        ("engine.database.lost", "refused"),
        ("engine.database.lost", "starting up"),
        ("engine.database.found", None),
        ("engine.database.lost", "refused"),
    ]


@pytest.fixture(scope="module")
def standby() -> Iterator[str]:
    """A server that only replays, until somebody promotes it."""
    account = server_account()
    with tempfile.TemporaryDirectory(prefix="tern-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        make_folder(home / "log", 0o755)
        cluster = postgres.Cluster.prepare(home, secrets.token_hex(8), account, {"fsync": "off"})
        (cluster.data / "standby.signal").touch()
        port = free_port()
        url = cluster.url(port, "postgres")
        program = Program(
            "postgres",
            cluster.command(port),
            env=postgres.ENVIRONMENT,
            cwd=Path("/"),
            ready=lambda: postgres.answers(url),
            stop_signal=signal.SIGINT,
            account=None if account is None else account.ids,
        )
        with Supervisor(home / "log") as programs:
            programs.wait_until_ready(programs.start(program))
            yield url


def test_a_standby_is_told_as_that_until_it_is_promoted(standby: str) -> None:
    service = EngineService(standby, IDENTITY)
    with capture_logs() as lines:
        service.start()
        try:
            for _ in range(3):
                assert "is a standby" in trouble(service).message
            time.sleep(20 * adopt.RETRY_SECONDS)
            with psycopg.connect(standby, autocommit=True) as connection:
                connection.execute("SELECT pg_promote()")
            assert eventually(lambda: health(service)).startswith("ok")
        finally:
            service.close()
    told = [line["event"] for line in lines if line["event"].startswith("engine.")]
    assert told == ["engine.database.lost", "engine.database.found"]
