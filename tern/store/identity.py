"""The durable step between an engine's answer and all that depends on it: its id, and nothing else (G1-G3, G5)."""

from psycopg import IntegrityError

from tern.domain.identity import RemoteId
from tern.domain.model import Claim, OperationScope
from tern.ports import Fenced, StorageUnavailable
from tern.store.doubt import doubt, holder_of_id, is_taken, lock_operations
from tern.store.event import INTO_EVENTS, SAID, Happening, append, tell_later
from tern.store.scope import store_remote_id
from tern.store.session import single, transaction
from tern.store.sql import text
from tern.store.step import Steps, hold, stored_id

_TRIES = 3
_STORE_OWN_ID = text(
    "WITH stored AS (UPDATE apply_operations SET engine_resume_context = :remote_id"
    "   WHERE id = :id AND claim_token = :token AND engine_resume_context IS NULL RETURNING id, apply_id)"
    f" {INTO_EVENTS} SELECT apply_id, id, 'remote_id_stored', :who, '', '', '',"
    "   json_build_object('remote_id', CAST(:remote_id AS text), 'generation', CAST(:generation AS integer))"
    f" FROM stored {SAID}"
)


class IdentitySteps(Steps):
    """The half of ports.DispatchStore that stores ids."""

    def record_remote_id(self, claim: Claim, scope: OperationScope, remote_id: RemoteId) -> Fenced:
        """See ports.DispatchStore."""
        for _ in range(_TRIES):
            try:
                return self._store_id(claim, scope, remote_id)
            except IntegrityError as error:
                if not is_taken(error):
                    raise
            found = self._doubt_both(claim, remote_id)
            if found is not None:
                return found
        message = f"whose {remote_id} is changes from moment to moment"
        raise StorageUnavailable(message)

    def _doubt_both(self, claim: Claim, remote_id: RemoteId) -> Fenced | None:
        """The id is another operation's at this engine: nothing is stored, and both are uncertain. None where it has
        become free meanwhile.
        """
        with transaction(self.engine) as tx:
            engine = tx.execute(
                text("SELECT engine_number FROM apply_operations WHERE id = :id"), {"id": claim.operation_id}
            ).scalar_one()
            holder = holder_of_id(tx, engine, remote_id)
            if holder is None or holder == claim.operation_id:
                return None
            rows = lock_operations(tx, [claim.operation_id, holder])
            own = rows[claim.operation_id]
            if own.claim_token != claim.token:
                return Fenced.LOST
            if holder_of_id(tx, own.engine_number, remote_id) != holder:
                return None
            doubt(tx, [own, rows[holder]], remote_id, self.owner)
            return Fenced.TAKEN

    def _store_id(self, claim: Claim, scope: OperationScope, remote_id: RemoteId) -> Fenced:
        if scope.operation_count > 1 and self._store_own_id(claim, remote_id):
            return Fenced.DONE
        with transaction(self.engine) as tx:
            held = hold(tx, claim)
            if held is None:
                return Fenced.LOST
            stored = stored_id(held)
            if stored is not None:
                if stored == remote_id:
                    return Fenced.DONE
                words = f"the engine answered {remote_id}, but {stored} stands and stays"
                append(
                    tx, Happening(held.apply_pk, "remote_id_conflict", self.owner, held.operation_id, words)
                )
                return Fenced.CONFLICT
            store_remote_id(
                tx,
                apply_pk=held.apply_pk,
                operation_id=held.operation_id,
                operation_count=scope.operation_count,
                remote_id=remote_id,
            )
            detail = {"remote_id": remote_id, "generation": claim.generation}
            append(
                tx, Happening(held.apply_pk, "remote_id_stored", self.owner, held.operation_id, detail=detail)
            )
            return Fenced.DONE

    def _store_own_id(self, claim: Claim, remote_id: RemoteId) -> bool:
        """The id of one of several operations lives in its own row, so the row's lock and the token are enough: no
        state changes, and nobody has to wait for the apply. False where something else than that stands there.
        """
        given = {
            "id": claim.operation_id,
            "token": claim.token,
            "remote_id": remote_id,
            "who": self.owner,
            "generation": claim.generation,
        }
        if not remote_id:
            return False
        with single(self.engine) as tx:
            stored = tx.execute(_STORE_OWN_ID, given)
            tell_later(tx, stored)
            return stored.rowcount > 0
