"""What else was done at an operation's target: by rollouts that came later, and by those before it. Derived from the
rows at each look, so that nothing has to be written to the record of a rollout that is over.
"""

from collections import defaultdict
from collections.abc import Mapping

from tern.domain.states import State
from tern.facts import Attempt
from tern.store.sql import Connection, text

MOST = 4

_WAS_AT_WORK = "f.state <> 'skipped' AND (f.attempt > 0 OR f.completed_at IS NULL)"
_AT_THE_SAME = "fa.environment = a.environment AND fa.database = a.database"
_FOUND = "f.id, fa.apply_identifier || '/' || f.deployment AS scope, f.state, fa.plan_id = a.plan_id AS is_same_plan"

_ATTEMPTS = text(
    # Each side is one look into an index that is ordered by when they ended; what is live holds its target.
    "SELECT o.id AS operation_id, 'later' AS side, n.* FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " CROSS JOIN LATERAL ("
    f"  (SELECT {_FOUND} FROM apply_operations f JOIN applies fa ON fa.id = f.apply_id"
    "    WHERE f.deployment = o.deployment AND f.completed_at >= o.completed_at AND f.id > o.id"
    f"    AND {_WAS_AT_WORK} AND {_AT_THE_SAME} ORDER BY f.completed_at, f.id LIMIT {MOST})"
    "   UNION ALL"
    f"  (SELECT {_FOUND} FROM target_reservations t JOIN apply_operations f ON f.id = t.operation_id"
    "    JOIN applies fa ON fa.id = f.apply_id WHERE t.environment = a.environment AND t.database = a.database"
    "    AND t.deployment = o.deployment AND f.deployment = o.deployment AND f.id > o.id AND f.completed_at IS NULL)"
    " ) n WHERE o.apply_id = :id AND o.completed_at IS NOT NULL AND o.state <> 'completed'"
    " UNION ALL "
    "SELECT o.id, 'earlier', n.* FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    f" CROSS JOIN LATERAL (SELECT {_FOUND} FROM apply_operations f JOIN applies fa ON fa.id = f.apply_id"
    "    WHERE f.deployment = o.deployment AND f.completed_at IS NOT NULL AND f.id < o.id"
    f"    AND {_WAS_AT_WORK} AND {_AT_THE_SAME} ORDER BY f.completed_at DESC, f.id DESC LIMIT {MOST}) n"
    " WHERE o.apply_id = :id"
)


def attempts_of(tx: Connection, apply_pk: int) -> Mapping[tuple[int, str], tuple[Attempt, ...]]:
    """By operation and side, `later` or `earlier`, the nearest first. Later ones are told up to the first that has
    completed, with which what was begun there is over; earlier ones back to the last that had.
    """
    found: dict[tuple[int, str], tuple[Attempt, ...]] = defaultdict(tuple)
    for row in tx.execute(_ATTEMPTS, {"id": apply_pk}):
        key = (row.operation_id, row.side)
        if any(each.state is State.COMPLETED for each in found[key]):
            continue
        found[key] += (Attempt(row.scope, State(row.state), is_same_plan=row.is_same_plan),)
    return {
        key: tuple(each for each in each_side if key[1] == "later" or each.state is not State.COMPLETED)
        for key, each_side in found.items()
    }
