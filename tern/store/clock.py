"""When the database's clock was set back: what lies ahead of now becomes now, and nobody but a sweep does so.

Every other reader counts a stamp that lies ahead as now and writes nothing. What each column is:

| columns | what they are | where they lie ahead |
|---|---|---|
| claim_began_at, sweep_leases.began_at | the beginning of a claim or lease | it begins now; token and length stay |
| called_at, sent_at, sampled_at, start_sent_at, dispatch_intent_at, state_changed_at, unheard_since,
  sweep_leases.finished_at, closed_at of refused cutovers | stamps of the past that something is measured from | now |
| outstanding_calls.last_seen_at | the same | now |
| rung_at, first_rung_at | the same; only that a bell may still be heard is known from it | none: it is rung for |
| apply_operations.completed_at | the same, and the beginning of a bake | now: it bakes once more |
| next_attempt_at, next_poll_at, next_look_at | due times of ticks | due, if further than any is set |
| applies.next_advance_at | the end of a wait of hours | due, if advance_began_at lies ahead; advancing counts anew |
| target_reservations.held_since | the beginning of a wait | it begins now, whenever a sweep gives back (sweep.py) |
| created_at, drained_at, at, taken_at, started_at, other closed_at, applies.*_at, answered_at, opened_at,
  cancel_asked_at, settled_at, from which what was let go is watched and its waiters are woken: longer, under a clock
  that was set back
  | records | stay |
"""

import logging

from tern.domain.timing import (
    OUTSTANDING_LOOK_MOST_S,
    PollPace,
    longest_control_wait_s,
    longest_dispatch_wait_s,
    longest_poll_wait_s,
)
from tern.store.database import Database
from tern.store.session import after_commit, transaction
from tern.store.sql import Connection, text
from tern.store.step import NOW

_log = logging.getLogger("tern.clock")

_DISPATCH_FROM = "make_interval(secs => :longest_dispatch_s)"
_CONTROL_FROM = "make_interval(secs => :longest_control_s)"
_POLL_FROM = "make_interval(secs => :longest_poll_s)"
_LOOK_FROM = f"make_interval(secs => {OUTSTANDING_LOOK_MOST_S})"

LIES_AHEAD = text(
    # Every sweep asks this: a few first rows of small indexes, and nothing that grows with what is well.
    "SELECT"
    # What was written before the last sweep can lie ahead only if that sweep's own time does; what was written since
    # is over in the seconds that have passed since. Where no sweep has noted its time yet nobody can tell, not by the
    # newest event either: it may have been written after the clock was set back.
    " coalesce((SELECT began_at > tern_clock() FROM sweep_leases WHERE name = 'clock'), true)"
    " OR EXISTS (SELECT 1 FROM apply_operations WHERE claim_token IS NOT NULL"
    f"   AND claim_expires_at > {NOW} AND claim_began_at > {NOW})"
    # The last of each index: for a mere EXISTS the planner would rather look for one in the whole table.
    " OR coalesce((SELECT completed_at FROM apply_operations WHERE completed_at IS NOT NULL"
    f"   ORDER BY completed_at DESC LIMIT 1) > {NOW}, false)"
    " OR coalesce((SELECT next_attempt_at FROM apply_operations WHERE next_attempt_at IS NOT NULL"
    f"   ORDER BY next_attempt_at DESC LIMIT 1) > {NOW} + {_DISPATCH_FROM}, false)"
    " OR coalesce((SELECT next_poll_at FROM apply_operations WHERE next_poll_at IS NOT NULL"
    f"   ORDER BY next_poll_at DESC LIMIT 1) > {NOW} + {_POLL_FROM}, false)"
    " OR coalesce((SELECT next_attempt_at FROM control_deliveries WHERE state IN ('pending', 'sent')"
    "   AND next_attempt_at IS NOT NULL ORDER BY next_attempt_at DESC LIMIT 1)"
    f"   > {NOW} + {_CONTROL_FROM}, false) AS it_does"
)

_OPERATION_STAMPS = (
    "dispatch_intent_at",
    "sampled_at",
    "start_sent_at",
    "unanswered_since",
    "unheard_since",
    "state_changed_at",
    "completed_at",
)
_DELIVERY_STAMPS = ("called_at", "sent_at", "closed_at")
_OPERATIONS_AHEAD = (
    "SELECT o.id FROM apply_operations o WHERE o.id IN (SELECT id FROM apply_operations WHERE claim_token IS NOT NULL"
    "   UNION SELECT id FROM apply_operations WHERE next_attempt_at IS NOT NULL"
    "   UNION SELECT id FROM apply_operations WHERE next_poll_at IS NOT NULL"
    "   UNION SELECT id FROM apply_operations WHERE unanswered_since IS NOT NULL"
    f"   UNION SELECT id FROM apply_operations WHERE completed_at > {NOW})"
    f" AND (o.claim_token IS NOT NULL AND o.claim_began_at > {NOW}"
    f"   OR o.next_attempt_at > {NOW} + {_DISPATCH_FROM} OR o.next_poll_at > {NOW} + {_POLL_FROM}"
    f"   OR greatest(o.rung_at, {', '.join(f'o.{stamp}' for stamp in _OPERATION_STAMPS)}) > {NOW})"
)
_DELIVERIES_AHEAD = (
    "SELECT d.id FROM control_deliveries d WHERE d.state IN ('pending', 'sent')"
    f" AND (greatest(d.called_at, d.sent_at) > {NOW} OR d.next_attempt_at > {NOW} + {_CONTROL_FROM})"
    # Tern asks again for a refused cutover some time after the refusal.
    " OR d.verb = 'cutover' AND d.state = 'failed'"
    f" AND d.closed_at > {NOW} AND d.operation_id IN (SELECT id FROM apply_operations"
    "   WHERE next_poll_at IS NOT NULL AND state = 'waiting_for_cutover')"
)
_LEASES_AHEAD = (
    "SELECT l.name FROM sweep_leases l WHERE l.name <> 'clock'"
    f" AND (l.began_at > {NOW} OR l.finished_at > {NOW})"
)
_OUTSTANDING_AHEAD = (
    "SELECT c.id FROM outstanding_calls c WHERE c.next_look_at IS NOT NULL"
    f" AND (c.last_seen_at > {NOW} OR c.next_look_at > {NOW} + {_LOOK_FROM})"
)


def _becomes_now(columns: tuple[str, ...]) -> str:
    return ", ".join(
        f"{column} = CASE WHEN x.{column} > n.now THEN n.now ELSE x.{column} END" for column in columns
    )


_LOCK_OPERATIONS = text(f"{_OPERATIONS_AHEAD} ORDER BY o.id FOR NO KEY UPDATE SKIP LOCKED")
_LOCK_DELIVERIES = text(f"{_DELIVERIES_AHEAD} ORDER BY d.id FOR NO KEY UPDATE SKIP LOCKED")
_LOCK_LEASES = text(f"{_LEASES_AHEAD} ORDER BY l.name FOR NO KEY UPDATE SKIP LOCKED")
_CLAIMED_AHEAD = "x.claim_token IS NOT NULL AND x.claim_began_at > n.now"
_OPERATIONS = text(
    "UPDATE apply_operations x SET"
    f" claim_expires_at = CASE WHEN {_CLAIMED_AHEAD}"
    "   THEN n.now + (x.claim_expires_at - x.claim_began_at) ELSE x.claim_expires_at END,"
    f" {_becomes_now(('claim_began_at', *_OPERATION_STAMPS))},"
    # Who is claimed for a dispatch is due when the claim ends, and is rung for then.
    f" next_attempt_at = CASE WHEN x.next_attempt_at IS NOT NULL AND {_CLAIMED_AHEAD}"
    "   THEN n.now + (x.claim_expires_at - x.claim_began_at)"
    f"   WHEN x.next_attempt_at > n.now + {_DISPATCH_FROM} THEN n.now ELSE x.next_attempt_at END,"
    f" rung_at = CASE WHEN x.rung_at <= n.now THEN x.rung_at END,"
    f" next_poll_at = CASE WHEN x.next_poll_at > n.now + {_POLL_FROM} THEN n.now ELSE x.next_poll_at END,"
    # No look: a worker of the version before, which counts none, is known by a sample without a number.
    " looks = x.looks + 1"
    " FROM (SELECT tern_clock() AS now) n WHERE x.id = ANY(:ids)"
)
_DELIVERIES = text(
    f"UPDATE control_deliveries x SET {_becomes_now(_DELIVERY_STAMPS)},"
    f" next_attempt_at = CASE WHEN x.next_attempt_at > n.now + {_CONTROL_FROM} THEN n.now ELSE x.next_attempt_at END"
    " FROM (SELECT tern_clock() AS now) n WHERE x.id = ANY(:ids)"
)
_LEASES = text(
    "UPDATE sweep_leases x SET"
    " expires_at = CASE WHEN x.began_at > n.now THEN n.now + greatest(interval '0', x.expires_at - x.began_at)"
    f"   ELSE x.expires_at END, {_becomes_now(('began_at', 'finished_at'))}"
    " FROM (SELECT tern_clock() AS now) n WHERE x.name = ANY(:names)"
)
_OUTSTANDING = text(
    f"UPDATE outstanding_calls x SET {_becomes_now(('last_seen_at',))},"
    f" next_look_at = CASE WHEN x.next_look_at > n.now + {_LOOK_FROM} THEN n.now ELSE x.next_look_at END"
    " FROM (SELECT tern_clock() AS now) n"
    f" WHERE x.id = ANY (ARRAY({_OUTSTANDING_AHEAD} ORDER BY c.id FOR NO KEY UPDATE SKIP LOCKED))"
)
_LEFT = text(
    f"SELECT EXISTS ({_OPERATIONS_AHEAD}) OR EXISTS ({_DELIVERIES_AHEAD}) OR EXISTS ({_LEASES_AHEAD})"
    f" OR EXISTS ({_OUTSTANDING_AHEAD}) AS it_is"
)
_NOTE_TIME = text(
    "INSERT INTO sweep_leases AS l (name, owner, token, began_at, expires_at)"
    " SELECT 'clock', 'sweep', '', n.now, n.now FROM (SELECT tern_clock() AS now) n"
    " ON CONFLICT (name) DO UPDATE SET began_at = excluded.began_at, expires_at = excluded.expires_at"
)


def mend_what_lies_ahead(engine: Database, lease_s: float, deadline_s: float, pace: PollPace) -> int:
    """Lets everything that lies ahead of now begin or have happened now; how many rows that were. Nobody is waited
    for: a row that somebody works on is left to the next sweep. Raises StorageUnavailable.
    """
    longest = {
        "longest_dispatch_s": longest_dispatch_wait_s(lease_s),
        "longest_control_s": longest_control_wait_s(lease_s, deadline_s),
        "longest_poll_s": longest_poll_wait_s(pace),
    }
    with transaction(engine) as tx:
        lies_ahead = tx.execute(LIES_AHEAD, longest).one().it_does
        mended = _mend(tx, longest) if lies_ahead else 0
        # Noted in the same transaction: a sweep that dies before it has mended leaves the note of before, which lies
        # ahead as well.
        if not lies_ahead or not tx.execute(_LEFT, longest).one().it_is:
            tx.execute(_NOTE_TIME)
    return mended


def _mend(tx: Connection, longest: dict[str, float]) -> int:
    # The clock is read again under the locks: what was written in between is no stamp of the future.
    operations = tx.execute(_LOCK_OPERATIONS, longest).scalars().all()
    if operations:
        tx.execute(_OPERATIONS, {"ids": operations, **longest})
    deliveries = tx.execute(_LOCK_DELIVERIES, longest).scalars().all()
    if deliveries:
        tx.execute(_DELIVERIES, {"ids": deliveries, **longest})
    outstanding = tx.execute(_OUTSTANDING, longest).rowcount
    leases = tx.execute(_LOCK_LEASES, longest).scalars().all()
    if leases:
        tx.execute(_LEASES, {"names": leases})
    count = len(operations) + len(deliveries) + outstanding + len(leases)
    if count:
        after_commit(
            tx, lambda: _log.warning("the database's clock was set back: %s rows lay ahead of it", count)
        )
    return count
