"""Which dispatches are notified next: so many of each apply, from its front, and applies in turn.

How many of an apply are ahead is always counted from its rows, by the stamp that notifying leaves, and under the
apply's lock: counted from messages, what a broker loses would be missing for ever.
"""

from collections.abc import Iterable, Sequence

from tern.domain.crowd import AHEAD_MOST, AHEAD_S, in_turn, room_for
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.timing import LEASE_S, longest_dispatch_wait_s
from tern.ports import Due
from tern.store.session import single, transaction
from tern.store.silence import PAUSED
from tern.store.sql import Connection, Result, Row, TextClause, text
from tern.store.step import NOW, Steps

NOTIFY_AGAIN_MOST_S = 60.0
# Written into the statements: of a limit that it isn't told PostgreSQL expects a tenth of all rows, and reads them all.
_BATCH = 200

_AGAIN = f"make_interval(secs => {AHEAD_S})"
IS_AHEAD = (
    # What was claimed since, or stepped back, is due later than it was notified, or not at all.
    f"o.next_attempt_at <= o.rung_at AND o.rung_at > {NOW} - {_AGAIN} AND o.rung_at <= {NOW}"
)
"""Operation o was notified a moment ago, and nobody has taken it up since. A stamp ahead of now is none."""

AHEAD = (
    # By the newest stamps first, and no further than it matters: else the planner, who expects a handful, would count
    # through all that wait.
    "SELECT count(*) AS n FROM (SELECT 1 FROM apply_operations o WHERE o.apply_id = {apply}"
    f" AND o.next_attempt_at IS NOT NULL AND {IS_AHEAD} ORDER BY o.rung_at DESC LIMIT {AHEAD_MOST}) a"
)
"""How many of an apply are ahead, at most as many as may be; `{apply}` is SQL for its key."""

IS_WAITING = (
    # What was notified a moment ago stands in a queue, not in this table: to notify it again would only lengthen that.
    # A message that is lost is found after five seconds; one that was sent again and still waits stands in a long
    # queue, and is sent ever more rarely. How long an operation waited for its turn before the first one tells nothing.
    f"o.next_attempt_at <= {NOW} AND (o.rung_at IS NULL OR o.rung_at < o.next_attempt_at OR o.rung_at > {NOW}"
    f" OR o.rung_at <= {NOW} - greatest({_AGAIN}, least(make_interval(secs => {NOTIFY_AGAIN_MOST_S}),"
    "   CASE WHEN o.first_rung_at >= o.next_attempt_at THEN o.rung_at - o.first_rung_at ELSE interval '0' END)))"
    f" AND NOT {PAUSED}"
)
"""Operation o is due, and nobody was told, or too long ago; and its engine is not one that answers nothing."""

FRONT_AGES = ("told_for_s", "rung_for_s", "taken_for_s")
AGES_OF_FRONT = (
    "CASE WHEN o.claim_token IS NULL AND o.first_rung_at BETWEEN o.next_attempt_at AND tern_clock()"
    " THEN extract(epoch FROM tern_clock() - o.first_rung_at)::float END AS told_for_s,"
    " extract(epoch FROM tern_clock() - o.rung_at)::float AS rung_for_s,"
    " extract(epoch FROM tern_clock() - o.claim_began_at)::float AS taken_for_s"
)
"""Of operation o, what domain/crowd.py asks: since when it waits notified, its last notification, its last claim."""

_FAR_AHEAD = (
    f"o.next_attempt_at > {NOW} + make_interval(secs => {longest_dispatch_wait_s(LEASE_S)})"
    f" AND (o.rung_at IS NULL OR o.rung_at <= {NOW} - {_AGAIN} OR o.rung_at > {NOW}) AND NOT {PAUSED}"
)
"""Operation o is due further ahead than any tick is ever set: written under a clock that has been set back since."""

BUSY = (
    # From one apply to the next by the index: what it costs follows how many applies have work, not how much.
    "WITH RECURSIVE busy(apply_id) AS ("
    " (SELECT apply_id FROM apply_operations WHERE next_attempt_at IS NOT NULL ORDER BY apply_id LIMIT 1)"
    " UNION ALL SELECT (SELECT o.apply_id FROM apply_operations o WHERE o.next_attempt_at IS NOT NULL"
    "   AND o.apply_id > b.apply_id ORDER BY o.apply_id LIMIT 1) FROM busy b WHERE b.apply_id IS NOT NULL)"
)
LOCK_BUSY = text(
    # One that somebody has locked is being claimed for, and its claimers notify the next themselves.
    f"{BUSY} SELECT a.id FROM applies a WHERE a.id = ANY (ARRAY(SELECT b.apply_id FROM busy b"
    "  WHERE b.apply_id IS NOT NULL AND (EXISTS (SELECT 1 FROM apply_operations o"
    f"    WHERE o.apply_id = b.apply_id AND {IS_WAITING})"
    f"   OR EXISTS (SELECT 1 FROM apply_operations o WHERE o.apply_id = b.apply_id AND {_FAR_AHEAD}))))"
    " ORDER BY a.id FOR NO KEY UPDATE SKIP LOCKED"
)
_FRONT = (
    "SELECT o.id, o.next_attempt_at FROM apply_operations o WHERE o.apply_id = t.apply_id AND {which}"
    f" ORDER BY o.next_attempt_at, o.id LIMIT {AHEAD_MOST} FOR NO KEY UPDATE SKIP LOCKED"
)
NEXT = text(
    "WITH chosen AS MATERIALIZED (SELECT c.id, c.turn, t.apply_id FROM unnest(CAST(:applies AS bigint[])) t(apply_id)"
    f" CROSS JOIN LATERAL ({AHEAD.format(apply='t.apply_id')}) ahead"
    " CROSS JOIN LATERAL (SELECT w.id, row_number() OVER (ORDER BY w.next_attempt_at, w.id) AS turn FROM ("
    f"   SELECT * FROM ({_FRONT.format(which=IS_WAITING)}) due"
    f"   UNION ALL SELECT * FROM ({_FRONT.format(which=_FAR_AHEAD)}) far) w) c"
    f" WHERE c.turn <= {AHEAD_MOST} - ahead.n ORDER BY c.turn, t.apply_id LIMIT {_BATCH})"
    " UPDATE apply_operations o SET rung_at = n.now,"
    " first_rung_at = CASE WHEN o.first_rung_at BETWEEN o.next_attempt_at AND n.now THEN o.first_rung_at"
    "   ELSE n.now END,"
    # One whose time lies ahead, by a clock that was set back, is due as of now.
    " next_attempt_at = least(o.next_attempt_at, n.now)"
    " FROM applies a, (SELECT tern_clock() AS now) n"
    # An array, not a join: for a join of so many PostgreSQL would rather read the whole table.
    " WHERE a.id = o.apply_id AND o.id = ANY (ARRAY(SELECT id FROM chosen))"
    " RETURNING o.id, o.apply_id, o.deployment, o.next_attempt_at, a.apply_identifier"
)


def room_of(apply: str) -> TextClause:
    """The statement that counts what is ahead of an apply, and whether anything waits; `apply` is SQL for its key."""
    return text(
        f"SELECT ({AHEAD.format(apply='k.id')}) AS ahead,"
        f" EXISTS (SELECT 1 FROM apply_operations o WHERE o.apply_id = k.id AND {IS_WAITING}) AS waits"
        f" FROM (SELECT {apply} AS id) k"
    )


_ROOM = room_of("(SELECT id FROM applies WHERE apply_identifier = :apply)")
_LOCK = text("SELECT id FROM applies WHERE apply_identifier = :apply FOR NO KEY UPDATE SKIP LOCKED")
UNHEARD = text(
    # Told so long ago and not taken up. What merely waits for its turn is nobody's failure to hear.
    f"{BUSY} SELECT w.id, w.apply_id, w.deployment, w.next_attempt_at,"
    " (SELECT a.apply_identifier FROM applies a WHERE a.id = w.apply_id) AS apply_identifier"
    " FROM busy b CROSS JOIN LATERAL ("
    "   SELECT o.id, o.apply_id, o.deployment, o.next_attempt_at, o.first_rung_at FROM apply_operations o"
    f"  WHERE o.apply_id = b.apply_id AND o.next_attempt_at <= {NOW} - make_interval(secs => :after_s)"
    f"  ORDER BY o.next_attempt_at, o.id LIMIT {AHEAD_MOST}) w"
    f" WHERE w.first_rung_at BETWEEN w.next_attempt_at AND {NOW} - make_interval(secs => :after_s)"
    f" LIMIT {_BATCH}"
)


class NotifySteps(Steps):
    """The part of many.ManyStore that says what comes next."""

    def next_dispatches(self, apply_id: ApplyId) -> tuple[Due, ...]:
        """See many.ManyStore."""
        with single(self.engine) as tx:
            found = tx.execute(_ROOM, {"apply": apply_id}).one()
        if not has_room(found):
            return ()
        with transaction(self.engine) as tx:
            locked = tx.execute(_LOCK, {"apply": apply_id}).scalar_one_or_none()
            # Whoever has it locked notifies the next, now or when it ends.
            return () if locked is None else due_in(notify(tx, [locked]))


def has_room(found: Row) -> bool:
    """What room_of() has found makes it worth to notify some."""
    return bool(found.waits) and room_for(found.ahead) > 0


def notify(tx: Connection, apply_pks: Sequence[int]) -> Result[Row]:
    """Marks the next dispatches of these applies, whose locks the caller holds, as notified; due_in() reads which."""
    return tx.execute(NEXT, {"applies": list(apply_pks)})


def notify_in_turn(tx: Connection) -> Result[Row]:
    """The same for every apply that has something to notify and that nobody works on just now."""
    return notify(tx, tx.execute(LOCK_BUSY).scalars().all())


def due_in(rows: Iterable[Row]) -> tuple[Due, ...]:
    """What was marked, applies in turn."""
    ordered = sorted(rows, key=lambda row: (row.next_attempt_at, row.id))
    return tuple(
        Due(row.id, ScopeName(ApplyId(row.apply_identifier), row.deployment))
        for row in in_turn(ordered, lambda row: row.apply_id)
    )
