"""Which queue a task goes to: a pure function of its name and scope."""

from typing import Any

from kombu import Queue

from tern.domain import canary
from tern.domain.canary import read_canary
from tern.domain.errors import ScopeRefused
from tern.domain.scope import parse_message

QUEUE_OF = {
    "tern.operation.dispatch": "dispatch",
    "tern.operation.stop": "control",
    "tern.operation.start": "control",
    "tern.operation.cutover": "control",
    "tern.operation.cancel": "control",
    "tern.operation.retry": "control",
    "tern.operation.skip": "control",
    "tern.operation.revert": "control",
    "tern.operation.skip-revert": "control",
    "tern.operation.volume": "control",
    "tern.operation.progress": "poll",
    "tern.deployment.poll": "poll",
    "tern.apply.advance": "control",
    # It asks every engine what the change would do, and some may be silent: no stop waits behind that.
    "tern.apply.enqueue": "dispatch",
    "tern.progress.sweep": "sweep",
    "tern.sweep": "sweep",
}
"""By kind of work, so that a stop never waits behind polls."""

CANARY = "tern.queue.answer"
"""Goes to the queue that it names."""

QUEUES = tuple(Queue(name) for name in canary.QUEUES)


def route(
    name: str, args: Any, kwargs: dict[str, Any] | None, options: Any, task: Any = None, **_: Any
) -> dict[str, str]:
    """Celery's router. Raises ScopeRefused for an operation task without id and scope (G7), and for a task that
    Tern does not have.
    """
    del args, options, task
    if name == CANARY:
        given = kwargs or {}
        return {"queue": read_canary(given.get("queue"), given.get("token"))[0]}
    if name not in QUEUE_OF:
        message = f"there is no task {name}"
        raise ScopeRefused(message, reason="TASK_UNKNOWN")
    if name.startswith("tern.operation."):
        given = kwargs or {}
        parse_message(given.get("operation_id"), given.get("scope"))
    return {"queue": QUEUE_OF[name]}
