"""What anybody on the way could read is said to this machine only, unless somebody agreed; a token never."""

import pytest

from tern.domain.model import Credentials
from tern.domain.plaintext import exposures_of

TOKEN = Credentials(token="env:TOKEN")


@pytest.mark.parametrize(
    ("address", "credentials", "reasons"),
    [
        ("grpc://127.0.0.1:1", TOKEN, []),
        ("grpc://[::1]:1", TOKEN, []),
        ("grpcs://10.0.0.1:1", TOKEN, []),
        ("local:postgresql://ann@10.0.0.1/t", Credentials(), []),
        ("grpc://10.0.0.1:1", Credentials(), ["PLAINTEXT_REFUSED"]),
        ("grpc://localhost.example:1", Credentials(), ["PLAINTEXT_REFUSED"]),
        ("grpc://10.0.0.1:1", Credentials(insecure_plaintext=True), []),
        ("grpc://10.0.0.1:1", Credentials(token="env:T", insecure_plaintext=True), ["TOKEN_OVER_PLAINTEXT"]),
        ("grpc://127.0.0.1:1", Credentials(tls_ca="file:/ca"), ["TLS_NOT_USED"]),
        ("grpcs://10.0.0.1:1", Credentials(tls_cert="file:/cert"), ["TLS_INCOMPLETE"]),
        (
            "grpc://10.0.0.1:1",
            Credentials(token="env:T", tls_ca="file:/ca"),
            ["TLS_NOT_USED", "PLAINTEXT_REFUSED", "TOKEN_OVER_PLAINTEXT"],
        ),
    ],
)
def test_all_that_speaks_against_a_line_is_told(
    address: str, credentials: Credentials, reasons: list[str]
) -> None:
    assert [each.reason for each in exposures_of(address, credentials)] == reasons
