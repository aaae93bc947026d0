"""Looking at what engines do; the twin of tern/store/poll.py and progress.py."""

import math
from collections.abc import Mapping, Sequence

from tern.domain.control import Delivery
from tern.domain.identity import ApplyId, RemoteId, ScopeName
from tern.domain.model import RemoteCall
from tern.domain.outcome import Ok, Refused
from tern.domain.samples import MergeContext, Observed, Sample, TableSample, merge
from tern.domain.states import Event, State
from tern.domain.timing import (
    LOST_CONTACT_AFTER,
    PROBE_INTERVAL_S,
    RPC_DEADLINE_S,
    START_GRACE_S,
    poll_interval_s,
)
from tern.ports import Cursor, Due, DueControl, Looked, NotClaimed, Poll
from tern.store.poll import FULL_READ_S, POLL_LEASE_S
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import (
    THROUGH,
    close_delivery,
    close_fulfilled,
    move,
    project_parent,
    tell,
)
from tests.simulation.memory.rows import OperationRow, TableChangeRow
from tests.simulation.memory.scope import deployment_from, load_scope, new_token
from tests.simulation.memory.sweep import SweepSteps
from tests.simulation.memory.wish import wish_stop_again

_BATCH = 500
CHANCE = 0.5
"""What random() is in both stores."""


class _Seen:
    """One operation with the answer about it, and what was decided when it was loaded."""

    def __init__(self, db: Database, row: OperationRow, cursor: Cursor, look: Looked | None) -> None:
        self.row = row
        self.cursor = cursor
        self.look = look
        self.state = State(row.state)
        self.state_age_s = db.now - row.state_changed_at
        wishes = db.deliveries_of[row.id]
        self.control_open = any(wish.is_open for wish in wishes)
        outcome = None if look is None else look.outcome
        self.sample: Sample | None = outcome.value if isinstance(outcome, Ok) else None
        self.is_refused = isinstance(outcome, Refused)
        self.is_lost = isinstance(outcome, Refused) and outcome.code == "NOT_FOUND"
        self.failure = ""
        if isinstance(outcome, Ok):
            if outcome.value.state is None:
                self.failure = f"the engine says {outcome.value.said}, which has no meaning here"
        elif outcome is not None:
            self.failure = outcome.message or "no answer"
        self.failures = self._count_failures()
        self.observed = self._observe(db)

    def _count_failures(self) -> int:
        if not self.failure:
            return 0
        counted = self.row.poll_failures + 1
        return max(counted, LOST_CONTACT_AFTER) if self.is_refused and not self.is_lost else counted

    def _observe(self, db: Database) -> Observed | None:
        if self.sample is None:
            return None
        row = self.row
        context = MergeContext(
            start_sent_s_ago=None if row.start_sent_at is None else db.now - row.start_sent_at,
            grace_s=START_GRACE_S,
            stop_was_sent=_stop_was_sent(db, row),
            start_is_open=db.open_delivery(row.id, "start") is not None,
        )
        return merge(self.state, self.sample.state, context)

    @property
    def moves(self) -> bool:
        """Something is written that the apply's lock protects."""
        if self.is_lost:
            return self.state.is_live and self.state is not State.UNCERTAIN
        one = self.observed
        return one is not None and (
            one.event is not None or one.resend_stop or (one.applied and self.control_open)
        )


def _stop_was_sent(db: Database, row: OperationRow) -> bool:
    """An engine may refuse to stop what is stopped: that answers the stop too, once no Start can act any more."""
    start = db.open_delivery(row.id, "start")
    for wish in db.deliveries_of[row.id]:
        if wish.verb != "stop":
            continue
        if wish.state == "sent":
            return True
        if wish.state == "pending" and wish.refusals > 0:
            may_act = start is not None and (
                start.id > wish.id
                or (start.called_at is not None and start.called_at > db.now - RPC_DEADLINE_S)
            )
            if not may_act:
                return True
    return False


class PollSteps(SweepSteps):
    """ports.PollStore in memory."""

    def begin_poll(self, deployment: str) -> Poll | NotClaimed:
        """See ports.PollStore."""
        db = self.db
        owner = f"{self.owner}:{new_token(db)}"
        with db.transaction():
            place = db.deployments.get(deployment)
            if place is None:
                return NotClaimed(f"there is no deployment {deployment}")
            if not self.take_lease(f"poll:{deployment}", owner, POLL_LEASE_S):
                return NotClaimed("another poll of this deployment is under way")
            if (bell := db.leases.get(f"bell:{deployment}")) is not None:
                db.write(bell, expires_at=db.now)
            here = [row for row in db.operations.values() if row.deployment == deployment]
            due = [
                row
                for row in here
                if row.next_poll_at is not None
                and row.next_poll_at <= db.now
                and db.remote_id(row) is not None
            ]
            due.sort(key=lambda row: row.id)
            has_retryable = any(row.state == "failed_retryable" for row in here)
            probes = has_retryable and self.take_lease(f"probe:{deployment}", owner, PROBE_INTERVAL_S)
            cursors = tuple(self._cursor(row, self._revision(row)) for row in due[:_BATCH])
            return Poll(deployment_from(place), owner, cursors, probes)

    def begin_look(self, operation_id: int, name: ScopeName) -> Poll | NotClaimed:
        """See ports.PollStore."""
        with self.db.transaction():
            scope = load_scope(self.db, operation_id, name)
            if scope.remote_id is None:
                return NotClaimed("it has no remote id yet")
            row = self.db.operations[operation_id]
            if State(row.state).is_finished:
                return NotClaimed(f"it is {row.state}")
            return Poll(
                scope.deployment, "", (self._cursor(row, row.progress_revision),), has_retryable=False
            )

    def _revision(self, row: OperationRow) -> int:
        """The first look in every half minute reads in full."""
        if row.sampled_at is None:
            return 0
        halves = (math.floor((moment + row.id) / FULL_READ_S) for moment in (self.db.now, row.sampled_at))
        return row.progress_revision if next(halves) == next(halves) else 0

    def _cursor(self, row: OperationRow, revision: int) -> Cursor:
        apply = self.db.applies[row.apply_id]
        name = ScopeName(ApplyId(apply.apply_identifier), row.deployment)
        remote_id = RemoteId(self.db.remote_id(row) or "")
        return Cursor(row.id, RemoteCall(name, remote_id, apply.environment, row.fence), revision)

    def record_looks(self, poll: Poll, looks: Sequence[Looked]) -> tuple[Due | DueControl, ...]:
        """See ports.PollStore."""
        db = self.db
        answers = {look.cursor.operation_id: look for look in looks}
        with db.transaction():
            seen = [
                _Seen(db, db.operations[cursor.operation_id], cursor, answers.get(cursor.operation_id))
                for cursor in sorted(poll.cursors, key=lambda cursor: cursor.operation_id)
                if self._is_current(cursor)
            ]
            applies = sorted({one.row.apply_id for one in seen if one.moves})
            for one in seen:
                if one.sample is not None and one.observed is not None and one.observed.applied:
                    _write_tables(db, db.changes_of[one.row.id], one.sample.tables)
            for one in seen:
                if one.moves:
                    self._write_state(one)
            for one in seen:
                self._write_sample(one)
            due: list[Due | DueControl] = []
            for apply_pk in applies:
                due += project_parent(db, apply_pk, self.owner, rings=True)
            lease = db.leases.get(f"poll:{poll.deployment.name}") if poll.owner else None
            if lease is not None and lease.owner == poll.owner:
                db.write(lease, expires_at=db.now)
            return tuple(due)

    def _is_current(self, cursor: Cursor) -> bool:
        row = self.db.operations.get(cursor.operation_id)
        if row is None:
            return False
        return self.db.remote_id(row) == cursor.call.remote_id and row.fence == cursor.call.fence

    def _write_state(self, seen: _Seen) -> None:
        db, row = self.db, seen.row
        engine = f"engine:{row.deployment}"
        if seen.is_lost:
            words = f"the engine at {row.deployment} does not know {db.remote_id(row)}: lost there, or the wrong engine"
            lost = {"error_reason": "REMOTE_ID_UNKNOWN", "error_message": words, "next_attempt_at": None}
            move(db, row, Event.LOSE_TRACK, engine, words, **lost)
            return
        observed, sample = seen.observed, seen.sample
        if observed is None or sample is None:
            return
        if observed.resend_stop:
            wish_stop_again(db, row, observed.note)
        if observed.event is not None:
            self._take_over(seen, observed.event, sample)
        elif observed.applied:
            close_fulfilled(db, row.apply_id, {row.id: State(row.state)})

    def _take_over(self, seen: _Seen, event: Event, sample: Sample) -> None:
        db, row = self.db, seen.row
        engine = f"engine:{row.deployment}"
        words = sample.error_message
        values = {}
        if event is Event.OBSERVE_FAILED:
            values = {"error_message": words, "error_reason": "ENGINE_FAILED"}
        elif seen.state is State.UNCERTAIN:
            values = {"error_message": "", "error_reason": ""}
        why = words or sample.summary or f"the engine says {sample.said}"
        detail = {"remote_id": sample.remote_id, "said": sample.said, "attempt": row.attempt}
        after = move(db, row, event, engine, why, detail, next_attempt_at=None, **values)
        if event is Event.RESUME_REFUSED and (start := db.open_delivery(row.id, "start")) is not None:
            words = "still stopped after Start"
            close_delivery(db, start, Delivery.FAILED, words)
            tell(db, row.apply_id, "start_failed", engine, row.id, words)
        close_fulfilled(db, row.apply_id, {row.id: after})

    def _write_sample(self, seen: _Seen) -> None:
        db, row = self.db, seen.row
        sample, observed = seen.sample, seen.observed
        applied = observed is not None and observed.applied
        failure = seen.failure or (observed.note if observed is not None and not applied else "")
        state = observed.state if observed is not None else seen.state
        if seen.is_lost and state.is_live:
            state = State.UNCERTAIN
        resend = observed is not None and observed.resend_stop
        next_s = poll_interval_s(
            state.value,
            state_age_s=0.0 if state is not seen.state else seen.state_age_s,
            poll_failures=seen.failures,
            control_open=seen.control_open or resend,
            pace=self.pace,
        )
        values = {
            "next_poll_at": None if row.completed_at is not None else db.now + next_s,
            "poll_failures": seen.failures,
            "poll_error": failure[:500],
        }
        if applied or seen.look is None:
            values["sampled_at"] = db.now
        if applied and sample is not None:
            values["sampled_attempt"] = row.attempt if sample.state is state else None
            values["progress_revision"] = sample.revision
            values["summary"] = sample.summary[:500]
        if resend or applied:
            values["runs_though_stopped"] = resend
        db.write(row, **values)

    def expedite_retries(self, deployment: str) -> None:
        """See ports.PollStore."""
        db = self.db
        with db.transaction():
            for row in db.operations.values():
                waits = row.state == "failed_retryable" and row.claim_token is None
                if row.deployment == deployment and waits and row.next_attempt_at is not None:
                    db.write(row, next_attempt_at=min(row.next_attempt_at, db.now + 2 * CHANCE))


def _write_tables(db: Database, rows: Sequence[TableChangeRow], samples: Sequence[TableSample]) -> None:
    by_ordinal: Mapping[int, TableChangeRow] = {row.ordinal: row for row in rows}
    for ordinal, table in enumerate(samples):
        row = by_ordinal.get(ordinal)
        if row is None:
            continue
        named = (row.namespace, row.table_name) == (table.namespace, table.table_name)
        if row.ddl != table.ddl and not named:
            continue
        keeps = table.status == "" or row.state in THROUGH
        percent = row.percent if table.percent is None else table.percent
        db.write(
            row,
            state=row.state if keeps else table.status,
            percent=max(row.percent, min(100, percent)),
            rows_copied=_known(table.rows_copied, row.rows_copied),
            rows_total=_known(table.rows_total, row.rows_total),
            eta_seconds=table.eta_s,
            checksum_rows_checked=_known(table.checksum_rows_checked, row.checksum_rows_checked),
            checksum_rows_total=_known(table.checksum_rows_total, row.checksum_rows_total),
            detail=table.detail[:500],
        )


def _known(said: int | None, known: int | None) -> int | None:
    return known if said is None else said
