"""The symbols that stand before a word, each once, and what stands for them where a terminal lacks such a character.

Where the locale or PYTHONIOENCODING is poorer than what is said, each symbol keeps a form of its own: two states must
not look alike because somebody logged in over a serial line.
"""

import codecs
from collections.abc import Mapping
from typing import TextIO

DONE = "✔"
FAILED = "✖"
UNDER_WAY = "◐"
WAITING = "◷"
READY = "▣"
CHANGING_OVER = "⇄"
AGAIN = "⟳"
STOPPED = "॥"
SET_ASIDE = "⊘"
UNKNOWN = "?"
OPEN = "○"

ASCII: Mapping[str, str] = {
    DONE: "+",
    FAILED: "x",
    UNDER_WAY: "%",
    WAITING: ".",
    READY: "#",
    CHANGING_OVER: ">",
    AGAIN: "@",
    STOPPED: "=",
    SET_ASIDE: "-",
    OPEN: "o",
    # What is drawn and written beside them.
    "…": "...",
    "·": "-",
    "→": "->",
    "─": "-",
    "│": "|",
    "├": "|",
    "└": "`",
    "±": "+-",
    "µ": "u",
    "§": "section ",
}
_HANDLER = "tern.ascii"


def use(stream: TextIO) -> None:
    """What the stream's encoding lacks is written in its ASCII form, else as a question mark, and never a traceback."""
    codecs.register_error(_HANDLER, _replaced)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=_HANDLER)


def has_all(stream: TextIO) -> bool:
    """The stream can hold any text there is."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-") in {"utf-8", "utf8"}


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(ASCII.get(each, "?") for each in missing), error.end
