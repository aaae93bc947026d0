"""Wrong, absent and outdated credentials, and lines that anybody can read: refused, and no secret leaves (G7)."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tern.domain.model import Credentials
from tern.domain.outcome import Ok, Refused, Unknown
from tern.engine.identity import EngineIdentity
from tern.engine.server import EngineServer, serve
from tern.wire.routing import EngineDirectory
from tests.hostile.catalogue import differences, fingerprint
from tests.wire.conftest import claim_on, deployment_at, scope_at

TOKEN = "canary-of-the-token-4711"
WHO = EngineIdentity("production", "shop", "shop-us-east")


class Authority:
    """Certificates of this test's own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def certificate(self, name: str, *, days: int = 1) -> tuple[Path, Path]:
        """Self-signed, for localhost: its certificate and its key."""
        cert, key, wish = (self._folder / f"{name}.{ending}" for ending in ("pem", "key", "csr"))
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        names = ("-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost")
        openssl("req", "-new", *curve, *names, "-keyout", str(key), "-out", str(wish))
        signed = ("-key", str(key), "-copy_extensions", "copy", "-out", str(cert))
        openssl("x509", "-req", "-in", str(wish), "-days", str(days), *signed)
        return cert, key


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def guarded(shop_url: str, ground: psycopg.Connection[Any], authority: Authority) -> Iterator[EngineServer]:
    """An engine that wants TLS with a certificate of ours, and a token."""
    cert, key = authority.certificate("engine")
    one = serve(
        shop_url, "localhost:0", WHO,
        tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(cert), token=TOKEN,
    )  # fmt: skip
    yield one
    one.stop()


def ask_to_apply(address: str, credentials: Credentials) -> Any:
    """What comes of a dispatch there."""
    directory = EngineDirectory(deadline_s=3)
    deployment = deployment_at(address, credentials=credentials)
    scope = scope_at(deployment)
    outcome = directory.of(deployment).apply(scope, claim_on(scope))
    directory.close()
    return outcome


def test_only_the_right_credentials_are_heard(
    guarded: EngineServer,
    ground: psycopg.Connection[Any],
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A wrong token is refused by name; a line that can't be trusted is no line. Neither changes anything."""
    monkeypatch.setenv("RIGHT", TOKEN)
    monkeypatch.setenv("WRONG", TOKEN[:-1])
    monkeypatch.setenv("OTHER", "x" * 5_000)
    own = {"tls_ca": f"file:{tmp_path}/engine.pem"}
    shown = own | {"tls_cert": f"file:{tmp_path}/engine.pem", "tls_key": f"file:{tmp_path}/engine.key"}
    authority.certificate("stranger")
    strange = {"tls_cert": f"file:{tmp_path}/stranger.pem", "tls_key": f"file:{tmp_path}/stranger.key"}
    secure, plain = f"grpcs://localhost:{guarded.port}", f"grpc://localhost:{guarded.port}"
    before = fingerprint(ground)
    cases = {
        "no token": (secure, Credentials(**shown), Refused, "UNAUTHENTICATED"),
        "a wrong token": (secure, Credentials(token="env:WRONG", **shown), Refused, "UNAUTHENTICATED"),
        "a long token": (secure, Credentials(token="env:OTHER", **shown), Refused, "UNAUTHENTICATED"),
        "no client certificate": (secure, Credentials(token="env:RIGHT", **own), Unknown, "UNAVAILABLE"),
        "a stranger's certificate": (secure, Credentials(token="env:RIGHT", **own | strange), Unknown, "UNAVAILABLE"),
        "a stranger's authority": (
            secure,
            Credentials(token="env:RIGHT", **shown | {"tls_ca": f"file:{tmp_path}/stranger.pem"}),
            Unknown,
            "UNAVAILABLE",
        ),
        "no authority": (secure, Credentials(token="env:RIGHT"), Unknown, "UNAVAILABLE"),
        "another name": (
            secure.replace("localhost", "127.0.0.1"), Credentials(token="env:RIGHT", **shown), Unknown, "UNAVAILABLE",
        ),
        "plaintext": (plain, Credentials(token="env:RIGHT"), Unknown, "UNAVAILABLE"),
        "half a certificate": (secure, Credentials(tls_cert=shown["tls_cert"]), Refused, ""),
        "a token that is not there": (secure, Credentials(token="env:NOBODY", **shown), Refused, ""),
        "a key that is none": (secure, Credentials(**shown | {"tls_key": own["tls_ca"]}), Unknown, "UNAVAILABLE"),
    }  # fmt: skip
    wrong = []
    for name, (address, credentials, kind, code) in cases.items():
        outcome = ask_to_apply(address, credentials)
        if not isinstance(outcome, kind) or outcome.code != code or TOKEN[:-1] in outcome.message:
            wrong.append((name, outcome))
    assert wrong == []
    assert differences(before, fingerprint(ground)) == []
    assert isinstance(ask_to_apply(secure, Credentials(token="env:RIGHT", **shown)), Refused | Ok)
    directory = EngineDirectory(deadline_s=3)
    healthy = directory.of(
        deployment_at(secure, credentials=Credentials(token="env:RIGHT", **shown))
    ).health()
    directory.close()
    assert healthy == Ok("ok")


def test_a_certificate_that_ran_out_is_no_certificate(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.certificate("engine", days=-1)
    outdated = serve(database_url, "localhost:0", WHO, tls_cert=str(cert), tls_key=str(key))
    try:
        outcome = ask_to_apply(f"grpcs://localhost:{outdated.port}", Credentials(tls_ca=f"file:{cert}"))
    finally:
        outdated.stop()
    assert isinstance(outcome, Unknown)
    assert outcome.code == "UNAVAILABLE"


class Eavesdropper:
    """Somebody who listens where an engine was expected."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(5)
        self.port = self._socket.getsockname()[1]
        self.heard = b""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            connection, _ = self._socket.accept()
            connection.settimeout(2)
            with connection:
                while part := connection.recv(65_536):
                    self.heard += part
        except OSError:
            return

    def close(self) -> bytes:
        self._socket.close()
        self._thread.join(10)
        return self.heard


@pytest.mark.parametrize("address", ["grpcs://127.0.0.1", "grpcs://localhost"])
def test_a_token_is_not_said_to_whom_nobody_vouches_for(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is there, TLS is not: what was said is a greeting and nothing else."""
    monkeypatch.setenv("RIGHT", TOKEN)
    spy = Eavesdropper()
    outcome = ask_to_apply(f"{address}:{spy.port}", Credentials(token="env:RIGHT"))
    heard = spy.close()
    assert isinstance(outcome, Unknown)
    assert heard
    assert TOKEN.encode() not in heard
    assert b"tern-operation" not in heard


@pytest.mark.parametrize(
    ("credentials", "reason"),
    [
        (Credentials(tls_ca="file:/ca.pem"), "TLS_NOT_USED"),
        (Credentials(token="env:RIGHT", insecure_plaintext=True), "TOKEN_OVER_PLAINTEXT"),
        (Credentials(token="env:RIGHT"), "PLAINTEXT_REFUSED"),
        (Credentials(), "PLAINTEXT_REFUSED"),
    ],
)
def test_what_would_go_in_the_clear_is_not_sent(
    credentials: Credentials, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIGHT", TOKEN)
    outcome = ask_to_apply("grpc://engine.invalid:1", credentials)
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.code) == (reason, "")


def test_a_server_takes_no_token_in_the_clear_from_other_machines(tmp_path: Path) -> None:
    """Not even if plaintext is asked for: whoever listens on the way could ask for anything afterwards."""
    for listen in ("0.0.0.0:0", "[::]:0", "engine.invalid:1"):
        with pytest.raises(ValueError, match="in the clear"):
            EngineServer("postgresql://", listen, WHO, token=TOKEN, insecure_plaintext=True)
    EngineServer("postgresql://", "127.0.0.1:0", WHO, token=TOKEN)
