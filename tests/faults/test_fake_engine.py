"""The fake engine itself: a harness is trusted only as far as it is tested."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tern.wire.generated.tern.engine.v1 import engine_service_pb2 as engine_v1
from tern.wire.generated.tern.engine.v1.engine_service_pb2_grpc import EngineServiceStub
from tern.wire.generated.tern.v1 import tern_pb2 as tern_v1
from tern.wire.generated.tern.v1.tern_pb2_grpc import TernStub
from tests.faults.behaviour import altered, behave, fail, not_accepted
from tests.faults.fake_engine import FakeEngine, wait_for_port
from tests.faults.ledger import read_ledger

Metadata = tuple[tuple[str, str | bytes], ...]
OURS: Metadata = (("tern-operation", "apl-one/us-east"), ("tern-fence", "4"))
THEIRS: Metadata = (("tern-operation", "apl-two/us-east"), ("tern-fence", "4"))


class Client:
    """Both stubs, bare."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.tern = TernStub(self.channel)
        self.engine = EngineServiceStub(self.channel)

    def apply(
        self,
        key: str,
        ddl: str = "ALTER TABLE t ADD c int",
        metadata: tuple[tuple[str, str | bytes], ...] = OURS,
    ) -> str:
        change = tern_v1.TableChange(table_name="t", ddl=ddl)
        request = tern_v1.ApplyRequest(idempotency_key=key, ddl_changes=[change])
        return str(self.tern.Apply(request, metadata=metadata, timeout=10).apply_id)


@contextmanager
def client_of(port: int) -> Iterator[Client]:
    client = Client(port)
    yield client
    client.channel.close()


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    with FakeEngine("F") as engine:
        yield engine


@pytest.fixture
def client(fake: FakeEngine) -> Iterator[Client]:
    with client_of(fake.port) as found:
        yield found


def test_a_key_is_one_effect_however_often_it_comes(fake: FakeEngine, client: Client) -> None:
    assert {client.apply("k") for _ in range(3)} == {"F-1"}
    assert len(fake.effects("apply")) == 1
    assert len(fake.effects("apply", duplicates=True)) == 3
    assert len(fake.calls("Apply")) == 3


def test_without_deduplication_every_apply_is_an_effect() -> None:
    with FakeEngine("F", deduplicates=False) as fake, client_of(fake.port) as client:
        assert [client.apply("k") for _ in range(2)] == ["F-1", "F-2"]
        assert len(fake.effects("apply")) == 2


def test_a_key_with_another_payload_is_refused(fake: FakeEngine, client: Client) -> None:
    client.apply("k")
    with pytest.raises(grpc.RpcError) as caught:
        client.apply("k", ddl="DROP TABLE t")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(fake.effects("apply", duplicates=True)) == 1


def test_a_dead_key_starts_nothing(fake: FakeEngine, client: Client) -> None:
    asked = engine_v1.ResolveRequest(idempotency_key="k", forbid=True)
    assert client.engine.Resolve(asked).forbidden
    with pytest.raises(grpc.RpcError):
        client.apply("k")
    assert [effect.kind for effect in fake.effects(duplicates=True)] == ["forbid"]


def test_a_job_belongs_to_its_operation(fake: FakeEngine, client: Client) -> None:
    remote_id = client.apply("k")
    with pytest.raises(grpc.RpcError) as caught:
        client.tern.Stop(tern_v1.StopRequest(apply_id=remote_id), metadata=THEIRS)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert client.tern.Stop(tern_v1.StopRequest(apply_id=remote_id)).accepted  # a foreign client says nothing
    assert fake.job(remote_id).state == "stopped"


def test_a_script_serves_one_call_each_and_then_the_engine_behaves(fake: FakeEngine, client: Client) -> None:
    fake.script("Apply", not_accepted(), behave(), altered(apply_id="X"), fail("INTERNAL"))
    assert [client.apply(str(number)) for number in range(3)] == ["", "F-1", "X"]
    with pytest.raises(grpc.RpcError):
        client.apply("4")
    assert client.apply("5") == "F-3"


def test_ignored_controls_are_accepted_and_do_nothing(fake: FakeEngine, client: Client) -> None:
    remote_id = client.apply("k")
    fake.ignore("Stop")
    assert client.tern.Stop(tern_v1.StopRequest(apply_id=remote_id)).accepted
    assert fake.job(remote_id).state == "running"
    assert not fake.effects("stop")


def test_jobs_complete_by_polls() -> None:
    with FakeEngine("F", complete_after_polls=2) as fake, client_of(fake.port) as client:
        request = tern_v1.ProgressRequest(apply_id=client.apply("k"))
        states = [client.tern.Progress(request).state for _ in range(3)]
        assert states == [tern_v1.STATE_RUNNING, tern_v1.STATE_COMPLETED, tern_v1.STATE_COMPLETED]
        assert fake.job("F-1").revision == 2


def test_a_deferred_cutover_waits() -> None:
    with FakeEngine("F", complete_after_polls=1) as fake, client_of(fake.port) as client:
        request = tern_v1.ApplyRequest(idempotency_key="k", options={"defer_cutover": "true"})
        remote_id = client.tern.Apply(request).apply_id
        client.tern.Progress(tern_v1.ProgressRequest(apply_id=remote_id))
        assert fake.job(remote_id).state == "waiting_for_cutover"
        assert client.tern.Cutover(tern_v1.CutoverRequest(apply_id=remote_id)).accepted
        assert fake.job(remote_id).state == "completed"


@contextmanager
def process(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    arguments = [sys.executable, "-m", "tests.faults.fake_engine", "--port-file", str(port_file)]
    arguments += ["--ledger", str(folder / "ledger.jsonl"), "--name", "P", *more]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(arguments, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}) as running:
        try:
            yield running, wait_for_port(port_file)
        finally:
            running.kill()


def test_a_process_remembers_through_a_kill_what_its_ledger_says(tmp_path: Path) -> None:
    with process(tmp_path) as (running, port), client_of(port) as client:
        assert client.apply("k") == "P-1"
        client.tern.Stop(tern_v1.StopRequest(apply_id="P-1"), metadata=OURS)
        client.engine.Resolve(engine_v1.ResolveRequest(idempotency_key="dead", forbid=True))
        running.kill()
    with process(tmp_path, "--no-engine-service") as (running, port), client_of(port) as client:
        assert client.apply("k") == "P-1"
        assert client.apply("other") == "P-2"
        seen = client.tern.Progress(tern_v1.ProgressRequest(apply_id="P-1"))
        assert seen.state == tern_v1.STATE_STOPPED
        with pytest.raises(grpc.RpcError):
            client.apply("dead")
        with pytest.raises(grpc.RpcError) as caught:
            client.engine.Resolve(engine_v1.ResolveRequest(idempotency_key="k"))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    lines = list(read_ledger(tmp_path / "ledger.jsonl"))
    applies = [line for line in lines if line["what"] == "effect" and line["kind"] == "apply"]
    assert [(line["remote_id"], line["is_duplicate"]) for line in applies] == [
        ("P-1", False),
        ("P-1", True),
        ("P-2", False),
    ]


def test_a_line_that_was_being_written_is_not_read(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text(json.dumps({"what": "call"}) + '\n{"what": "eff')
    assert list(read_ledger(ledger)) == [{"what": "call"}]
