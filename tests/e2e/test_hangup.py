"""A terminal that closes, and other signals that somebody sends by habit: no process of Tern ends, or begins anew."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tern import hangup
from tern.local.embedded import free_port
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for
from tests.e2e.test_flower import ask

Start = Callable[..., tuple[subprocess.Popen[bytes], Path]]


@pytest.fixture
def start(migrated_url: str, broker_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts `tern …` with its output in a file, and ends it."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*words: str, **more: str) -> tuple[subprocess.Popen[bytes], Path]:
        settings = {"TERN_DATABASE_URL": migrated_url, "TERN_BROKER_URL": broker_url}
        environment: Mapping[str, str] = {**os.environ, **settings, "PYTHONWARNINGS": "ignore", **more}
        log = tmp_path / f"{words[0]}.log"
        with log.open("wb") as output:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tern", *words],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
        return started[-1], log

    yield run
    for each in started:
        each.kill()
        each.wait()


def test_a_worker_goes_on_as_the_same_process(fleet: Fleet, make_world: MakeWorld) -> None:
    """Celery's own answer to a hang-up is to begin anew, and that ended it."""
    world = make_world("A")
    worker = fleet.worker()
    wait_for(lambda: " ready" in worker.output(), fleet.picture)
    for number in hangup.HARMLESS:
        os.kill(worker.pid, number)
    world.apply("A")
    wait_for(lambda: world.remote_id("A") is not None, fleet.picture)
    assert worker.is_running
    assert "Restarting" not in worker.output()
    assert worker.terminate() == 0


def test_a_worker_that_has_not_found_its_broker_goes_on_too(fleet: Fleet, make_world: MakeWorld) -> None:
    world = make_world("A")
    fleet._environment = {**fleet._environment, "TERN_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0"}
    worker = fleet.worker()
    wait_for(lambda: "Cannot connect" in worker.output(), fleet.picture)
    os.kill(worker.pid, signal.SIGHUP)
    world.apply("A")
    # By its own sweep.
    wait_for(lambda: world.remote_id("A") is not None, fleet.picture)
    assert worker.is_running


def test_what_each_thread_does_is_one_line_without_values(start: Start) -> None:
    """Celery's own answer is pages past all logging, with the local variables of each thread."""
    worker, log = start("worker", TERN_LOG_FORMAT="json")
    wait_for(lambda: b" ready" in log.read_bytes(), log.read_text)
    os.kill(worker.pid, signal.SIGUSR1)
    wait_for(lambda: b"MainThread" in log.read_bytes(), log.read_text)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (told,) = [each for each in lines if each["message"] == "what each thread does"]
    assert {"MainThread:", "tern-sweep:"} <= set(told["stack"].splitlines())
    assert "LOCAL VARIABLES" not in log.read_text()
    worker.terminate()
    worker.wait(30)


def test_beat_and_flower_go_on(start: Start, migrated_url: str) -> None:
    port = free_port()
    beat, log = start("beat")
    flower, _ = start("flower", FLOWER_PORT=str(port))
    wait_for(
        lambda: b"beat: Starting" in log.read_bytes() or b"celery beat" in log.read_bytes(), log.read_text
    )
    wait_for(lambda: ask(port, "/healthcheck")[0] == 200, log.read_text)
    for process in (beat, flower):
        for number in hangup.HARMLESS:
            os.kill(process.pid, number)
    wait_for(lambda: ask(port, "/healthcheck")[0] == 200, log.read_text)
    assert (beat.poll(), flower.poll()) == (None, None)
    for process in (beat, flower):
        process.terminate()
        process.wait(30)


def test_a_server_goes_on(start: Start, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    server, log = start("serve", "--without-tokens", "--listen", "127.0.0.1:0", "--port-file", str(port_file))
    wait_for(port_file.exists, log.read_text)
    for number in hangup.HARMLESS:
        os.kill(server.pid, number)
    server.terminate()
    # It ended in order, by what came last.
    assert server.wait(30) == 0
