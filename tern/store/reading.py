"""Looking, without touching: everything that is shown, each in a constant number of statements.

Every look is one read-only snapshot, so that what it shows belongs together. Who may go is not decided here: the
facts go to the same domain functions that admission uses.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from tern.domain.crowd import Front
from tern.domain.drift import Foretold, Look
from tern.domain.ending import Released
from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId, PlanId, ScopeName
from tern.domain.policy import Policy
from tern.domain.states import ApplyState, State
from tern.domain.timing import LEASE_S, RPC_DEADLINE_S
from tern.facts import ApplyFacts, ApplyLine, Happened, Held
from tern.store.attempts import attempts_of
from tern.store.carried import CARRIED_ON, CHAINED
from tern.store.database import Database
from tern.store.halt import STOP_IN_FORCE
from tern.store.notify import AGES_OF_FRONT, FRONT_AGES
from tern.store.outstanding_hold import OUTSTANDING_AT, SELECTED, outstanding_from
from tern.store.reading_rows import grouped, operation_in, table_in, wish_in
from tern.store.release import NEWEST_HEARD
from tern.store.reservation import BLOCKED_BY
from tern.store.scope import REMOTE_ID
from tern.store.session import transaction
from tern.store.sql import Connection, RowMapping, text
from tern.store.step import CLAIMED_FOR_S, NOW

_APPLY = text(
    "SELECT a.*, p.plan_identifier, tern_clock() AS observed_at,"
    " extract(epoch FROM tern_clock() - a.created_at)::float AS age_s,"
    " extract(epoch FROM tern_clock() - a.state_changed_at)::float AS state_age_s,"
    " extract(epoch FROM a.completed_at - a.created_at)::float AS took_s,"
    " r.failures_released, r.id AS release, h.heard, h.has_moved"
    " FROM applies a JOIN plans p ON p.id = a.plan_id"
    " LEFT JOIN LATERAL (SELECT failures_released, id FROM control_requests"
    "   WHERE apply_id = a.id AND verb = 'release' ORDER BY id DESC LIMIT 1) r ON true"
    f" LEFT JOIN LATERAL ({NEWEST_HEARD}) h ON true"
    " WHERE a.apply_identifier = :apply"
)
_OPERATIONS = text(
    # Only what is read: there may be ten thousand of them.
    "SELECT o.id, o.deployment, o.position, o.wave, o.target, o.state, o.attempt, o.fence, o.claim_token, o.volume,"
    " o.poll_failures, o.poll_error, o.summary, o.error_reason, o.error_message, o.doubt,"
    f" {REMOTE_ID} AS remote_id, {STOP_IN_FORCE} AS stop_in_force,"
    " coalesce(n.drained, false) AS drained,"
    " CASE WHEN n.drained THEN concat_ws(': ', nullif(n.drained_by, ''), nullif(n.drained_reason, ''))"
    "   END AS drained_by,"
    " coalesce(q.in_a_row, 0) AS unanswered,"
    " coalesce(extract(epoch FROM q.retry_at - tern_clock())::float, 0) AS pauses_s,"
    # What is finished needs no target, but where it may be tried again.
    f" CASE WHEN o.completed_at IS NULL OR o.state = 'failed' THEN {BLOCKED_BY} END AS blocked_by,"
    f" CASE WHEN o.completed_at IS NULL THEN {OUTSTANDING_AT} END AS held_by,"
    " CASE WHEN o.sampled_look > o.unheard_look THEN 0 ELSE o.unheard_tries END AS unheard_tries,"
    " extract(epoch FROM tern_clock() - o.unheard_since)::float AS unheard_for_s,"
    " o.next_attempt_at IS NOT NULL AS is_admitted,"
    " o.state = 'failed' AND coalesce(o.ended_after_request, 0) < coalesce(CAST(:release AS bigint), 0) AS was_seen,"
    " CASE WHEN o.completed_at IS NOT NULL THEN greatest(0, extract(epoch FROM tern_clock() - o.completed_at))::float"
    "   END AS ended_s_ago,"
    " extract(epoch FROM tern_clock() - o.state_changed_at)::float AS state_age_s,"
    " extract(epoch FROM coalesce(o.completed_at, CASE WHEN o.state = 'stopped' THEN o.state_changed_at END,"
    "   tern_clock()) - o.started_at)::float AS worked_s,"
    " extract(epoch FROM tern_clock() - o.sampled_at)::float AS sampled_age_s,"
    " extract(epoch FROM tern_clock() - o.unanswered_since)::float AS unanswered_for_s,"
    " extract(epoch FROM o.next_attempt_at - tern_clock())::float AS wait_s,"
    f" {CLAIMED_FOR_S} AS claimed_for_s,"
    f" {AGES_OF_FRONT},"
    f" {CARRIED_ON} AS carried_on,"
    " CASE WHEN o.carries_on IS NOT NULL THEN (SELECT pa.apply_identifier || '/' || p.deployment"
    "   FROM apply_operations p JOIN applies pa ON pa.id = p.apply_id WHERE p.id = o.carries_on) END AS carries_on,"
    " CASE WHEN EXISTS (SELECT FROM apply_operations f WHERE f.carries_on = o.id) THEN ("
    "   SELECT array_agg(fa.apply_identifier || '/' || f.deployment ORDER BY f.id) FROM apply_operations f"
    "   JOIN applies fa ON fa.id = f.apply_id WHERE f.carries_on = o.id) END AS follow_ups"
    " FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " LEFT JOIN deployments n ON n.name = o.deployment"
    " LEFT JOIN deployment_silences q ON q.deployment = o.deployment AND q.kind = 'dispatch'"
    " WHERE o.apply_id = :id ORDER BY o.position"
)
_TABLES = text(
    "SELECT operation_id, namespace, table_name, ddl, action, unsafe_reason, state, rows_copied, rows_total, percent,"
    " eta_seconds, detail, error, settled_by FROM table_changes WHERE apply_id = :id ORDER BY operation_id, ordinal"
)
_LABELS = text(
    "SELECT o.deployment, coalesce(n.labels, '{}') AS labels FROM apply_operations o"
    " LEFT JOIN deployments n ON n.name = o.deployment WHERE o.apply_id = :id ORDER BY o.position"
)
_WISHES = text(
    "SELECT d.*, r.caller, r.reason, extract(epoch FROM tern_clock() - d.created_at)::float AS age_s,"
    " extract(epoch FROM tern_clock() - d.closed_at)::float AS closed_s_ago"
    " FROM control_deliveries d JOIN control_requests r ON r.id = d.request_id"
    " WHERE d.apply_id = :id ORDER BY d.operation_id, d.id"
)
_OUTSTANDING = text(
    f"SELECT c.operation_id, {SELECTED} FROM outstanding_calls c JOIN applies ca ON ca.id = c.apply_id"
    " JOIN apply_operations o ON o.id = c.operation_id AND o.apply_id = :id"
    " WHERE c.settled_at IS NULL ORDER BY c.operation_id, c.id"
)
_STRAYED = text(
    "SELECT deployment, outcome, words, drift FROM previews WHERE apply_id = :id"
    " AND (outcome IN ('refused', 'unreachable', 'not_asked') OR drift <> '[]')"
)
_LIST = text(
    "SELECT a.*, extract(epoch FROM tern_clock() - a.created_at)::float AS age_s, c.counts,"
    f" {CHAINED}, tern_clock() AS observed_at"
    " FROM (SELECT * FROM applies a WHERE (:environment = '' OR a.environment = :environment)"
    "   AND (CAST(:states AS text[]) IS NULL OR a.state = ANY(CAST(:states AS text[])))"
    "   ORDER BY a.id DESC LIMIT :limit) a"
    " CROSS JOIN LATERAL (SELECT jsonb_object_agg(s.state, s.n) AS counts FROM"
    "   (SELECT state, sum(n) AS n FROM operation_counts o WHERE o.apply_id = a.id AND n > 0 GROUP BY state) s) c"
    " ORDER BY a.id DESC"
)
_EVENTS = text(
    "SELECT * FROM (SELECT e.*, coalesce(o.deployment, '') AS deployment,"
    "   extract(epoch FROM tern_clock() - e.at)::float AS age_s"
    "   FROM apply_events e LEFT JOIN apply_operations o ON o.id = e.operation_id"
    "   WHERE e.apply_id = :id AND e.id > :after"
    "   AND (CAST(:deployment AS text) IS NULL OR o.deployment = :deployment OR e.operation_id IS NULL)"
    "   ORDER BY e.id DESC LIMIT :limit) newest ORDER BY id"
)
_HELD = text(
    "SELECT t.*, a.apply_identifier, a.state, a.operation_count,"
    " a.apply_identifier || '/' || o.deployment AS scope, o.state AS operation_state,"
    " extract(epoch FROM tern_clock() - t.taken_at)::float AS held_for_s,"
    " (SELECT count(*) FROM apply_operations o WHERE o.apply_id = a.id AND o.state = 'completed') AS completed"
    " FROM target_reservations t JOIN applies a ON a.id = t.apply_id JOIN apply_operations o ON o.id = t.operation_id"
    f" WHERE NOT tern_wait_is_over(t.held_since, t.held_for_s, {NOW}) ORDER BY t.deployment"
)
_SWEEPS = text(
    "SELECT name, finished_by, extract(epoch FROM tern_clock() - finished_at)::float AS age_s FROM sweep_leases"
    " WHERE finished_at IS NOT NULL ORDER BY finished_at DESC"
)


class Reading:
    """Everything that commands and pages show. Raises NotFound and StorageUnavailable."""

    def __init__(
        self, engine: Database, *, lease_s: float = LEASE_S, deadline_s: float = RPC_DEADLINE_S
    ) -> None:
        self._engine = engine
        self._deadline_s = deadline_s
        self._lease_s = lease_s

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    def apply(self, apply_id: ApplyId) -> ApplyFacts:
        """One apply with everything below it: seven statements, however many operations."""
        with snapshot(self._engine) as tx:
            row = find_apply(tx, apply_id)
            tables = grouped(tx, _TABLES, row["id"], table_in)
            wishes = grouped(tx, _WISHES, row["id"], wish_in)
            outstanding = grouped(tx, _OUTSTANDING, row["id"], outstanding_from)
            strayed = {
                each.deployment: Foretold(
                    each.deployment, Look(each.outcome), each.words, drift=tuple(each.drift)
                )
                for each in tx.execute(_STRAYED, {"id": row["id"]})
            }
            attempts = attempts_of(tx, row["id"])
            found = tx.execute(_OPERATIONS, {"id": row["id"], "release": row["release"]}).mappings().all()
            front = Front.of(*([each[age] for each in found] for age in FRONT_AGES))
            operations = tuple(
                operation_in(
                    each,
                    self._lease_s,
                    front,
                    tables[each["id"]],
                    wishes[each["id"]],
                    strayed.get(each["deployment"]),
                    outstanding[each["id"]],
                    attempts,
                    self._deadline_s,
                )
                for each in found
            )
        return ApplyFacts(
            apply_id=ApplyId(row["apply_identifier"]),
            plan_id=PlanId(row["plan_identifier"]),
            environment=row["environment"],
            database=row["database"],
            state=ApplyState(row["state"]),
            policy=Policy.from_json(row["policy"]),
            operation_count=row["operation_count"],
            revision=row["revision"],
            caller=row["caller"],
            reason=row["reason"],
            error_message=row["error_message"],
            created_at=row["created_at"],
            age_s=row["age_s"],
            state_age_s=row["state_age_s"],
            took_s=row["took_s"],
            observed_at=row["observed_at"],
            operations=operations,
            released=row["failures_released"],
            release=Released(row["release"], row["heard"], bool(row["has_moved"]))
            if row["release"]
            else None,
        )

    def operation(self, name: ScopeName) -> ApplyFacts:
        """The apply of an operation that exists; what concerns it depends on its siblings."""
        facts = self.apply(name.apply_id)
        if all(each.deployment != name.deployment for each in facts.operations):
            known = ", ".join(each.deployment for each in facts.operations[:20])
            what = f"{name.apply_id} has no operation on {name.deployment!r}"
            raise NotFound(what, why=(f"its deployments are {known}",))
        return facts

    def labels(self, apply_id: ApplyId) -> Mapping[str, Mapping[str, str]]:
        """The labels of each of its deployments, as the register has them now."""
        with snapshot(self._engine) as tx:
            rows = tx.execute(_LABELS, {"id": find_apply(tx, apply_id)["id"]})
            return {row.deployment: row.labels for row in rows}

    def applies(
        self, *, environment: str = "", states: Sequence[ApplyState] | None = None, limit: int = 50
    ) -> tuple[ApplyLine, ...]:
        """The newest applies, newest first."""
        words = None if states is None else [state.value for state in states]
        with snapshot(self._engine) as tx:
            rows = tx.execute(_LIST, {"environment": environment, "states": words, "limit": limit}).mappings()
            return tuple(
                ApplyLine(
                    apply_id=ApplyId(row["apply_identifier"]),
                    environment=row["environment"],
                    database=row["database"],
                    state=ApplyState(row["state"]),
                    operation_count=row["operation_count"],
                    counts={State(state): count for state, count in (row["counts"] or {}).items()},
                    caller=row["caller"],
                    reason=row["reason"],
                    age_s=row["age_s"],
                    created_at=row["created_at"],
                    carries_on=row["source"],
                    follow_ups=tuple(row["follow_ups"] or ()),
                )
                for row in rows
            )

    def events(
        self, apply_id: ApplyId, *, deployment: str | None = None, limit: int = 100, after: int = 0
    ) -> tuple[Happened, ...]:
        """The newest events in the order in which they happened; a deployment's own and the apply's."""
        with snapshot(self._engine) as tx:
            found = find_apply(tx, apply_id)
            rows = tx.execute(
                _EVENTS, {"id": found["id"], "deployment": deployment, "limit": limit, "after": after}
            ).mappings()
            return tuple(
                Happened(
                    event_id=row["id"],
                    at=row["at"],
                    age_s=row["age_s"],
                    deployment=row["deployment"],
                    event=row["event"],
                    who=row["who"],
                    why=row["why"],
                    before=row["before"],
                    after=row["after"],
                )
                for row in rows
            )

    def knows_key(self, idempotency_key: str) -> bool:
        """Whether an apply was made under this key."""
        with snapshot(self._engine) as tx:
            statement = text("SELECT 1 FROM applies WHERE idempotency_key = :key")
            return tx.execute(statement, {"key": idempotency_key}).scalar_one_or_none() is not None

    def held_targets(self) -> tuple[Held, ...]:
        """Every target that is held, by what may still act."""
        with snapshot(self._engine) as tx:
            return tuple(
                Held(
                    environment=row["environment"],
                    database=row["database"],
                    deployment=row["deployment"],
                    apply_id=ApplyId(row["apply_identifier"]),
                    state=ApplyState(row["state"]),
                    held_for_s=row["held_for_s"],
                    completed=row["completed"],
                    operation_count=row["operation_count"],
                    scope=row["scope"],
                    operation_state=row["operation_state"],
                )
                for row in tx.execute(_HELD).mappings()
            )

    def sweeps(self) -> tuple[tuple[str, str, float], ...]:
        """Name, sweeper and age of each sweep that was ever finished, newest first: whether anybody works."""
        with snapshot(self._engine) as tx:
            rows = tx.execute(_SWEEPS)
            return tuple((row.name, row.finished_by, row.age_s) for row in rows)

    def clock(self) -> datetime:
        """What time it is."""
        with snapshot(self._engine) as tx:
            now: datetime = tx.execute(text("SELECT tern_clock()")).scalar_one()
            return now


@contextmanager
def snapshot(engine: Database) -> Iterator[Connection]:
    """One look: everything that is read inside belongs together. Raises StorageUnavailable."""
    with transaction(engine) as tx:
        tx.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        yield tx


def find_apply(tx: Connection, apply_id: ApplyId) -> RowMapping:
    """The apply's row, with its plan and its ages; raises NotFound."""
    row = tx.execute(_APPLY, {"apply": apply_id}).mappings().one_or_none()
    if row is None:
        what = f"there is no apply {apply_id}"
        raise NotFound(what, next_step="`tern ls` shows the newest ones.")
    return row
