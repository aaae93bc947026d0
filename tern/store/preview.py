"""Durable steps of what engines foretold: for a reviewer, and again with the rollout that began (review.py, drift.py).

Append-only: an engine says something else tomorrow, and what it said today stays.
"""

import json
from collections.abc import Mapping, Sequence

from tern.domain.drift import Foretold, ForetoldChange, Look
from tern.domain.errors import NotFound
from tern.domain.identity import PlanId
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps

_REVIEWED = text(
    "SELECT DISTINCT ON (v.deployment) v.deployment, v.outcome, v.words, v.changes FROM previews v"
    " JOIN plans p ON p.id = v.plan_id WHERE p.plan_identifier = :plan AND v.apply_id IS NULL"
    " AND v.deployment = ANY(:names) ORDER BY v.deployment, v.id DESC"
)


class PreviewSteps(Steps):
    """The previews of ports.ApplyStore on PostgreSQL."""

    def record_previews(self, plan_id: PlanId, found: Sequence[Foretold], caller: str) -> None:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            plan_pk = tx.execute(
                text("SELECT id FROM plans WHERE plan_identifier = :id"), {"id": plan_id}
            ).scalar_one_or_none()
            if plan_pk is None:
                message = f"there is no plan {plan_id}"
                raise NotFound(message)
            insert_previews(tx, plan_pk, None, found, caller)

    def reviewed_previews(self, plan_id: PlanId, deployments: Sequence[str]) -> Mapping[str, Foretold]:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            rows = tx.execute(_REVIEWED, {"plan": plan_id, "names": list(deployments)})
            return {
                row.deployment: Foretold(
                    row.deployment,
                    Look(row.outcome),
                    row.words,
                    tuple(ForetoldChange.from_json(change) for change in row.changes),
                )
                for row in rows
            }


def insert_previews(
    tx: Connection, plan_pk: int, apply_pk: int | None, found: Sequence[Foretold], caller: str
) -> None:
    """One row a target, in one statement."""
    if not found:
        return
    lines = [
        {
            "deployment": each.deployment,
            "outcome": each.look.value,
            "words": each.words,
            "changes": [change.as_json() for change in each.changes],
            "drift": list(each.drift),
        }
        for each in found
    ]
    tx.execute(
        text(
            "INSERT INTO previews (plan_id, apply_id, deployment, outcome, words, changes, drift, caller)"
            " SELECT :plan, :apply, l.deployment, l.outcome, l.words, l.changes, l.drift, :caller"
            " FROM jsonb_to_recordset(CAST(:lines AS jsonb))"
            " AS l(deployment text, outcome text, words text, changes jsonb, drift jsonb)"
        ),
        {"plan": plan_pk, "apply": apply_pk, "lines": json.dumps(lines), "caller": caller},
    )
