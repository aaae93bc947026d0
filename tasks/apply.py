"""Tasks about a whole apply."""

from collections.abc import Mapping, Sequence

from tasks.app import app
from tasks.process import EXPECTED, ports
from tern.flows import accept, advance
from tern.ports import NewApply


@app.task(name="tern.apply.advance", throws=EXPECTED)
def apply_advance(*, apply_id: str) -> None:
    """Keeps the apply true to its operations."""
    advance.advance(apply_id, ports())


@app.task(name="tern.apply.enqueue", throws=EXPECTED)
def apply_enqueue(
    *,
    plan: str,
    environment: str,
    deployments: Sequence[str],
    policy: Mapping[str, object],
    caller: str,
    reason: str,
    key: str,
    allow_unsafe: bool = False,
) -> None:
    """Takes a rollout in; repeated with its key until the apply is seen, it makes one."""
    new = NewApply.from_message(
        plan, environment, deployments, policy, caller, reason, key, allow_unsafe=allow_unsafe
    )
    accept.accept_apply(new, ports())
