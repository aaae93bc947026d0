"""Where an engine is and by which secrets it is reached. Secrets are read at use and kept nowhere.

An address is `grpc://host:port` or `grpcs://host:port` (`local:…` is local_engine.py's). No message made here
quotes an address or a reference: a person in a hurry puts the password itself there.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tern.domain.model import Credentials
from tern.domain.plaintext import GRPC_ADDRESS, exposures, is_loopback
from tern.wire.transport import NotSent

_TOKEN = re.compile(r"[!-~]+")
_PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens."""

    is_secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`host:port`, as gRPC wants it."""
        return f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Nothing said to it leaves this machine."""
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the references of one deployment stand for at this moment."""

    token: str = ""
    tls_ca: bytes | None = None
    tls_cert: bytes | None = None
    tls_key: bytes | None = None

    def __repr__(self) -> str:
        return "Secrets(…)"


def parse_address(address: str) -> Endpoint:
    """Reads `grpc://host:port` or `grpcs://host:port`; raises NotSent."""
    if "@" in address:
        reason = "PASSWORD_IN_ADDRESS"
        raise NotSent(
            reason, "its address holds a user or password; credentials are given by reference instead"
        )
    match = GRPC_ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) <= _PORT_MAX:
        reason = "ADDRESS_MALFORMED"
        message = "its address can't be read; it is written grpc://HOST:PORT, grpcs://HOST:PORT or local:postgresql://…"
        raise NotSent(reason, message)
    return Endpoint(match["scheme"] == "grpcs", match["host"], int(match["port"]))


def check_plaintext(endpoint: Endpoint, credentials: Credentials) -> None:
    """What must not go over a line that anybody can read does not; raises NotSent."""
    for found in exposures(credentials, is_secure=endpoint.is_secure, host=endpoint.host):
        raise NotSent(found.reason, found.words)


def read_reference(name: str, reference: str) -> bytes:
    """What `env:NAME` or `file:/path` holds, without the line's end; raises NotSent."""
    kind, _, where = reference.partition(":")
    if kind == "env" and where:
        value = os.environ.get(where, "").encode(errors="surrogateescape")
        place = f"environment variable {where}"
    elif kind == "file" and where.startswith("/"):
        place = f"file {where}"
        try:
            value = Path(where).read_bytes()
        except (OSError, ValueError) as error:
            reason = "SECRET_MISSING"
            word = error.strerror if isinstance(error, OSError) else "not a path"
            message = f"its {name} is in {place}, which can't be read here: {word}"
            raise NotSent(reason, message) from None
    else:
        reason = "REFERENCE_MALFORMED"
        raise NotSent(reason, f"its {name} is no reference; it is written env:NAME or file:/path")
    value = value.rstrip(b"\r\n")
    if not value:
        reason = "SECRET_MISSING"
        raise NotSent(reason, f"its {name} is in {place}, which is not set or empty here")
    return value


def read_text(name: str, reference: str) -> str:
    """A secret of one line of visible ASCII, which is all that a header can carry; raises NotSent."""
    text = read_reference(name, reference).decode("latin-1")
    if not _TOKEN.fullmatch(text):
        reason = "SECRET_UNUSABLE"
        raise NotSent(reason, f"its {name} holds something other than visible ASCII characters")
    return text


def read_secrets(credentials: Credentials) -> Secrets:
    """All that a gRPC connection needs, as it is now; raises NotSent."""

    def optional(name: str, reference: str) -> bytes | None:
        return read_reference(name, reference) if reference else None

    return Secrets(
        token=read_text("token", credentials.token) if credentials.token else "",
        tls_ca=optional("tls_ca", credentials.tls_ca),
        tls_cert=optional("tls_cert", credentials.tls_cert),
        tls_key=optional("tls_key", credentials.tls_key),
    )
