"""What a worker does with a message before it is a task: looked at once, for a broker that anyone can write to."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default

from tasks.routing import route
from tern.domain.errors import ScopeRefused


def checked(task: Any, app: Any, consumer: Any, **given: Any) -> Callable[..., Any]:
    """Celery's own strategy, behind a look at the message's shape.

    Without it a body of another shape ends the whole worker, and so it does again with each redelivery; what is
    raised here is logged, and the message is thrown away.
    """
    handle = default(task, app, consumer, **given)

    def look_first(message: Any, body: Any, *more: Any, **others: Any) -> Any:
        if body is not None:
            text = "a message of the protocol before this one"
            raise InvalidTaskError(text)
        check_shape(message.payload, message.headers)
        return handle(message, body, *more, **others)

    return look_first


_TEXTS = ("expires", "shadow", "group", "root_id", "parent_id", "origin")
_NUMBERS = ("retries", "group_index", "replaced_task_nesting")


def check_shape(payload: object, headers: object) -> None:
    """Raises InvalidTaskError for what is no message of Celery's second protocol, and for what Tern never asks for.

    Much of it Celery would look at only after the task, and fail there without acknowledging: the message would
    keep its place in the worker, and four of them make a worker deaf.
    """
    wrong: list[str] = []
    match payload:
        case [list(), dict(), dict() | None as embedded]:
            wrong += _wrong_with_what_comes_next(embedded or {})
        case _:
            wrong.append("its body is no list of arguments, named arguments and what comes next")
    if not isinstance(headers, dict) or not isinstance(headers.get("id"), str):
        wrong.append("it has no id")
    else:
        wrong += _wrong_with_headers(headers)
    if wrong:
        raise InvalidTaskError("; ".join(wrong))


def _wrong_with_headers(headers: Mapping[str, object]) -> Iterator[str]:
    for name in _TEXTS:
        if not isinstance(headers.get(name), str | None):
            yield f"its {name} is no text"
    for name in _NUMBERS:
        if not isinstance(headers.get(name), int | None):
            yield f"its {name} is no number"
    if headers.get("eta") is not None:
        yield "it is for later; it would wait in a worker's memory"
    if not isinstance(headers.get("stamps"), dict | None):
        yield "its stamps have no names"
    if not isinstance(headers.get("stamped_headers"), list | None):
        yield "its stamped headers are no list"
    match headers.get("timelimit"):
        case None | [int() | float() | None, int() | float() | None]:
            pass
        case _:
            yield "its timelimit is no pair of seconds"


def _wrong_with_what_comes_next(embedded: Mapping[str, object]) -> Iterator[str]:
    """One message may ring the next bell; there is no result that a callback could be called with."""
    for name in ("callbacks", "errbacks", "chord"):
        if embedded.get(name):
            yield f"it has {name}"
    match embedded.get("chain"):
        case None | []:
            pass
        case [*bells] if all(_is_bell(bell) for bell in bells):
            pass
        case _:
            yield "what it is to ring next is no bell"


def _is_bell(bell: object) -> bool:
    """What the router would take: it must not be what fails once the first bell is heard."""
    match bell:
        case {"task": str(name), "args": [], "kwargs": dict(kwargs), "options": dict()}:
            try:
                route(name, [], kwargs, {})
            except ScopeRefused:
                return False
            return True
        case _:
            return False
