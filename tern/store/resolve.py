"""A person's answer about an uncertain operation. One transaction."""

from psycopg import IntegrityError

from tern.domain.answer import PRINTED, fitting
from tern.domain.doubt import Doubt
from tern.domain.errors import Refused
from tern.domain.identity import RemoteId, ScopeName
from tern.domain.model import RemoteCall
from tern.domain.states import Event, State
from tern.domain.work import Question, Sighting
from tern.ports import Resolved
from tern.store.doubt import is_taken, lock_operations
from tern.store.event import Happening, append
from tern.store.gone import refuse_while_called
from tern.store.outstanding import sent_of, watch
from tern.store.own_work import Judge, evidence_columns
from tern.store.projection import move, project_parent
from tern.store.scope import REMOTE_ID, find_named, load_scope, store_remote_id
from tern.store.session import transaction
from tern.store.sql import Connection, Row, text
from tern.store.statement import believe_table_changes
from tern.store.step import APPLY_IS_ANSWERED, Steps
from tern.store.taken import check_holder, has_an_id, lock_with_holder, take_from
from tern.store.wish import take_up_wishes

_OTHER = text(
    # A finished one's too: its id may come again, but not by a slip of somebody's pen.
    "SELECT a.apply_identifier || '/' || o.deployment FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    f" WHERE ((o.engine_number = :engine OR o.engine_number IS NULL AND o.deployment = :deployment)"
    f" AND {REMOTE_ID} = :remote_id AND o.error_reason <> 'ID_LOST'"
    # Or of something outstanding, which no operation follows.
    "   OR o.id = (SELECT operation_id FROM remote_ids WHERE engine_number = :engine AND remote_id = :remote_id))"
    " AND o.id <> :id"
    " ORDER BY o.completed_at IS NULL DESC, o.id DESC LIMIT 1"
)
_WEIGHED = text(
    f"SELECT o.id, {evidence_columns(':remote_id')} FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " JOIN plans p ON p.id = a.plan_id WHERE o.id = :id"
)
_VOUCHED_FOR = text(
    # Under whatever number of the engine that the deployment has by now.
    "SELECT a.apply_identifier || '/' || h.deployment FROM remote_ids i"
    " JOIN apply_operations h ON h.id = i.operation_id JOIN applies a ON a.id = h.apply_id"
    " JOIN deployments d ON d.name = :deployment"
    " WHERE i.remote_id = :remote_id AND i.operation_id <> :id AND h.doubt = '' AND h.completed_at IS NULL"
    " AND (i.engine_number = d.engine_number"
    "   OR h.deployment IN (SELECT e.name FROM deployments e WHERE e.engine_number = d.engine_number)) LIMIT 1"
)
_FOLLOWED_AGAIN = (
    ", error_message = '', error_reason = '', remote_identity = '', next_poll_at = tern_clock(), claim_token = NULL,"
    " claim_owner = NULL, claim_expires_at = NULL"
)
_LOOK_AT_LINES = text(
    "UPDATE outstanding_calls SET next_look_at = tern_clock() WHERE operation_id = :id AND settled_at IS NULL"
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
        taken_from: ScopeName | None = None,
        dry_run: bool = False,
        sighting: Sighting | None = None,
    ) -> None:
        """See ports.EvidenceStore."""
        if not reason.strip():
            message = "an uncertain operation is resolved with a reason"
            raise Refused(message, next_step="Say what you saw with --reason.", reason="REASON_MISSING")
        judge = Judge(() if sighting is None else (sighting.sample,))
        try:
            with transaction(self.engine) as tx:
                own = find_named(tx, name)
                holder = None if taken_from is None else find_named(tx, taken_from)
                rows, waiting = lock_with_holder(tx, own, holder, remote_id)
                row = rows[own]
                _wait_for_calls(row, name, self.deadline_s)
                new_id = _checked(tx, row, name, found, remote_id, taken_from)
                if holder is not None:
                    check_holder(tx, rows[holder], row, taken_from, remote_id)
                if new_id is not None:
                    _check_sighting(tx, row, name, new_id, sighting, judge)
                if dry_run:
                    return
                if holder is not None and remote_id is not None:
                    take_from(tx, rows[holder], row, name, remote_id, caller, reason, waiting=waiting)
                if found is Resolved.SAME_WORK:
                    _believe(tx, row, caller, reason)
                else:
                    _answer(tx, row, found, new_id, sighting, caller, reason)
        except IntegrityError as error:
            if not is_taken(error):
                raise
            # Given to another operation in this very moment: that one's driver says so in both.
            message = f"the remote id {remote_id} has just become another operation's"
            raise Refused(message, next_step="Look again.", reason="REMOTE_ID_TAKEN") from None

    def question(self, name: ScopeName, remote_id: RemoteId, taken_from: ScopeName | None = None) -> Question:
        """See ports.EvidenceStore."""
        with transaction(self.engine) as tx:
            own = find_named(tx, name)
            holder = None if taken_from is None else find_named(tx, taken_from)
            rows = lock_operations(tx, [own, *([] if holder is None else [holder])])
            row = rows[own]
            _wait_for_calls(row, name, self.deadline_s)
            _checked(tx, row, name, Resolved.REMOTE_ID, remote_id, taken_from)
            if holder is not None:
                check_holder(tx, rows[holder], row, taken_from, remote_id)
            scope = load_scope(tx, own, name)
            return Question(scope.deployment, RemoteCall(name, remote_id, scope.environment, row.fence))


def _wait_for_calls(row: Row, name: ScopeName, deadline_s: float) -> None:
    if row.state == State.UNCERTAIN.value:
        refuse_while_called(row, name, deadline_s)


def _check_sighting(
    tx: Connection, row: Row, name: ScopeName, remote_id: RemoteId, sighting: Sighting | None, judge: Judge
) -> None:
    """An id that a person named is followed for good, so a slip must not lead to other work; raises Refused."""
    message = f"{remote_id} was not taken for {name}"
    if sighting is None:
        raise Refused(message, why=("its engine was not asked about it",), reason="REMOTE_ID_NOT_SEEN")
    if sighting.fence != row.fence:
        why = "while its engine was asked, somebody else worked on the operation"
        raise Refused(message, why=(why,), next_step="Ask again.", reason="OVERTAKEN")
    weighed = tx.execute(_WEIGHED, {"id": row.id, "remote_id": remote_id}).one()
    evidence = judge.weigh(tx, weighed, sighting.sample)
    if evidence.against:
        raise Refused(
            message,
            why=(f"what its engine at {name.deployment} says of it is about other work", *evidence.against),
            next_step=f"Look at the engine for the job of this rollout: tern get {name} shows its statements.",
            reason="FOREIGN_WORK",
        )


def _answer(
    tx: Connection,
    row: Row,
    found: Resolved,
    new_id: RemoteId | None,
    sighting: Sighting | None,
    caller: str,
    reason: str,
) -> None:
    event, assignments = _arrow(found)
    if found in {Resolved.ENDED, Resolved.COMPLETED} and (sent := sent_of(row)) is not None:
        # Its engine is asked for a while all the same: a person may have looked at the wrong place.
        watch(tx, sent, settled_as="said", caller=caller, reason=reason)
    if found is Resolved.COMPLETED:
        # Before the operation's own ending, which would show what nobody has seen: all rows copied.
        believe_table_changes(tx, row.id, caller)
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
            f"{assignments}, doubt = '', fence = fence + 1, progress_revision = 0,"
            " claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"
        ),
        values={
            **({"reason": reason} if found is Resolved.ENDED else {}),
            **({"told": f"completed, says {caller}: {reason}"[:500]} if found is Resolved.COMPLETED else {}),
            **(_first_sight(sighting) if found is Resolved.REMOTE_ID else {}),
        },
    )
    _go_on(tx, row, caller)


def _first_sight(sighting: Sighting | None) -> dict[str, object]:
    sample = None if sighting is None else sighting.sample
    return {"identity": sample.identity if sample else "", "began": sample.started_at if sample else ""}


def _believe(tx: Connection, row: Row, caller: str, reason: str) -> None:
    """Its id is its own work: samples and wishes count again, and the next one says what has become of it. That one is
    the first again, with which the later ones are compared. What is finished stays so, and how it ended is told still:
    what counts again there is what is seen of it as outstanding.
    """
    ends_wait = "" if State(row.state).is_finished else _FOLLOWED_AGAIN
    tx.execute(
        text(
            "UPDATE apply_operations SET doubt = '', same_work_at = tern_clock(), remote_started_at = '',"
            f" fence = fence + 1, progress_revision = 0{ends_wait} WHERE id = :id"
        ),
        {"id": row.id},
    )
    tx.execute(_LOOK_AT_LINES, {"id": row.id})
    why = f"resolved as {Resolved.SAME_WORK}: {reason}"
    append(tx, Happening(row.apply_id, "same_work", caller, row.id, why, row.state, row.state))
    _go_on(tx, row, caller)


def _go_on(tx: Connection, row: Row, caller: str) -> None:
    # A stop that waited for this answer can go on.
    take_up_wishes(tx, row.id)
    project_parent(tx, row.apply_id, caller)


def _checked(
    tx: Connection,
    row: Row,
    name: ScopeName,
    found: Resolved,
    remote_id: RemoteId | None,
    taken_from: ScopeName | None,
) -> RemoteId | None:
    """The id to follow from now on, where that is the answer; raises Refused where the answer does not fit."""
    doubt = Doubt(row.doubt)
    if found is Resolved.SAME_WORK and doubt is Doubt.TAKEN and has_an_id(tx, row):
        given = {"deployment": row.deployment, "remote_id": row.remote_id, "id": row.id}
        if (other := tx.execute(_VOUCHED_FOR, given).scalar_one_or_none()) is not None:
            message = f"the remote id {row.remote_id} is the work of {other}, as somebody has said"
            step = f"Say what became of its own: tern resolve {name} --as ended --reason '…'"
            raise Refused(message, next_step=step, reason="REMOTE_ID_TAKEN")
        # In whatever state, and without an id of its own too: what is outstanding of it is in the same doubt.
        return None
    if row.state != State.UNCERTAIN.value:
        message = f"{name} is {row.state}, not uncertain"
        raise Refused(message, reason="NOT_UNCERTAIN")
    if found is Resolved.SAME_WORK and (row.remote_id is None or doubt is Doubt.NONE):
        message = f"nobody doubts whose work {name} has at its engine"
        step = f"`tern explain {name}` prints the answers that fit."
        raise Refused(message, next_step=step, reason="NOT_IN_DOUBT")
    if found not in fitting(has_remote_id=row.remote_id is not None, doubt=doubt):
        same = f"tern resolve {name} --as same-work --reason '…', or: " if row.doubt else ""
        message = f"{name} has the remote id {row.remote_id}, which is never replaced"
        raise Refused(
            message,
            why=(f"{found} would dispatch or follow something else",),
            next_step=("Say: " if row.doubt else "A definite sample brings it back; or say: ")
            + f"{same}tern resolve {name} --as {PRINTED} --reason '…' (or --as completed).",
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
    _refuse_a_taken_id(tx, row, name, remote_id, taken_from)
    return remote_id


def _refuse_a_taken_id(
    tx: Connection, row: Row, name: ScopeName, remote_id: RemoteId, taken_from: ScopeName | None
) -> None:
    """An engine gives an id once: one that another operation there has is that operation's, unless a person who looked
    says by name from whom it is taken (G2).
    """
    given = {
        "engine": row.engine_number,
        "deployment": row.deployment,
        "remote_id": remote_id,
        "id": row.id,
    }
    other = tx.execute(_OTHER, given).scalar_one_or_none()
    if other is None or (taken_from is not None and other == str(taken_from)):
        return
    message = f"the remote id {remote_id} is that of {other}"
    raise Refused(
        message,
        why=("an engine gives each id once",),
        unchanged="Nothing was written.",
        next_step=f"If {other} was never that job: tern resolve {name} --as remote-id={remote_id}"
        f" --taken-from {other} --reason '…'.",
        reason="REMOTE_ID_TAKEN",
    )


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
                "error_message = :reason, error_reason = 'ENDED', next_attempt_at = NULL,"
                # What was sent and not answered is looked at to the end of its time all the same.
                " next_poll_at = CASE WHEN unanswered_since IS NOT NULL THEN next_poll_at END"
            )
        case Resolved.COMPLETED:
            return Event.FINISH, (
                f"{clean}, summary = :told, next_attempt_at = NULL,"
                " next_poll_at = CASE WHEN unanswered_since IS NOT NULL THEN next_poll_at END"
            )
        case Resolved.REMOTE_ID:
            return Event.ADOPT, (
                f"{clean}, next_attempt_at = NULL, next_poll_at = tern_clock(), remote_identity = :identity,"
                f" remote_started_at = :began, {APPLY_IS_ANSWERED}"
            )
        case Resolved.REPEAT_APPLY:
            return Event.REPEAT, (
                f"{clean}, repeat_is_safe = true, answered_attempts = 0, dispatch_intent_at = tern_clock(),"
                " next_attempt_at = tern_clock()"
            )
        case Resolved.SAME_WORK:
            message = "it takes no arrow: the next sample does"
            raise AssertionError(message)
