"""Looking at kept plans, without touching them: each look is one read-only snapshot."""

from tern.domain.drift import Foretold, ForetoldChange, Look
from tern.domain.identity import ApplyId, PlanId
from tern.domain.states import ApplyState
from tern.plan_facts import PlanFacts, PlanLine, PlanUse
from tern.store.database import Database
from tern.store.plan import load_plan
from tern.store.reading import snapshot
from tern.store.sql import Row, text

MOST_USES = 20

_KEPT = text(
    "SELECT p.caller, p.created_at, extract(epoch FROM tern_clock() - p.created_at)::float AS age_s,"
    " tern_clock() AS observed_at, (SELECT count(*) FROM applies a WHERE a.plan_id = p.id) AS use_count"
    " FROM plans p WHERE p.id = :id"
)
_PREVIEWS = text(
    # What stands in plans.targets stays in its order; a target that was never asked has no line.
    "SELECT DISTINCT ON (v.deployment) v.*, extract(epoch FROM tern_clock() - v.taken_at)::float AS age_s"
    " FROM previews v WHERE v.plan_id = :id AND v.apply_id IS NULL ORDER BY v.deployment, v.id DESC"
)
_USES = text(
    "SELECT a.apply_identifier, a.state, a.operation_count, a.caller,"
    " extract(epoch FROM tern_clock() - a.created_at)::float AS age_s"
    " FROM applies a WHERE a.plan_id = :id ORDER BY a.id DESC LIMIT :most"
)
_LIST = text(
    "SELECT p.*, extract(epoch FROM tern_clock() - p.created_at)::float AS age_s,"
    " c.change_count, c.first_ddl, (SELECT count(*) FROM applies a WHERE a.plan_id = p.id) AS use_count"
    " FROM (SELECT * FROM plans p WHERE :environment = '' OR p.environment = :environment"
    "   ORDER BY p.id DESC LIMIT :limit) p"
    " CROSS JOIN LATERAL (SELECT count(*) AS change_count, (array_agg(c.ddl ORDER BY c.ordinal))[1] AS first_ddl"
    "   FROM plan_changes c WHERE c.plan_id = p.id) c ORDER BY p.id DESC"
)


class Plans:
    """Plans as they are shown. Raises NotFound and StorageUnavailable."""

    def __init__(self, engine: Database) -> None:
        self._engine = engine

    def close(self) -> None:
        """Gives its connections back."""
        self._engine.dispose()

    def show(self, plan_id: PlanId) -> PlanFacts:
        """One plan, with what was asked about it and what became of it."""
        with snapshot(self._engine) as tx:
            plan_pk, plan = load_plan(tx, plan_id)
            kept = tx.execute(_KEPT, {"id": plan_pk}).one()
            rows = {row.deployment: row for row in tx.execute(_PREVIEWS, {"id": plan_pk})}
            uses = tx.execute(_USES, {"id": plan_pk, "most": MOST_USES}).all()
        asked = [rows[each.deployment] for each in plan.targets if each.deployment in rows]
        return PlanFacts(
            plan=plan,
            caller=kept.caller,
            created_at=kept.created_at,
            age_s=kept.age_s,
            previews=tuple(map(_foretold, asked)),
            previewed_s_ago=max((row.age_s for row in asked), default=None),
            uses=tuple(
                PlanUse(
                    ApplyId(row.apply_identifier),
                    ApplyState(row.state),
                    row.operation_count,
                    row.caller,
                    row.age_s,
                )
                for row in uses
            ),
            use_count=kept.use_count,
            observed_at=kept.observed_at,
        )

    def newest(self, *, environment: str = "", limit: int = 50) -> tuple[PlanLine, ...]:
        """The newest plans, newest first."""
        with snapshot(self._engine) as tx:
            return tuple(
                PlanLine(
                    plan_id=PlanId(row.plan_identifier),
                    environment=row.environment,
                    database=row.database,
                    caller=row.caller,
                    age_s=row.age_s,
                    created_at=row.created_at,
                    first_ddl=row.first_ddl or "",
                    change_count=row.change_count,
                    target_count=len(row.targets),
                    use_count=row.use_count,
                )
                for row in tx.execute(_LIST, {"environment": environment, "limit": limit})
            )


def _foretold(row: Row) -> Foretold:
    return Foretold(
        row.deployment,
        Look(row.outcome),
        row.words,
        tuple(ForetoldChange.from_json(change) for change in row.changes),
        tuple(row.drift),
    )
