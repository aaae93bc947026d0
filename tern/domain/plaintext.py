"""What must not go over a line that anybody can read: asked when a deployment is registered, and again at each call.

No message quotes an address or a reference: a person in a hurry puts the password itself there.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from tern.domain.errors import Refused
from tern.domain.model import Credentials, Deployment

GRPC_ADDRESS: Final = re.compile(
    r"(?P<scheme>grpcs?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})/?"
)


@dataclass(frozen=True, slots=True)
class Exposure:
    """Why nothing is said to an engine like this."""

    reason: str
    words: str


def is_loopback(host: str) -> bool:
    """Nothing said to it leaves this machine. Names other than localhost are not looked up: they can change."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def exposures(credentials: Credentials, *, is_secure: bool, host: str) -> tuple[Exposure, ...]:
    """All of them; empty where the line may be used."""
    if is_secure:
        if bool(credentials.tls_cert) != bool(credentials.tls_key):
            return (Exposure("TLS_INCOMPLETE", "a client certificate needs both tls_cert and tls_key"),)
        return ()
    found = []
    if credentials.tls_ca or credentials.tls_cert or credentials.tls_key:
        # Whoever names a CA expects TLS; a plain connection would be a downgrade that nobody asked for.
        words = "it has TLS credentials, but its address says grpc://, not grpcs://"
        found.append(Exposure("TLS_NOT_USED", words))
    if is_loopback(host):
        return tuple(found)
    if not credentials.insecure_plaintext:
        words = "its address is plaintext to another machine; use grpcs:// or set insecure_plaintext"
        found.append(Exposure("PLAINTEXT_REFUSED", words))
    if credentials.token:
        words = "a token is sent over TLS or to this machine only; use grpcs://"
        found.append(Exposure("TOKEN_OVER_PLAINTEXT", words))
    return tuple(found)


def exposures_of(address: str, credentials: Credentials) -> tuple[Exposure, ...]:
    """The same for an address as it is registered; what is no gRPC address is another rule's to refuse."""
    match = GRPC_ADDRESS.fullmatch(address)
    if match is None:
        return ()
    return exposures(credentials, is_secure=match["scheme"] == "grpcs", host=match["host"])


def refuse_exposed(deployment: Deployment, change: str) -> None:
    """Raises Refused with all that speaks against how its engine is reached. change: added, changed."""
    found = exposures_of(deployment.address, deployment.credentials)
    if not found:
        return
    reasons = {each.reason for each in found}
    what = f"{deployment.name} was not {change}: its engine would be called in a way that each call refuses"
    step = "Use grpcs://, and compare --token, --tls-ca, --tls-cert and --tls-key."
    if reasons == {"PLAINTEXT_REFUSED"}:
        step = "Use grpcs://, or add --insecure-plaintext if anybody on the way may read it."
    raise Refused(what, why=tuple(each.words for each in found), next_step=step, reason=found[0].reason)
