"""Targets held by operations: one operation per (environment, database, deployment), by a primary key (G13).

An operation holds its own name and those of all deployments that are, or may be, the same target. The database gives
them back when the operation is finished (migration 0008); here they are taken, and here it is said who has one.
"""

from collections.abc import Sequence

from tern.domain.holds import Holding
from tern.store.sql import Connection, Row, text

WAS_SENT = "(o.state <> 'pending' OR o.dispatch_key IS NOT NULL)"
"""Something of operation o may have reached its engine."""

_HOLDS_PLAINLY = (
    "(EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = o.id AND t.deployment = o.deployment"
    "   AND t.held_since IS NULL)"
    " AND NOT EXISTS (SELECT FROM same_targets s WHERE (s.one = o.deployment OR s.other = o.deployment)"
    "   AND s.finding <> 'two'))"
)
"""What is so of nearly every operation, and costs two looks into an index: its target has one name, and it holds it."""

_BLOCKER = (
    f"tern_blocked_by(o.id, a.environment, a.database, o.deployment, {WAS_SENT}, tern_clock()) k"
    " JOIN apply_operations ho ON ho.id = k.operation_id JOIN applies h ON h.id = ho.apply_id"
)
BLOCKED_BY = (
    f"(CASE WHEN NOT {_HOLDS_PLAINLY} THEN (SELECT jsonb_build_object('name', k.name, 'apply', h.apply_identifier,"
    f" 'deployment', ho.deployment, 'state', ho.state, 'wait_s', k.wait_s) FROM {_BLOCKER}) END)"
)
"""Who keeps operation o of apply a from its target, as an object that holding_in() reads; NULL for nobody."""

IS_BLOCKED = f"(NOT {_HOLDS_PLAINLY} AND EXISTS (SELECT FROM {_BLOCKER.partition(' JOIN ')[0]}))"
"""Somebody keeps operation o of apply a from its target."""

MISSES_TARGET = (
    f"(NOT {_HOLDS_PLAINLY} AND EXISTS (SELECT FROM tern_targets(a.environment, a.database, o.deployment) n"
    " WHERE NOT EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = o.id AND t.held_since IS NULL"
    "   AND t.environment = n.environment AND t.database = n.database AND t.deployment = n.deployment)))"
)
"""Operation o of apply a does not hold its target under each of its names."""

_TAKE = (
    # In one order for everybody, so that two takers can't deadlock.
    "INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)"
    " SELECT n.environment, n.database, n.deployment, o.apply_id, o.id FROM apply_operations o"
    " JOIN applies a ON a.id = o.apply_id"
    " CROSS JOIN LATERAL tern_targets(a.environment, a.database, o.deployment) n"
    " WHERE {which} ORDER BY n.environment, n.database, n.deployment, o.position ON CONFLICT {then}"
)
_TAKE_SOME, _TAKE_ALL = (
    text(_TAKE.format(which=which, then="DO NOTHING"))
    for which in ("o.id = ANY(:ids)", "o.apply_id = :apply")
)
_TAKE_OVER = text(
    # In the same pass: who gave these back first would have the last of them while he waits for the first.
    _TAKE.format(
        which="o.apply_id = :apply",
        then="(environment, database, deployment) DO UPDATE SET apply_id = excluded.apply_id,"
        " operation_id = excluded.operation_id, held_since = NULL, held_for_s = NULL"
        " WHERE target_reservations.operation_id = ANY(:from_ids)",
    )
)
_BLOCKED = text(
    f"SELECT o.id, {BLOCKED_BY} AS blocked_by FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " WHERE o.id = ANY(:ids)"
)
_LET_GO = text("DELETE FROM target_reservations WHERE operation_id = ANY(:ids) AND held_since IS NULL")
_KEEP = text(
    "UPDATE target_reservations SET held_since = NULL, held_for_s = NULL WHERE operation_id = ANY(:ids)"
    " AND held_since IS NOT NULL"
)
_BEGIN_AGAIN = text(
    "UPDATE target_reservations SET held_since = tern_clock() WHERE operation_id = ANY(:ids)"
    " AND held_since IS NOT NULL"
)
_IS_OVER = text(
    # The database keeps whatever is not over.
    "UPDATE target_reservations SET held_since = least(held_since, tern_clock()), held_for_s = 0"
    " WHERE operation_id = ANY(:ids) AND held_since IS NOT NULL"
)
_LET_GO_OVER = text(
    "DELETE FROM target_reservations WHERE operation_id = ANY(:ids) AND held_since IS NOT NULL"
)
_HOLDER = (
    "SELECT {wanted} AS wanted, k.name, h.apply_identifier AS apply, ho.deployment, ho.state, k.wait_s,"
    " h.state AS apply_state, h.operation_count,"
    " (SELECT sum(n) FROM operation_counts c WHERE c.apply_id = h.id AND c.state = 'completed') AS done FROM {rows}"
)
_HELD = text(
    # The newest of all, and nothing of it is sent: whoever holds, blocks.
    _HOLDER.format(
        wanted="w.name",
        rows="unnest(CAST(:names AS text[])) AS w(name) CROSS JOIN LATERAL tern_blocked_by(9223372036854775807,"
        " :environment, :database, w.name, false, tern_clock()) k"
        " JOIN apply_operations ho ON ho.id = k.operation_id JOIN applies h ON h.id = ho.apply_id ORDER BY w.name",
    )
)
_HELD_FROM = text(
    _HOLDER.format(
        wanted="o.deployment",
        rows="apply_operations o JOIN applies a ON a.id = o.apply_id CROSS JOIN LATERAL"
        f" {_BLOCKER} WHERE o.apply_id = :apply AND h.id <> :apply AND NOT {_HOLDS_PLAINLY} ORDER BY o.deployment",
    )
)


def take(tx: Connection, operation_ids: Sequence[int]) -> dict[int, Holding]:
    """Takes the targets of these operations, each under all of its names or under none; what they hold already counts
    as taken. Returns who keeps which of them from theirs: the caller refuses, or waits.
    """
    kept_from = _kept_from(tx, operation_ids)
    free = [each for each in operation_ids if each not in kept_from]
    if not free:
        return kept_from
    tx.execute(_TAKE_SOME, {"ids": free})
    # In a statement of its own: one that waited for another taker sees who has won.
    lost = _kept_from(tx, free)
    if lost:
        # What is live keeps what it has (the database sees to that); the others leave nothing behind.
        tx.execute(_LET_GO, {"ids": list(lost)})
    # One that is started again within the time that its last call may act holds its target for itself again.
    tx.execute(_KEEP, {"ids": [each for each in free if each not in lost]})
    return {**kept_from, **lost}


def take_all(
    tx: Connection, apply_pk: int, take_over_from: Sequence[int] = ()
) -> tuple[tuple[Holding, str], ...]:
    """Takes the targets of all operations of a new apply, as far as nobody else holds them; those of the operations
    take_over_from, which nothing was sent of, are theirs no longer. Returns the others that hold one, with a sentence
    about each: the caller rolls back.
    """
    if take_over_from:
        tx.execute(_TAKE_OVER, {"apply": apply_pk, "from_ids": list(take_over_from)})
    else:
        tx.execute(_TAKE_ALL, {"apply": apply_pk})
    return tuple(_told(row) for row in tx.execute(_HELD_FROM, {"apply": apply_pk}))


def holders(
    tx: Connection, environment: str, database: str, deployments: Sequence[str]
) -> tuple[tuple[Holding, str], ...]:
    """Who would hold a target of a rollout over these deployments, with a sentence about each."""
    given = {"names": list(deployments), "environment": environment, "database": database}
    return tuple(_told(row) for row in tx.execute(_HELD, given))


def _kept_from(tx: Connection, operation_ids: Sequence[int]) -> dict[int, Holding]:
    rows = tx.execute(_BLOCKED, {"ids": list(operation_ids)})
    found = ((row.id, holding_in(row.blocked_by)) for row in rows)
    return {operation_id: holding for operation_id, holding in found if holding is not None}


def begin_wait_again(tx: Connection, operation_ids: Sequence[int]) -> None:
    """What was called failed works again: the time for which it keeps its target is counted anew."""
    if operation_ids:
        tx.execute(_BEGIN_AGAIN, {"ids": list(operation_ids)})


def give_back(tx: Connection, operation_ids: Sequence[int]) -> None:
    """What is finished keeps its target no longer: nothing of it can act any more."""
    if operation_ids:
        tx.execute(_IS_OVER, {"ids": list(operation_ids)})
        tx.execute(_LET_GO_OVER, {"ids": list(operation_ids)})


def blocked_by(tx: Connection, operation_id: int) -> Holding | None:
    """Who keeps the operation from its target."""
    return _kept_from(tx, [operation_id]).get(operation_id)


def holding_in(found: dict[str, object] | None) -> Holding | None:
    """Reads what BLOCKED_BY selects."""
    if found is None:
        return None
    return Holding(
        name=str(found["name"]),
        scope=f"{found['apply']}/{found['deployment']}",
        state=str(found["state"]),
        wait_s=None if found["wait_s"] is None else float(str(found["wait_s"])),
    )


def _told(row: Row) -> tuple[Holding, str]:
    holding = Holding(row.name, f"{row.apply}/{row.deployment}", row.state, row.wait_s)
    far = f"{row.apply} is {row.apply_state}, {row.done or 0} of {row.operation_count} completed"
    target = row.wanted if holding.name == row.wanted else f"{row.wanted}, the same target as {holding.name},"
    return holding, f"{target} is held by {holding.words}; {far}"
