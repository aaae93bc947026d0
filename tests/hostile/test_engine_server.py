"""The engine under fire: garbage to every method, and to the port itself. It answers, lives, and writes nothing."""

import random
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import FieldDescriptor

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as ours
from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tests.engine.conftest import eventually
from tests.engine.process import Process
from tests.hostile.caller import Caller, strange_metadata
from tests.hostile.catalogue import differences, fingerprint
from tests.hostile.garbage import TEXTS, Garbage, calls_asked_for
from tests.hostile.sockets import conversations, proper, talk
from tests.hostile.statements import ALL

CALLS = 10_000
SERVICES = (contract.DESCRIPTOR.services_by_name["Tern"], ours.DESCRIPTOR.services_by_name["EngineService"])
OPERATION = (("tern-operation", "apl-victim/eu-1"), ("tern-fence", "1000000000000000000"))
# The longest make each call a slow one, and have a test of their own.
STATEMENTS = [ddl for _, ddl in ALL if len(ddl) < 10_000]
WHO = {"environment": "prod", "database": "orders", "target": "eu-1", "type": "postgres"}


def plausible(victim: str) -> Any:
    """Fills in what an early check asks for, so that garbage gets further; no call by it may have an effect."""

    def override(field: FieldDescriptor, chance: random.Random) -> Any:
        if field.name in WHO and chance.random() < 0.8:
            return WHO[field.name]
        match field.name:
            case "apply_id" if chance.random() < 0.3:
                return victim
            case "ddl":
                return chance.choice(STATEMENTS)
            case "namespace":
                return chance.choice(("public", "", "_tern", *TEXTS))
            case "table_name" | "table":
                return chance.choice(("t", "t", "t", *TEXTS))
            case "forbid":
                # A key that is made dead is an effect that anybody may ask for.
                return False
        return None

    return override


def as_a_stranger(garbage: Garbage) -> tuple[tuple[str, str], ...]:
    """Never without an operation: a call that names none may be a foreign client's, and is obeyed."""
    given = [pair for pair in strange_metadata(garbage) if pair[0] != "tern-operation"]
    return (*given, ("tern-operation", garbage.one_of(("apl-1/A", "apl-victim/eu-2", "x", "apl-victim/"))))


def memory_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - no path, a window on the kernel
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def written(ground: psycopg.Connection[Any]) -> dict[str, str]:
    """All that the database holds, the engine's own tables included, but for the positions of its counters."""
    found = fingerprint(ground)
    return {
        name: digest
        for name, digest in found.items()
        if not name.startswith("_tern.") or not name.endswith("_seq")
    }


def test_ten_thousand_calls_change_nothing_and_none_is_unknown(
    engine: Process, ground: psycopg.Connection[Any]
) -> None:
    """Also: every refusal is one that says whose mistake it is, so that nobody repeats it for ever."""
    change = contract.TableChange(namespace="public", table_name="t", ddl="ALTER TABLE t ADD COLUMN k int")
    request = contract.ApplyRequest(
        idempotency_key="victim", ddl_changes=[change], options={"defer_cutover": "true"}
    )
    victim = engine.stub.Apply(request, timeout=10, metadata=OPERATION).apply_id
    eventually(lambda: engine.progress(victim).state == contract.STATE_WAITING_FOR_CUTOVER)
    before = written(ground)
    caller = Caller(f"127.0.0.1:{engine.port}", SERVICES, override=plausible(victim), metadata=as_a_stranger)
    warm = caller.call(400)
    memory = memory_kb(engine.pid)
    heard = caller.call(calls_asked_for(CALLS))
    assert warm.wrong + heard.wrong == [], heard.codes
    assert set(heard.codes) >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}
    assert engine.is_running
    assert differences(before, written(ground)) == []
    # It has seen megabytes of each of many calls; what it keeps of them must not grow with their number.
    assert memory_kb(engine.pid) < 2 * memory
    engine.stub.Cutover(contract.CutoverRequest(apply_id=victim), timeout=10, metadata=OPERATION)
    eventually(lambda: engine.completed(victim))


def test_other_protocols_and_half_a_protocol_find_nobody(
    engine: Process, ground: psycopg.Connection[Any]
) -> None:
    """Wrong content types, frames that lie, TLS where there is none. Who speaks properly is served all the while."""
    before = written(ground)
    path = "/tern.engine.v1.EngineService/Resolve"
    assert b"idempotency_key is empty" in talk(engine.port, proper(path), wait_s=2)
    for said in conversations(path, Garbage("port"), 60):
        talk(engine.port, said)
    assert engine.is_running
    assert engine.stub.Health(contract.HealthRequest(), timeout=10).status == "ok"
    assert differences(before, written(ground)) == []


def test_messages_beyond_any_size_are_refused_unread(engine: Process) -> None:
    memory = memory_kb(engine.pid)
    request = contract.ApplyRequest(plan_id="x" * (32 * 1024 * 1024))
    with pytest.raises(grpc.RpcError) as refused:
        engine.stub.Apply(request, timeout=20)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert engine.is_running
    assert memory_kb(engine.pid) < 2 * memory
