"""One operation with what its engine has just said of it: what that means, and what its row keeps of it.

What is written, and in which order, stands in poll.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tern.domain.doubt import Doubt
from tern.domain.evidence import contradicts, says_failed_still
from tern.domain.outcome import Ok
from tern.domain.outcome import Refused as CallRefused
from tern.domain.outstanding import is_heard
from tern.domain.own_work import Evidence
from tern.domain.samples import MergeContext, Observed, Sample, TableSample, merge
from tern.domain.states import State
from tern.domain.text import within
from tern.domain.timing import (
    FAILED_KEPT_S,
    FAILED_LOOK_S,
    LOST_CONTACT_AFTER,
    START_GRACE_S,
    PollPace,
    poll_interval_s,
)
from tern.ports import Cursor, Looked, Poll
from tern.store.own_work import Judge, evidence_columns, kept_in
from tern.store.scope import REMOTE_ID
from tern.store.sql import Connection, Row, text

_SEEN = (
    f"SELECT o.id, o.apply_id, o.deployment, o.state, o.fence, o.attempt, o.poll_failures, {REMOTE_ID} AS remote_id,"
    " o.looks,"
    " extract(epoch FROM tern_clock() - o.state_changed_at)::float AS state_age_s,"
    " o.runs_though_stopped, extract(epoch FROM tern_clock() - o.start_sent_at)::float AS start_age_s,"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.state IN ('pending', 'sent'))"
    "   AS control_open,"
    # An engine may refuse to stop what is stopped: that answers the stop too, once no earlier Start can act any more.
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.verb = 'stop'"
    "   AND (d.state = 'sent' OR d.state = 'pending' AND d.refusals > 0 AND NOT EXISTS ("
    "     SELECT 1 FROM control_deliveries s WHERE s.operation_id = o.id AND s.verb = 'start'"
    "     AND s.state IN ('pending', 'sent')"
    f"     AND (s.id > d.id OR s.called_at > tern_clock() - make_interval(secs => :deadline_s)))))"
    "   AS stop_was_sent,"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.verb = 'start'"
    "   AND d.state IN ('pending', 'sent')) AS start_is_open,"
    " EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id AND d.state = 'sent'"
    f"   AND d.although_foreign <> '') AS halts_foreign, {evidence_columns(REMOTE_ID)},"
    # What an engine without Resolve called failed keeps its target for a while, and is looked at for so long.
    " coalesce((n.capabilities ->> 'resolve')::boolean, false) AS resolves, CASE WHEN o.state = 'failed' THEN"
    " (SELECT greatest(0, extract(epoch FROM tern_clock() - min(t.held_since)))::float FROM target_reservations t"
    "   WHERE t.operation_id = o.id AND t.held_since IS NOT NULL) END AS kept_for_s,"
    " (o.unanswered_since IS NOT NULL OR o.state = 'failed' AND EXISTS (SELECT 1 FROM target_reservations t"
    "   WHERE t.operation_id = o.id AND t.held_since IS NOT NULL)) AND NOT EXISTS (SELECT 1 FROM outstanding_calls c"
    f"   WHERE c.operation_id = o.id AND c.remote_id = {REMOTE_ID} AND c.settled_at IS NULL) AS may_contradict,"
    " o.engine_number, o.dispatch_generation, a.environment, coalesce(n.address, o.dispatched_to) AS called_at"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id JOIN plans p ON p.id = a.plan_id"
    " LEFT JOIN deployments n ON n.name = o.deployment WHERE o.id = ANY(:ids)"
    # Each write proves the lease of its poll: one that was frozen meanwhile knows less than the one that took it over.
    " AND (CAST(:lease AS text) = '' OR EXISTS (SELECT 1 FROM sweep_leases l"
    "   WHERE l.name = 'poll:' || CAST(:polled AS text) AND l.owner = CAST(:lease AS text))) ORDER BY o.id"
)
_SEEN_NOW = text(_SEEN)
_SEEN_LOCKED = text(f"{_SEEN} FOR NO KEY UPDATE OF o SKIP LOCKED")
_LOCK_APPLIES = text("SELECT 1 FROM applies WHERE id = ANY(:applies) ORDER BY id FOR NO KEY UPDATE")
SAMPLED = (
    "next_poll_at = tern_clock() + make_interval(secs => {next_s}), poll_failures = {failures}, poll_error = {error},"
    " sampled_at = CASE WHEN {fresh} THEN tern_clock() ELSE sampled_at END, looks = looks + 1,"
    " sampled_look = CASE WHEN {fresh} THEN looks + 1 ELSE sampled_look END,"
    # Only a sample that says what stands here speaks for this attempt; one from behind opens no gate.
    " sampled_attempt = CASE WHEN {confirms} IS NULL THEN sampled_attempt WHEN {confirms} THEN attempt END,"
    " progress_revision = coalesce({revision}, progress_revision), summary = coalesce({told}, summary),"
    " runs_though_stopped = coalesce({runs_on}, runs_though_stopped),"
    # The first that is said stays: it is what every later look is compared with.
    " remote_identity = coalesce(nullif(remote_identity, ''), {identity}, ''),"
    " remote_started_at = coalesce(nullif(remote_started_at, ''), {began}, ''),"
    " unheard_since = CASE WHEN NOT {heard} THEN coalesce(unheard_since, tern_clock()) END,"
    " unheard_tries = CASE WHEN {heard} THEN 0 ELSE unheard_tries + 1 END,"
    " unheard_look = CASE WHEN unheard_since IS NULL AND NOT {heard} THEN looks ELSE unheard_look END"
)
"""SET items for what an operation's row keeps of a look: Seen.line, from wherever its values come."""
SAMPLED_TYPES = {
    "next_s": "float",
    "failures": "integer",
    "error": "text",
    "fresh": "boolean",
    "confirms": "boolean",
    "revision": "numeric",
    "told": "text",
    "runs_on": "boolean",
    "identity": "text",
    "began": "text",
    "heard": "boolean",
}
SAMPLED_WITH_IT = SAMPLED.format_map(
    {name: f"CAST(:{name} AS {kind})" for name, kind in SAMPLED_TYPES.items()}
)
"""The same, for an UPDATE that is given one line."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One operation with the answer about it; `look` None where the cursor was unchanged."""

    row: Row
    cursor: Cursor
    look: Looked | None
    evidence: Evidence
    told: tuple[TableSample | None, ...] = ()
    """What is said of each statement of the operation, in their order."""

    @property
    def sample(self) -> Sample | None:
        """What the engine says."""
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
    def loses_track(self) -> bool:
        """Only a person can say what became of it. A stopped one is let be, unless somebody wants it ended: its engine
        refuses that for ever, and the way out that the refusal names is a person's word about an uncertain one.
        """
        state = State(self.row.state)
        if not self.is_lost or state is State.UNCERTAIN:
            return False
        wants_end = bool(self.row.control_open) and not self.row.start_is_open
        return state.is_live or (state is State.STOPPED and wants_end)

    @property
    def doubt(self) -> Doubt:
        """What was in doubt before this look."""
        return Doubt(self.row.doubt)

    @property
    def is_foreign(self) -> bool:
        """It shows somebody else's work under our id."""
        return bool(self.evidence.against) and not State(self.row.state).is_finished

    @property
    def why_not(self) -> str:
        """Why nothing is taken over from a look that there is, where that is because of whose work it may be."""
        if self.sample is None or self.doubt is Doubt.TAKEN:
            return ""
        if self.evidence.against:
            return f"this is other work: {'; '.join(self.evidence.against)}"
        if not self.evidence.counts(kept_in(self.row)):
            return "nothing in it shows that it is about this work"
        return ""

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
        """It names a state that we know."""
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
        """What the sample makes of what we know."""
        sample = self.sample
        if sample is None:
            return None
        if self.why_not:
            return Observed(None, State(self.row.state), applied=False, note=self.why_not)
        context = MergeContext(
            start_sent_s_ago=self.row.start_age_s,
            grace_s=START_GRACE_S,
            stop_was_sent=self.row.stop_was_sent,
            start_is_open=self.row.start_is_open,
            is_in_doubt=self.doubt is Doubt.TAKEN,
        )
        return merge(State(self.row.state), sample.state, context)

    @property
    def resends_stop(self) -> bool:
        """What was stopped runs: a stop of our own goes out with this look."""
        observed = self.observed()
        return observed is not None and observed.resend_stop

    @property
    def contradicts(self) -> bool:
        """A call of which nothing was heard has acted on what is finished here, and nobody has written it down yet."""
        if self.sample is None or self.evidence.against or not self.row.may_contradict:
            return False
        return contradicts(State(self.row.state), self.sample.state)

    @property
    def frees_target(self) -> bool:
        """What was called failed is failed still, after all the time in which its engine might have tried again."""
        if self.row.kept_for_s is None or self.row.resolves or self.failure or self.evidence.against:
            return False
        sampled = None if self.sample is None else self.sample.state
        if sampled is not None and sampled.is_finished and sampled is not State.FAILED:
            return True
        still = says_failed_still(sampled, unchanged=self.look is None)
        return still and self.row.kept_for_s >= FAILED_KEPT_S

    @property
    def runs_again(self) -> bool:
        """What was called failed, and keeps its target, works again: its engine has tried once more by itself."""
        sample = self.sample
        if sample is None or self.row.kept_for_s is None or self.evidence.against:
            return False
        return contradicts(State(self.row.state), sample.state)

    def _next_after_end(self, state: State) -> float | None:
        """What is through is not looked at again, unless its engine may try it again by itself."""
        if state is not State.FAILED or self.row.resolves or self.frees_target:
            return None
        is_new = self.row.state != State.FAILED.value
        return FAILED_LOOK_S if is_new or self.row.kept_for_s is not None else None

    @property
    def is_moved(self) -> bool:
        """The operation takes an arrow, and the same write keeps the look."""
        observed = self.observed()
        return self.moves and (
            self.is_lost
            or (self.is_foreign and self.doubt is Doubt.NONE)
            or (observed is not None and observed.event is not None)
        )

    @property
    def ends_foreign_work(self) -> bool:
        """Somebody had that job halted although it is not ours, and this may be what comes of it."""
        return self.is_foreign and bool(self.row.halts_foreign)

    @property
    def moves(self) -> bool:
        """Something is written that the apply's lock protects."""
        if self.is_lost:
            return self.loses_track
        if self.contradicts:
            return True
        if self.is_foreign and self.doubt is not Doubt.TAKEN:
            return self.doubt is Doubt.NONE or self.ends_foreign_work
        observed = self.observed()
        return observed is not None and (
            observed.event is not None or observed.resend_stop or (observed.applied and self.row.control_open)
        )

    def line(self, pace: PollPace) -> dict[str, Any]:
        """What the row keeps of this look: the values of SAMPLED."""
        row, sample, observed = self.row, self.sample, self.observed()
        applied = observed is not None and observed.applied
        unchanged = self.look is None
        # A note about a sample that can't be taken over now is no failed contact.
        failure = self.failure or (observed.note if observed is not None and not applied else "")
        state = observed.state if observed is not None else State(row.state)
        if self.loses_track or self.is_foreign:
            state = State.UNCERTAIN
        next_s = poll_interval_s(
            state.value,
            state_age_s=0.0 if state.value != row.state else row.state_age_s,
            poll_failures=self.failures,
            # In doubt nothing is sent, so there is nothing to see the effect of.
            control_open=(row.control_open and (self.doubt is Doubt.NONE or row.halts_foreign))
            or (observed is not None and observed.resend_stop),
            pace=pace,
        )
        return {
            "next_s": self._next_after_end(state) if state.is_finished else next_s,
            "failures": self.failures,
            "error": within(failure, 500),
            "fresh": applied or unchanged,
            "confirms": sample.state is state if sample is not None and applied else None,
            # A cursor advances only together with a sample that was taken over.
            "revision": str(sample.revision) if sample is not None and applied else None,
            "told": within(sample.summary, 500) if sample is not None and applied else None,
            "runs_on": (
                True if observed is not None and observed.resend_stop else (False if applied else None)
            ),
            "identity": sample.identity if sample is not None and applied else None,
            "began": sample.started_at if sample is not None and applied else None,
            "heard": unchanged or (self.look is not None and is_heard(self.look.outcome)),
        }


def load_seen(
    tx: Connection,
    poll: Poll,
    answers: Mapping[int, Looked],
    judge: Judge,
    deadline_s: float,
    applies: Sequence[int] | None = None,
) -> list[Seen]:
    """The polled operations as they are now, without those that another id, fence or look has overtaken, and none
    where another poll has taken the lease over; with `applies`, under the locks of these and their own, in order. A row
    that a driver holds just now is left to the next poll rather than waited for.
    """
    cursors = {cursor.operation_id: cursor for cursor in poll.cursors}
    given = {
        "ids": sorted(cursors),
        "lease": poll.owner,
        "polled": poll.deployment.name,
        "deadline_s": deadline_s,
    }
    with tx.together():
        if applies:
            tx.execute(_LOCK_APPLIES, {"applies": list(applies)})
        found = tx.execute(_SEEN_NOW if applies is None else _SEEN_LOCKED, given)
    return [
        Seen(row, cursors[row.id], look, *_weighed(tx, row, look, judge))
        for row in found
        if row.remote_id == cursors[row.id].call.remote_id and row.fence == cursors[row.id].call.fence
        if not cursors[row.id].is_overtaken(row.looks)
        for look in (answers.get(row.id),)
    ]


def _weighed(
    tx: Connection, row: Row, look: Looked | None, judge: Judge
) -> tuple[Evidence, tuple[TableSample | None, ...]]:
    if look is None or not isinstance(look.outcome, Ok):
        return Evidence(), ()
    sample = look.outcome.value
    return judge.weigh(tx, row, sample), judge.told(tx, row, sample)
