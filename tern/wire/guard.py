"""What is refused before anything is sent, because it could reach work that is not this operation's (G2, G7).

The store has validated the scope already; this looks once more at what is about to go out, since behind it there
is nobody else to look.
"""

from tern.domain.errors import ScopeRefused
from tern.domain.identity import DispatchKey, RemoteId, ScopeName
from tern.domain.model import Claim, Deployment, OperationScope, RemoteCall
from tern.wire.transport import NotSent

REMOTE_ID_LENGTH_MAX = 512
_KEY_LENGTH_MAX = 512


def check_call(call: RemoteCall, deployment: Deployment) -> None:
    """A call about a remote job carries that job's own id, at its own deployment; raises NotSent."""
    _check_name(call.name, deployment)
    if not call.remote_id.strip():
        reason = "EMPTY_REMOTE_ID"
        raise NotSent(reason, "the operation has no remote id, and an empty one could mean any job")
    if str(call.remote_id) == str(call.name.apply_id):
        reason = "REMOTE_ID_IS_PUBLIC_ID"
        raise NotSent(reason, "the public id of the apply is no engine's id")
    if not usable_remote_id(call.remote_id):
        reason = "REMOTE_ID_MALFORMED"
        raise NotSent(reason, "the remote id holds characters that no id has")


def check_key(scope: OperationScope, claim: Claim, key: DispatchKey, deployment: Deployment) -> None:
    """A question about a key is asked by the holder of that operation's claim; raises NotSent."""
    _check_name(scope.name, deployment)
    if scope.deployment.name != deployment.name:
        reason = "DEPLOYMENT_MISMATCH"
        raise NotSent(reason, f"the scope was loaded with deployment {scope.deployment.name or '(none)'}")
    if claim.operation_id != scope.operation_id:
        reason = "CLAIM_OF_ANOTHER_OPERATION"
        raise NotSent(
            reason, f"the claim is on operation {claim.operation_id}, the scope is {scope.operation_id}"
        )
    if not key.strip():
        reason = "EMPTY_KEY"
        raise NotSent(reason, "without a key the engine could not tell a repetition from a second change")
    if len(key) > _KEY_LENGTH_MAX or not key.isprintable():
        reason = "KEY_MALFORMED"
        raise NotSent(reason, "the key is none that Tern makes")


def check_dispatch(scope: OperationScope, claim: Claim, deployment: Deployment) -> None:
    """A change goes out at most once, with a key, and has something in it; raises NotSent."""
    check_key(scope, claim, claim.key, deployment)
    if scope.remote_id is not None:
        reason = "ALREADY_DISPATCHED"
        raise NotSent(reason, f"the engine has given it remote id {scope.remote_id}; it is only followed now")
    if not scope.changes:
        reason = "NO_TABLE_CHANGES"
        raise NotSent(reason, "it has no table changes, so there is nothing to dispatch")


def check_reviewed(digest: str, scope: OperationScope) -> None:
    """What goes out is what was accepted, to the letter and to the target; raises NotSent."""
    if digest != scope.change_digest:
        reason = "CHANGE_DIFFERS"
        raise NotSent(reason, "the change or its target is not the one that was accepted for this operation")


def usable_remote_id(remote_id: RemoteId | str) -> bool:
    """It can be stored and sent back as it is."""
    return bool(remote_id.strip()) and len(remote_id) <= REMOTE_ID_LENGTH_MAX and str(remote_id).isprintable()


def _check_name(name: ScopeName, deployment: Deployment) -> None:
    if not name.deployment or not deployment.name:
        reason = "DEPLOYMENT_EMPTY"
        raise NotSent(reason, "it names no deployment")
    if name.deployment != deployment.name:
        reason = "DEPLOYMENT_MISMATCH"
        raise NotSent(reason, f"this is the engine of deployment {deployment.name}")
    try:
        ScopeName.parse(str(name))
    except ScopeRefused as refusal:
        # Names travel as metadata, which takes visible ASCII only.
        raise NotSent(refusal.reason, refusal.what) from None
