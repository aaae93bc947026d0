"""Tasks about one operation or one deployment's batch. What may wait for an engine runs in a lane (lanes.py); stop and
cancel are sent and not waited for (halting.py).
"""

from tasks.app import app
from tasks.process import EXPECTED, lanes, ports
from tern.domain.control import Verb
from tern.domain.silence import CallKind
from tern.flows import control, dispatch, poll


@app.task(name="tern.operation.dispatch", throws=EXPECTED)
def operation_dispatch(*, operation_id: str, scope: str) -> None:
    """Hands the operation to its engine."""
    lanes.drive(CallKind.DISPATCH, scope, lambda: dispatch.dispatch(operation_id, scope, ports()))


@app.task(name="tern.operation.stop", throws=EXPECTED)
def operation_stop(*, operation_id: str, scope: str) -> None:
    """Brings a stop forward."""
    control.deliver(Verb.STOP, operation_id, scope, ports())


@app.task(name="tern.operation.start", throws=EXPECTED)
def operation_start(*, operation_id: str, scope: str) -> None:
    """Brings a start forward."""
    lanes.drive(CallKind.CONTROL, scope, lambda: control.deliver(Verb.START, operation_id, scope, ports()))


@app.task(name="tern.operation.cutover", throws=EXPECTED)
def operation_cutover(*, operation_id: str, scope: str) -> None:
    """Brings a cutover forward."""
    lanes.drive(CallKind.CONTROL, scope, lambda: control.deliver(Verb.CUTOVER, operation_id, scope, ports()))


@app.task(name="tern.operation.cancel", throws=EXPECTED)
def operation_cancel(*, operation_id: str, scope: str) -> None:
    """Brings a cancel forward."""
    control.deliver(Verb.CANCEL, operation_id, scope, ports())


@app.task(name="tern.operation.retry", throws=EXPECTED)
def operation_retry(*, operation_id: str, scope: str) -> None:
    """Brings a retry forward."""
    lanes.drive(CallKind.CONTROL, scope, lambda: control.deliver(Verb.RETRY, operation_id, scope, ports()))


@app.task(name="tern.operation.skip", throws=EXPECTED)
def operation_skip(*, operation_id: str, scope: str) -> None:
    """Brings a skip forward."""
    lanes.drive(CallKind.CONTROL, scope, lambda: control.deliver(Verb.SKIP, operation_id, scope, ports()))


@app.task(name="tern.operation.revert", throws=EXPECTED)
def operation_revert(*, operation_id: str, scope: str) -> None:
    """Brings a revert forward."""
    lanes.drive(CallKind.CONTROL, scope, lambda: control.deliver(Verb.REVERT, operation_id, scope, ports()))


@app.task(name="tern.operation.skip-revert", throws=EXPECTED)
def operation_skip_revert(*, operation_id: str, scope: str) -> None:
    """Brings the end of a revert window forward."""
    lanes.drive(
        CallKind.CONTROL, scope, lambda: control.deliver(Verb.SKIP_REVERT, operation_id, scope, ports())
    )


@app.task(name="tern.operation.volume", throws=EXPECTED)
def operation_volume(*, operation_id: str, scope: str) -> None:
    """Brings a change of pace forward."""
    lanes.drive(CallKind.CONTROL, scope, lambda: control.deliver(Verb.VOLUME, operation_id, scope, ports()))


@app.task(name="tern.operation.progress", throws=EXPECTED)
def operation_progress(*, operation_id: str, scope: str) -> None:
    """Looks at the operation."""
    lanes.drive(CallKind.POLL, scope, lambda: poll.look(operation_id, scope, ports()))


# One per deployment and second: kept out of Flower, which is there to show operations.
@app.task(name="tern.deployment.poll", throws=EXPECTED, send_events=False)
def deployment_poll(*, deployment: str) -> None:
    """Looks at all that is due at the deployment."""
    lanes.drive(CallKind.POLL, deployment, lambda: poll.poll(deployment, ports()))
