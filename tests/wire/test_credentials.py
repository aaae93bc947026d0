"""Addresses and references: what is read, what is refused, and that no refusal repeats a secret."""

from pathlib import Path

import pytest

from tern.domain.model import Credentials
from tern.wire.credentials import Endpoint, check_plaintext, parse_address, read_secrets
from tern.wire.transport import NotSent


def refusal(address: str, credentials: Credentials | None = None) -> NotSent:
    with pytest.raises(NotSent) as caught:
        check_plaintext(parse_address(address), credentials or Credentials())
    return caught.value


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("grpc://127.0.0.1:50051", Endpoint(is_secure=False, host="127.0.0.1", port=50051)),
        ("grpc://localhost:1", Endpoint(is_secure=False, host="localhost", port=1)),
        ("grpcs://engine.example:443/", Endpoint(is_secure=True, host="engine.example", port=443)),
        ("grpc://[::1]:50051", Endpoint(is_secure=False, host="[::1]", port=50051)),
    ],
)
def test_an_address_names_host_and_port(address: str, endpoint: Endpoint) -> None:
    assert parse_address(address) == endpoint


@pytest.mark.parametrize(
    "address",
    [
        "",
        "engine:50051",
        "http://engine:50051",
        "grpc://engine",
        "grpc://engine:",
        "grpc://engine:0",
        "grpc://engine:65536",
        "grpc://engine:50051/path",
        "grpc://engine:50051?token=hunter2",
        "grpc://en gine:50051",
        "grpc://engine:50051\n",
        "grpc://[::1:50051",
        "grpc:///50051",
        "unix:/tmp/engine.sock",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_being_quoted(address: str) -> None:
    why = refusal(address)
    assert why.reason == "ADDRESS_MALFORMED"
    assert "hunter2" not in why.message


@pytest.mark.parametrize("address", ["grpc://ann:hunter2@engine:50051", "grpcs://hunter2@engine:50051"])
def test_a_password_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    why = refusal(address)
    assert why.reason == "PASSWORD_IN_ADDRESS"
    assert "hunter2" not in why.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost", "LOCALHOST"])
def test_plaintext_stays_on_this_machine(host: str) -> None:
    check_plaintext(parse_address(f"grpc://{host}:50051"), Credentials(token="env:TOKEN"))


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "engine.example", "[2001:db8::1]", "localhost.example", "8.8.8.8"]
)
def test_plaintext_to_another_machine_is_refused(host: str) -> None:
    assert refusal(f"grpc://{host}:50051").reason == "PLAINTEXT_REFUSED"


def test_plaintext_to_another_machine_can_be_asked_for() -> None:
    check_plaintext(parse_address("grpc://10.0.0.1:50051"), Credentials(insecure_plaintext=True))


def test_a_token_never_goes_in_plaintext_to_another_machine() -> None:
    credentials = Credentials(token="env:TOKEN", insecure_plaintext=True)
    assert refusal("grpc://10.0.0.1:50051", credentials).reason == "TOKEN_OVER_PLAINTEXT"


def test_tls_credentials_without_tls_are_refused() -> None:
    assert refusal("grpc://127.0.0.1:1", Credentials(tls_ca="file:/ca")).reason == "TLS_NOT_USED"


def test_half_a_client_certificate_is_refused() -> None:
    assert refusal("grpcs://engine:1", Credentials(tls_cert="file:/c")).reason == "TLS_INCOMPLETE"


def test_secrets_are_read_when_they_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("-----BEGIN\n")
    credentials = Credentials(token="env:TERN_TEST_TOKEN", tls_ca=f"file:{certificate}")
    for token in ("first", "second"):
        monkeypatch.setenv("TERN_TEST_TOKEN", token)
        assert read_secrets(credentials).token == token
    assert read_secrets(credentials).tls_ca == b"-----BEGIN"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("env:TERN_NO_SUCH", "SECRET_MISSING"),
        ("file:/no/such/file", "SECRET_MISSING"),
        ("file:/", "SECRET_MISSING"),
        ("file:/nul\x00", "SECRET_MISSING"),
        ("file:relative", "REFERENCE_MALFORMED"),
        ("env:", "REFERENCE_MALFORMED"),
        ("hunter2", "REFERENCE_MALFORMED"),
        ("hunter2:x", "REFERENCE_MALFORMED"),
        ("env:TERN_TWO_LINES", "SECRET_UNUSABLE"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(
    reference: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERN_TWO_LINES", "hunter2\nx-evil: 1")
    with pytest.raises(NotSent) as caught:
        read_secrets(Credentials(token=reference))
    assert caught.value.reason == reason
    assert "hunter2" not in caught.value.message


def test_secrets_do_not_show_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERN_TEST_TOKEN", "hunter2")
    assert "hunter2" not in repr(read_secrets(Credentials(token="env:TERN_TEST_TOKEN")))
