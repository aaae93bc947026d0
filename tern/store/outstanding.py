"""What was sent and may still act although no operation follows it (G4, G10). Append-only: opened here, looked at and
settled where it is driven.
"""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from tern.domain.evidence import KeptFacts, may_be_adopted
from tern.domain.identity import RemoteId
from tern.domain.model import Claim, OperationScope
from tern.domain.states import Event, State
from tern.domain.timing import OUTSTANDING_LOOK_S
from tern.ports import Fenced, Kept
from tern.store.doubt import doubt, holder_of_id, lock_operations
from tern.store.event import Happening, append
from tern.store.outstanding_cancel import hand_over_cancel
from tern.store.outstanding_hold import WHERE_ASKED
from tern.store.projection import move, project_parent
from tern.store.scope import store_remote_id
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_OPEN = text(
    "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, dispatch_key,"
    " remote_id, generation, fence, engine_number, address, proven_address, why, caller, reason)"
    " VALUES (:apply_pk, :operation_id, :environment, :database, :deployment, :dispatch_key, :remote_id, :generation,"
    " :fence, :engine_number, :address, :proven_address, :why, :caller, :reason) RETURNING id"
)
_OPENED = text(
    # By where it is asked about: a line that has moved away says nothing of the address that it was written for.
    f"SELECT c.id FROM outstanding_calls c WHERE c.operation_id = :operation_id AND {WHERE_ASKED} = :asked_at"
    " AND c.settled_at IS NULL AND coalesce(c.dispatch_key, '') = coalesce(CAST(:dispatch_key AS text), '')"
    " AND coalesce(c.remote_id, '') = coalesce(CAST(:remote_id AS text), '') ORDER BY c.id LIMIT 1"
)
_STANDS = text(
    f"SELECT c.*, c.settled_at IS NULL AS is_open, {WHERE_ASKED} AS asked_at FROM outstanding_calls c WHERE c.id = :id"
    " FOR NO KEY UPDATE"
)
_GUARD = text(
    "INSERT INTO remote_ids (engine_number, remote_id, operation_id) VALUES (:engine_number, :remote_id, :operation_id)"
    " ON CONFLICT DO NOTHING"
)
_ADOPTED = (
    "claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL, fence = fence + 1, next_attempt_at = NULL,"
    " next_poll_at = tern_clock(), progress_revision = 0, answered_attempts = 0, error_message = '', error_reason = '',"
    " poll_failures = 0, poll_error = '', unanswered_call = '', unanswered_since = NULL"
)


_WATCH = text(
    "INSERT INTO outstanding_calls (apply_id, operation_id, environment, database, deployment, dispatch_key,"
    " remote_id, generation, fence, engine_number, address, why, caller, reason, settled_at, settled_by, settled_as,"
    " settled_reason, next_look_at)"
    " SELECT :apply_pk, :operation_id, :environment, :database, :deployment, :dispatch_key, :remote_id, :generation,"
    " :fence, :engine_number, :address, :why, :caller, :reason, n.now, :caller, :settled_as, :reason,"
    " n.now + make_interval(secs => :pause_s) FROM (SELECT tern_clock() AS now) n"
)


class Why(StrEnum):
    """Why something that was sent is followed by no operation."""

    GIVEN_UP = "given_up"
    NOT_STORED = "not_stored"
    CONTRADICTED = "contradicted"
    ADDRESS_CHANGED = "address_changed"
    LET_GO = "let_go"


@dataclass(frozen=True, slots=True)
class Sent:
    """A key or an id, and where it was sent. Exactly one of dispatch_key and remote_id is there.

    proven_address: where the engine that was there was proven to be since.
    """

    apply_pk: int
    operation_id: int
    environment: str
    database: str
    deployment: str
    generation: int
    fence: int
    engine_number: int | None
    address: str
    dispatch_key: str | None = None
    remote_id: str | None = None
    proven_address: str = ""


def open_outstanding(tx: Connection, sent: Sent, *, why: Why, caller: str, reason: str = "") -> int:
    """Writes down that it may still act; the number of the line, also where it stands there already. The caller has
    locked the operation. An id is the operation's from then on, so that no other one is given it (G2).
    """
    given = {**asdict(sent), "why": why.value, "caller": caller, "reason": reason}
    if sent.remote_id is not None and sent.engine_number is not None:
        tx.execute(_GUARD, given)
    stands = tx.execute(
        _OPENED, {**given, "asked_at": sent.proven_address or sent.address}
    ).scalar_one_or_none()
    return int(tx.execute(_OPEN, given).scalar_one() if stands is None else stands)


def watch(tx: Connection, sent: Sent, *, settled_as: str, caller: str, reason: str) -> None:
    """It is let go, and holds nobody: its engine is asked for a while all the same, in case that it goes on there. The
    caller has locked the operation, which is not finished yet.
    """
    given = {
        **asdict(sent),
        "why": Why.LET_GO.value,
        "caller": caller,
        "reason": reason,
        "settled_as": settled_as,
        "pause_s": OUTSTANDING_LOOK_S,
    }
    if sent.remote_id is not None and sent.engine_number is not None:
        tx.execute(_GUARD, given)
    tx.execute(_WATCH, given)


def sent_of(row: Row) -> Sent | None:
    """What of an operation, whose row is one of lock_operations(), may act at its engine; None for nothing."""
    if row.remote_id is not None:
        return job_of(row)
    if row.dispatch_key is None or row.dispatch_key_is_dead:
        return None
    return replace(job_of(row), dispatch_key=row.dispatch_key)


def job_of(row: Row) -> Sent:
    """What an operation has at its engine under its id, at the address where it is called now."""
    return Sent(
        apply_pk=row.apply_id,
        operation_id=row.id,
        environment=row.environment,
        database=row.database,
        deployment=row.deployment,
        generation=row.dispatch_generation,
        fence=row.fence,
        engine_number=row.engine_number,
        address=row.called_at,
        remote_id=row.remote_id,
    )


class OutstandingSteps(Steps):
    """Ids that could not be stored, on PostgreSQL."""

    def keep_id(self, claim: Claim, scope: OperationScope, remote_id: RemoteId) -> Kept:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            holder = holder_of_id(tx, scope.deployment.engine_number, remote_id)
            rows = lock_operations(tx, [claim.operation_id, *([] if holder is None else [holder])])
            row = rows[claim.operation_id]
            if row.remote_id == remote_id:
                return Kept()
            # Under the locks: whose it was a moment ago may be finished by now.
            holder = holder_of_id(tx, scope.deployment.engine_number, remote_id)
            is_taken = holder not in {None, row.id}
            sent = Sent(
                apply_pk=row.apply_id,
                operation_id=row.id,
                environment=scope.environment,
                database=scope.database,
                deployment=row.deployment,
                generation=claim.generation,
                fence=claim.fence,
                engine_number=scope.deployment.engine_number,
                address=scope.deployment.address,
                remote_id=remote_id,
            )
            said = f"its engine answered when the operation was {row.state}, at generation {row.dispatch_generation}"
            call_id = open_outstanding(tx, sent, why=Why.NOT_STORED, caller=self.owner, reason=said)
            if row.dispatch_key == claim.key and row.dispatched_to not in {"", sent.address}:
                # Its engine was proven to have moved; whether the call was made before or after that, nobody can tell.
                moved = replace(sent, address=row.dispatched_to)
                open_outstanding(tx, moved, why=Why.NOT_STORED, caller=self.owner, reason=said)
            words = f"the engine answered {remote_id}, which is kept and not stored"
            detail = {"remote_id": remote_id, "generation": claim.generation, "outstanding": call_id}
            append(tx, Happening(row.apply_id, "remote_id_kept", self.owner, row.id, words, detail=detail))
            was_sent_again = row.dispatch_key != claim.key or row.dispatch_generation != claim.generation
            if holder is not None and is_taken and holder in rows:
                others = (
                    [rows[holder]] if row.remote_id is not None or was_sent_again else [row, rows[holder]]
                )
                doubt(tx, others, remote_id, self.owner)
            return Kept(call_id, not is_taken and may_be_adopted(_facts(row, was_sent_again=was_sent_again)))

    def adopt_kept(self, call_id: int, asked_at: str) -> Fenced:
        """See ports.DispatchStore."""
        with transaction(self.engine) as tx:
            call = tx.execute(text("SELECT * FROM outstanding_calls WHERE id = :id"), {"id": call_id}).one()
            row = lock_operations(tx, [call.operation_id])[call.operation_id]
            was_sent_again = row.dispatch_generation != call.generation or row.dispatch_key is None
            holder = holder_of_id(tx, row.engine_number, call.remote_id)
            now = tx.execute(_STANDS, {"id": call_id}).one()
            if (
                not now.is_open
                # From then on it is looked at where its deployment is, which a person may only have said is the same.
                or not now.asked_at == row.called_at == asked_at
                or holder != row.id
                or not may_be_adopted(_facts(row, was_sent_again=was_sent_again))
            ):
                return Fenced.LOST
            store_remote_id(
                tx,
                apply_pk=row.apply_id,
                operation_id=row.id,
                operation_count=row.operation_count,
                remote_id=call.remote_id,
            )
            hand_over_cancel(tx, now, f"the operation is followed as {call.remote_id} by now")
            detail = {"remote_id": call.remote_id, "generation": call.generation}
            append(tx, Happening(row.apply_id, "remote_id_stored", self.owner, row.id, detail=detail))
            move(
                tx,
                operation_id=row.id,
                apply_pk=row.apply_id,
                state=State(row.state),
                event=Event.ADOPT,
                who=self.owner,
                why=f"followed as {call.remote_id}, which its engine knows",
                detail=detail,
                assignments=_ADOPTED,
            )
            tx.execute(
                text(
                    "UPDATE outstanding_calls SET settled_at = tern_clock(), settled_by = :who, settled_as = 'adopted',"
                    " last_seen = 'known', last_seen_at = tern_clock(), looks = looks + 1, next_look_at = NULL"
                    " WHERE id = :id"
                ),
                {"who": self.owner, "id": call_id},
            )
            # A wish that waited for this answer can be driven now.
            tx.execute(
                text(
                    "UPDATE control_deliveries SET next_attempt_at = tern_clock()"
                    " WHERE operation_id = :id AND state IN ('pending', 'sent')"
                ),
                {"id": row.id},
            )
            project_parent(tx, row.apply_id, self.owner)
            return Fenced.DONE


def _facts(row: Row, *, was_sent_again: bool) -> KeptFacts:
    return KeptFacts(
        state=State(row.state),
        has_remote_id=row.remote_id is not None,
        was_sent_again=was_sent_again,
        is_in_doubt=row.doubt != "",
    )
