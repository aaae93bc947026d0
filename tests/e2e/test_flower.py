"""Flower beside a real worker: what it shows of the work, and that nothing can be done with it."""

import http.client
import json
import urllib.parse
from typing import Any

import pytest

from tern.local.embedded import free_port
from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def tasks(port: int, search: str = "") -> list[dict[str, Any]]:
    """The rows of the page of tasks."""
    asked = {"draw": 1, "start": 0, "length": 1000, "search[value]": search, "order[0][column]": 0}
    asked |= {"order[0][dir]": "asc", "columns[0][data]": "name"}
    code, body = ask(port, f"/tasks/datatable?{urllib.parse.urlencode(asked)}")
    assert code == 200, body
    found: list[dict[str, Any]] = json.loads(body)["data"]
    return found


@pytest.mark.timeout(180)
def test_flower_shows_operations_and_nothing_can_be_done_with_it(fleet: Fleet, make_world: MakeWorld) -> None:
    """Readable names, arguments that can be searched, no ticks and no polls; read-only."""
    world = make_world("us-east", "eu-west", complete_after_s=2.0)
    port = free_port()
    fleet.flower(port)
    fleet.worker()
    fleet.beat()
    wait_for(lambda: ask(port, "/healthcheck")[0] == 200, fleet.picture)
    world.apply("us-east", "eu-west")

    def is_seen() -> bool:
        # Events that came before Flower listened are gone; the next rollout has its own.
        if not tasks(port, f"{world.last}/eu-west") and world.apply_row().state == "completed":
            world.apply("us-east", "eu-west")
        return bool(tasks(port, f"{world.last}/eu-west"))

    wait_for(is_seen, fleet.picture)
    wait_for(lambda: bool(world.apply_row().state == "completed"), fleet.picture)

    about = f"{world.last}/eu-west"
    shown = tasks(port)
    assert {row["name"] for row in shown} <= {
        "tern.operation.dispatch",
        "tern.operation.progress",
        "tern.apply.advance",
    }
    number = world.operation("eu-west").id
    for row in tasks(port, f"kwargs:operation_id={number}"):
        assert row["kwargs"].startswith(f"{{'scope': '{about}'")
    for path in ("/api/worker/shutdown/w2@any", "/api/task/async-apply/tern.sweep"):
        assert ask(port, path, b"{}")[0] in {401, 403}
