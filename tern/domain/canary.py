"""Whether anybody reads a queue: a token is sent through it, and whoever reads it writes the token down. Pure."""

import re

from tern.domain.errors import UsageError

QUEUES = ("control", "sweep", "dispatch", "poll")
"""Kinds of work, each with a queue of its own, so that a stop never waits behind polls."""
_TOKEN = re.compile(r"[0-9a-f]{8,64}")


def read_canary(queue: object, token: object) -> tuple[str, str]:
    """Queue and token of a message; raises UsageError for what `tern doctor` never sends."""
    why = []
    if queue not in QUEUES:
        why.append(f"queue is one of {', '.join(QUEUES)}")
    if not isinstance(token, str) or _TOKEN.fullmatch(token) is None:
        why.append("token is no token")
    if why:
        what = "the message can't be read"
        raise UsageError(what, why=tuple(why))
    return str(queue), str(token)
