"""What a worker does with a message before it is a task: looked at once, for a broker that anyone can write to."""

from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default


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


def check_shape(payload: object, headers: object) -> None:
    """Raises InvalidTaskError for what is no message of Celery's second protocol."""
    wrong: list[str] = []
    match payload:
        case [list(), dict(), dict() | None]:
            pass
        case _:
            wrong.append("its body is no list of arguments, named arguments and what comes next")
    if not isinstance(headers, dict) or not isinstance(headers.get("id"), str):
        wrong.append("it has no id")
    else:
        wrong += [
            f"its {name} is no text"
            for name in ("eta", "expires")
            if not isinstance(headers.get(name), str | None)
        ]
        match headers.get("timelimit"):
            case None | [int() | float() | None, int() | float() | None]:
                pass
            case _:
                wrong.append("its timelimit is no pair of seconds")
    if wrong:
        raise InvalidTaskError("; ".join(wrong))
