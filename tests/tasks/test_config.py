"""What Celery is told of the broker: with TLS its certificate is looked at, wherever the address is used."""

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery
from flower.utils.broker import Broker

from tasks.config import broker_tls, celery_config
from tern.settings import Settings, load
from tests.self_signed import self_signed


@dataclass(frozen=True)
class Tls:
    """A broker behind TLS, under a certificate that only `authority` vouches for."""

    address: str
    authority: Path


@pytest.fixture
def behind_tls(broker_url: str, tmp_path: Path) -> Iterator[Tls]:
    key, certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    broker = urlsplit(broker_url)
    listener = socket.create_server(("127.0.0.1", 0))

    def pour(source: socket.socket, sink: socket.socket) -> None:
        try:
            while found := source.recv(65536):
                sink.sendall(found)
        except OSError:
            return
        finally:
            sink.close()

    def serve(plain: socket.socket) -> None:
        try:
            inside = context.wrap_socket(plain, server_side=True)
        except OSError:
            return
        outside = socket.create_connection((str(broker.hostname), broker.port or 0))
        threading.Thread(target=pour, args=(inside, outside), daemon=True).start()
        pour(outside, inside)

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(plain,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    where = f"localhost:{listener.getsockname()[1]}"
    yield Tls(f"rediss://:{broker.password}@{where}{broker.path}", certificate)
    listener.close()


def publish(url: str) -> None:
    """As whoever publishes does; raises what Celery raises."""
    app = Celery()
    app.config_from_object(celery_config(Settings(broker_url=url)))
    try:
        app.send_task("tern.sweep", queue="sweep", retry=False)
    finally:
        app.close()


def test_a_bare_address_with_tls_takes_nobodys_word(behind_tls: Tls) -> None:
    with pytest.raises(Exception, match=r"(?i)certificate.verify.failed"):
        publish(behind_tls.address)
    with pytest.raises(Exception, match=r"(?i)certificate.verify.failed"):
        publish(f"{behind_tls.address}?ssl_check_hostname=false")


def test_one_that_names_who_vouches_for_it_is_believed(behind_tls: Tls) -> None:
    publish(f"{behind_tls.address}?ssl_ca_certs={behind_tls.authority}")
    # The certificate is for another name.
    other = behind_tls.address.replace("@localhost:", "@127.0.0.1:")
    with pytest.raises(Exception, match=r"(?i)certificate.verify.failed"):
        publish(f"{other}?ssl_ca_certs={behind_tls.authority}")


def test_who_says_so_is_let_through(behind_tls: Tls) -> None:
    publish(f"{behind_tls.address}?ssl_cert_reqs=none")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://h:1/0", None),
        ("redis+socket:///tmp/x", None),
        ("rediss://h:1/0", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("rediss://h:1/0?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        ("rediss://h?ssl_ca_certs=/ca", {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca"}),
    ],
)
def test_flower_looks_at_it_in_the_same_way(url: str, told: dict[str, Any] | None) -> None:
    """It reads the setting alone, never the address."""
    assert broker_tls(url) == told
    if told is not None:
        asked = Broker(url, broker_use_ssl=broker_tls(url))._get_redis_client_args()
        assert told.items() <= asked.items()
        assert asked["ssl"] is True


def test_a_word_that_means_nothing_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_BROKER_URL", "rediss://:hunter2@h/0?ssl_cert_reqs=maybe")
    with pytest.raises(Exception, match="settings can't be used") as raised:
        load()
    assert "ssl_cert_reqs" in str(raised.value)
    assert "hunter2" not in str(raised.value)
