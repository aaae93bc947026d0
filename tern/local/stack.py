"""The processes of Tern on one machine: engine, worker, beat, Flower, with the Procfile's commands."""

import http.client
import socket
from collections.abc import Mapping

from tern.local.command import TERN
from tern.local.discovery import Servers
from tern.local.supervisor import Program

FLOWER_PORT = 5555
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


def engine(
    environment: Mapping[str, str], servers: Servers, *, deployment: str, database: str, port: int
) -> Program:
    """Executes changes on one target database; its password stays out of the list of processes."""
    return Program(
        f"engine-{deployment}",
        (
            *(*TERN, "engine", "serve"),
            *("--dsn", servers.database_without_password(database)),
            *("--listen", f"{LOOPBACK}:{port}"),
            *("--environment", "demo", "--database", "app", "--target", deployment),
        ),
        env={**environment, "PGPASSWORD": servers.password},
        ready=lambda: is_listening(port),
    )


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
