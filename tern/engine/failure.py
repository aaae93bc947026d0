"""What an error of the server means for a step: it never works, it may work later, or nobody knows.

Only the first kind fails a job. What isn't known is tried again and shown, because a verdict can't be taken back.
"""

from enum import StrEnum

import psycopg


class Meaning(StrEnum):
    """How to go on after an error."""

    DEFINITIVE = "definitive"
    LOCKED = "locked"
    TRANSIENT = "transient"
    UNKNOWN = "unknown"


# Classes of SQLSTATE that talk about our statement or the data, not about the moment.
_DEFINITIVE_CLASSES = frozenset({"0A", "22", "23", "2B", "3F", "42", "54"})
# 55000: the object is of the wrong kind or state (an invalid index in USING INDEX). 55P04: a new enum value.
_DEFINITIVE = frozenset({"55000", "55P04", "44000"})
_TRANSIENT_CLASSES = frozenset({"08", "25", "28", "40", "53", "57"})
# 55006: somebody uses it right now.
_TRANSIENT = frozenset({"55006"})


def meaning(error: psycopg.Error) -> Meaning:
    """Reads the SQLSTATE; an error without one comes from a connection that broke."""
    state = error.sqlstate
    if state is None:
        return Meaning.TRANSIENT if isinstance(error, psycopg.OperationalError) else Meaning.UNKNOWN
    if state == "55P03":
        return Meaning.LOCKED
    if state in _DEFINITIVE or state[:2] in _DEFINITIVE_CLASSES:
        return Meaning.DEFINITIVE
    if state in _TRANSIENT or state[:2] in _TRANSIENT_CLASSES:
        return Meaning.TRANSIENT
    return Meaning.UNKNOWN


def words(error: psycopg.Error) -> str:
    """The server's own words, its detail and hint included; never the statement with its values."""
    diagnosis = error.diag
    # What libpq says of a connection that can't be made has several lines.
    parts = [diagnosis.message_primary or " ".join(str(error).split()) or type(error).__name__]
    parts += [part for part in (diagnosis.message_detail, diagnosis.message_hint) if part]
    state = f" [{error.sqlstate}]" if error.sqlstate else ""
    return ". ".join(part.rstrip(".") for part in parts) + state
