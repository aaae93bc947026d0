"""Durable steps of polling: a deployment's cursors, and what was seen, written set-based (G2, G10, G12).

A poll holds a lease on the deployment, never a claim on an operation: a control may come between the question and
the answer, and so may another poll, if this one is frozen for longer than its lease. Each row is therefore written only
if remote id and fence are still those that were asked for, the lease is ours, and no other look was written since.
"""

import json
from collections.abc import Sequence

from tern.domain.control import Delivery
from tern.domain.doubt import Doubt
from tern.domain.errors import ScopeRefused
from tern.domain.identity import ApplyId, DispatchKey, RemoteId, ScopeName
from tern.domain.model import Claim, OperationScope, RemoteCall
from tern.domain.outcome import Ok
from tern.domain.samples import Sample
from tern.domain.scope import validate
from tern.domain.states import Event, State
from tern.domain.timing import PROBE_INTERVAL_S, UNANSWERED_LOOK_S, UNANSWERED_S
from tern.ports import Cursor, Due, DueControl, KeyLook, Looked, NotClaimed, Poll
from tern.store.deployment import deployment_in
from tern.store.event import Happening, append
from tern.store.foreign import end_foreign_work, hold_in_doubt
from tern.store.outstanding import Why, job_of, open_outstanding, watch
from tern.store.outstanding_look import OF_DEPLOYMENT
from tern.store.own_work import Judge
from tern.store.progress import write_tables
from tern.store.projection import close_deliveries, close_fulfilled, move, project_parent
from tern.store.reservation import begin_wait_again, give_back
from tern.store.scope import HOLDS_ITS_ID, REMOTE_ID, SCOPE_COLUMNS, SCOPE_ROWS, found_in
from tern.store.seen import SAMPLED, SAMPLED_TYPES, SAMPLED_WITH_IT, Seen, load_seen
from tern.store.session import single, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import NOW, heard, new_token
from tern.store.sweep import SweepSteps
from tern.store.wish import take_up_wishes, wish_stop_again

POLL_LEASE_S = 15.0
FULL_READ_S = 30
_BATCH = 500

_CURSORS = text(
    f"SELECT o.id, o.deployment, o.fence, o.looks, {REMOTE_ID} AS remote_id, a.apply_identifier,"
    # The first look in every half minute reads in full, whatever the engine thinks that we know; each operation
    # has half minutes of its own, so that not all are read in full at once.
    f" CASE WHEN floor((extract(epoch FROM {NOW}) + o.id) / {FULL_READ_S})"
    f"   = floor((extract(epoch FROM o.sampled_at) + o.id) / {FULL_READ_S})"
    "   THEN o.progress_revision ELSE 0 END AS progress_revision,"
    f" a.environment, {HOLDS_ITS_ID} AS is_held FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    f" WHERE o.deployment = :deployment AND (o.next_poll_at <= {NOW}"
    f"   OR o.next_poll_at > {NOW} + make_interval(secs => :longest_poll_s))"
    f" ORDER BY o.next_poll_at LIMIT {_BATCH}"
)
_LEASE = text(
    # One that was given up while its holder still works has another owner from then on.
    "WITH lease AS (INSERT INTO sweep_leases AS l (name, owner, token, began_at, expires_at)"
    "   SELECT 'poll:' || name, :owner, :token, n.now, n.now + make_interval(secs => :lease_s)"
    "   FROM deployments, (SELECT tern_clock() AS now) n WHERE name = :deployment"
    "   ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, token = excluded.token,"
    "   began_at = excluded.began_at, expires_at = excluded.expires_at WHERE l.expires_at <= tern_clock() RETURNING "
    # A lease that a crash of PostgreSQL takes back was nobody's loss: it is not waited for until it is on disk.
    "   set_config('synchronous_commit', 'off', true)),"
    " answered AS (UPDATE sweep_leases SET expires_at = tern_clock() WHERE name = 'bell:' || :deployment"
    "   AND EXISTS (SELECT 1 FROM lease))"
    " SELECT d.*, EXISTS (SELECT 1 FROM lease) AS is_ours, EXISTS (SELECT 1 FROM apply_operations"
    "   WHERE deployment = :deployment AND state = 'failed_retryable') AS has_retryable"
    " FROM deployments d WHERE d.name = :deployment"
)
_ONE = text(
    f"SELECT o.*, {SCOPE_COLUMNS}, {HOLDS_ITS_ID} AS is_held,"
    " extract(epoch FROM tern_clock() - o.unanswered_since)::float AS unanswered_for_s"
    f" FROM {SCOPE_ROWS} WHERE o.id = :id"
)
_WRITE_SAMPLES = text(
    f"UPDATE apply_operations o SET {SAMPLED.format_map({name: f's.{name}' for name in SAMPLED_TYPES})}"
    " FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS s(id bigint, fence bigint,"
    f"   {', '.join(f'{name} {kind}' for name, kind in SAMPLED_TYPES.items())})"
    # The ids beside the lines: nobody knows how many lines there are, and a planner that guesses reads the whole table.
    " WHERE o.id = ANY(:ids) AND o.id = s.id AND o.fence = s.fence"
)
_TOO_OLD_TO_ACT = ", ".join(
    # By itself it acts no more after that; a trigger that forgets it would forget the look as well.
    f"{column} = CASE WHEN unanswered_since > tern_clock() - make_interval(secs => {UNANSWERED_S}) THEN {column}"
    f" ELSE {empty} END"
    for column, empty in (("unanswered_call", "''"), ("unanswered_since", "NULL"))
)
_GIVE_BACK = text("UPDATE sweep_leases SET expires_at = tern_clock() WHERE name = :name AND owner = :owner")


class PollSteps(SweepSteps):
    """ports.PollStore on PostgreSQL."""

    def begin_poll(self, deployment: str) -> Poll | NotClaimed:
        """See ports.PollStore."""
        owner = f"{self.owner}:{new_token()}"
        given = {"deployment": deployment, "owner": owner, "token": new_token(), "lease_s": POLL_LEASE_S}
        with single(self.engine) as tx, tx.together():
            leased = tx.execute(_LEASE, given)
            due = tx.execute(_CURSORS, {"deployment": deployment, "longest_poll_s": self.longest_poll_s})
            outstanding = tx.execute(OF_DEPLOYMENT, {"deployment": deployment})
        found = leased.one_or_none()
        if found is None:
            # Before the lease: a message about nothing leaves no row behind (G7).
            return NotClaimed(f"there is no deployment {deployment}")
        if not found.is_ours:
            return NotClaimed("another poll of this deployment is under way")
        probes = found.has_retryable and self.take_lease(f"probe:{deployment}", owner, PROBE_INTERVAL_S)
        rows = due.all()
        return Poll(
            deployment_in(found),
            owner,
            # What has no id is looked at by its key; an id that is not the operation's to use is not sent (G2).
            tuple(_cursor(row) for row in rows if row.remote_id is not None and row.is_held),
            probes,
            tuple(Due(row.id, _name_of(row)) for row in rows if row.remote_id is None),
            tuple(outstanding.scalars()),
        )

    def begin_key_look(self, operation_id: int, name: ScopeName) -> KeyLook | NotClaimed:
        """See ports.PollStore."""
        with transaction(self.engine) as tx:
            row = tx.execute(_ONE, {"id": operation_id}).one_or_none()
            try:
                scope = validate(name, operation_id, None if row is None else found_in(row))
            except ScopeRefused as refused:
                why = str(refused)
            else:
                stands = row is not None and _stands(row, scope)
                why = "" if stands else _no_key_look(row, scope)
                if row is not None and not why:
                    claim = Claim(
                        operation_id,
                        token="",
                        fence=row.fence,
                        attempt=row.attempt,
                        generation=row.dispatch_generation,
                        key=DispatchKey(row.dispatch_key),
                    )
                    return KeyLook(claim, scope, only_whether_there=stands)
            # Whatever made it due, there is nothing to look at; one that has its id by now has a cursor.
            tx.execute(
                text(
                    "UPDATE apply_operations o SET next_poll_at = NULL FROM applies a WHERE o.id = :id"
                    f" AND a.id = o.apply_id AND {REMOTE_ID} IS NULL"
                ),
                {"id": operation_id},
            )
            return NotClaimed(why)

    def record_key_look(self, look: KeyLook, *, again: bool, is_heard: bool) -> None:
        """See ports.PollStore."""
        with single(self.engine) as tx:
            tx.execute(
                text(
                    f"UPDATE apply_operations o SET next_poll_at = CASE WHEN :again"
                    f" THEN tern_clock() + make_interval(secs => :look_s) END, {heard(is_heard)}, {_TOO_OLD_TO_ACT}"
                    " FROM applies a"
                    # One that has its id by now is looked at by that.
                    f" WHERE o.id = :id AND a.id = o.apply_id AND o.fence = :fence AND {REMOTE_ID} IS NULL"
                ),
                {
                    "again": again,
                    "look_s": self.pace.slow_s if look.only_whether_there else UNANSWERED_LOOK_S,
                    "id": look.claim.operation_id,
                    "fence": look.claim.fence,
                },
            )

    def begin_look(self, operation_id: int, name: ScopeName) -> Poll | NotClaimed:
        """See ports.PollStore."""
        with single(self.engine) as tx:
            row = tx.execute(_ONE, {"id": operation_id}).one_or_none()
        scope = validate(name, operation_id, None if row is None else found_in(row))
        if row is None or scope.remote_id is None:
            return NotClaimed("it has no remote id yet")
        if State(row.state).is_finished and not (row.unanswered_since is not None and row.is_held):
            return NotClaimed(f"it is {row.state}")
        call = RemoteCall(name, scope.remote_id, scope.environment, row.fence)
        cursor = Cursor(operation_id, call, int(row.progress_revision), row.looks)
        return Poll(scope.deployment, "", (cursor,), has_retryable=False)

    def record_looks(self, poll: Poll, looks: Sequence[Looked]) -> tuple[Due | DueControl, ...]:
        """See ports.PollStore."""
        if not poll.cursors:
            with single(self.engine) as tx:
                tx.execute(_GIVE_BACK, {"name": f"poll:{poll.deployment.name}", "owner": poll.owner})
            return ()
        answers = {look.cursor.operation_id: look for look in looks}
        judge = Judge(look.outcome.value for look in looks if isinstance(look.outcome, Ok))
        due: list[Due | DueControl] = []
        with transaction(self.engine) as tx:
            moving = [seen for seen in load_seen(tx, poll, answers, judge, self.deadline_s) if seen.moves]
            applies = sorted({seen.row.apply_id for seen in moving})
            # In the lock order, and everything is read again in a statement that begins after the locks.
            seen = load_seen(tx, poll, answers, judge, self.deadline_s, applies)
            locked = set(applies)
            # What began to move since the first look waits for the next poll; its cursor does not advance.
            written = [one for one in seen if not one.moves or one.row.apply_id in locked]
            # Nothing is asked any more, only written, until a projection counts what came of it.
            tx.hasten()
            # Statements first: the state of the operation has the last word on those that it settles.
            told = {
                one.row.id: (one.told, observed.state)
                for one in written
                if one.sample is not None and (observed := one.observed()) is not None and observed.applied
            }
            write_tables(
                tx,
                {each: tables for each, (tables, _) in told.items()},
                {each: state for each, (_, state) in told.items()},
            )
            self._write_states(tx, [one for one in written if one.moves])
            self._write_samples(tx, [one for one in written if not one.is_moved])
            for apply_pk in applies:
                due += project_parent(tx, apply_pk, self.owner, rings=True)
            begin_wait_again(tx, [one.row.id for one in written if one.runs_again])
            for one in written:
                if one.frees_target:
                    # Its target is given back, and some engines try again by themselves for longer than that.
                    words = "its engine called it failed, for long enough"
                    watch(tx, job_of(one.row), settled_as="failed", caller=self.owner, reason=words)
            give_back(tx, [one.row.id for one in written if one.frees_target])
            if poll.owner:
                tx.execute(_GIVE_BACK, {"name": f"poll:{poll.deployment.name}", "owner": poll.owner})
        return tuple(due)

    def _write_states(self, tx: Connection, moving: Sequence[Seen]) -> None:
        for seen in moving:
            row = seen.row
            if seen.is_lost:
                self._lose_track(tx, seen)
                continue
            if seen.contradicts:
                self._keep_contradiction(tx, seen)
                continue
            if seen.is_foreign:
                if seen.doubt is Doubt.NONE:
                    hold_in_doubt(tx, seen, self.pace)
                end_foreign_work(tx, seen)
                continue
            observed = seen.observed()
            sample = seen.sample
            if observed is None or sample is None:
                continue
            if observed.resend_stop:
                wish_stop_again(tx, row, observed.note)
            if observed.event is not None:
                self._observe(tx, seen, observed.event, sample)
            elif observed.applied:
                close_fulfilled(tx, row.apply_id, {row.id: State(row.state)})

    def _observe(self, tx: Connection, seen: Seen, event: Event, sample: Sample) -> None:
        row = seen.row
        words = sample.error_message
        move(
            tx,
            operation_id=row.id,
            apply_pk=row.apply_id,
            state=State(row.state),
            event=event,
            who=f"engine:{row.deployment}",
            why=words or sample.summary or f"the engine says {sample.said}",
            detail={"remote_id": sample.remote_id, "said": sample.said, "attempt": row.attempt},
            assignments=(
                # What made it uncertain is over once a definite sample is there.
                "error_message = CASE WHEN :failed THEN :words WHEN :cleared THEN '' ELSE error_message END,"
                " error_reason = CASE WHEN :failed THEN 'ENGINE_FAILED' WHEN :cleared THEN '' ELSE error_reason END,"
                f" doubt = '', next_attempt_at = NULL, {SAMPLED_WITH_IT}"
            ),
            values={
                **seen.line(self.pace),
                "failed": event is Event.OBSERVE_FAILED,
                "cleared": row.state == State.UNCERTAIN.value,
                "words": words,
            },
            # One that comes between finds what is settled, and is closed by its own driver.
            may_have_wishes=row.control_open or seen.resends_stop,
        )
        if seen.doubt is not Doubt.NONE:
            take_up_wishes(tx, row.id)
        if event is Event.RESUME_REFUSED:
            open_start = tx.execute(
                text(
                    "SELECT id FROM control_deliveries WHERE operation_id = :id AND verb = 'start'"
                    " AND state IN ('pending', 'sent') FOR UPDATE"
                ),
                {"id": row.id},
            ).scalar_one_or_none()
            if open_start is not None:
                words = "still stopped after Start"
                close_deliveries(tx, {open_start: Delivery.FAILED}, words)
                fate = Happening(row.apply_id, "start_failed", f"engine:{row.deployment}", row.id, words)
                append(tx, fate)

    def _lose_track(self, tx: Connection, seen: Seen) -> None:
        row = seen.row
        words = (
            f"the engine at {row.deployment} does not know {row.remote_id}: lost there, or the wrong engine"
        )
        move(
            tx,
            operation_id=row.id,
            apply_pk=row.apply_id,
            state=State(row.state),
            event=Event.LOSE_TRACK,
            who=f"engine:{row.deployment}",
            why=words,
            assignments=(
                "error_reason = 'REMOTE_ID_UNKNOWN', error_message = :words, next_attempt_at = NULL,"
                f" {SAMPLED_WITH_IT}"
            ),
            values={"words": words, **seen.line(self.pace)},
        )

    def _keep_contradiction(self, tx: Connection, seen: Seen) -> None:
        """What is finished here works there: an unanswered call has acted late, and no operation follows it."""
        row = seen.row
        words = f"it is {row.state}, and the engine at {row.deployment} says {seen.sample.said if seen.sample else ''}"
        call_id = open_outstanding(tx, job_of(row), why=Why.CONTRADICTED, caller=self.owner, reason=words)
        detail = {"remote_id": row.remote_id, "outstanding": call_id}
        append(
            tx,
            Happening(row.apply_id, "contradicted", f"engine:{row.deployment}", row.id, words, detail=detail),
        )

    def _write_samples(self, tx: Connection, seen: Sequence[Seen]) -> None:
        """One statement for all operations that stay in their states, however many there are."""
        lines = [{"id": one.row.id, "fence": one.row.fence, **one.line(self.pace)} for one in seen]
        if lines:
            tx.execute(_WRITE_SAMPLES, {"ids": [line["id"] for line in lines], "lines": json.dumps(lines)})

    def expedite_retries(self, deployment: str) -> None:
        """See ports.PollStore."""
        with transaction(self.engine) as tx:
            tx.execute(
                text(
                    "UPDATE apply_operations SET next_attempt_at ="
                    " least(next_attempt_at, tern_clock() + make_interval(secs => random() * 2))"
                    " WHERE deployment = :deployment AND state = 'failed_retryable' AND claim_token IS NULL"
                    " AND next_attempt_at IS NOT NULL"
                ),
                {"deployment": deployment},
            )


def _cursor(row: Row) -> Cursor:
    name = _name_of(row)
    call = RemoteCall(name, RemoteId(row.remote_id), row.environment, row.fence)
    return Cursor(row.id, call, int(row.progress_revision), row.looks)


def _name_of(row: Row) -> ScopeName:
    return ScopeName(ApplyId(row.apply_identifier), row.deployment)


def _stands(row: Row, scope: OperationScope) -> bool:
    """Nothing is called for it any more, and its key may act: only whether its engine is there is asked."""
    has_live_key = row.dispatch_key is not None and not row.dispatch_key_is_dead
    is_left = row.state == State.UNCERTAIN.value or (
        row.state == State.FAILED_RETRYABLE.value and row.next_attempt_at is None
    )
    is_unanswered = row.unanswered_for_s is not None and row.unanswered_for_s <= UNANSWERED_S
    return scope.remote_id is None and has_live_key and is_left and not is_unanswered


def _no_key_look(row: Row | None, scope: OperationScope) -> str:
    """Why there is no dispatch to be looked at by its key; empty where there is one."""
    if row is None or scope.remote_id is not None:
        return "it is looked at by its remote id"
    if row.unanswered_call != "apply" or row.dispatch_key is None or row.dispatch_key_is_dead:
        return "no dispatch of it is unanswered"
    if row.unanswered_for_s > UNANSWERED_S:
        return "its unanswered dispatch is too old to act by itself"
    if row.engine_number not in {None, scope.deployment.engine_number}:
        return "its dispatch went to another engine"
    return ""
