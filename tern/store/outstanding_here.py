"""What is outstanding, asked about where its deployment is by now: nothing proves that the engine there goes on
with it, so a person's words go together with what is found (G2, G13).
"""

from tern.domain.identity import RemoteId
from tern.domain.outstanding import OutstandingLook
from tern.ports import NotClaimed
from tern.store.deployment import deployment_in
from tern.store.doubt import lock_operations
from tern.store.outstanding_cancel import ask_to_end
from tern.store.outstanding_look import DEPLOYMENT, FENCE, LINE_OF, ends, question
from tern.store.outstanding_settle import tell
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_IS_ANOTHERS = text(
    # An id is one engine's own: at another engine it may be the id of somebody else's work.
    "SELECT 1 FROM remote_ids WHERE engine_number = :number AND remote_id = :id AND operation_id <> :own"
)

_OPERATION_OF = text("SELECT operation_id FROM outstanding_calls WHERE id = :id")


class OutstandingHereSteps(Steps):
    """The part of outstanding_port.OutstandingStore about the engine that serves a target now."""

    def outstanding_here(self, call_id: int, remote_id: RemoteId | None = None) -> OutstandingLook | None:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            line = tx.execute(LINE_OF, {"id": call_id}).one()
            return _look(tx, line, remote_id or line.remote_id)

    def end_here(self, call_id: int, remote_id: RemoteId, caller: str, reason: str) -> OutstandingLook | None:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            # Its operation before the line, as everywhere.
            own = tx.execute(_OPERATION_OF, {"id": call_id}).scalar_one()
            lock_operations(tx, [own])
            ask_to_end(tx, [call_id], caller, reason)
            line = tx.execute(LINE_OF, {"id": call_id}).one()
            look = _look(tx, line, remote_id)
            if look is not None:
                words = f"{remote_id} at {look.deployment.address} is that job, says {caller}: {reason}"
                tell(tx, line, "outstanding_same_job", caller, words)
            return look


def _look(tx: Connection, line: Row, remote_id: str | None) -> OutstandingLook | None:
    found = tx.execute(DEPLOYMENT, {"name": line.deployment}).one_or_none()
    if found is None or line.settled_at is not None or line.asked_at == found.address:
        return None
    if remote_id is not None and line.own_id == remote_id and not line.is_finished:
        # There its operation follows it, and holds the target for it.
        return None
    given = {"number": found.engine_number, "id": remote_id, "own": line.operation_id}
    if line.is_in_doubt or tx.execute(_IS_ANOTHERS, given).one_or_none() is not None:
        return None
    if ends(line) and line.is_finished:
        tx.execute(FENCE, {"id": line.operation_id})
    asked = question(tx, line, deployment_in(found), remote_id)
    return None if isinstance(asked, NotClaimed) else asked
