"""What is outstanding, asked about where its deployment is by now: nothing proves that the engine there goes on
with it, so a person's words go together with what is found (G2, G13).
"""

from tern.domain.identity import RemoteId
from tern.domain.outstanding import OutstandingLook
from tern.ports import NotClaimed
from tern.store.deployment import deployment_in
from tern.store.outstanding_look import FENCE, LINE_OF, ends, question
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_IS_ANOTHERS = text(
    # An id is one engine's own: at another engine it may be the id of somebody else's work.
    "SELECT 1 FROM remote_ids WHERE engine_number = :number AND remote_id = :id AND operation_id <> :own"
)


class OutstandingHereSteps(Steps):
    """The part of outstanding_port.OutstandingStore about the engine that serves a target now."""

    def outstanding_here(self, call_id: int, remote_id: RemoteId | None = None) -> OutstandingLook | None:
        """See outstanding_port.OutstandingStore."""
        with transaction(self.engine) as tx:
            line = tx.execute(LINE_OF, {"id": call_id}).one()
            return _look(tx, line, remote_id or line.remote_id)


def _look(tx: Connection, line: Row, remote_id: str | None) -> OutstandingLook | None:
    found = tx.execute(
        text("SELECT * FROM deployments WHERE name = :name"), {"name": line.deployment}
    ).one_or_none()
    if found is None or line.settled_at is not None or line.asked_at == found.address:
        return None
    given = {"number": found.engine_number, "id": remote_id, "own": line.operation_id}
    if line.is_in_doubt or tx.execute(_IS_ANOTHERS, given).one_or_none() is not None:
        return None
    if ends(line) and line.is_finished:
        tx.execute(FENCE, {"id": line.operation_id})
    asked = question(tx, line, deployment_in(found), remote_id)
    return None if isinstance(asked, NotClaimed) else asked
