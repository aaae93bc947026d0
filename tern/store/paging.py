"""Looking, for other services: in pages, by key, and at one operation alone, however many siblings it has.

Everything a person sees comes from reading.py, and so does what is shown whole here.
"""

from collections.abc import Sequence
from typing import Any

from tern.domain.errors import NotFound
from tern.domain.identity import ApplyId, ScopeName
from tern.domain.model import Action
from tern.domain.states import ApplyState, State
from tern.domain.timing import LOST_CONTACT_AFTER
from tern.doors.answers import Event, KeyFate, Progress, Refusal, Summary, TableChange
from tern.store.carried import CHAINED
from tern.store.reading import Reading, snapshot
from tern.store.scope import REMOTE_ID
from tern.store.sql import RowMapping, text

MOST_REFUSALS = 20

_APPLIES = text(
    f"SELECT a.*, c.counts, {CHAINED} FROM ("
    "   SELECT * FROM applies a WHERE (:environment = '' OR a.environment = :environment)"
    "   AND (CAST(:states AS text[]) IS NULL OR a.state = ANY(CAST(:states AS text[])))"
    "   AND (CAST(:before AS text) IS NULL"
    "     OR a.id < (SELECT b.id FROM applies b WHERE b.apply_identifier = :before))"
    "   ORDER BY a.id DESC LIMIT :limit) a"
    " CROSS JOIN LATERAL (SELECT jsonb_object_agg(s.state, s.n) AS counts FROM"
    "   (SELECT state, sum(n) AS n FROM operation_counts o WHERE o.apply_id = a.id AND n > 0 GROUP BY state) s) c"
    " ORDER BY a.id DESC"
)
_EVENTS = text(
    "SELECT e.*, coalesce(o.deployment, '') AS deployment FROM apply_events e"
    " LEFT JOIN apply_operations o ON o.id = e.operation_id"
    " WHERE e.apply_id = (SELECT id FROM applies WHERE apply_identifier = :apply) AND e.id > :after"
    " AND (CAST(:deployment AS text) IS NULL OR o.deployment = :deployment OR e.operation_id IS NULL)"
    " ORDER BY e.id LIMIT :limit"
)
_OPERATION = text(
    f"SELECT o.*, a.environment, {REMOTE_ID} AS remote_id,"
    " extract(epoch FROM tern_clock() - o.sampled_at)::float AS sampled_age_s"
    " FROM applies a JOIN apply_operations o ON o.apply_id = a.id"
    " WHERE a.apply_identifier = :apply AND o.deployment = :deployment"
)
_KNOWN_AS = text(
    "SELECT coalesce(a.options ->> 'known_as', '') AS known_as"
    " FROM applies a JOIN apply_operations o ON o.apply_id = a.id"
    " WHERE a.apply_identifier = :apply AND o.deployment = :deployment"
)
_TABLES = text("SELECT * FROM table_changes WHERE operation_id = :id ORDER BY ordinal")
_KEY = text("SELECT apply_identifier FROM applies WHERE idempotency_key = :key")
_REFUSALS = text("SELECT * FROM enqueue_refusals WHERE idempotency_key = :key ORDER BY id DESC LIMIT :limit")


class Paging(Reading):
    """Reading, and what only other services ask for. Raises NotFound and StorageUnavailable."""

    def page_of_applies(
        self, *, environment: str, states: Sequence[ApplyState], limit: int, before: ApplyId | None
    ) -> tuple[Summary, ...]:
        """The newest applies that are older than `before`, newest first; no states means all."""
        words = [state.value for state in states] or None
        given = {"environment": environment, "states": words, "limit": limit, "before": before}
        with snapshot(self._engine) as tx:
            return tuple(_summary(row) for row in tx.execute(_APPLIES, given).mappings())

    def page_of_events(
        self, apply_id: ApplyId, deployment: str | None, *, limit: int, after: int
    ) -> tuple[Event, ...]:
        """The oldest events that are newer than `after`, in the order in which they happened."""
        given = {"apply": apply_id, "deployment": deployment, "limit": limit, "after": after}
        with snapshot(self._engine) as tx:
            return tuple(
                Event(
                    event_id=row["id"],
                    at=row["at"],
                    deployment=row["deployment"],
                    event=row["event"],
                    who=row["who"],
                    why=row["why"],
                    before=row["before"],
                    after=row["after"],
                )
                for row in tx.execute(_EVENTS, given).mappings()
            )

    def progress(self, name: ScopeName) -> Progress:
        """One operation alone."""
        with snapshot(self._engine) as tx:
            row = (
                tx.execute(_OPERATION, {"apply": name.apply_id, "deployment": name.deployment})
                .mappings()
                .one_or_none()
            )
            if row is None:
                what = f"there is no operation {name}"
                raise NotFound(what)
            tables = tuple(_table(each) for each in tx.execute(_TABLES, {"id": row["id"]}).mappings())
        return Progress(
            scope=str(name),
            environment=row["environment"],
            state=State(row["state"]),
            remote_id=row["remote_id"],
            summary=row["summary"],
            error=row["error_message"],
            lost_contact=row["poll_failures"] >= LOST_CONTACT_AFTER and State(row["state"]).is_live,
            volume=row["volume"],
            started_at=row["started_at"],
            completed_at=row["completed_at"],
            sampled_age_s=row["sampled_age_s"],
            tables=tables,
        )

    def known_as(self, name: ScopeName) -> str:
        """The operation that its asker calls it; empty for most."""
        with snapshot(self._engine) as tx:
            found = tx.execute(
                _KNOWN_AS, {"apply": name.apply_id, "deployment": name.deployment}
            ).one_or_none()
        if found is None:
            what = f"there is no operation {name}"
            raise NotFound(what)
        return str(found.known_as)

    def fate_of_key(self, key: str) -> KeyFate:
        """The apply that a key made, and the messages under it that were refused, newest first."""
        with snapshot(self._engine) as tx:
            apply_id = tx.execute(_KEY, {"key": key}).scalar_one_or_none()
            rows = tx.execute(_REFUSALS, {"key": key, "limit": MOST_REFUSALS}).mappings()
            refusals = tuple(
                Refusal(
                    at=row["at"],
                    caller=row["caller"],
                    reason=row["reason"],
                    what=row["what"],
                    why=tuple(row["why"]),
                    next_step=row["next_step"],
                )
                for row in rows
            )
        return KeyFate(apply_id, refusals)


def _summary(row: RowMapping) -> Summary:
    counts: dict[str, Any] = row["counts"] or {}
    return Summary(
        apply_id=row["apply_identifier"],
        environment=row["environment"],
        database=row["database"],
        state=ApplyState(row["state"]),
        operation_count=row["operation_count"],
        counts={state: counts[state.value] for state in State if state.value in counts},
        caller=row["caller"],
        reason=row["reason"],
        created_at=row["created_at"],
        carries_on=row["source"] or "",
        follow_ups=tuple(row["follow_ups"] or ()),
    )


def _table(row: RowMapping) -> TableChange:
    done = row["state"] == State.COMPLETED.value
    return TableChange(
        namespace=row["namespace"],
        table=row["table_name"],
        ddl=row["ddl"],
        action=Action(row["action"]),
        unsafe_reason=row["unsafe_reason"],
        state=row["state"],
        percent=100 if done else row["percent"],
        rows_copied=row["rows_copied"],
        rows_total=row["rows_total"],
        eta_s=row["eta_seconds"],
        detail=row["detail"],
        error=row["error"],
        settled_by=row["settled_by"],
    )
