"""The production commands: the same ones in the Procfile, in docker-compose.yml and on this machine."""

import http.server
import re
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tern.local import stack
from tern.local.command import TERN
from tern.local.discovery import Servers
from tern.local.embedded import free_port

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
    for command in [procfile()["engine"], list(here.argv[len(TERN) - 1 :]), *commands]:
        assert command[1:3] == ["engine", "serve"]
        assert tuple(command[3:11:2]) == ENGINE_OPTIONS


def test_the_door_is_opened_in_the_same_way_everywhere() -> None:
    """With TLS: tokens never travel in the clear. Which tokens is said by reference, never on a command line."""
    for command in (procfile()["serve"], compose_commands()["serve"]):
        assert command[:4] == ["tern", "serve", "--listen", "0.0.0.0:7430"]
        assert (command[4], command[6]) == ("--tls-cert", "--tls-key")
    assert "TERN_SERVE_TOKENS: env:COMPOSE_TOKENS" in (ROOT / "docker-compose.yml").read_text()


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
