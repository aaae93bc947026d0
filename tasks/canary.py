"""Canaries: `tern doctor` sends one through each queue, and the worker that reads it says so in PostgreSQL."""

import time

from tasks.app import app
from tasks.process import EXPECTED, OWNER, ports
from tern.domain.canary import QUEUES
from tern.flows import canary


@app.task(name="tern.queue.answer", throws=EXPECTED, send_events=False)
def queue_answer(*, queue: str, token: str) -> None:
    """Answers from the queue that it was read from."""
    canary.answer(queue, token, OWNER, ports(), time.time())


def release(token: str) -> None:
    """Sends one through every queue; raises what Celery raises where the broker does not take them."""
    for queue in QUEUES:
        app.signature("tern.queue.answer", kwargs={"queue": queue, "token": token}).apply_async()
