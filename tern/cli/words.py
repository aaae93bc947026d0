"""How numbers, ages and states are said to a person; every symbol comes with its word."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from tern.cli import symbols
from tern.domain import counting
from tern.domain.contact import Contact
from tern.domain.holds import HoldKind
from tern.domain.silence import CallKind, Silence
from tern.domain.states import ApplyState, State

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_SPELLED_OUT_BELOW = 100_000
_CALLS: Mapping[CallKind, tuple[str, str]] = {
    CallKind.DISPATCH: ("dispatch", "dispatches"),
    CallKind.CONTROL: ("control", "controls"),
    CallKind.POLL: ("look", "looks"),
    CallKind.HEALTH: ("question for its health", "questions for its health"),
}


_KEY = re.compile(r"Key \(.+?\)=\(.*?\) [a-z][^.\[]*[^.\[ ]")


class Sign(NamedTuple):
    """A symbol, the word that always stands with it, and the colour that only helps."""

    symbol: str
    word: str
    style: str


SIGNS: Mapping[State, Sign] = {
    State.PENDING: Sign(symbols.WAITING, "waiting", "dim"),
    State.RUNNING: Sign(symbols.UNDER_WAY, "running", "cyan"),
    State.WAITING_FOR_CUTOVER: Sign(symbols.READY, "ready to cut over", "yellow"),
    State.CUTTING_OVER: Sign(symbols.CHANGING_OVER, "cutting over", "cyan"),
    State.REVERT_WINDOW: Sign(symbols.WAITING, "can be reverted", "green"),
    State.REVERTING: Sign(symbols.CHANGING_OVER, "reverting", "cyan"),
    State.RESUMING: Sign(symbols.AGAIN, "resuming", "cyan"),
    State.FAILED_RETRYABLE: Sign(symbols.AGAIN, "retrying", "yellow"),
    State.UNCERTAIN: Sign(symbols.UNKNOWN, "uncertain", "yellow"),
    State.COMPLETED: Sign(symbols.DONE, "completed", "green"),
    State.FAILED: Sign(symbols.FAILED, "failed", "red"),
    State.CANCELLED: Sign(symbols.SET_ASIDE, "cancelled", "magenta"),
    State.REVERTED: Sign(symbols.SET_ASIDE, "reverted", "magenta"),
    State.SKIPPED: Sign(symbols.SET_ASIDE, "skipped", "dim"),
    State.STOPPED: Sign(symbols.STOPPED, "stopped", "yellow"),
}
UNKNOWN = Sign(symbols.UNKNOWN, "unknown", "yellow")
"""Of a statement: nobody can tell whether it is in."""
COPYING = Sign(symbols.UNDER_WAY, "copying", "cyan")
LOCKED = Sign(symbols.WAITING, "waiting for a lock", "yellow")
LOST_CONTACT = Sign(symbols.UNKNOWN, "lost contact", "yellow")

APPLY_SIGNS: Mapping[ApplyState, Sign] = {
    **{ApplyState(state.value): sign for state, sign in SIGNS.items() if state.value in set(ApplyState)},
    ApplyState.RUNNING_DEGRADED: Sign(symbols.UNDER_WAY, "running, degraded", "yellow"),
    ApplyState.PAUSED: Sign(symbols.STOPPED, "paused", "yellow"),
}


plural = counting.plural

SET_BACK = "the clock was set back"
"""What is said of an age below zero: it was written before the database's clock was set back."""


def duration(seconds: float) -> str:
    """A length of time in at most two units; SET_BACK where it ends before it begins."""
    if seconds < 0:
        return SET_BACK
    whole = max(0, int(seconds))
    if whole < 1:
        return "under 1 s"
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE:02} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


_TRIED_AGAIN = frozenset({HoldKind.BACKOFF, HoldKind.SILENT, HoldKind.REFUSED, HoldKind.CLAIMED})


def until_words(kind: HoldKind, seconds: float) -> str:
    """What happens when a time that a reason names is over: some are gone then, some are only tried once more."""
    return f"next try in {duration(seconds)}" if kind in _TRIED_AGAIN else f"clears in {duration(seconds)}"


def ago(seconds: float) -> str:
    """How old something is; SET_BACK for what is still to come."""
    if seconds < 0:
        return SET_BACK
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def count(number: int) -> str:
    """A number of rows: exact while that is short."""
    if number < _SPELLED_OUT_BELOW:
        return f"{number:,}"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.3g} {unit}" if number < 1000 * size else f"{number // size:,} {unit}"
    return str(number)


def printable(line: str) -> str:
    """The line as wide as it is, with a blank for whatever a terminal would obey: controls, breaks, directions."""
    return line if line.isprintable() else "".join(each if each.isprintable() else " " for each in line)


def one_line(text: str) -> str:
    """Text without line breaks or control characters: what an engine says must not move the cursor."""
    return " ".join(printable(text).split())


def key_first(said: str) -> str:
    """A server's words for a line that may be cut: which row it is about stands before what could not be done."""
    found = _KEY.search(said)
    if found is None:
        return said
    rest = f"{said[: found.start()].rstrip(' .')} {said[found.end() :].strip(' .')}".strip()
    return f"{found[0]}: {rest}" if rest else found[0]


def contact_words(contact: Contact) -> str:
    """How an engine is not heard any more."""
    since = "" if contact.for_s is None else f", for {duration(contact.for_s)}"
    calls = "last call" if contact.tries == 1 else f"last {contact.tries} calls"
    return f"no usable answer to the {calls}{since}"


def silence_words(silence: Silence) -> str:
    """How an engine leaves calls of a kind without an answer."""
    one, many = _CALLS[silence.kind]
    calls = f"last {one}" if silence.in_a_row == 1 else f"last {silence.in_a_row} {many}"
    words = f"no answer to the {calls}, for {duration(silence.since_s)}"
    return f"{words}; it goes slowly" if silence.is_slow else words
