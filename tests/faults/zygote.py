"""A process that has imported everything, opened nothing, and forks a worker for each line that it reads.

Neither gRPC nor a pool exists before the fork, so that a worker costs milliseconds and not a second of imports.

    {"database": URL, "story": "plain", "told": 0, "at": 7, "after": true} -> {"status": 77, "told": [...], ...}
"""

import json
import os
import sys
import traceback
from typing import Any

from tern.store.session import connect
from tests.faults.boundaries import Boundaries, watch
from tests.faults.stage import LEASE_S, Stage
from tests.faults.stories import STORIES, play


def serve() -> None:
    """Until the end of its input."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    # What the product logs goes nowhere: our output belongs to the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _run(order: dict[str, Any]) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _be_a_worker(order, write_end)
    os.close(write_end)
    said = b""
    while part := os.read(read_end, 65536):
        said += part
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    lines = said.decode().splitlines()
    return {
        "status": os.waitstatus_to_exitcode(status),
        "told": [line for line in lines if line.startswith(("apply ", "request "))],
        "crossed": [line.removeprefix("crossed ") for line in lines if line.startswith("crossed ")],
        "error": "\n".join(line for line in lines if line.startswith("error ")),
    }


def _be_a_worker(order: dict[str, Any], write_end: int) -> None:
    """Never returns."""

    def say(words: str) -> None:
        os.write(write_end, f"{words}\n".encode())

    status = 1
    try:
        boundaries = Boundaries(
            order["at"], order["after"], order.get("mode", "die"), order.get("every_round_trip", False)
        )
        database = connect(order["database"], pool_size=2)
        stage = Stage(database, order.get("owner", "doomed"), boundaries, deaf=order.get("deaf", False))
        if order["told"]:
            stage.pass_time(LEASE_S + 1)
        with watch(boundaries):
            play(STORIES[order["story"]], stage, order["told"], say)
        for name in boundaries.crossed:
            say(f"crossed {name}")
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the test must see it
        for line in traceback.format_exc().splitlines():
            say(f"error {line}")
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
