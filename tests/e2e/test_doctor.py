"""`tern doctor` as a process, beside real workers: what it says about each queue is what is true of it."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.e2e.conftest import MakeWorld
from tests.e2e.processes import Fleet, wait_for


def queues(migrated_url: str, broker_url: str) -> dict[str, bool]:
    """Which queues somebody answered from."""
    done = subprocess.run(
        [sys.executable, "-m", "tern", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERN_DATABASE_URL": migrated_url, "TERN_BROKER_URL": broker_url},
        # This cluster is thrown away and may forget, which is an exit code of its own.
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)["data"]["findings"]
    return {each["about"]: each["ok"] for each in found if each["about"].startswith("queue")}


def test_each_queue_is_proved_by_whoever_reads_it(
    fleet: Fleet, make_world: MakeWorld, migrated_url: str, broker_url: str
) -> None:
    """Two kinds of worker: while one is away, its queues are unread and the others are not."""
    make_world("A")
    fleet.worker("control,sweep")
    half = {"queue control": True, "queue sweep": True, "queue dispatch": False, "queue poll": False}
    wait_for(lambda: queues(migrated_url, broker_url) == half, fleet.picture)
    fleet.worker("dispatch,poll")
    wait_for(lambda: queues(migrated_url, broker_url) == dict.fromkeys(half, True), fleet.picture)
