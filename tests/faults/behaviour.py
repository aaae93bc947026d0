"""What a scripted engine does instead of, before or after the right thing.

    engine.script("Apply", lose_answer(), fail("UNAVAILABLE"), hang(30))

Each behaviour serves one call; when they are used up, the engine behaves.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message


class Rejected(Exception):  # noqa: N818
    """The call ends with a status instead of an answer."""

    def __init__(
        self, code: grpc.StatusCode, reason: str = "", message: str = "", domain: str = "tern"
    ) -> None:
        super().__init__(message)
        self.domain = domain
        self.code = code
        self.reason = reason
        self.message = message or code.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Turn:
    """One call on its way through the engine. `perform` does the right thing, with its effect."""

    method: str
    request: Message
    answer_type: Callable[..., Any]
    perform: Callable[[], Message]
    closing: threading.Event


Behaviour = Callable[[Turn], "Message | bytes"]


def behave() -> Behaviour:
    """The right thing; for a place in the middle of a script."""
    return lambda turn: turn.perform()


def fail(code: str, reason: str = "", message: str = "", domain: str = "tern") -> Behaviour:
    """A status, before any effect."""

    def run(turn: Turn) -> Message:
        raise Rejected(grpc.StatusCode[code], reason, message, domain)

    return run


def not_accepted(words: str = "not today") -> Behaviour:
    """The contract's other way to refuse: accepted = false inside an OK answer."""
    return lambda turn: turn.answer_type(accepted=False, error_message=words)


def answer(**fields: Any) -> Behaviour:
    """An answer of one's own, without any effect: a wrong id, an empty one, a stranger's."""
    return lambda turn: turn.answer_type(**fields)


def altered(**fields: Any) -> Behaviour:
    """The effect, and then the right answer with some fields changed."""

    def run(turn: Turn) -> Message:
        right = turn.perform()
        right.MergeFrom(turn.answer_type(**fields))
        for name, value in fields.items():
            if not value:
                right.ClearField(name)
        return right

    return run


def lose_answer(code: str = "UNAVAILABLE") -> Behaviour:
    """The effect, and then a status, as from a connection that broke in between."""

    def run(turn: Turn) -> Message:
        turn.perform()
        raise Rejected(grpc.StatusCode[code], message="the answer got lost")

    return run


def hang(seconds: float, *, after_effect: bool = True) -> Behaviour:
    """The effect, and then no answer for so long; or first nothing for so long, and then the effect."""

    def run(turn: Turn) -> Message:
        if after_effect:
            right = turn.perform()
            turn.closing.wait(seconds)
            return right
        turn.closing.wait(seconds)
        return turn.perform()

    return run


def delay(seconds: float) -> Behaviour:
    """The right thing, late."""
    return hang(seconds, after_effect=False)


def garbage(content: bytes) -> Behaviour:
    """Bytes that are no message, or not this one."""
    return lambda _turn: content


def then(action: Callable[[], Any], *, code: str | None = None) -> Behaviour:
    """The effect, then any action (cut a relay, kill a worker), then the answer or a status."""

    def run(turn: Turn) -> Message:
        right = turn.perform()
        action()
        if code is not None:
            raise Rejected(grpc.StatusCode[code])
        return right

    return run
