"""A moment as a person writes it: RFC 3339, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

from tern.domain.errors import UsageError

_AGO = re.compile(r"(?P<number>\d{1,9})\s*(?P<unit>s|m|min|h|d|w)(\s+ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EXAMPLES = "Write it as 2026-11-23T03:00:00Z, or as 10m ago (s, m, h, d, w)."


def read_moment(text: str, now: datetime) -> datetime:
    """The moment, in UTC; raises UsageError for what is none, and for a time of day without its zone."""
    words = text.strip()
    if words.lower() == "now":
        return now
    if (ago := _AGO.fullmatch(words.lower())) is not None:
        try:
            return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["number"])})
        except OverflowError:
            raise _unreadable(text, "it is before all time") from None
    try:
        moment = datetime.fromisoformat(words)
    except ValueError:
        raise _unreadable(text, "it is no time") from None
    if moment.tzinfo is None:
        raise _unreadable(text, "it says no time zone, and the same hour comes twenty-four times a day")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise _unreadable(text, "it is outside of all time") from None


def _unreadable(text: str, why: str) -> UsageError:
    what = f"{text!r} can't be read as a moment"
    return UsageError(what, why=(why,), next_step=_EXAMPLES)
