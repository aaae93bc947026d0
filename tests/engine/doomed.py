"""Engines that die at a given round trip to the database: forked from a process that has imported everything.

    {"dsn": …, "request": HEX, "at": 7, "after": true} -> {"status": 77, "crossed": ["MainThread", "tern-job-…", …]}

Every statement of an engine passes psycopg.Connection.wait; the product knows nothing of it.
"""

import json
import os
import sys
import threading
import time
import traceback
from typing import Any

import psycopg
from psycopg import pq

from tern.engine.keys import CallContext
from tern.engine.service import EngineService
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tests.engine.conftest import IDENTITY

DEAD = 77
LIMIT_S = 60.0
OPERATION = CallContext("apl-1/eu", 1)
_OVER = b"SELECT count(*) FROM _tern.job WHERE state IN ('completed', 'failed', 'cancelled', 'waiting_for_cutover')"


def serve() -> None:
    """Until the end of its input."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _run(order: dict[str, Any]) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _be_an_engine(order, write_end)
    os.close(write_end)
    said = b""
    while part := os.read(read_end, 65536):
        said += part
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    lines = said.decode().splitlines()
    return {
        "status": os.waitstatus_to_exitcode(status),
        "crossed": [line.removeprefix("crossed ") for line in lines if line.startswith("crossed ")],
        "error": "\n".join(line for line in lines if not line.startswith("crossed ")),
    }


def _be_an_engine(order: dict[str, Any], write_end: int) -> None:
    """Never returns."""
    status = 1
    try:
        crossed = _watch(order["at"], after=order["after"])
        service = EngineService(order["dsn"], IDENTITY, name="doomed")
        service.start()
        crossed.clear()
        if order["request"]:
            request = contract.ApplyRequest.FromString(bytes.fromhex(order["request"]))
            service.apply(request, OPERATION)
        _wait_for_the_end(order["dsn"])
        os.write(write_end, "".join(f"crossed {name}\n" for name in crossed).encode())
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the test must see it
        os.write(write_end, traceback.format_exc().encode())
    finally:
        os._exit(status)


def _watch(at: int | None, *, after: bool) -> list[str]:
    """Counts round trips of all threads; ends the process at number `at`."""
    connection: Any = psycopg.Connection
    wait = connection.wait
    guard, crossed = threading.Lock(), []  # type: tuple[threading.Lock, list[str]]

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        with guard:
            is_it = at == len(crossed)
            crossed.append(threading.current_thread().name.partition("-job-")[0])
        if is_it and not after:
            os._exit(DEAD)
        answer = wait(self, *args, **kwargs)
        if is_it:
            os._exit(DEAD)
        return answer

    connection.wait = watched
    return crossed


def _wait_for_the_end(dsn: str) -> None:
    """Through the C library alone, so that nothing of it is counted."""
    looker = pq.PGconn.connect(dsn.encode())
    deadline = time.monotonic() + LIMIT_S
    while looker.exec_(_OVER).get_value(0, 0) == b"0":
        if time.monotonic() > deadline:
            message = "the job does not end"
            raise TimeoutError(message)
        time.sleep(0.01)


if __name__ == "__main__":
    serve()
