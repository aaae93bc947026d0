"""Secrets as canaries: a whole session with its mistakes and outages, and then a search in all that it left."""

import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
import redis
from psycopg import sql

from tests.e2e.processes import wait_for
from tests.hostile.test_credentials import Authority

CANARIES = tuple(
    f"canary-{what}-Zq9/+%7" for what in ("database", "broker", "engine", "token", "local", "slip")
)
DATABASE, BROKER, ENGINE, TOKEN, LOCAL, SLIP = CANARIES
SHOP = ("-e", "test", "-d", "shop")
GROUND = "CREATE TABLE orders (id bigint PRIMARY KEY, amount int)"


@dataclass(frozen=True)
class Order:
    """A command line, and what is different in its environment."""

    words: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


# One interpreter for many commands; each begins with the environment as it was.
_MANY = """
import json, os, sys
from tern.cli import main
codes = []
for words, environment in json.load(sys.stdin):
    kept = dict(os.environ)
    os.environ.update(environment)
    codes.append(main.run(words))
    os.environ.clear()
    os.environ.update(kept)
print("CODES", json.dumps(codes))
"""


class Session:
    """Processes and commands with secrets in their environment; remembers all that they say."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self.environment = {**os.environ, **environment}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.said: list[tuple[str, str]] = []

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tern", *words],
            env={**self.environment, **environment}, input=stdin, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        shown = " ".join(words)
        self.said += [(f"stdout of {shown}", done.stdout), (f"stderr of {shown}", done.stderr)]
        return done

    def run_all(self, orders: Sequence[Order]) -> list[int]:
        """The exit codes."""
        done = subprocess.run(
            [sys.executable, "-c", _MANY], env=self.environment, capture_output=True, text=True, timeout=100,
            input=json.dumps([(order.words, dict(order.environment)) for order in orders]), check=False,
        )  # fmt: skip
        self.said += [("stdout of many commands", done.stdout), ("stderr of many commands", done.stderr)]
        assert "CODES" in done.stdout, done.stderr[-3_000:]
        codes: list[int] = json.loads(done.stdout.rpartition("CODES")[2])
        return codes

    def log_of(self, name: str) -> Callable[[], str]:
        return lambda: (self._folder / f"{name}.log").read_text(errors="replace")

    def spawn(self, name: str, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tern", *words],
                env={**self.environment, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def engine(self, target: str, dsn: str, *more: str) -> str:
        """Its port."""
        port_file = self._folder / f"{target}.port"
        port_file.unlink(missing_ok=True)
        listening = ("--listen", "localhost:0", "--port-file", str(port_file))
        self.spawn(target, "engine", "serve", *listening, *SHOP, "-t", target, *more, TERN_ENGINE_DSN=dsn)
        wait_for(port_file.exists, self.log_of(target))
        return port_file.read_text().strip()

    def command_lines(self) -> Iterator[tuple[str, str]]:
        for process in self._processes:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                yield "a command line", words.decode(errors="replace")

    def logs(self) -> Iterator[tuple[str, str]]:
        for log in self._folder.glob("*.log"):
            yield log.name, log.read_text(errors="replace")

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)


def role(database_url: str, secret: str) -> str:
    """A role of the server that has this password. It stays: what it owns may live longer than a test."""
    name = f"canary_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        made = sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}")
        connection.execute(made.format(sql.Identifier(name), sql.Literal(secret)))
    return name


def with_secret(url: str, user: str, secret: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}:{quote(secret, safe='')}@{parts.hostname}:{parts.port}").geturl()


@pytest.fixture
def target(database_url: str) -> str:
    """A second database, beside Tern's own: that of the shop."""
    name = "canary_shop"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name}")
    url = urlsplit(database_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(GROUND)
    return url


@pytest.fixture
def broker(broker_url: str) -> Iterator[str]:
    """The broker's address with a password that it really asks for."""
    with redis.Redis.from_url(broker_url) as client:
        everything: dict[str, Any] = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"]}
        client.acl_setuser("teller", enabled=True, passwords=[f"+{BROKER}"], **everything)
        yield with_secret(broker_url, "teller", BROKER)
        client.acl_deluser("teller")


@pytest.fixture
def session(database_url: str, broker: str, tmp_path: Path) -> Iterator[Session]:
    one = Session(
        tmp_path,
        {
            "TERN_DATABASE_URL": with_secret(database_url, role(database_url, DATABASE), DATABASE),
            "TERN_BROKER_URL": broker,
            "TERN_HOME": str(tmp_path / "home"),
            "TERN_LOG_FORMAT": "json",
            "TERN_LOG_LEVEL": "DEBUG",
            "TERN_DEBUG": "1",
            "TERN_LEASE_SECONDS": "4",
            "TERN_RPC_DEADLINE_SECONDS": "2",
            "ENGINE_TOKEN": TOKEN,
            "LOCAL_PASSWORD": LOCAL,
        },
    )
    yield one
    one.close()


def rows_of(url: str) -> Iterator[tuple[str, str]]:
    """Every row of every table, and what the server knows of its sessions."""
    with psycopg.connect(url, autocommit=True) as connection:
        names: list[Any] = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        for name in [*(each[0] for each in names), "pg_stat_activity", "pg_settings"]:
            for row in connection.execute(f"SELECT to_jsonb(r)::text FROM {name} r").fetchall():
                yield name, str(row[0])


def keys_of(url: str) -> Iterator[tuple[str, str]]:
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter():
            with contextlib.suppress(redis.ResponseError):
                yield "the broker", f"{key!r} {client.dump(key)!r}"
        yield "the broker", str(client.client_list())


def a_working_day(session: Session, target: str, authority: Authority) -> None:
    """A rollout through TLS and a token, and one through an engine inside the workers."""
    cert, key = authority.certificate("engine")
    tls = ("--tls-cert", str(cert), "--tls-key", str(key), "--token-ref", "env:ENGINE_TOKEN")
    port = session.engine("A", with_secret(target, role(target, ENGINE), ENGINE), *tls)
    ready = session.run("db", "upgrade")
    assert ready.returncode == 0, ready.stderr
    here = (
        "--address",
        f"grpcs://localhost:{port}",
        "--token",
        "env:ENGINE_TOKEN",
        "--tls-ca",
        f"file:{cert}",
    )
    added = session.run("deployments", "add", "A", *SHOP, "--target", "A", *here)
    assert added.returncode == 0, added.stderr
    parts = urlsplit(target)
    place = f"local:postgresql://{role(target, LOCAL)}@{parts.hostname}:{parts.port}{parts.path}"
    inside = ("--address", place, "--password", "env:LOCAL_PASSWORD")
    added = session.run("deployments", "add", "B", *SHOP, "--target", "B", *inside)
    assert added.returncode == 0, added.stderr
    session.spawn("worker", "worker", "-c", "4")
    session.spawn("beat", "beat")
    for name, ddl in (("A", "ALTER TABLE orders ADD COLUMN a int"), ("B", "CREATE INDEX ON orders (amount)")):
        words = ("--ddl", "-", *SHOP, "--deployments", name)
        assert session.run("plan", *words, "--json", stdin=ddl).returncode == 0
        done = session.run("apply", *words, "--reason", "canaries", "--watch", stdin=ddl)
        assert done.returncode == 0, done.stdout + done.stderr


def a_bad_day(session: Session) -> None:
    """Mistakes of people, servers that are away, secrets that are wrong."""
    new = (
        "deployments",
        "add",
        "C",
        *SHOP,
        "--target",
        "C",
        "--no-probe",
        "--deduplicates",
        "yes",
        "--address",
    )
    wrong = quote(SLIP, safe="")
    addresses = (
        f"grpc://ann:{SLIP}@localhost:1", f"grpcs://{SLIP}@localhost:1", f"grpc://localhost:1/{SLIP}",
        f"local:postgresql://ann:{SLIP}@localhost/shop", f"local:postgresql://localhost/shop?password={SLIP}",
        f"local:postgresql://localhost/shop#{SLIP}", f"https://localhost/?token={SLIP}", f"grpc://local host:{SLIP}",
    )  # fmt: skip
    databases = (
        f"postgresql://ann:{SLIP}@localhost:1/x", f"host=localhost port=1 password='{SLIP}'", SLIP,
        f"mysql://a:{SLIP}@b/c", f"postgresql://ann:{wrong}@localhost:1/x",
    )  # fmt: skip
    brokers = (
        f"redis://teller:{wrong}@localhost:1/0", f"rediss://:{wrong}@localhost:1", f"amqp://a:{wrong}@b", SLIP,
        session.environment["TERN_BROKER_URL"].replace(quote(BROKER, safe=""), wrong),
    )  # fmt: skip
    serve = ("engine", "serve", "--listen", "256.0.0.1:0", *SHOP, "-t", "C")
    options = ("--token", "--tls-ca", "--tls-key", "--password")
    orders = [
        *(Order((*new, address)) for address in addresses),
        *(Order((*new, "grpcs://localhost:1", option, SLIP)) for option in options),
        *(Order((*new[:-1], *more)) for more in (("--address",), ("--addres", SLIP))),
        Order((*serve, "--token-ref", SLIP)),
        *(Order(serve, {"TERN_ENGINE_DSN": dsn}) for dsn in databases),
        *(Order((*serve, "--dsn", dsn)) for dsn in databases[1:4]),
        *(
            Order(words, {"TERN_DATABASE_URL": dsn})
            for dsn in databases
            for words in (("ls",), ("doctor", "--json"))
        ),
        *(Order(("doctor",), {"TERN_BROKER_URL": url}) for url in brokers),
        Order(("deployments", "check", "A"), {"ENGINE_TOKEN": SLIP}),
        Order(("deployments", "check", "B"), {"LOCAL_PASSWORD": SLIP}),
        *(
            Order(words)
            for words in (("doctor", "--json"), ("ls", "--json"), ("deployments", "ls", "--json"))
        ),
    ]
    assert 0 not in session.run_all(orders)[: len(addresses)]
    deaf = session.spawn("deaf", "worker", "-c", "1", TERN_BROKER_URL=brokers[-1])
    complains = session.log_of("deaf")
    wait_for(lambda: "again in" in complains() or deaf.poll() is not None, complains)


@pytest.mark.timeout(300)
def test_no_secret_is_left_anywhere(
    session: Session, database_url: str, broker_url: str, target: str, tmp_path: Path
) -> None:
    """Not in what commands say, in logs at their most talkative, in rows, in the broker, in command lines."""
    a_working_day(session, target, Authority(tmp_path))
    a_bad_day(session)
    places = [
        *session.said, *session.logs(), *session.command_lines(),
        *rows_of(database_url), *rows_of(target), *keys_of(broker_url),
    ]  # fmt: skip
    found = [
        f"{canary} in {place}: …{text[max(0, text.index(spelt) - 200) : text.index(spelt) + 60]}…"
        for place, text in places
        for canary in CANARIES
        for spelt in (canary, quote(canary, safe=""), base64.b64encode(canary.encode()).decode())
        if spelt in text
    ]
    assert found == [], "\n".join(found[:20])
    # The search sees what is no secret: that a token is there is known by its name.
    assert [place for place, text in places if "env:ENGINE_TOKEN" in text and place.endswith("deployments")]

    assert len(places) > 100
