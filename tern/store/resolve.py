"""A person's answer about an uncertain operation. One transaction."""

from tern.domain.errors import NotFound, Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.states import Event, State
from tern.ports import Resolved
from tern.store.event import Happening, append
from tern.store.projection import move, project_parent
from tern.store.scope import REMOTE_ID, store_remote_id
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_FIND = text(
    "SELECT o.id FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " WHERE a.apply_identifier = :apply AND o.deployment = :deployment"
)
_LOAD = text(
    "SELECT o.*, a.operation_count, coalesce(a.external_id, o.engine_resume_context) AS remote_id"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.id = :id FOR NO KEY UPDATE OF o"
)


class ResolveSteps(Steps):
    """`tern resolve` on PostgreSQL."""

    def resolve_uncertain(
        self,
        name: ScopeName,
        found: Resolved,
        remote_id: RemoteId | None,
        caller: str,
        reason: str,
        *,
        dry_run: bool = False,
    ) -> None:
        """See ports.ControlStore."""
        if not reason.strip():
            message = "an uncertain operation is resolved with a reason"
            raise Refused(message, next_step="Say what you saw with --reason.", reason="REASON_MISSING")
        with transaction(self.engine) as tx:
            operation_id = tx.execute(
                _FIND, {"apply": name.apply_id, "deployment": name.deployment}
            ).scalar_one_or_none()
            if operation_id is None:
                message = f"there is no operation {name}"
                raise NotFound(message)
            tx.execute(
                text(
                    "SELECT 1 FROM applies WHERE id = (SELECT apply_id FROM apply_operations WHERE id = :id)"
                    " FOR NO KEY UPDATE"
                ),
                {"id": operation_id},
            )
            row = tx.execute(_LOAD, {"id": operation_id}).one()
            new_id = _checked(tx, row, name, found, remote_id)
            if dry_run:
                return
            event, assignments = _arrow(found)
            if new_id is not None:
                store_remote_id(
                    tx,
                    apply_pk=row.apply_id,
                    operation_id=row.id,
                    operation_count=row.operation_count,
                    remote_id=new_id,
                )
                detail = {"remote_id": new_id}
                append(tx, Happening(row.apply_id, "remote_id_stored", caller, row.id, reason, detail=detail))
            move(
                tx,
                operation_id=row.id,
                apply_pk=row.apply_id,
                state=State.UNCERTAIN,
                event=event,
                who=caller,
                why=f"resolved as {found}: {reason}",
                # Whoever was just driving a wish here has lost it: what it finds out is overtaken by this answer.
                assignments=(
                    f"{assignments}, fence = fence + 1, progress_revision = 0,"
                    " claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"
                ),
                values={"reason": reason} if found is Resolved.ENDED else {},
            )
            # A stop that waited for this answer can go on.
            tx.execute(
                text(
                    "UPDATE control_deliveries SET next_attempt_at = tern_clock()"
                    " WHERE operation_id = :id AND state IN ('pending', 'sent')"
                ),
                {"id": row.id},
            )
            project_parent(tx, row.apply_id, caller)


def _checked(
    tx: Connection, row: Row, name: ScopeName, found: Resolved, remote_id: RemoteId | None
) -> RemoteId | None:
    """The id to follow from now on, where that is the answer; raises Refused where the answer does not fit."""
    if row.state != State.UNCERTAIN.value:
        message = f"{name} is {row.state}, not uncertain"
        raise Refused(message, reason="NOT_UNCERTAIN")
    if row.remote_id is not None and found is not Resolved.ENDED:
        message = f"{name} has the remote id {row.remote_id}, which is never replaced"
        raise Refused(
            message,
            why=(f"{found} would dispatch or follow something else",),
            next_step=f"A definite sample brings it back; or say: tern resolve {name} --as ended.",
            reason="REMOTE_ID_STANDS",
        )
    if found is not Resolved.REMOTE_ID:
        return None
    if not remote_id:
        message = "an empty remote id is never stored"
        raise Refused(message, reason="REMOTE_ID_EMPTY")
    if str(remote_id) == str(name.apply_id):
        message = f"{remote_id} is Tern's own id, not the engine's"
        raise Refused(message, reason="REMOTE_ID_IS_PUBLIC_ID")
    _refuse_a_taken_id(tx, name.deployment, remote_id)
    return remote_id


def _refuse_a_taken_id(tx: Connection, deployment: str, remote_id: RemoteId) -> None:
    """An engine gives an id once: one that another operation there holds is that operation's (G2)."""
    holder = tx.execute(
        text(
            "SELECT a.apply_identifier || '/' || o.deployment FROM apply_operations o"
            f" JOIN applies a ON a.id = o.apply_id WHERE o.deployment = :deployment AND {REMOTE_ID} = :remote_id"
            " LIMIT 1"
        ),
        {"deployment": deployment, "remote_id": remote_id},
    ).scalar_one_or_none()
    if holder is not None:
        message = f"the remote id {remote_id} is that of {holder}"
        raise Refused(message, why=("an engine gives each id once",), reason="REMOTE_ID_TAKEN")


def _arrow(found: Resolved) -> tuple[Event, str]:
    clean = "error_message = '', error_reason = ''"
    match found:
        case Resolved.NOT_STARTED:
            # A person vouches that the old key started nothing; it is never used again.
            return Event.REQUEUE, (
                f"{clean}, dispatch_generation = dispatch_generation + 1, dispatch_key = NULL,"
                " dispatch_intent_at = NULL, answered_attempts = 0, next_attempt_at = NULL, next_poll_at = NULL"
            )
        case Resolved.ENDED:
            return Event.END, (
                "error_message = :reason, error_reason = 'ENDED', next_attempt_at = NULL, next_poll_at = NULL"
            )
        case Resolved.REMOTE_ID:
            return Event.ADOPT, f"{clean}, next_attempt_at = NULL, next_poll_at = tern_clock()"
        case Resolved.REPEAT_APPLY:
            return Event.REPEAT, (
                f"{clean}, repeat_is_safe = true, answered_attempts = 0, dispatch_intent_at = tern_clock(),"
                " next_attempt_at = tern_clock()"
            )
