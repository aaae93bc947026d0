"""Every error that Tern raises on purpose. Outcomes of calls are not here: those are values (outcome.py).

TernError
├── UsageError         the command or message can't be read as it stands (exit 2)
├── NotFound           what was named does not exist (exit 3)
├── NotAllowed         the caller may not do this (exit 4)
├── Refused            a precondition, a scope rule or a conflict forbids it; nothing was changed (exit 5)
│   └── ScopeRefused   an operation, a message or a row does not belong to what was asked for (exit 5, G7)
├── Unreachable        a server that is needed does not answer (exit 69)
├── TryAgain           it may work in a moment; nothing was changed by this try (exit 75)
└── Misconfigured      settings are missing, wrong, or the database is not migrated (exit 78)

IllegalTransition is no TernError: nobody but a bug in Tern can cause it.
"""

from typing import ClassVar


class TernError(Exception):
    """One refusal or failure in the shape that every door shows: what, why, what stayed unchanged, what next.

    `reason` is a stable upper-case word, the same in the CLI, the logs and the API; `why` holds all causes.
    """

    exit_code: ClassVar[int] = 1
    default_reason: ClassVar[str] = "UNEXPECTED"

    def __init__(
        self,
        what: str,
        *,
        why: tuple[str, ...] = (),
        unchanged: str = "Nothing was changed.",
        next_step: str = "",
        reason: str = "",
    ) -> None:
        super().__init__("; ".join([what, *why]))
        self.what = what
        self.why = why
        self.unchanged = unchanged
        self.next_step = next_step
        self.reason = reason or self.default_reason


class UsageError(TernError):
    """The command or message can't be read as it stands."""

    exit_code = 2
    default_reason = "USAGE"


class NotFound(TernError):  # noqa: N818 - reads as the outcome that it is
    """What was named does not exist."""

    exit_code = 3
    default_reason = "NOT_FOUND"


class NotAllowed(TernError):  # noqa: N818
    """The caller may not do this."""

    exit_code = 4
    default_reason = "NOT_ALLOWED"


class Refused(TernError):  # noqa: N818
    """A precondition, a scope rule or a conflict forbids it."""

    exit_code = 5
    default_reason = "REFUSED"


class ScopeRefused(Refused):
    """Something does not belong to the operation that was asked for; `reason` names the rule (G7)."""

    default_reason = "SCOPE_REFUSED"


class Unreachable(TernError):  # noqa: N818
    """A server that is needed does not answer."""

    exit_code = 69
    default_reason = "UNREACHABLE"


class TryAgain(TernError):  # noqa: N818
    """It may work in a moment."""

    exit_code = 75
    default_reason = "TRY_AGAIN"


class Misconfigured(TernError):  # noqa: N818
    """Settings are missing or wrong, or the database is not migrated."""

    exit_code = 78
    default_reason = "MISCONFIGURED"


def storage_unavailable(*why: str) -> Unreachable:
    """What a silent database means for whoever asked; each door decides whether its own words may be shown."""
    return Unreachable(
        "PostgreSQL did not answer",
        why=why,
        unchanged="It is not known whether the last step was written; look before you repeat it.",
        next_step="`tern doctor` says what can be reached.",
        reason="STORAGE_UNAVAILABLE",
    )


class IllegalTransition(AssertionError):  # noqa: N818
    """A state was about to change along an arrow that the table in states.py does not have."""
