"""Tern's own door under fire: ControlService and the public contract, from strangers, readers and fools (G7)."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import FieldDescriptor

from tern.store.sql import text
from tern.wire.generated.tern.control.v1 import control_service_pb2 as control_v1
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tests.engine.conftest import eventually
from tests.flows.steps import MANUAL, waiting
from tests.hostile.caller import ANSWERS, GIVEN_UP, Caller, strange_metadata
from tests.hostile.catalogue import differences, fingerprint
from tests.hostile.garbage import TEXTS, Garbage, Override, calls_asked_for
from tests.hostile.sockets import conversations, proper, talk
from tests.hostile.statements import ALL
from tests.hostile.test_engine_server import memory_kb
from tests.world import World

CALLS = 6_000
SERVICES = (
    control_v1.DESCRIPTOR.services_by_name["ControlService"],
    contract.DESCRIPTOR.services_by_name["Tern"],
)
READER, ACTOR = "the-token-of-somebody-who-reads", "the-token-of-somebody-who-acts"
STATEMENTS = [ddl for _, ddl in ALL if len(ddl) < 10_000]
REFUSED = GIVEN_UP - ANSWERS | {
    grpc.StatusCode.UNAUTHENTICATED,
    # A path that is none, and headers that are too long, are refused by the library.
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Door:
    """`tern serve` in a process of its own."""

    def __init__(self, migrated_url: str, folder: Path) -> None:
        port_file, self.log = folder / "door.port", folder / "door.log"
        tokens = f"reader read {READER}\nactor act {ACTOR}\n"
        words = ("serve", "--listen", "127.0.0.1:0", "--tokens", "env:TOKENS", "--port-file", str(port_file))
        environment = {
            "TERN_DATABASE_URL": migrated_url,
            "TERN_BROKER_URL": "redis://127.0.0.1:1/0",
            "TOKENS": tokens,
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tern", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(port_file.exists, within=60)
        self.port = int(port_file.read_text())
        self.address = f"127.0.0.1:{self.port}"
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> int:
        self._process.terminate()
        return self._process.wait(20)


@pytest.fixture
def rollout(world: World) -> World:
    """A rollout that holds every target and waits for a person."""
    waiting(world, "A", "B", policy=MANUAL)
    waiting(world, "C", policy=MANUAL)
    return world


@pytest.fixture
def door(migrated_url: str, rollout: World, tmp_path: Path) -> Iterator[Door]:
    one = Door(migrated_url, tmp_path)
    yield one
    one.close()


@pytest.fixture
def rows(migrated_url: str) -> Iterator[Callable[[], dict[str, str]]]:
    """All that Tern holds. A plan that was read is kept by its content, before anybody asks for its rollout."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        kept = ("public.plans", "public.plans_id_seq", "public.plan_changes", "public.plan_changes_id_seq")
        yield lambda: {
            name: digest for name, digest in fingerprint(connection).items()
            if name not in kept and not name.endswith("_seq")
        }  # fmt: skip


def plausible(*subjects: str) -> Override:
    """Fills in what the first checks ask for."""

    def override(field: FieldDescriptor, chance: random.Random) -> Any:
        if field.is_repeated and field.name != "deployments":
            return None
        match field.name:
            case "subject" | "apply_id" | "scope" if chance.random() < 0.7:
                return chance.choice(subjects)
            case "ddl":
                return chance.choice(("ALTER TABLE orders ADD COLUMN k int", *STATEMENTS))
            case "environment" if chance.random() < 0.7:
                return "test"
            case "database" if chance.random() < 0.7:
                return "shop"
            case "deployments":
                return chance.choice(("A", "B", "C", "Z", *TEXTS))
            case "reason" | "idempotency_key" | "caller" if chance.random() < 0.7:
                return f"r{chance.randrange(10**9)}"
            case "page_size" if chance.random() < 0.5:
                return chance.randrange(600)
        return None

    return override


def with_token(*tokens: str) -> Callable[[Garbage], tuple[tuple[str, str], ...]]:
    def metadata(garbage: Garbage) -> tuple[tuple[str, str], ...]:
        rest = [pair for pair in strange_metadata(garbage) if pair[0] != "authorization"]
        token = garbage.one_of(tokens)
        return (*rest, *([("authorization", token)] if token else []))

    return metadata


def test_thousands_of_calls_write_nothing_and_none_is_unknown(
    door: Door, rollout: World, rows: Callable[[], dict[str, str]]
) -> None:
    """Readers about real rollouts, actors about forged ones, new ones for targets that are taken (G7, G13)."""
    real = [
        f"{rollout.last}",
        f"{rollout.last}/C",
        *(f"{each}/A" for each in applies(rollout)),
        *applies(rollout),
    ]
    forged = [
        "apl-0",
        f"{rollout.last}/A",
        f"{rollout.last}/Z",
        f"{rollout.last}/",
        rollout.last.upper(),
        "apl-1/A",
        *TEXTS,
    ]
    share = calls_asked_for(CALLS) // 3
    reader = Caller(
        door.address, SERVICES, override=plausible(*real), metadata=with_token(f"Bearer {READER}")
    )
    actor = Caller(
        door.address,
        SERVICES,
        override=plausible(*forged),
        metadata=with_token(f"Bearer {ACTOR}", f"bearer  {ACTOR}"),
    )
    nearly = (
        f"Bearer {READER[:-1]}",
        f"Bearer {ACTOR}x",
        ACTOR,
        "Bearer",
        "Basic eDp5",
        f"Bearer {ACTOR} {READER}",
        "",
    )
    stranger = Caller(door.address, SERVICES, override=plausible(*real), metadata=with_token(*nearly))
    before = rows()
    reader.call(200)
    memory = memory_kb(door.pid)
    heard = {"reader": reader.call(share), "actor": actor.call(share), "stranger": stranger.call(share)}
    assert {name: each.wrong[:20] for name, each in heard.items() if each.wrong} == {}, {
        n: h.codes for n, h in heard.items()
    }
    assert set(heard["stranger"].codes) <= {code.name for code in REFUSED}
    assert set(heard["reader"].codes) >= {"OK", "PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert set(heard["actor"].codes) >= {"FAILED_PRECONDITION", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert door.is_running
    assert differences(before, rows()) == []
    assert memory_kb(door.pid) < 2 * memory
    assert "Traceback" not in door.log.read_text()


def test_other_protocols_find_nobody_here_either(door: Door, rows: Callable[[], dict[str, str]]) -> None:
    before = rows()
    path = "/tern.control.v1.ControlService/Control"
    assert b"bearer token is missing" in talk(door.port, proper(path), wait_s=2)
    for said in conversations(path, Garbage("door"), 40):
        talk(door.port, said)
    assert door.is_running
    assert differences(before, rows()) == []
    with grpc.insecure_channel(door.address) as channel:
        ask = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"", timeout=10, metadata=(("authorization", f"Bearer {ACTOR}"),))
    assert refused.value.code() in ANSWERS
    assert door.close() == 0


def applies(world: World) -> list[str]:
    with world.database.begin() as tx:
        return [str(each) for each in tx.execute(text("SELECT apply_identifier FROM applies")).scalars()]
