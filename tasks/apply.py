"""Tasks about a whole apply."""

from tasks.app import app
from tasks.process import EXPECTED, ports
from tern.flows import accept, advance


@app.task(name="tern.apply.advance", throws=EXPECTED)
def apply_advance(*, apply_id: str) -> None:
    """Keeps the apply true to its operations."""
    advance.advance(apply_id, ports())


@app.task(name="tern.apply.enqueue", throws=EXPECTED)
def apply_enqueue(**message: object) -> None:
    """Takes a rollout in; repeated with its key until the apply is seen, it makes one. tern/doors/request.py says
    what a message holds, `tern enqueued KEY` what became of it.
    """
    accept.enqueue_message(message, ports())
