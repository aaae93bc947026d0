"""The processes of Tern on one machine: engine, worker, beat, Flower, with the Procfile's commands."""

import hashlib
import http.client
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tern.local.command import TERN
from tern.local.supervisor import Program

# Below the range from which Linux takes the near ends of connections.
FIRST_PORT = 20_000
PORTS_PER_HOME = 4
HOMES = 3_000
LOOPBACK = "127.0.0.1"
# Longer than a task may take by its own deadlines, so that a stop is warm; KILL is for what hangs.
WORKER_GRACE_SECONDS = 20.0


def worker(environment: Mapping[str, str]) -> Program:
    """Drives operations."""
    return Program("worker", (*TERN, "worker"), env=environment, grace_seconds=WORKER_GRACE_SECONDS)


def beat(environment: Mapping[str, str]) -> Program:
    """Rings the regular bells."""
    return Program("beat", (*TERN, "beat"), env=environment)


def flower(environment: Mapping[str, str], port: int) -> Program:
    """Shows the workers."""
    where = {"FLOWER_ADDRESS": LOOPBACK, "FLOWER_PORT": str(port)}
    return Program(
        "flower",
        (*TERN, "flower"),
        env={**environment, **where},
        ready=lambda: is_healthy(port),
        ready_seconds=60,
    )


def engine(environment: Mapping[str, str], *, deployment: str, dsn: str, port: int) -> Program:
    """Executes changes on one target database, whose password stays out of the list of processes."""
    return Program(
        f"engine-{deployment}",
        (
            *(*TERN, "engine", "serve", "--listen", f"{LOOPBACK}:{port}"),
            *("--environment", "demo", "--database", "app", "--target", deployment),
        ),
        env={**environment, "TERN_ENGINE_DSN": dsn},
        ready=lambda: is_listening(port),
    )


def usual_ports(home: Path) -> Sequence[int]:
    """The ports of Flower and three engines in this directory, the same on every run, so that addresses stay right.

    Other directories have others, so that two that start at the same moment don't meet.
    """
    number = int.from_bytes(hashlib.sha256(str(home).encode()).digest()[:4]) % HOMES
    first = FIRST_PORT + number * PORTS_PER_HOME
    return range(first, first + PORTS_PER_HOME)


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def is_healthy(port: int) -> bool:
    """Whether Flower says that it is well."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
