"""Where an engine is and how it is trusted, checked before it is written down. No secret is ever quoted."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

from tern.domain.errors import Refused, UsageError
from tern.domain.identity import DEPLOYMENT_NAME
from tern.domain.model import Credentials
from tern.domain.plaintext import GRPC_ADDRESS

HIGHEST_PORT = 65_535
SAY_HOW_TO_LISTEN = "Say with --listen where it is to listen, and with --tls-cert and --tls-key how."
HIGHEST_POSITION = 2**31 - 1
_LOCAL = re.compile(r"local:postgres(ql)?://.+")
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")


def check_address(address: str) -> None:
    """Raises Refused for a password in it, and for anything that is no engine's address."""
    if _holds_password(address):
        what = "a password stands in the address"
        why = ("it would be shown to everybody who lists deployments, and logged",)
        step = "Name where it is instead: --password env:NAME or file:/path, and --token for grpc addresses."
        raise Refused(what, why=why, next_step=step, reason="PASSWORD_IN_ADDRESS")
    if not address.isprintable():
        what = "the address is unprintable"
        raise Refused(what, reason="ADDRESS_MALFORMED")
    match = GRPC_ADDRESS.fullmatch(address)
    if match is not None and 0 < int(match["port"]) <= HIGHEST_PORT:
        return
    if _LOCAL.fullmatch(address) and _is_readable(address):
        return
    what = "the address is none of an engine"
    why = ("it is written grpc://HOST:PORT, grpcs://HOST:PORT or local:postgresql://USER@HOST:PORT/DATABASE",)
    raise Refused(what, why=why, reason="ADDRESS_MALFORMED")


def _holds_password(address: str) -> bool:
    # libpq knows no fragments: to it, what follows a # belongs to the rest.
    plain = address.removeprefix("local:").replace("#", "%23")
    try:
        in_authority = urlsplit(plain).password is not None
    except ValueError:
        in_authority = "@" in address
    words = parse_qsl(plain.partition("?")[2], keep_blank_values=True)
    return in_authority or any(key.lower() in {"password", "passwd", "pwd"} for key, _ in words)


def _is_readable(address: str) -> bool:
    try:
        return urlsplit(address.removeprefix("local:")).port != 0 and "#" not in address
    except ValueError:
        return False


def check_name(name: str) -> str:
    """A deployment's name; raises Refused."""
    if DEPLOYMENT_NAME.fullmatch(name) is None:
        what = f"{name!r} is not a deployment's name"
        why = ("letters, digits, '.', '_' and '-', a letter or digit first, at most 63",)
        raise Refused(what, why=why, reason="NAME_MALFORMED")
    return name


def read_credentials(**references: str | bool) -> Credentials:
    """References by their field's name; raises Refused where the secret itself was given."""
    for field, reference in references.items():
        if isinstance(reference, str) and reference and not _is_reference(reference):
            what = f"the {field.replace('_', ' ')} is no reference"
            why = ("it is written env:NAME or file:/path; the secret itself is never given to a command",)
            raise Refused(what, why=why, reason="REFERENCE_MALFORMED")
    return Credentials(**references)  # type: ignore[arg-type]


def _is_reference(said: str) -> bool:
    return _REFERENCE.fullmatch(said) is not None and said.isprintable()


def read_labels(pairs: Sequence[str]) -> Mapping[str, str]:
    """`key=value` pairs; raises UsageError."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or _LABEL.fullmatch(key) is None or (value and _LABEL.fullmatch(value) is None):
            what = f"{pair!r} is not a label"
            raise UsageError(what, why=("a label is written key=value",))
        if labels.get(key, value) != value:
            what = f"the label {key} is given twice, as {labels[key]} and as {value}"
            raise UsageError(what)
        labels[key] = value
    return labels
