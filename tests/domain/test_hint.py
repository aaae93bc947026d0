"""From a cause to who can mend it: every status of gRPC has one, and none sends to the wrong thing."""

import grpc
import pytest

from tern.domain.hint import Cause, cause_of, hint_of
from tern.domain.outcome import ANOTHER_DATABASE, TLS_FAILED
from tern.wire.outcomes import About
from tern.wire.transport import CallFailed, NotSent

ABOUT = About("BatchProgress", "A")
CODES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
CREDENTIALS = ("--token-ref",)
CERTIFICATES = ("--tls-ca", "--tls-cert", "--tls-key")
ADDRESS = ("--address",)
LIBPQ = 'connection to server at "10.0.0.7", port 5432'


def told(code: str, words: str = "no", reason: str = "") -> str:
    """What is kept of a failed call: its message alone."""
    return ABOUT.failed(CallFailed(code, words, reason)).message


@pytest.mark.parametrize("code", CODES)
def test_every_status_is_read_back_from_what_was_kept_of_it(code: str) -> None:
    """Else a code that somebody adds is silence, and its hint a guess."""
    assert cause_of(told(code)) is cause_of("no", code=code)
    hint = hint_of(cause_of(told(code)), "A", "apl-1/A")
    assert hint.what
    assert all(command.startswith("tern ") and consequence for command, consequence in hint.ways)


@pytest.mark.parametrize(
    ("words", "cause", "leads_to"),
    [
        (told("UNAUTHENTICATED", "unauthenticated"), Cause.CREDENTIALS, CREDENTIALS),
        # The word certificate in an engine's own refusal makes no certificate of a token.
        (told("UNAUTHENTICATED", "no certificate or token"), Cause.CREDENTIALS, CREDENTIALS),
        (told("PERMISSION_DENIED", "may not"), Cause.RIGHTS, CREDENTIALS),
        (
            told("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED"),
            Cause.CERTIFICATE,
            CERTIFICATES,
        ),
        (told("UNAVAILABLE", "Peer name x is not in peer certificate"), Cause.CERTIFICATE, CERTIFICATES),
        (told("UNAVAILABLE", "WRONG_VERSION_NUMBER"), Cause.CERTIFICATE, CERTIFICATES),
        (told("UNAVAILABLE", "DNS resolution failed for nowhere:50051"), Cause.NAME, ADDRESS),
        (told("UNAVAILABLE", "failed to connect: Connection refused (111)"), Cause.NOBODY_LISTENS, ADDRESS),
        (told("DEADLINE_EXCEEDED", "Deadline Exceeded"), Cause.TIME, ()),
        (told("UNAVAILABLE", "connection attempt timed out before receiving SETTINGS"), Cause.TIME, ()),
        (told("RESOURCE_EXHAUSTED", "too many"), Cause.LOAD, ()),
        (told("UNIMPLEMENTED", "no such method"), Cause.NOT_OFFERED, ()),
        (told("NOT_FOUND", "no apply"), Cause.UNKNOWN_ID, ()),
        (told("INTERNAL", "see the log"), Cause.ENGINE_TROUBLE, ()),
        (told("FAILED_PRECONDITION", "busy"), Cause.REFUSED, ()),
        (told("UNAVAILABLE", "Socket closed"), Cause.SILENCE, ()),
        # Whoever answers that can be reached: it is what stands behind it that can't.
        (told("UNAVAILABLE", "Connection refused (DATABASE_UNAVAILABLE)"), Cause.DATABASE, ()),
        (told("UNAVAILABLE", "a pooler (TRANSACTION_POOLER)"), Cause.DATABASE, ()),
        (told("UNAVAILABLE", f"{LIBPQ} failed: Connection refused"), Cause.DATABASE, ()),
        (told("UNAVAILABLE", "see its log (TOKENS_UNREADABLE)"), Cause.ENGINE_TROUBLE, ()),
        (
            ABOUT.not_sent(NotSent("SECRET_MISSING", "ENGINE_TOKEN is not set")).message,
            Cause.NOT_SENT,
            CREDENTIALS,
        ),
        ("", Cause.SILENCE, ()),
    ],
)
def test_a_hint_leads_to_what_can_mend_it_and_to_nothing_else(
    words: str, cause: Cause, leads_to: tuple[str, ...]
) -> None:
    assert cause_of(words) is cause
    commands = " ".join(command for command, _ in hint_of(cause, "A", "apl-1/A").ways)
    for option in (*CREDENTIALS, *CERTIFICATES, *ADDRESS):
        assert (option in commands) is (option in leads_to), (words, commands)
    assert "tern deployments check A" in commands


@pytest.mark.parametrize(
    ("reason", "cause"), [(TLS_FAILED, Cause.CERTIFICATE), (ANOTHER_DATABASE, Cause.ANOTHER)]
)
def test_a_reason_says_more_than_a_status(reason: str, cause: Cause) -> None:
    assert cause_of("whatever", code="UNAVAILABLE", reason=reason) is cause


def test_the_engine_s_log_is_shown_where_it_is_known_whose() -> None:
    """`logs --engine` is about one operation."""
    assert not any("--engine" in command for command, _ in hint_of(Cause.ENGINE_TROUBLE, "A").ways)
    assert any(
        "apl-1/A --engine" in command for command, _ in hint_of(Cause.ENGINE_TROUBLE, "A", "apl-1/A").ways
    )


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_way(cause: Cause) -> None:
    assert hint_of(cause, "A").ways
