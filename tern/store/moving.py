"""Durable steps of changing a deployment in use. One transaction, which looks again at all that was asked about."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial

from psycopg import IntegrityError

from tern.domain.errors import NotFound, Refused, TryAgain
from tern.domain.model import Deployment
from tern.domain.moving import DeploymentChange, InUse, Sameness
from tern.domain.states import TRANSITIONS, Event, State
from tern.store.deployment import deployment_in, refuse_while_outstanding
from tern.store.event import Happening, append_all
from tern.store.projection import move, project_parent
from tern.store.scope import REMOTE_ID
from tern.store.session import after_commit, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_log = logging.getLogger("tern.register")

_USES = (
    f"SELECT o.*, {REMOTE_ID} AS remote_id, a.apply_identifier, a.environment, a.database,"
    f" CASE WHEN {REMOTE_ID} IS NULL AND NOT o.dispatch_key_is_dead THEN o.dispatch_key END AS live_key"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " WHERE o.deployment = :name AND o.completed_at IS NULL ORDER BY o.id"
)
_USES_NOW, _USES_LOCKED = text(_USES), text(f"{_USES} FOR NO KEY UPDATE OF o")
_LOCK_APPLIES = text(
    "SELECT 1 FROM applies WHERE id IN (SELECT apply_id FROM apply_operations WHERE deployment = :name"
    " AND completed_at IS NULL) ORDER BY id FOR NO KEY UPDATE"
)
_LOCK_DEPLOYMENT = text("SELECT * FROM deployments WHERE name = :name FOR UPDATE")
_WRITE = text(
    "UPDATE deployments SET address = :address, labels = CAST(:labels AS jsonb), position = :position,"
    " credentials = CAST(:credentials AS jsonb) WHERE name = :name"
)
_WRITE_FOUND = text(
    "UPDATE deployments SET capabilities = CAST(:capabilities AS jsonb), engine_identity = :identity WHERE name = :name"
)
_DECLARE = text(
    "UPDATE deployments SET deduplicates = :deduplicates, idempotent_dispatch = :deduplicates WHERE name = :name"
)
_MOVE_ENGINE = text(
    # Its number is the engine's, not the address's: the one that moves keeps it.
    "UPDATE engines e SET address = :address FROM deployments d WHERE d.name = :name AND e.number = d.engine_number"
    " AND NOT EXISTS (SELECT FROM deployments o WHERE o.engine_number = d.engine_number AND o.name <> d.name)"
)
_LET_GO = text(
    # Whoever works for one of these has lost it: what it is just calling may act at the old address, and counts as a
    # call without an answer; its late writes and calls carry an old fence.
    "UPDATE apply_operations o SET fence = fence + 1, progress_revision = 0,"
    " unanswered_call = CASE WHEN c.call <> '' THEN c.call ELSE o.unanswered_call END,"
    " unanswered_since = CASE WHEN c.call <> '' THEN tern_clock() ELSE o.unanswered_since END,"
    " claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL,"
    " next_attempt_at = CASE WHEN o.next_attempt_at IS NOT NULL THEN tern_clock() END, rung_at = NULL,"
    " next_poll_at = CASE WHEN c.remote_id IS NOT NULL THEN tern_clock() ELSE o.next_poll_at END"
    f" FROM (SELECT o.id, {REMOTE_ID} AS remote_id,"
    "   CASE WHEN o.claim_token IS NULL OR o.unanswered_call <> '' THEN ''"
    f"  WHEN {REMOTE_ID} IS NULL AND o.dispatch_key IS NOT NULL AND NOT o.dispatch_key_is_dead THEN 'apply'"
    "   ELSE coalesce((SELECT d.verb FROM control_deliveries d WHERE d.operation_id = o.id"
    "     AND d.verb IN ('start', 'cutover') AND d.state IN ('pending', 'sent') AND d.called_at IS NOT NULL"
    "     ORDER BY d.called_at DESC LIMIT 1), '') END AS call"
    "   FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.id = ANY(:ids)) c WHERE o.id = c.id"
)
_DUE_AGAIN = text(
    "UPDATE control_deliveries SET next_attempt_at = tern_clock()"
    " WHERE operation_id = ANY(:ids) AND state IN ('pending', 'sent')"
)
_IS_THERE_NOW = text(
    # By a key, and by nothing else: what was sent to this engine may be asked about where it is by now.
    "UPDATE outstanding_calls SET proven_address = :address, next_look_at = tern_clock() WHERE deployment = :name"
    # What was let go, and is looked at for a while all the same, too.
    " AND (settled_at IS NULL OR next_look_at IS NOT NULL)"
    " AND coalesce(nullif(proven_address, ''), address) = :before"
)
_OUTSTANDING = text(
    "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, dispatch_key, remote_id,"
    " generation, fence, engine_number, address, why, caller, reason)"
    " SELECT o.apply_id, o.id, a.environment, a.database, o.deployment,"
    f" CASE WHEN {REMOTE_ID} IS NULL THEN o.dispatch_key END, {REMOTE_ID}, o.dispatch_generation, o.fence,"
    " coalesce(o.engine_number, d.engine_number), coalesce(nullif(o.dispatched_to, ''), d.address), 'address_changed',"
    " :caller, :reason FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " JOIN deployments d ON d.name = o.deployment WHERE o.id = ANY(:ids) ORDER BY o.id ON CONFLICT DO NOTHING"
)
_AT_THAT_ADDRESS = text(
    # Whoever is reached there now, or was when something of theirs was sent that may still act.
    "SELECT d.name, EXISTS (SELECT FROM apply_operations o WHERE o.deployment = d.name AND o.completed_at IS NULL"
    "   AND o.dispatch_key IS NOT NULL AND NOT o.dispatch_key_is_dead) AS is_used FROM deployments d"
    " WHERE d.name <> :name AND (d.address = :address OR EXISTS (SELECT FROM apply_operations o"
    "   WHERE o.deployment = d.name AND o.completed_at IS NULL AND o.dispatched_to = :address)) ORDER BY d.name"
)


class MovingSteps(Steps):
    """register_port.MovingStore on PostgreSQL."""

    def uses(self, name: str) -> tuple[InUse, ...]:
        """See register_port.MovingStore."""
        with transaction(self.engine) as tx:
            return tuple(_use(row) for row in tx.execute(_USES_NOW, {"name": name}))

    def change_deployment(
        self,
        change: DeploymentChange,
        before: Deployment,
        after: Deployment,
        uses: Sequence[InUse],
        how: Sameness | None,
        unknown: frozenset[int],
    ) -> tuple[str, ...]:
        """See register_port.MovingStore."""
        try:
            with transaction(self.engine) as tx:
                rows = _looked_at_again(tx, change, before, uses)
                if change.new_identity:
                    # Any no of the engine at the new database would settle what was sent to the old one's.
                    refuse_while_outstanding(tx, change.name, "changed")
                moves = after.address != before.address
                if moves:
                    _refuse_exchange(tx, change, after, rows, how)
                    self._leave_the_old_address(tx, change, rows, how)
                    if how is not None:
                        # Another database at another address is another engine: what was reviewed was not for it.
                        tx.execute(_MOVE_ENGINE, {"name": change.name, "address": after.address})
                    if how is Sameness.PROVEN:
                        given = {"name": change.name, "address": after.address, "before": before.address}
                        tx.execute(_IS_THERE_NOW, given)
                values = _values(after)
                tx.execute(_WRITE, values)
                if moves or change.new_identity:
                    tx.execute(_WRITE_FOUND, values)
                if moves or change.deduplicates is not None:
                    tx.execute(_DECLARE, values)
                _tell(tx, change, before, after, rows)
                if moves:
                    self._doubt(tx, change, rows, how, unknown)
                    for apply_pk in sorted({row.apply_id for row in rows}):
                        project_parent(tx, apply_pk, change.caller)
                return tuple(f"{row.apply_identifier}/{row.deployment}" for row in rows)
        except IntegrityError as error:
            if error.diag.constraint_name != "deployments_one_per_target":
                raise
            what = f"{change.name} was not changed"
            why = (f"another deployment has the address {after.address} and the target {after.target}",)
            raise Refused(
                what, why=why, next_step="tern deployments ls", reason="DEPLOYMENT_REFUSED"
            ) from None

    def _leave_the_old_address(
        self, tx: Connection, change: DeploymentChange, rows: Sequence[Row], how: Sameness | None
    ) -> None:
        ids = [row.id for row in rows]
        if how is Sameness.SAID:
            # Nobody could ask the old address: what was sent there may act there, whatever is at the new one.
            sent = [row.id for row in rows if row.remote_id is not None or row.live_key is not None]
            told = {"caller": change.caller, "reason": change.reason}
            tx.execute(_OUTSTANDING, {"ids": sent, **told})
        tx.execute(_LET_GO, {"ids": ids})
        tx.execute(_DUE_AGAIN, {"ids": ids})

    def _doubt(
        self,
        tx: Connection,
        change: DeploymentChange,
        rows: Sequence[Row],
        how: Sameness | None,
        unknown: frozenset[int],
    ) -> None:
        """What nobody can tell about from now on."""
        for row in rows:
            state = State(row.state)
            if row.id in unknown:
                reason = "REMOTE_ID_UNKNOWN"
                words = f"the engine at the new address of {change.name} does not know {row.remote_id}"
            elif row.live_key is not None and how is Sameness.SAID:
                reason = "UNANSWERED"
                words = f"its dispatch was not answered at the old address of {change.name}, and nobody could ask there"
            else:
                continue
            if Event.LOSE_TRACK in TRANSITIONS[state]:
                move(
                    tx,
                    operation_id=row.id,
                    apply_pk=row.apply_id,
                    state=state,
                    event=Event.LOSE_TRACK,
                    who=change.caller,
                    why=words,
                    assignments="error_reason = :reason, error_message = :words, next_attempt_at = NULL",
                    values={"reason": reason, "words": words},
                )


def _looked_at_again(
    tx: Connection, change: DeploymentChange, before: Deployment, uses: Sequence[InUse]
) -> Sequence[Row]:
    """The operations there, locked in order and as they were when their engine was asked; raises TryAgain, NotFound."""
    tx.execute(_LOCK_APPLIES, {"name": change.name})
    rows = tx.execute(_USES_LOCKED, {"name": change.name}).all()
    found = tx.execute(_LOCK_DEPLOYMENT, {"name": change.name}).one_or_none()
    if found is None:
        what = f"there is no deployment {change.name!r}"
        raise NotFound(what, next_step="`tern deployments ls` lists them.")
    now = deployment_in(found)
    if _place(now) != _place(before) or _sent(map(_use, rows)) != _sent(uses):
        what = f"{change.name} was not changed: what is there changed while its engine was asked"
        raise TryAgain(what, next_step="Say it again.")
    return rows


def _refuse_exchange(
    tx: Connection, change: DeploymentChange, after: Deployment, rows: Sequence[Row], how: Sameness | None
) -> None:
    """Two that no key can tell apart would be sent each other's stops: an id that the one gave, the other knows too."""
    if how is Sameness.PROVEN:
        return
    here = any(row.remote_id is not None or row.live_key is not None for row in rows)
    others = tx.execute(_AT_THAT_ADDRESS, {"name": change.name, "address": after.address}).all()
    if taken := [other.name for other in others if here or other.is_used]:
        what = f"{change.name} was not changed: {', '.join(taken)} is, or was, reached at {after.address}"
        why = ("nothing proves which engine is where, and one of them has work that may act",)
        step = "Wait until both have finished, or end what runs there."
        raise Refused(what, why=why, next_step=step, reason="ADDRESSES_EXCHANGED")


def _tell(
    tx: Connection, change: DeploymentChange, before: Deployment, after: Deployment, rows: Sequence[Row]
) -> None:
    words = "; ".join(change.words(before, after))
    why = f"{words}: {change.reason}" if words else change.reason
    detail = {"deployment": change.name, "set": words, "reason": change.reason}
    append_all(
        tx,
        [
            Happening(row.apply_id, "deployment_set", change.caller, row.id, why, detail=detail)
            for row in rows
        ],
    )
    line = {"deployment": change.name, "who": change.caller, "why": change.reason, "set": words}
    after_commit(tx, partial(_log.info, "deployment_set", extra={"fields": line}))


def _use(row: Row) -> InUse:
    return InUse(row.id, f"{row.apply_identifier}/{row.deployment}", row.fence, row.remote_id, row.live_key)


def _place(deployment: Deployment) -> tuple[object, ...]:
    return (
        deployment.environment,
        deployment.database,
        deployment.address,
        deployment.target,
        deployment.credentials,
        deployment.engine_identity,
        deployment.labels,
        deployment.position,
    )


def _sent(uses: Iterable[InUse]) -> set[tuple[object, ...]]:
    return {(use.operation_id, use.remote_id, use.key) for use in uses if use.is_sent}


def _values(after: Deployment) -> dict[str, object]:
    return {
        "name": after.name,
        "address": after.address,
        "labels": json.dumps(dict(after.labels)),
        "position": after.position,
        "credentials": json.dumps(asdict(after.credentials)),
        "capabilities": json.dumps(after.capabilities.as_json()),
        "identity": after.engine_identity,
        "deduplicates": after.idempotent_dispatch,
    }
