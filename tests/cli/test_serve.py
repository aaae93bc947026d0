"""`tern serve` as a process: says where it listens, lets in whom it should, and ends when it is told to."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tern.client import Client
from tern.domain.errors import NotAllowed
from tests.cli.conftest import Tern
from tests.doors.calling import ACT
from tests.e2e.processes import wait_for
from tests.world import World


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "who may call has to be said"),
        (("--tokens", "env:X", "--without-tokens"), 2, "who may call has to be said"),
        (("--without-tokens", "--listen", "0.0.0.0:0"), 2, "other machines need tokens"),
        (("--tokens", "hunter2"), 78, "no reference"),
        (("--tokens", "env:TERN_TEST_NOT_SET"), 78, "there is no token"),
        (("--tokens", "file:/not/there"), 78, "nobody is let in"),
        (("--tokens", "env:TEST_TOKENS", "--listen", "0.0.0.0:0"), 78, "no loopback address"),
        (("--tokens", "env:TEST_TOKENS", "--tls-cert", "/not/there"), 2, "does not exist"),
    ],
)
def test_bad_input_is_refused(
    words: tuple[str, ...], code: int, told: str, tern: Tern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_TOKENS", f"deployer act {ACT}")
    done = tern("serve", *words)
    assert (done.code, told in done.err) == (code, True), done.err
    assert "hunter2" not in done.err
    assert ACT not in done.err


def test_it_serves_until_it_is_told_to_end(world: World, migrated_url: str, tmp_path: Path) -> None:
    apply_id = world.apply()
    port_file, tokens = tmp_path / "port", tmp_path / "tokens"
    tokens.write_text(f"deployer act {ACT}\n")
    (tmp_path / "token").write_text(ACT)
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "tern", "serve", "--listen", "127.0.0.1:0"),
            *("--tokens", f"file:{tokens}", "--port-file", str(port_file)),
        ],
        env={**os.environ, "TERN_DATABASE_URL": migrated_url, "PYTHONWARNINGS": "ignore"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for(lambda: port_file.exists() or process.poll() is not None, lambda: "it does not listen")
            port = int(port_file.read_text())
            with Client(f"grpc://127.0.0.1:{port}", token=f"file:{tmp_path / 'token'}") as client:
                watch = client.watch(apply_id)
                assert next(watch).apply_id == apply_id
                assert client.stop(apply_id, "the night is long").request_id is not None
                with Client(f"grpc://127.0.0.1:{port}") as stranger, pytest.raises(NotAllowed):
                    stranger.get(apply_id)
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 0
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read()
    assert f"Tern answers on 127.0.0.1:{port} (plaintext)" in said
    assert "Tern was told to end" in said
    assert "Traceback" not in said
    assert world.one("SELECT caller FROM control_requests").caller == "deployer"
