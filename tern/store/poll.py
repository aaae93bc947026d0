"""Durable steps of polling: a deployment's cursors, and what was seen, written set-based (G2, G10, G12).

A poll holds a lease on the deployment, never a claim on an operation: a control may come between the question and
the answer. Each row is therefore written only if remote id and fence are still those that were asked for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tern.domain.control import Delivery
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok
from tern.domain.outcome import Refused as CallRefused
from tern.domain.samples import MergeContext, Observed, Sample, merge
from tern.domain.scope import validate
from tern.domain.states import Event, State
from tern.domain.timing import (
    LOST_CONTACT_AFTER,
    PROBE_INTERVAL_S,
    RPC_DEADLINE_S,
    START_GRACE_S,
    poll_interval_s,
)
from tern.ports import Cursor, Due, DueControl, Looked, NotClaimed, Poll
from tern.store.deployment import deployment_in
from tern.store.event import Happening, append
from tern.store.progress import write_tables
from tern.store.projection import close_deliveries, close_fulfilled, move, project_parent
from tern.store.scope import REMOTE_ID, SCOPE_COLUMNS, SCOPE_ROWS, found_in
from tern.store.session import single, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import NOW, new_token
from tern.store.sweep import SweepSteps
from tern.store.wish import wish_stop_again

POLL_LEASE_S = 15.0
FULL_READ_S = 30
_BATCH = 500

_CURSORS = text(
    f"SELECT o.id, o.deployment, o.fence, {REMOTE_ID} AS remote_id, a.apply_identifier,"
    # The first look in every half minute reads in full, whatever the engine thinks that we know; each operation
    # has half minutes of its own, so that not all are read in full at once.
    f" CASE WHEN floor((extract(epoch FROM {NOW}) + o.id) / {FULL_READ_S})"
    f"   = floor((extract(epoch FROM o.sampled_at) + o.id) / {FULL_READ_S})"
    "   THEN o.progress_revision ELSE 0 END AS progress_revision,"
    " a.environment FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    f" WHERE o.deployment = :deployment AND o.next_poll_at <= {NOW} AND {REMOTE_ID} IS NOT NULL"
    " ORDER BY o.next_poll_at LIMIT :limit"
)
_LEASE = text(
    # One that was given up while its holder still works has another owner from then on.
    "WITH lease AS (INSERT INTO sweep_leases AS l (name, owner, token, expires_at)"
    "   SELECT 'poll:' || name, :owner, :token, tern_clock() + make_interval(secs => :lease_s)"
    "   FROM deployments WHERE name = :deployment"
    "   ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, token = excluded.token,"
    "   expires_at = excluded.expires_at WHERE l.expires_at <= tern_clock()"
    "   OR l.expires_at > tern_clock() + make_interval(secs => 2 * :lease_s) RETURNING 1),"
    " answered AS (UPDATE sweep_leases SET expires_at = tern_clock() WHERE name = 'bell:' || :deployment"
    "   AND EXISTS (SELECT 1 FROM lease))"
    " SELECT d.*, EXISTS (SELECT 1 FROM lease) AS is_ours, EXISTS (SELECT 1 FROM apply_operations"
    "   WHERE deployment = :deployment AND state = 'failed_retryable') AS has_retryable"
    " FROM deployments d WHERE d.name = :deployment"
)
_ONE = text(f"SELECT o.*, {SCOPE_COLUMNS} FROM {SCOPE_ROWS} WHERE o.id = :id")
_SEEN = (
    f"SELECT o.id, o.apply_id, o.deployment, o.state, o.fence, o.attempt, o.poll_failures, {REMOTE_ID} AS remote_id,"
    " extract(epoch FROM tern_clock() - o.state_changed_at)::float AS state_age_s,"
    " o.runs_though_stopped, extract(epoch FROM tern_clock() - o.start_sent_at)::float AS start_age_s,"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent'))"
    "   AS control_open,"
    # An engine may refuse to stop what is stopped: that answers the stop too, once no earlier Start can act any more.
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.verb = 'stop'"
    "   AND (d.state = 'sent' OR d.state = 'pending' AND d.refusals > 0 AND NOT EXISTS ("
    "     SELECT 1 FROM control_deliveries s WHERE s.operation_id = o.id AND s.verb = 'start'"
    "     AND s.state IN ('pending', 'sent')"
    f"     AND (s.id > d.id OR s.called_at > tern_clock() - make_interval(secs => {RPC_DEADLINE_S})))))"
    "   AS stop_was_sent,"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.verb = 'start'"
    "   AND d.state IN ('pending', 'sent')) AS start_is_open"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.id = ANY(:ids) ORDER BY o.id"
)
_SEEN_NOW = text(_SEEN)
_SEEN_LOCKED = text(f"{_SEEN} FOR NO KEY UPDATE OF o SKIP LOCKED")
_LOCK_APPLIES = text("SELECT 1 FROM applies WHERE id = ANY(:applies) ORDER BY id FOR NO KEY UPDATE")
_GIVE_BACK = text("UPDATE sweep_leases SET expires_at = tern_clock() WHERE name = :name AND owner = :owner")


@dataclass(frozen=True, slots=True)
class _Seen:
    """One operation with the answer about it; `look` None where the cursor was unchanged."""

    row: Row
    cursor: Cursor
    look: Looked | None

    @property
    def sample(self) -> Sample | None:
        return self.look.outcome.value if self.look and isinstance(self.look.outcome, Ok) else None

    @property
    def is_lost(self) -> bool:
        """The engine says that it does not know the id that we store (PO2)."""
        return (
            self.look is not None
            and isinstance(self.look.outcome, CallRefused)
            and self.look.outcome.code == "NOT_FOUND"
        )

    @property
    def failure(self) -> str:
        """Why this look was none; an answer without a meaning for us is counted like no answer (PO1)."""
        if self.look is None:
            return ""
        if isinstance(self.look.outcome, Ok):
            said = self.look.outcome.value.said
            return "" if self.sample_has_meaning else f"the engine says {said}, which has no meaning here"
        return self.look.outcome.message or "no answer"

    @property
    def sample_has_meaning(self) -> bool:
        return self.sample is not None and self.sample.state is not None

    @property
    def failures(self) -> int:
        """Failed looks in a row with this one. Being refused needs no patience: contact is lost at once (PO3)."""
        if not self.failure:
            return 0
        counted = int(str(self.row.poll_failures)) + 1
        refused = self.look is not None and isinstance(self.look.outcome, CallRefused)
        return max(counted, LOST_CONTACT_AFTER) if refused and not self.is_lost else counted

    def observed(self) -> Observed | None:
        sample = self.sample
        if sample is None:
            return None
        context = MergeContext(
            start_sent_s_ago=self.row.start_age_s,
            grace_s=START_GRACE_S,
            stop_was_sent=self.row.stop_was_sent,
            start_is_open=self.row.start_is_open,
        )
        return merge(State(self.row.state), sample.state, context)

    @property
    def moves(self) -> bool:
        """Something is written that the apply's lock protects."""
        if self.is_lost:
            return State(self.row.state).is_live and self.row.state != State.UNCERTAIN.value
        observed = self.observed()
        return observed is not None and (
            observed.event is not None or observed.resend_stop or (observed.applied and self.row.control_open)
        )


class PollSteps(SweepSteps):
    """ports.PollStore on PostgreSQL."""

    def begin_poll(self, deployment: str) -> Poll | NotClaimed:
        """See ports.PollStore."""
        owner = f"{self.owner}:{new_token()}"
        given = {"deployment": deployment, "owner": owner, "token": new_token(), "lease_s": POLL_LEASE_S}
        with single(self.engine) as tx:
            found = tx.execute(_LEASE, given).one_or_none()
        if found is None:
            # Before the lease: a message about nothing leaves no row behind (G7).
            return NotClaimed(f"there is no deployment {deployment}")
        if not found.is_ours:
            return NotClaimed("another poll of this deployment is under way")
        with single(self.engine) as tx:
            rows = tx.execute(_CURSORS, {"deployment": deployment, "limit": _BATCH}).all()
        probes = found.has_retryable and self.take_lease(f"probe:{deployment}", owner, PROBE_INTERVAL_S)
        return Poll(deployment_in(found), owner, tuple(_cursor(row) for row in rows), probes)

    def begin_look(self, operation_id: int, name: ScopeName) -> Poll | NotClaimed:
        """See ports.PollStore."""
        with single(self.engine) as tx:
            row = tx.execute(_ONE, {"id": operation_id}).one_or_none()
        scope = validate(name, operation_id, None if row is None else found_in(row))
        if row is None or scope.remote_id is None:
            return NotClaimed("it has no remote id yet")
        if State(row.state).is_finished:
            return NotClaimed(f"it is {row.state}")
        call = RemoteCall(name, scope.remote_id, scope.environment, row.fence)
        cursor = Cursor(operation_id, call, int(row.progress_revision))
        return Poll(scope.deployment, "", (cursor,), has_retryable=False)

    def record_looks(self, poll: Poll, looks: Sequence[Looked]) -> tuple[Due | DueControl, ...]:
        """See ports.PollStore."""
        if not poll.cursors:
            with single(self.engine) as tx:
                tx.execute(_GIVE_BACK, {"name": f"poll:{poll.deployment.name}", "owner": poll.owner})
            return ()
        answers = {look.cursor.operation_id: look for look in looks}
        due: list[Due | DueControl] = []
        with transaction(self.engine) as tx:
            moving = [seen for seen in _load(tx, poll, answers) if seen.moves]
            applies = sorted({seen.row.apply_id for seen in moving})
            # In the lock order, and everything is read again in a statement that begins after the locks.
            seen = _load(tx, poll, answers, applies)
            locked = set(applies)
            # What began to move since the first look waits for the next poll; its cursor does not advance.
            written = [one for one in seen if not one.moves or one.row.apply_id in locked]
            # Statements first: the state of the operation has the last word on those that it settles.
            write_tables(
                tx,
                {
                    one.row.id: one.sample.tables
                    for one in written
                    if one.sample is not None
                    and (observed := one.observed()) is not None
                    and observed.applied
                },
            )
            self._write_states(tx, [one for one in written if one.moves])
            self._write_samples(tx, written)
            for apply_pk in applies:
                due += project_parent(tx, apply_pk, self.owner)
            if poll.owner:
                tx.execute(_GIVE_BACK, {"name": f"poll:{poll.deployment.name}", "owner": poll.owner})
        return tuple(due)

    def _write_states(self, tx: Connection, moving: Sequence[_Seen]) -> None:
        for seen in moving:
            row = seen.row
            if seen.is_lost:
                self._lose_track(tx, seen)
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

    def _observe(self, tx: Connection, seen: _Seen, event: Event, sample: Sample) -> None:
        row = seen.row
        words = sample.error_message
        after = move(
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
                " next_attempt_at = NULL"
            ),
            values={
                "failed": event is Event.OBSERVE_FAILED,
                "cleared": row.state == State.UNCERTAIN.value,
                "words": words,
            },
        )
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
        close_fulfilled(tx, row.apply_id, {row.id: after})

    def _lose_track(self, tx: Connection, seen: _Seen) -> None:
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
            assignments="error_reason = 'REMOTE_ID_UNKNOWN', error_message = :words, next_attempt_at = NULL",
            values={"words": words},
        )

    def _write_samples(self, tx: Connection, seen: Sequence[_Seen]) -> None:
        """One statement for all operations, however many there are."""
        lines = [self._line(one) for one in seen]
        if not lines:
            return
        tx.execute(
            text(
                "UPDATE apply_operations o SET"
                " next_poll_at = CASE WHEN o.completed_at IS NOT NULL THEN NULL"
                "   ELSE tern_clock() + make_interval(secs => s.next_s) END,"
                " poll_failures = s.failures,"
                " poll_error = s.error,"
                " sampled_at = CASE WHEN s.fresh THEN tern_clock() ELSE o.sampled_at END,"
                # Only a sample that says what stands here speaks for this attempt; one from behind opens no gate.
                " sampled_attempt = CASE WHEN s.confirms IS NULL THEN o.sampled_attempt"
                "   WHEN s.confirms THEN o.attempt END,"
                " progress_revision = coalesce(s.revision, o.progress_revision),"
                " summary = coalesce(s.summary, o.summary),"
                " runs_though_stopped = coalesce(s.runs_though_stopped, o.runs_though_stopped)"
                " FROM jsonb_to_recordset(CAST(:lines AS jsonb)) AS s(id bigint, fence bigint, next_s float,"
                "   failures integer, error text, fresh boolean, confirms boolean, revision numeric, summary text,"
                "   runs_though_stopped boolean)"
                " WHERE o.id = s.id AND o.fence = s.fence"
            ),
            {"lines": json.dumps(lines)},
        )

    def _line(self, seen: _Seen) -> dict[str, Any]:
        row = seen.row
        sample, observed = seen.sample, seen.observed()
        applied = observed is not None and observed.applied
        unchanged = seen.look is None
        # A note about a sample that can't be taken over now is no failed contact.
        failure = seen.failure or (observed.note if observed is not None and not applied else "")
        state = observed.state if observed is not None else State(row.state)
        if seen.is_lost and state.is_live:
            state = State.UNCERTAIN
        next_s = poll_interval_s(
            state.value,
            state_age_s=0.0 if state.value != row.state else row.state_age_s,
            poll_failures=seen.failures,
            control_open=row.control_open or (observed is not None and observed.resend_stop),
            pace=self.pace,
        )
        return {
            "id": row.id,
            "fence": row.fence,
            "next_s": next_s,
            "failures": seen.failures,
            "error": failure[:500],
            "fresh": applied or unchanged,
            "confirms": sample.state is state if sample is not None and applied else None,
            # A cursor advances only together with a sample that was taken over.
            "revision": str(sample.revision) if sample is not None and applied else None,
            "summary": sample.summary[:500] if sample is not None and applied else None,
            "runs_though_stopped": (
                True if observed is not None and observed.resend_stop else (False if applied else None)
            ),
        }

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
    name = ScopeName(ApplyId(row.apply_identifier), row.deployment)
    call = RemoteCall(name, RemoteId(row.remote_id), row.environment, row.fence)
    return Cursor(row.id, call, int(row.progress_revision))


def _load(
    tx: Connection, poll: Poll, answers: Mapping[int, Looked], applies: Sequence[int] | None = None
) -> list[_Seen]:
    """The polled operations as they are now, without those that another id or fence has overtaken; with `applies`,
    under the locks of these and their own, in order. A row that a driver holds just now is left to the next poll rather
    than waited for.
    """
    cursors = {cursor.operation_id: cursor for cursor in poll.cursors}
    ids = {"ids": sorted(cursors)}
    if applies is None:
        found = tx.execute(_SEEN_NOW, ids)
    elif not applies:
        found = tx.execute(_SEEN_LOCKED, ids)
    else:
        with tx.together():
            tx.execute(_LOCK_APPLIES, {"applies": list(applies)})
            found = tx.execute(_SEEN_LOCKED, ids)
    return [
        _Seen(row, cursors[row.id], answers.get(row.id))
        for row in found
        if row.remote_id == cursors[row.id].call.remote_id and row.fence == cursors[row.id].call.fence
    ]
