"""An engine in a process of its own, for tests that kill it or throw things at it."""

import signal
import subprocess
import sys
from pathlib import Path

import grpc

from tern.wire.generated.tern.v1 import tern_pb2 as contract
from tern.wire.generated.tern.v1 import tern_pb2_grpc as contract_grpc

from .conftest import eventually


class Process:
    """An EngineServer behind a port of loopback."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "tests.engine.serve", dsn]
        self._folder = folder
        self._number = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.stub: contract_grpc.TernStub
        self.channel: grpc.Channel

    def start(self) -> None:
        self._number += 1
        port_file = self._folder / f"port-{self._number}"
        with (self._folder / "engine.log").open("ab") as log:
            self._process = subprocess.Popen([*self._command, str(port_file)], stdout=log, stderr=log)
        eventually(port_file.exists, within=60)
        self.port = int(port_file.read_text())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub = contract_grpc.TernStub(self.channel)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """All that it and its predecessors have said."""
        return (self._folder / "engine.log").read_text(errors="replace")

    def end(self, number: int) -> int:
        assert self._process is not None
        self.channel.close()
        self._process.send_signal(number)
        return self._process.wait(timeout=10)

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def close(self) -> None:
        if self.is_running:
            self.kill()

    def apply(self, *ddl: str, key: str = "key", **options: str) -> str:
        changes = [contract.TableChange(namespace="public", table_name="t", ddl=each) for each in ddl]
        request = contract.ApplyRequest(idempotency_key=key, ddl_changes=changes, options=options)
        return self.stub.Apply(request, timeout=30).apply_id

    def progress(self, job: str) -> contract.ProgressResponse:
        return self.stub.Progress(contract.ProgressRequest(apply_id=job), timeout=10)

    def completed(self, job: str) -> bool:
        state = self.progress(job).state
        assert state not in {contract.STATE_FAILED, contract.STATE_CANCELLED}, self.progress(job)
        return state == contract.STATE_COMPLETED
