"""What becomes of an engine's id that can't be stored: written down, and adopted where that is certain (G3, G4)."""

from contextlib import suppress

from tern.domain.identity import RemoteId
from tern.domain.model import Claim, OperationScope, RemoteCall
from tern.domain.outcome import Ok
from tern.ports import Due, Fenced, Kept, Ports, StorageUnavailable

_TRIES = 3


def keep_id(claim: Claim, scope: OperationScope, remote_id: RemoteId, ports: Ports) -> None:
    """The claim under which the call was made is lost, or another id stands: the work that was answered for may go on
    all the same. Where the operation has no id and nothing was sent for it since, the engine is asked whether it knows
    this one.
    """
    kept = _written(claim, scope, remote_id, ports)
    if kept.call_id is None or not kept.may_be_adopted:
        return
    call = RemoteCall(scope.name, remote_id, scope.environment, claim.fence)
    if not isinstance(ports.engines.of(scope.deployment).progress(call), Ok):
        return
    if ports.store.adopt_kept(kept.call_id, scope.deployment.address) is Fenced.DONE:
        ports.bells.progress(Due(claim.operation_id, scope.name))


def _written(claim: Claim, scope: OperationScope, remote_id: RemoteId, ports: Ports) -> Kept:
    for _ in range(_TRIES - 1):
        # To write it again is harmless; who never can leaves its key in the row, by which the same work is found.
        with suppress(StorageUnavailable):
            return ports.store.keep_id(claim, scope, remote_id)
    return ports.store.keep_id(claim, scope, remote_id)
