"""From what went wrong with a call to who can mend it, and by which command. One rule for every face. Pure.

A hint never sends to the wrong thing: what has no token needs no certificate, and who can't be found by name is not
restarted. What kept an answer away is told by the gRPC status, the reason that came with it, and where both are silent
(a name that nobody knows, a handshake that failed) by grpc's own words.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from tern.domain.outcome import ANOTHER_DATABASE, TLS_FAILED


class Cause(StrEnum):
    """Why a call had no usable answer, or was refused."""

    CREDENTIALS = "credentials"
    """The engine does not know who we are."""
    RIGHTS = "rights"
    """It does, and we may not do that."""
    CERTIFICATE = "certificate"
    """Somebody is there, and one of the two does not trust the other."""
    NAME = "name"
    """No address belongs to the host's name."""
    NOBODY_LISTENS = "nobody_listens"
    """The host is there, and nobody listens on that port."""
    TIME = "time"
    """There was no answer in time: the network, or an engine under load."""
    LOAD = "load"
    """The engine says that it has too much to do."""
    ANOTHER = "another"
    """Somebody else answers at that address."""
    DATABASE = "database"
    """The engine answers, and does not get at its own database."""
    NOT_OFFERED = "not_offered"
    """The engine does not know this method."""
    UNKNOWN_ID = "unknown_id"
    """The engine does not know what it is asked about."""
    REFUSED = "refused"
    """The engine said no, for a reason of its own."""
    ENGINE_TROUBLE = "engine_trouble"
    """The engine answered that something inside it went wrong."""
    NOT_SENT = "not_sent"
    """Nothing left us: what we were told about the deployment does not do."""
    SILENCE = "silence"
    """Nobody was reached, and nothing says why."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What it looks like, and the commands that lead on, each with what it does."""

    what: str
    ways: tuple[tuple[str, str], ...]


_BY_CODE: Final = {
    "CANCELLED": Cause.SILENCE,
    "UNKNOWN": Cause.ENGINE_TROUBLE,
    "INVALID_ARGUMENT": Cause.REFUSED,
    "DEADLINE_EXCEEDED": Cause.TIME,
    "NOT_FOUND": Cause.UNKNOWN_ID,
    "ALREADY_EXISTS": Cause.REFUSED,
    "PERMISSION_DENIED": Cause.RIGHTS,
    "RESOURCE_EXHAUSTED": Cause.LOAD,
    "FAILED_PRECONDITION": Cause.REFUSED,
    "ABORTED": Cause.ENGINE_TROUBLE,
    "OUT_OF_RANGE": Cause.REFUSED,
    "UNIMPLEMENTED": Cause.NOT_OFFERED,
    "INTERNAL": Cause.ENGINE_TROUBLE,
    "UNAVAILABLE": Cause.SILENCE,
    "DATA_LOSS": Cause.ENGINE_TROUBLE,
    "UNAUTHENTICATED": Cause.CREDENTIALS,
}
"""Every status of gRPC but OK."""
_BY_REASON: Final = {
    TLS_FAILED: Cause.CERTIFICATE,
    ANOTHER_DATABASE: Cause.ANOTHER,
    "STRANGER": Cause.ANOTHER,
    "DATABASE_UNAVAILABLE": Cause.DATABASE,
    "TRANSACTION_POOLER": Cause.DATABASE,
    "TOKENS_UNREADABLE": Cause.ENGINE_TROUBLE,
}
"""What we call it ourselves, and how the PostgreSQL engine does."""

_REASON_AT_THE_END = re.compile(r"\(([A-Z][A-Z0-9_]*)\)\s*$")
"""Where the PostgreSQL engine puts its reason, for those who keep its words alone."""
_ITS_DATABASE = re.compile(r"connection to server (at|on socket) ")
"""How PostgreSQL's own client begins, in whosever words: they came from an engine, so that was reached."""

_TOLD = re.compile(rf"(?:was refused|has no usable answer): (?:({'|'.join(_BY_CODE)})\b)?")
"""How wire/outcomes.py begins what it says of a status."""
_NO_TRUST = re.compile(
    r"handshake failed|SSL_ERROR|CERTIFICATE|not in peer cert|WRONG_VERSION_NUMBER", re.IGNORECASE
)
_NO_NAME = re.compile(
    r"DNS resolution failed|name resolution|Name or service not known|Domain name not found|getaddrinfo|no such host"
    r"|could not translate host name",
    re.IGNORECASE,
)
_NOBODY = re.compile(r"Connection refused|ECONNREFUSED|actively refused", re.IGNORECASE)
_LATE = re.compile(r"timed out|timeout|Deadline", re.IGNORECASE)
_NOT_SENT = re.compile(r"was refused: nothing was sent: ")


def cause_of(words: str, *, code: str = "", reason: str = "") -> Cause:
    """From a failed call. Where only its message was kept the status and the reason are read from that."""
    if not reason and (found := _REASON_AT_THE_END.search(words)):
        reason = found[1]
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    if _NOT_SENT.search(words):
        return Cause.NOT_SENT
    told = _TOLD.search(words)
    code = code or (told[1] or "" if told else "")
    cause = _BY_CODE.get(code, Cause.REFUSED if told and not code else Cause.SILENCE)
    if "works at another database" in words or "another one answers there" in words:
        return Cause.ANOTHER
    if cause not in {Cause.SILENCE, Cause.TIME}:
        return cause
    if _ITS_DATABASE.search(words):
        return Cause.DATABASE
    # What the network says comes under UNAVAILABLE, whatever it is.
    for pattern, meant in (
        (_NO_TRUST, Cause.CERTIFICATE),
        (_NO_NAME, Cause.NAME),
        (_NOBODY, Cause.NOBODY_LISTENS),
    ):
        if pattern.search(words):
            return meant
    return Cause.TIME if cause is Cause.SILENCE and _LATE.search(words) else cause


def hint_of(cause: Cause, deployment: str, scope: str = "") -> Hint:
    """What leads on. scope: the operation that it is about, where it is about one."""
    check = (f"tern deployments check {deployment}", "asks its engine now, and says what it answers")
    change = f"tern deployments set {deployment}"
    address = (f"{change} --address ADDRESS --reason '…'", "if its engine is reached elsewhere by now")
    log = (f"tern logs {scope} --engine", "shows what the engine itself has written about it")
    match cause:
        case Cause.CREDENTIALS:
            token = (f"{change} --token-ref REF --reason '…'", "names the token that its engine expects")
            return Hint(
                "its engine does not know us: the token is missing, or is not the engine's", (token, check)
            )
        case Cause.RIGHTS:
            token = (f"{change} --token-ref REF --reason '…'", "names a token that may do it")
            return Hint("its engine knows us, and our token may not do that", (token, check))
        case Cause.CERTIFICATE:
            trust = (f"{change} --tls-ca REF --reason '…'", "names whom we trust")
            own = (
                f"{change} --tls-cert REF --tls-key REF --reason '…'",
                "names what we show, where it wants a certificate",
            )
            return Hint(
                "somebody is there, and one of the two does not trust the other's certificate",
                (trust, own, check),
            )
        case Cause.NAME:
            return Hint(
                "no address belongs to the name in its address: DNS, or a slip of the pen", (address, check)
            )
        case Cause.NOBODY_LISTENS:
            words = "its machine answers, and nobody listens on that port: its engine is not running, or elsewhere"
            return Hint(words, (check, address))
        case Cause.TIME:
            words = "there was no answer in time: the network between us, or an engine under load"
            return Hint(words, (check,))
        case Cause.LOAD:
            return Hint("its engine says that it has too much to do; it is asked again by itself", (check,))
        case Cause.ANOTHER:
            return Hint("another engine than the deployment's answers at its address", (check, address))
        case Cause.DATABASE:
            return Hint(
                "its engine answers, and does not get at its database: that is what to mend", (check,)
            )
        case Cause.NOT_OFFERED:
            words = "its engine does not offer that: an engine of another kind or version, or another service there"
            return Hint(words, (check,))
        case Cause.UNKNOWN_ID:
            return Hint(
                "its engine does not know what it is asked about: it was replaced, or has forgotten", (check,)
            )
        case Cause.REFUSED:
            return Hint("its engine said no, in the words above", (log, check) if scope else (check,))
        case Cause.ENGINE_TROUBLE:
            return Hint("something went wrong inside its engine", (log, check) if scope else (check,))
        case Cause.NOT_SENT:
            secret = (
                f"{change} --token-ref REF --reason '…'",
                "if it is a reference to a secret; TLS likewise",
            )
            words = (
                "nothing was sent: what we were told of the deployment can't be used where the workers run"
            )
            return Hint(words, (check, secret))
        case Cause.SILENCE:
            return Hint("nobody was reached there: its engine may be down, or the way to it", (check,))
        case _:
            assert_never(cause)
