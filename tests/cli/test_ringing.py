"""The whole command as a process of its own, with a broker: the answer alone on stdout, and a bell that is rung."""

import json
import os
import subprocess
import sys

import redis

from tests.world import World

DDL = "ALTER TABLE orders ADD COLUMN note text"


def test_an_apply_rings_and_stdout_holds_nothing_but_its_answer(
    world: World, migrated_url: str, broker_url: str
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tern", "apply", "--ddl", "-", "-e", "test", "-d", "shop", "--all"),
            *("--reason", "because", "--json"),
        ],
        input=DDL,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TERN_DATABASE_URL": migrated_url, "TERN_BROKER_URL": broker_url},
    )
    apply_id = json.loads(done.stdout)["data"]["apply_id"]
    assert done.stderr == ""
    with redis.Redis.from_url(broker_url) as client:
        (message,) = client.lrange("dispatch", 0, -1)
    assert f"{apply_id}/A" in json.loads(message)["headers"]["kwargsrepr"]
