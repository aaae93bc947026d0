"""Errors over gRPC: the same shape on the other side, and never more than a trailer can hold."""

import grpc
import pytest

from tern.domain.errors import (
    Misconfigured,
    NotAllowed,
    NotFound,
    Refused,
    ScopeRefused,
    TernError,
    TryAgain,
    Unreachable,
    UsageError,
)
from tern.ports import StorageUnavailable
from tern.wire.control.status import as_told, code_of, error_of, status_of


class Ended:
    """A call as its caller sees it, ended with a status."""

    def __init__(self, status: grpc.Status) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> object:
        return self._status.trailing_metadata


ERRORS = [UsageError, NotFound, NotAllowed, Refused, ScopeRefused, Unreachable, TryAgain, Misconfigured]


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_arrives_as_it_was_raised(kind: type[TernError]) -> None:
    error = kind(
        "it is so", why=("first", "zweitens: ä"), unchanged="all", next_step="go on", reason="THAT_WORD"
    )
    back = error_of(Ended(status_of(error)))  # type: ignore[arg-type]
    assert type(back) is kind
    assert (back.what, back.why, back.unchanged, back.next_step, back.reason, back.exit_code) == (
        "it is so",
        ("first", "zweitens: ä"),
        "all",
        "go on",
        "THAT_WORD",
        kind.exit_code,
    )


@pytest.mark.parametrize("kind", ERRORS)
def test_no_kind_of_error_is_unknown_or_ok(kind: type[TernError]) -> None:
    assert code_of(kind("x")) not in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK, grpc.StatusCode.INTERNAL}


def test_what_is_unexpected_tells_a_mark_and_nothing_else() -> None:
    told = as_told(ZeroDivisionError("the secret is 42"), "abc123")
    assert code_of(told) is grpc.StatusCode.INTERNAL
    assert "42" not in str(told)
    assert "abc123" in str(told)
    silent = as_told(StorageUnavailable("FATAL: password of tern@db.internal"), "abc123")
    assert (code_of(silent), silent.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
    assert "db.internal" not in str(silent)


@pytest.mark.parametrize("letter", ["x", "ä", "€", "\U0001f600", "\ud800", "\x00"])
def test_a_trailer_holds_it_however_long_it_is(letter: str) -> None:
    """GRPC refuses to read more than eight kilobytes of trailers, and shows that refusal instead of ours."""
    error = Refused(
        letter * 9_000, why=(letter * 9_000,) * 900, next_step=letter * 9_000, unchanged=letter * 9_000
    )
    status = status_of(error)
    size = sum(len(key) + len(value) for key, value in status.trailing_metadata)
    # The message travels once more by itself, percent-encoded.
    assert size + 3 * len(status.details.encode()) < 6_000
    back = error_of(Ended(status))  # type: ignore[arg-type]
    assert back.reason == "REFUSED"
    assert back.why[-1].startswith("and ")


class Broken:
    """A call that something other than a ControlService ended."""

    def __init__(self, code: grpc.StatusCode, message: str = "") -> None:
        self._code, self._message = code, message

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return ()


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_an_end_in_other_words_is_an_error_of_ours(code: grpc.StatusCode) -> None:
    """G10: nothing that the network says is taken for an answer of Tern's."""
    error = error_of(Broken(code, "connection reset"))  # type: ignore[arg-type]
    assert code.name in error.why[0]
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN}:
        assert isinstance(error, Unreachable)
        assert "not known" in error.unchanged
