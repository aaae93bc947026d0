"""Certificates that are renewed under a running server: used at the next handshake, and only when they fit."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from tern.wire.certificates import CertificateFiles
from tern.wire.listening import bind, server_credentials
from tests.self_signed import self_signed

Pair = tuple[bytes, bytes]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    """Certificate and key, self-signed for localhost, three times."""
    found = []
    for number in range(3):
        folder = tmp_path_factory.mktemp(f"pair{number}")
        key, certificate = self_signed(folder)
        found.append((certificate.read_bytes(), key.read_bytes()))
    return found


class Files:
    """Where a server looks; every write is a new file in the old one's place, as whoever renews does it."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key, self.client_ca = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"

    def put(self, place: Path, content: bytes) -> None:
        draft = place.with_suffix(".new")
        draft.write_bytes(content)
        draft.replace(place)

    def put_pair(self, pair: Pair) -> None:
        self.put(self.cert, pair[0])
        self.put(self.key, pair[1])


@pytest.fixture
def files(tmp_path: Path, pairs: list[Pair]) -> Files:
    made = Files(tmp_path)
    made.put_pair(pairs[0])
    made.put(made.client_ca, pairs[0][0])
    return made


@pytest.fixture
def open_server(files: Files) -> Iterator[Callable[..., int]]:
    """Serves health over TLS from the files; returns the port."""
    servers: list[grpc.Server] = []

    def serve(*, mutual: bool = False) -> int:
        server = grpc.server(ThreadPoolExecutor(2))
        health_pb2_grpc.add_HealthServicer_to_server(grpc_health.HealthServicer(), server)
        ca = str(files.client_ca) if mutual else None
        port = bind(server, "localhost:0", server_credentials(str(files.cert), str(files.key), ca))
        server.start()
        servers.append(server)
        return port

    yield serve
    for each in servers:
        each.stop(None).wait()


def is_trusted(port: int, trusted: Pair, shown: Pair | None = None) -> bool:
    """Whether a new connection that trusts one certificate, and shows another, gets an answer."""
    cert, key = shown or (None, None)
    credentials = grpc.ssl_channel_credentials(trusted[0], key, cert)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(f"localhost:{port}", credentials, options=options) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError:
            return False
        return bool(answer.status)


def test_a_renewed_certificate_is_used_at_the_next_handshake(
    files: Files, pairs: list[Pair], open_server: Callable[..., int]
) -> None:
    port = open_server()
    assert [is_trusted(port, each) for each in pairs] == [True, False, False]
    for number in (1, 2, 0):
        files.put_pair(pairs[number])
        assert [is_trusted(port, each) for each in pairs] == [number == other for other in range(3)]


def test_a_call_that_is_under_way_outlives_the_renewal(
    files: Files, pairs: list[Pair], open_server: Callable[..., int]
) -> None:
    port = open_server()
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(pairs[0][0])) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status
        files.put_pair(pairs[1])
        assert is_trusted(port, pairs[1])
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status


def test_who_signs_clients_is_renewed_too(
    files: Files, pairs: list[Pair], open_server: Callable[..., int]
) -> None:
    """And a client without a certificate stays outside."""
    port = open_server(mutual=True)
    assert is_trusted(port, pairs[0], shown=pairs[0])
    files.put(files.client_ca, pairs[1][0])
    assert is_trusted(port, pairs[0], shown=pairs[1])
    assert not is_trusted(port, pairs[0], shown=pairs[0])
    assert not is_trusted(port, pairs[0])


@pytest.mark.parametrize(
    "state", ["only the certificate", "half a key", "no key", "nothing in it", "no rights"]
)
def test_what_does_not_fit_is_left_alone_until_it_does_and_said_once(
    files: Files, pairs: list[Pair], open_server: Callable[..., int], state: str
) -> None:
    """The two files are renewed one after the other, and clients come in between."""
    port = open_server()
    files.put(files.cert, pairs[1][0])
    match state:
        case "half a key":
            files.key.write_bytes(pairs[1][1][:60])
        case "no key":
            files.key.unlink()
        case "nothing in it":
            files.key.write_bytes(b"")
        case "no rights":
            files.key.unlink()
            files.key.mkdir()
    with capture_logs() as lines:
        assert [is_trusted(port, pairs[0]) for _ in range(3)] == [True, True, True]
        assert not is_trusted(port, pairs[1])
    assert [line["event"] for line in lines] == ["tls.certificate.kept"]
    assert pairs[1][1].decode()[40:80] not in str(lines)
    if files.key.is_dir():
        files.key.rmdir()
    files.put_pair(pairs[1])
    assert is_trusted(port, pairs[1])


def test_a_link_that_is_turned_counts_as_a_renewal(files: Files, pairs: list[Pair], tmp_path: Path) -> None:
    """As Kubernetes renews a mounted secret."""
    for number in (0, 1):
        (tmp_path / f"v{number}").mkdir()
        for name, content in zip(("cert", "key"), pairs[number], strict=True):
            (tmp_path / f"v{number}" / name).write_bytes(content)
            os.utime(tmp_path / f"v{number}" / name, (1, 1))
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "v0")
    found = CertificateFiles(current / "cert", current / "key", None)
    assert found.renewed() is None
    draft = tmp_path / "draft"
    draft.symlink_to(tmp_path / "v1")
    draft.replace(current)
    assert found.renewed() is not None
    assert found.renewed() is None


def test_what_a_server_begins_with_must_fit(files: Files, pairs: list[Pair]) -> None:
    """Otherwise it would listen, and refuse every client without a word."""
    files.put(files.key, pairs[1][1])
    with pytest.raises(ValueError, match="can't be used: key values mismatch"):
        server_credentials(str(files.cert), str(files.key), None)
    files.put_pair(pairs[1])
    files.put(files.client_ca, b"nothing")
    with pytest.raises(ValueError, match="holds no certificate"):
        server_credentials(str(files.cert), str(files.key), str(files.client_ca))
    with pytest.raises(ValueError, match="both a certificate and its key"):
        server_credentials(str(files.cert), None, None)
