"""What came of a call to an engine: three values, because two would be a lie (G10).

Ok says that it happened, Refused that it definitely did not, Unknown that nobody here can tell. Only wire makes
them from status codes; flows consume them with `match` and `assert_never`.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

Value_co = TypeVar("Value_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Ok(Generic[Value_co]):
    """It happened, and this is the answer."""

    value: Value_co


@dataclass(frozen=True, slots=True)
class Refused:
    """It definitely did not happen: the engine, or we before sending, said no. `code` is the gRPC status name.

    identity: the database that the refusing engine says it works at; '' where it didn't say, or nobody was asked.
    """

    message: str
    reason: str = ""
    code: str = ""
    identity: str = ""

    @property
    def was_sent(self) -> bool:
        """The engine said no. What we refused before sending (no credentials, no way there) has no status code, and
        says nothing about the engine.
        """
        return bool(self.code)


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not have happened. `code` is the gRPC status name where there was one.

    identity: the database that an engine named with an answer that could not be used; mostly ''.
    """

    message: str
    reason: str = ""
    code: str = ""
    identity: str = ""


TLS_FAILED = "TLS_FAILED"
"""The reason of an Unknown from somebody who is there, where one of the two does not trust the other: silence it is
not, and what has to be mended is on our side or theirs.
"""

ANOTHER_DATABASE = "ANOTHER_DATABASE"
"""The reason of a Refused that is our own: the engine that answered names another database than the deployment's."""

Outcome = Ok[Value_co] | Refused | Unknown
