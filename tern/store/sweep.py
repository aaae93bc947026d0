"""Durable steps of the sweeps: what is due, and who looks. Each method is one transaction."""

import math
from collections.abc import Iterable

from tern.domain.control import Verb
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.timing import (
    OWN_SWEEP,
    SWEEP_AGAIN_AFTER,
    SWEEP_PERIOD_S,
    WOKEN_S,
)
from tern.ports import Due, DueControl, DueWork
from tern.store.clock import mend_what_lies_ahead
from tern.store.notify import UNHEARD, due_in, notify_in_turn
from tern.store.outstanding_look import IS_DUE
from tern.store.reservation import IS_BLOCKED, MISSES_TARGET
from tern.store.scope import REMOTE_ID
from tern.store.session import single, transaction
from tern.store.sql import Row, text
from tern.store.step import NOW, Steps, new_token

SWEEP_LEASE_S = 10.0
RING_AGAIN_S = 5.0
ALONE_AFTER_S = 5.0
"""A wish that should have been carried out together with others and was not: its target is held, its row is broken."""
# Written into the statements: of a limit that it isn't told PostgreSQL expects a tenth of all rows, and reads them all.
_BATCH = 500
_DISPATCH_BATCH = 200

_END_DEAD_CLAIMS = text(
    # A driver died with its claim, and nothing is left to do that would let another take it over: the operation is
    # finished, or a look has fulfilled the wish that was being driven.
    "UPDATE apply_operations SET claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL"
    " WHERE id = ANY (ARRAY(SELECT o.id FROM apply_operations o WHERE o.claim_token IS NOT NULL"
    f" AND o.claim_expires_at <= {NOW} AND o.next_attempt_at IS NULL AND (o.completed_at IS NOT NULL"
    "   OR NOT EXISTS (SELECT 1 FROM control_deliveries d WHERE d.operation_id = o.id"
    "     AND d.state IN ('pending', 'sent')))"
    f" ORDER BY o.claim_expires_at LIMIT {_BATCH} FOR NO KEY UPDATE SKIP LOCKED))"
)
_UNCALLED = (
    "o.claim_token IS NULL AND o.state IN ('pending', 'stopped', 'failed')"
    f" AND d.verb IN ('stop', 'cancel', 'skip', 'start', 'retry') AND {REMOTE_ID} IS NULL"
    " AND (o.dispatch_key IS NULL OR o.dispatch_key_is_dead OR d.verb = 'retry')"
)
"""The wish d needs no call: its operation o of apply a was never dispatched, or was refused (store/uncalled.py)."""

_DUE_CONTROLS = text(
    "SELECT d.operation_id, d.verb, o.deployment, a.apply_identifier FROM control_deliveries d"
    " JOIN apply_operations o ON o.id = d.operation_id JOIN applies a ON a.id = d.apply_id"
    f" WHERE d.state IN ('pending', 'sent') AND (d.next_attempt_at <= {NOW}"
    f"   OR d.next_attempt_at > {NOW} + make_interval(secs => :longest_control_s))"
    f" AND (o.claim_expires_at IS NULL OR o.claim_expires_at <= {NOW})"
    # These have a bell for all of them; one that could not be carried out so is rung for by itself.
    f" AND (NOT (d.state = 'pending' AND {_UNCALLED}) OR d.next_attempt_at <= {NOW} - make_interval(secs => :alone_s))"
    f" ORDER BY d.next_attempt_at LIMIT {_BATCH}"
)
_DUE_APPLIES = text(
    # Verdicts whose effects nobody has driven; what comes due by itself; a release that nobody has heard of yet; live
    # applies in which nothing moves although something may.
    "SELECT apply_identifier FROM applies WHERE state IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped')"
    " AND verdict_effects_done_at IS NULL"
    f" UNION SELECT apply_identifier FROM applies WHERE next_advance_at <= {NOW}"
    # A wait that began under a clock that has been set back since is counted anew.
    f" UNION SELECT apply_identifier FROM applies WHERE next_advance_at IS NOT NULL AND advance_began_at > {NOW}"
    " UNION SELECT a.apply_identifier FROM applies a JOIN LATERAL (SELECT r.id FROM control_requests r"
    "   WHERE r.apply_id = a.id AND r.verb = 'release' ORDER BY r.id DESC LIMIT 1) r ON true"
    " WHERE a.state IN ('paused', 'running_degraded') AND NOT EXISTS (SELECT 1 FROM apply_events e"
    "   WHERE e.apply_id = a.id AND e.operation_id IS NULL AND e.event = 'released'"
    "   AND CAST(e.detail ->> 'request' AS bigint) >= r.id)"
    " UNION SELECT a.apply_identifier FROM applies a"
    # A paused one waits for a person, whose own transaction moves it on; one that bakes, for its time.
    " WHERE a.state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped', 'paused')"
    " AND a.next_advance_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM apply_operations o WHERE o.apply_id = a.id AND o.state IN"
    "   ('running', 'waiting_for_cutover', 'cutting_over', 'revert_window', 'reverting', 'resuming',"
    "    'failed_retryable', 'uncertain'))"
    " AND NOT EXISTS (SELECT 1 FROM apply_operations o WHERE o.apply_id = a.id AND o.state = 'pending'"
    "   AND o.next_attempt_at IS NOT NULL)"
    # Wishes that need no call are carried out for all operations of an apply at once.
    " UNION SELECT a.apply_identifier FROM control_deliveries d"
    " JOIN apply_operations o ON o.id = d.operation_id JOIN applies a ON a.id = d.apply_id"
    f" WHERE d.state = 'pending' AND (d.next_attempt_at <= {NOW}"
    # What nobody drives has no lease to wait for; too early a look at it would do no harm.
    f"   OR d.next_attempt_at > {NOW} + make_interval(secs => :longest_control_s)) AND {_UNCALLED}"
    f" LIMIT {_BATCH}"
)
_HAS_SAME_TARGETS = text("SELECT 1 FROM same_targets WHERE finding <> 'two' LIMIT 1")
_FREED_APPLIES = text(
    # One that waits for a target of several names which is free by now: who gave it back held no lock of this apply.
    "SELECT a.apply_identifier FROM applies a"
    " WHERE a.state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped', 'paused')"
    " AND EXISTS (SELECT FROM apply_operations o WHERE o.apply_id = a.id AND o.state = 'pending'"
    "   AND o.next_attempt_at IS NULL AND EXISTS (SELECT FROM same_targets s"
    "     WHERE o.deployment IN (s.one, s.other) AND s.finding <> 'two')"
    f"  AND {MISSES_TARGET} AND NOT {IS_BLOCKED}) LIMIT {_BATCH}"
)
_IS_SETTLED_LATELY = text(
    # The newest alone: of all that is that new a planner expects a third of the table, and would read that.
    "SELECT 1 FROM (SELECT settled_at FROM outstanding_calls WHERE settled_at IS NOT NULL"
    f"   ORDER BY settled_at DESC LIMIT 1) c WHERE c.settled_at > {NOW} - make_interval(secs => {WOKEN_S})"
)
_SETTLED_LATELY = text(
    # Whoever settles what is outstanding wakes those whom it has seen waiting. One that was accepted, or tried again,
    # since then has found its target held, and its siblings may have nothing to tell it for hours.
    "WITH freed AS MATERIALIZED (SELECT DISTINCT n.environment, n.database, n.deployment FROM outstanding_calls c"
    "   CROSS JOIN LATERAL tern_targets(c.environment, c.database, c.deployment) n"
    f"  WHERE c.settled_at > {NOW} - make_interval(secs => {WOKEN_S}))"
    " SELECT DISTINCT a.apply_identifier FROM freed n"
    " JOIN target_reservations t ON (t.environment, t.database, t.deployment)"
    "   = (n.environment, n.database, n.deployment)"
    " JOIN apply_operations o ON o.id = t.operation_id AND o.state = 'pending' AND o.next_attempt_at IS NULL"
    " JOIN applies a ON a.id = o.apply_id"
    " WHERE a.state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped', 'paused')"
    f" LIMIT {_BATCH}"
)
_DUE_DEPLOYMENTS = text(
    # What was rung for and not polled since waits in a queue: a second bell would only lengthen it. The poll ends it.
    f"WITH due AS (SELECT DISTINCT deployment FROM apply_operations WHERE next_poll_at <= {NOW}"
    "   UNION SELECT deployment FROM apply_operations"
    f"   WHERE next_poll_at > {NOW} + make_interval(secs => :longest_poll_s)"
    f"   UNION SELECT c.deployment FROM outstanding_calls c JOIN deployments d ON d.name = c.deployment WHERE {IS_DUE}"
    "   UNION SELECT deployment FROM apply_operations o WHERE state = 'failed_retryable'"
    "   AND NOT EXISTS (SELECT 1 FROM sweep_leases l WHERE l.name = 'probe:' || o.deployment"
    f"     AND l.expires_at > {NOW}))"
    " INSERT INTO sweep_leases AS l (name, owner, token, began_at, expires_at)"
    f" SELECT 'bell:' || deployment, 'sweep', '', {NOW}, {NOW} + make_interval(secs => {RING_AGAIN_S}) FROM due"
    " ORDER BY deployment"
    " ON CONFLICT (name) DO UPDATE SET began_at = excluded.began_at, expires_at = excluded.expires_at"
    f" WHERE l.expires_at <= {NOW} RETURNING substr(name, 6)"
)

_TAKES_OVER = f"(NOT starts_with(:owner, '{OWN_SWEEP}') AND starts_with({{}}.owner, '{OWN_SWEEP}'))"
# A message proves that the broker works again. If it waited for the period of a worker's own sweeps, which are as
# frequent as messages are, one worker could go on doing all the work by itself for ever.
_IS_FREE = (
    "(CASE WHEN l.began_at > excluded.began_at THEN coalesce(l.finished_at >= l.began_at, false)"
    " ELSE l.expires_at <= excluded.began_at"
    "   AND (l.began_at <= excluded.began_at - make_interval(secs => :period_s)"
    f"    OR {_TAKES_OVER.format('l')}) END)"
)
_BEGIN_SWEEP = text(
    # Read first: of a heap of old messages each costs this and no lock.
    "INSERT INTO sweep_leases AS l (name, owner, token, began_at, expires_at)"
    " SELECT :name, :owner, :token, n.now, n.now + make_interval(secs => :lease_s)"
    " FROM (SELECT tern_clock() AS now) n WHERE NOT EXISTS (SELECT 1 FROM sweep_leases s WHERE s.name = :name"
    "   AND s.began_at > n.now - make_interval(secs => :period_s) AND s.began_at <= n.now"
    f"  AND NOT {_TAKES_OVER.format('s')})"
    # One that began later than now, under a clock that has been set back since, begins now: its sweeper goes on, or
    # has died and is replaced when its time is over. If it is finished nobody is there to wait for.
    f" ON CONFLICT (name) DO UPDATE SET owner = CASE WHEN {_IS_FREE} THEN excluded.owner ELSE l.owner END,"
    f" token = CASE WHEN {_IS_FREE} THEN excluded.token ELSE l.token END, began_at = excluded.began_at,"
    f" expires_at = CASE WHEN {_IS_FREE} THEN excluded.expires_at"
    "   ELSE excluded.began_at + greatest(interval '0', l.expires_at - l.began_at) END"
    f" WHERE {_IS_FREE} OR l.began_at > excluded.began_at RETURNING token = :token AS is_ours"
)
_UNHEARD_CONTROLS = text(
    "SELECT d.operation_id, d.verb, o.deployment, a.apply_identifier FROM control_deliveries d"
    " JOIN apply_operations o ON o.id = d.operation_id JOIN applies a ON a.id = d.apply_id"
    " WHERE d.state IN ('pending', 'sent')"
    f" AND d.next_attempt_at <= {NOW} - make_interval(secs => :after_s)"
    f" AND (o.claim_expires_at IS NULL OR o.claim_expires_at <= {NOW})"
    f" ORDER BY d.next_attempt_at LIMIT {_DISPATCH_BATCH}"
)
_UNHEARD_DEPLOYMENTS = text(
    "SELECT deployment FROM apply_operations"
    f" WHERE next_poll_at <= {NOW} - make_interval(secs => :after_s)"
    " UNION SELECT c.deployment FROM outstanding_calls c JOIN deployments d ON d.name = c.deployment"
    f" WHERE c.next_look_at <= {NOW} - make_interval(secs => :after_s)"
)


_BEGIN_AGAIN = text(
    # Written under a clock that has been set back since: nobody knows how much of it is over.
    "UPDATE target_reservations t SET held_since = tern_clock() FROM (SELECT environment, database, deployment"
    f"   FROM target_reservations WHERE held_since > {NOW} ORDER BY 1, 2, 3 FOR UPDATE SKIP LOCKED) ahead"
    " WHERE (t.environment, t.database, t.deployment) = (ahead.environment, ahead.database, ahead.deployment)"
)
_GIVE_BACK = text(
    "DELETE FROM target_reservations t USING (SELECT environment, database, deployment FROM target_reservations"
    f"   WHERE held_since IS NOT NULL AND tern_wait_is_over(held_since, held_for_s, {NOW})"
    "   ORDER BY 1, 2, 3 FOR UPDATE SKIP LOCKED) over"
    " WHERE (t.environment, t.database, t.deployment) = (over.environment, over.database, over.deployment)"
)


class SweepSteps(Steps):
    """ports.SweepStore on PostgreSQL."""

    def begin_sweep(self, name: str, owner: str) -> bool:
        """See ports.SweepStore."""
        period_s = SWEEP_PERIOD_S.get(name, 0.0) * SWEEP_AGAIN_AFTER
        given = {"name": name, "owner": owner, "token": new_token(), "lease_s": SWEEP_LEASE_S}
        with single(self.engine) as tx:
            taken = tx.execute(_BEGIN_SWEEP, {**given, "period_s": period_s}).one_or_none()
            return taken is not None and bool(taken.is_ours)

    def take_lease(self, name: str, owner: str, lease_s: float) -> bool:
        """A lease by name, in a row, so that a pooler in between does no harm; False while another's runs."""
        with transaction(self.engine) as tx:
            taken = tx.execute(
                text(
                    "INSERT INTO sweep_leases AS l (name, owner, token, began_at, expires_at)"
                    " SELECT :name, :owner, :token, n.now, n.now + make_interval(secs => :lease_s)"
                    " FROM (SELECT tern_clock() AS now) n"
                    " ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, token = excluded.token,"
                    " began_at = excluded.began_at, expires_at = excluded.expires_at"
                    " WHERE l.expires_at <= tern_clock() RETURNING 1"
                ),
                {"name": name, "owner": owner, "token": new_token(), "lease_s": lease_s},
            ).one_or_none()
            return taken is not None

    def finish_sweep(self, name: str, owner: str) -> None:
        """See ports.SweepStore."""
        with transaction(self.engine) as tx:
            tx.execute(
                text(
                    "UPDATE sweep_leases SET expires_at = tern_clock(), finished_at = tern_clock(),"
                    " finished_by = :owner WHERE name = :name AND owner = :owner"
                ),
                {"name": name, "owner": owner},
            )

    def seconds_since_sweep(self, name: str) -> tuple[float, str]:
        """See ports.SweepStore."""
        with transaction(self.engine) as tx:
            row = tx.execute(
                text(
                    # One that was finished later than now tells nothing: until the clock comes there again nobody
                    # would miss a sweep.
                    "SELECT CASE WHEN finished_at <= tern_clock()"
                    " THEN extract(epoch FROM tern_clock() - finished_at)::float END AS age_s, finished_by"
                    " FROM sweep_leases WHERE name = :name"
                ),
                {"name": name},
            ).one_or_none()
            if row is None or row.age_s is None:
                return math.inf, ""
            return row.age_s, row.finished_by

    def due_work(self) -> DueWork:
        """See ports.SweepStore."""
        mend_what_lies_ahead(self.engine, self.lease_s, self.deadline_s, self.pace)
        bounds = {"longest_control_s": self.longest_control_s}
        with transaction(self.engine) as tx:
            tx.execute(_END_DEAD_CLAIMS)
            # Before it is asked who waits for such a target.
            tx.execute(_BEGIN_AGAIN)
            tx.execute(_GIVE_BACK)
            controls = tx.execute(_DUE_CONTROLS, {**bounds, "alone_s": ALONE_AFTER_S}).all()
            applies = [*tx.execute(_DUE_APPLIES, bounds).scalars()]
            if tx.execute(_IS_SETTLED_LATELY).one_or_none() is not None:
                applies += tx.execute(_SETTLED_LATELY).scalars()
            if tx.execute(_HAS_SAME_TARGETS).one_or_none() is not None:
                applies += tx.execute(_FREED_APPLIES).scalars()
        with transaction(self.engine) as tx:
            # For itself: applies are locked before operations, and whoever claims for one of them waits for the end.
            due = due_in(notify_in_turn(tx))
        return _work(due, controls, dict.fromkeys(applies))

    def due_deployments(self) -> tuple[str, ...]:
        """See ports.SweepStore."""
        with single(self.engine) as tx:
            bounds = {"longest_poll_s": self.longest_poll_s}
            return tuple(tx.execute(_DUE_DEPLOYMENTS, bounds).scalars().all())

    def unheard_work(self, after_s: float) -> DueWork:
        """See ports.SweepStore."""
        bounds = {"after_s": after_s}
        with transaction(self.engine) as tx:
            dispatches = due_in(tx.execute(UNHEARD, bounds))
            controls = tx.execute(_UNHEARD_CONTROLS, bounds).all()
        return _work(dispatches, controls, ())

    def unheard_deployments(self, after_s: float) -> tuple[str, ...]:
        """See ports.SweepStore."""
        with single(self.engine) as tx:
            return tuple(tx.execute(_UNHEARD_DEPLOYMENTS, {"after_s": after_s}).scalars().all())


def _work(dispatches: tuple[Due, ...], controls: Iterable[Row], applies: Iterable[str]) -> DueWork:
    return DueWork(
        dispatches=dispatches,
        controls=tuple(DueControl(row.operation_id, _name_of(row), Verb(row.verb)) for row in controls),
        applies=tuple(ApplyId(name) for name in applies),
    )


def _name_of(row: Row) -> ScopeName:
    return ScopeName(ApplyId(row.apply_identifier), row.deployment)
