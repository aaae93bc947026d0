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
from tern.store.outstanding_hold import WHERE_ASKED, where_asked
from tern.store.outstanding_settle import settle
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
_CONCERNED = (
    "SELECT id, apply_id FROM apply_operations WHERE deployment = :name AND completed_at IS NULL"
    # Of what is outstanding there, operations that are finished, too: what is written of it stands in their records.
    " UNION ALL SELECT operation_id, apply_id FROM outstanding_calls WHERE deployment = :name"
    " AND (settled_at IS NULL OR next_look_at IS NOT NULL)"
)
_LOCK = (
    text(
        f"SELECT 1 FROM applies WHERE id = ANY (ARRAY(SELECT c.apply_id FROM ({_CONCERNED}) c)) ORDER BY id"
        " FOR NO KEY UPDATE"
    ),
    text(
        f"SELECT 1 FROM apply_operations WHERE id = ANY (ARRAY(SELECT c.id FROM ({_CONCERNED}) c)) ORDER BY id"
        " FOR NO KEY UPDATE"
    ),
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
_LOCK_ENGINES = text("LOCK TABLE engines IN SHARE ROW EXCLUSIVE MODE")
"""Who is given a number at the new address just now is seen, or sees this move."""
_OTHERS_THERE = text(
    "SELECT e.number, EXISTS (SELECT FROM deployments o WHERE o.engine_number = e.number AND o.address = :address)"
    "   AS is_reached FROM deployments d JOIN engines e ON e.environment = d.environment"
    " WHERE d.name = :name AND e.number <> d.engine_number AND (e.address = :address OR e.number = ANY (ARRAY("
    "   SELECT o.engine_number FROM deployments o WHERE o.environment = d.environment AND o.address = :address)))"
)
_MOVE_ENGINE = text(
    # Its number is the engine's, not the address's: the one that moves keeps it. Others that have the same engine stay
    # where they are, and are found by their own rows.
    "UPDATE engines e SET address = :address FROM deployments d WHERE d.name = :name AND e.number = d.engine_number"
)
_IS_NOT_THERE_ANY_MORE = text("UPDATE engines SET address = '' WHERE number = ANY(:numbers)")
_FOLLOWS = text(
    # Where the engine that has it is known to be, by a key and by nothing else.
    "UPDATE apply_operations SET dispatched_to = :address WHERE id = ANY(:ids) AND dispatched_to = :before"
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
_LINES_THERE = (
    "FROM outstanding_calls c WHERE c.deployment = :name"
    # What was let go, and is looked at for a while all the same, too.
    f" AND (c.settled_at IS NULL OR c.next_look_at IS NOT NULL) AND {WHERE_ASKED} = :before"
)
_STANDS_THERE = text(
    # The same was left behind at the new address too, so there is a line for it already.
    f"SELECT c.* {_LINES_THERE} AND c.settled_at IS NULL AND EXISTS (SELECT FROM outstanding_calls n"
    f"   WHERE n.operation_id = c.operation_id AND n.settled_at IS NULL AND {where_asked('n')} = :address"
    "   AND n.dispatch_key IS NOT DISTINCT FROM c.dispatch_key AND n.remote_id IS NOT DISTINCT FROM c.remote_id)"
    " ORDER BY c.id FOR NO KEY UPDATE OF c"
)
_CANCEL_GOES_ALONG = text(
    "UPDATE outstanding_calls n SET cancel_asked_at = c.cancel_asked_at, cancel_caller = c.cancel_caller,"
    " cancel_reason = c.cancel_reason FROM outstanding_calls c WHERE c.id = ANY(:ids) AND c.cancel_asked_at IS NOT NULL"
    " AND n.cancel_asked_at IS NULL AND n.settled_at IS NULL AND n.operation_id = c.operation_id"
    f" AND {where_asked('n')} = :address AND n.dispatch_key IS NOT DISTINCT FROM c.dispatch_key"
    " AND n.remote_id IS NOT DISTINCT FROM c.remote_id"
)
_IS_THERE_NOW = text(
    # By a key, and by nothing else: what was sent to this engine may be asked about where it is by now.
    "UPDATE outstanding_calls SET proven_address = :address, next_look_at = tern_clock()"
    f" WHERE id = ANY (ARRAY(SELECT c.id {_LINES_THERE}))"
)
_OUTSTANDING = text(
    # At the address that is left. It may act where it was called last; whatever was left behind at an earlier address
    # has its line since then, and by a proof it came along. A line that has moved away from here stands for another
    # place.
    "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, dispatch_key, remote_id,"
    " generation, fence, engine_number, address, why, caller, reason)"
    " SELECT s.*, 'address_changed', :caller, :reason FROM (SELECT o.apply_id, o.id, a.environment, a.database,"
    f"   o.deployment, CASE WHEN {REMOTE_ID} IS NULL THEN o.dispatch_key END AS dispatch_key,"
    f"   {REMOTE_ID} AS remote_id, o.dispatch_generation, o.fence, coalesce(o.engine_number, d.engine_number),"
    "   d.address FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    "   JOIN deployments d ON d.name = o.deployment WHERE o.id = ANY(:ids) ORDER BY o.id) s"
    f" WHERE NOT EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = s.id AND c.settled_at IS NULL"
    f"   AND {WHERE_ASKED} = s.address AND c.dispatch_key IS NOT DISTINCT FROM s.dispatch_key"
    "   AND c.remote_id IS NOT DISTINCT FROM s.remote_id) ON CONFLICT DO NOTHING"
)
_AT_THAT_ADDRESS = text(
    # Whoever is reached there now, or was when something of theirs was sent, or left behind, that may still act.
    "WITH acting (name) AS MATERIALIZED ("
    "   SELECT o.deployment FROM apply_operations o WHERE o.completed_at IS NULL AND o.dispatched_to = :address"
    "   UNION SELECT c.deployment FROM outstanding_calls c"
    f"     WHERE (c.settled_at IS NULL OR c.next_look_at IS NOT NULL) AND {WHERE_ASKED} = :address)"
    " SELECT d.name, d.name = ANY (ARRAY(SELECT name FROM acting)) OR EXISTS (SELECT FROM apply_operations o"
    "   WHERE o.deployment = d.name AND o.completed_at IS NULL AND o.dispatch_key IS NOT NULL"
    "   AND NOT o.dispatch_key_is_dead) AS is_used FROM deployments d"
    " WHERE d.name <> :name AND (d.address = :address OR d.name = ANY (ARRAY(SELECT name FROM acting)))"
    " ORDER BY d.name"
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
                        _move_engine(tx, change, after, how)
                    if how is Sameness.PROVEN:
                        self._follow(tx, change, before, after, rows)
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

    def _follow(
        self,
        tx: Connection,
        change: DeploymentChange,
        before: Deployment,
        after: Deployment,
        rows: Sequence[Row],
    ) -> None:
        given = {"name": change.name, "address": after.address, "before": before.address}
        tx.execute(_FOLLOWS, {**given, "ids": [row.id for row in rows]})
        words = f"the same is outstanding at {after.address}, where its engine was proven to be"
        moved = tx.execute(_STANDS_THERE, given).all()
        tx.execute(_CANCEL_GOES_ALONG, {"ids": [line.id for line in moved], "address": after.address})
        settle(tx, moved, as_="moved", who=self.owner, reason=words)
        tx.execute(_IS_THERE_NOW, given)

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
    for statement in _LOCK:
        tx.execute(statement, {"name": change.name})
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


def _move_engine(tx: Connection, change: DeploymentChange, after: Deployment, how: Sameness) -> None:
    given = {"name": change.name, "address": after.address}
    tx.execute(_LOCK_ENGINES)
    others = tx.execute(_OTHERS_THERE, given).all()
    if how is Sameness.PROVEN and others:
        # They were made one before this began; somebody was added, or has moved, since.
        what = f"{change.name} was not changed: who is reached at {after.address} changed while its engine was asked"
        raise TryAgain(what, next_step="Say it again.")
    tx.execute(_IS_NOT_THERE_ANY_MORE, {"numbers": [each.number for each in others if not each.is_reached]})
    # Where somebody else is reached it gets that one's engine, by a word: ids are given once at one address.
    if not any(each.is_reached for each in others):
        tx.execute(_MOVE_ENGINE, given)


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
