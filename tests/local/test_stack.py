"""The production commands: the same ones in the Procfile, in docker-compose.yml and on this machine."""

import http.server
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tern.local import stack
from tern.local.command import TERN
from tern.local.discovery import Servers
from tern.local.embedded import free_port
from tests.house.wheel import build

ROOT = Path(__file__).parents[2]
ENGINE_OPTIONS = ("--listen", "--environment", "--database", "--target")


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthcheck" else 404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def healthy_port() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, _, command in (line.partition(":") for line in lines)}


def by_default(command: list[str]) -> list[str]:
    """As a shell reads it where nothing is set."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in command]


def compose_commands() -> dict[str, list[str]]:
    """The commands of Tern's own services; a reader of YAML for one kind of line."""
    text = (ROOT / "docker-compose.yml").read_text()
    found = re.findall(r"^  ([\w-]+):\n(?:    .*\n)*?    command: \[(tern\b.*)\]\n", text, re.MULTILINE)
    return {name: [word.strip().strip('"') for word in words.split(",")] for name, words in found}


def test_the_procfile_names_the_processes_of_production() -> None:
    assert list(procfile()) == ["worker", "beat", "flower", "serve", "engine"]


@pytest.mark.parametrize("name", ["worker", "beat", "flower"])
def test_a_process_is_started_in_the_same_way_everywhere(name: str) -> None:
    programs = {"worker": stack.worker({}), "beat": stack.beat({}), "flower": stack.flower({}, 5555)}
    expected = ["tern", *programs[name].argv[len(TERN) :]]
    assert procfile()[name] == expected
    assert compose_commands()[name] == expected


def test_an_engine_is_started_in_the_same_way_everywhere() -> None:
    here = stack.engine({}, deployment="us-east", dsn="", port=1)
    commands = [command for name, command in compose_commands().items() if name.startswith("engine-")]
    assert len(commands) == 3
    for command in [by_default(procfile()["engine"]), list(here.argv[len(TERN) - 1 :]), *commands]:
        assert command[1:3] == ["engine", "serve"]
        assert tuple(command[3:11:2]) == ENGINE_OPTIONS


def test_the_door_is_opened_in_the_same_way_everywhere() -> None:
    """With TLS: tokens never travel in the clear. Which tokens is said by reference, never on a command line."""
    for command in (by_default(procfile()["serve"]), compose_commands()["serve"]):
        assert command[:4] == ["tern", "serve", "--listen", "0.0.0.0:7430"]
        assert (command[4], command[6]) == ("--tls-cert", "--tls-key")
    assert "TERN_SERVE_TOKENS: env:COMPOSE_TOKENS" in (ROOT / "docker-compose.yml").read_text()


def test_every_variable_of_the_procfile_and_its_reader_are_in_the_docs() -> None:
    """Each address comes from the environment: two on one machine don't meet."""
    page = (ROOT / "docs/operations.md").read_text()
    text = (ROOT / "Procfile").read_text()
    variables = set(re.findall(r"\$\{?(TERN_\w+)", text))
    assert {"TERN_SERVE_LISTEN", "TERN_ENGINE_LISTEN"} <= variables
    assert {each for each in variables if f"`{each}`" not in page} == set()
    assert re.findall(r"--listen \S+", text) == re.findall(r'--listen "\$\{\w+:-[^}]+\}"', text)
    assert "pip install honcho" in page


def test_which_compose_is_needed_is_said_where_it_is_started() -> None:
    """A config with its content in the file is known from 2.23.1 on."""
    text = (ROOT / "docker-compose.yml").read_text()
    assert re.search(r"^    content: \|$", text, re.MULTILINE)
    for path in ("docker-compose.yml", "README.md", "docs/operations.md"):
        said = " ".join((ROOT / path).read_text().split())
        assert re.search(r"Docker (# )?Compose 2\.23\.1 or newer", said), path


def test_the_image_is_made_of_what_the_dockerfile_copies_and_nothing_else(tmp_path: Path) -> None:
    """Its build has what the wheel needs, and its context no environment, no history, no cluster."""
    copied = [
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for source in line.split()[1:-1]
    ]
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied) == sorted(let_in)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
    for source in copied:
        to = tmp_path / source
        to.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / source, to)
    assert build(tmp_path, tmp_path / "dist", "wheel").is_file()


def test_no_password_is_on_a_command_line(valkey_server: Servers) -> None:
    program = stack.engine({}, deployment="us-east", dsn=valkey_server.database("us_east"), port=1)
    assert valkey_server.password not in " ".join(program.argv)
    assert program.env == {"TERN_ENGINE_DSN": valkey_server.database("us_east")}


def test_each_home_has_ports_of_its_own_below_the_ephemeral_ones() -> None:
    ports = stack.usual_ports(Path("/one"))
    assert ports == stack.usual_ports(Path("/one"))
    assert ports != stack.usual_ports(Path("/two"))
    assert len(ports) == 4
    assert stack.FIRST_PORT + stack.HOMES * stack.PORTS_PER_HOME <= 32_768


def test_flower_is_ready_when_it_says_so(healthy_port: int) -> None:
    assert stack.is_healthy(healthy_port)
    assert stack.is_listening(healthy_port)
    closed = free_port()
    assert not stack.is_healthy(closed)
    assert not stack.is_listening(closed)


def test_containers_have_time_for_a_warm_stop() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"stop_grace_period: (\w+)", text)) == {"45s"}
    assert not re.search(r"command: [^\[]", text), "a shell in between would swallow the signal"
