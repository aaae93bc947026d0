"""Durable steps of plans: the reviewed change, immutable, the same content the same plan. Each method is one
transaction.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from tern.domain.enqueue import NewChange
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import PlanId
from tern.domain.model import Action, Plan, PlannedChange, ReviewedTarget
from tern.domain.policy import Policy
from tern.domain.review import plan_digest
from tern.store.session import transaction
from tern.store.sql import Connection, text
from tern.store.step import Steps

LARGEST_PLAN_BYTES = 1_000_000
"""Well below the four megabytes that gRPC lets through: a larger Apply would be unanswered for ever."""


@dataclass(frozen=True, slots=True)
class UnkeptPlan:
    """What is to be kept as a plan."""

    environment: str
    database: str
    database_type: str
    changes: tuple[PlannedChange, ...]
    targets: tuple[ReviewedTarget, ...] = ()
    policy: Policy | None = None


class PlanSteps(Steps):
    """The plans of ports.ApplyStore on PostgreSQL."""

    def save_plan(
        self,
        *,
        environment: str,
        database: str,
        database_type: str,
        changes: Sequence[PlannedChange],
        caller: str,
        targets: Sequence[ReviewedTarget] = (),
        policy: Policy | None = None,
    ) -> Plan:
        """See ports.ApplyStore. Raises Refused for a plan without changes."""
        plan = UnkeptPlan(environment, database, database_type, tuple(changes), tuple(targets), policy)
        check_size(plan)
        with transaction(self.engine) as tx:
            identifier = keep_plan(tx, plan, caller)
            return load_plan(tx, identifier)[1]

    def load_plan(self, plan_id: PlanId) -> Plan:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            return load_plan(tx, plan_id)[1]

    def find_plan(self, change: NewChange) -> PlanId | None:
        """See ports.ApplyStore."""
        with transaction(self.engine) as tx:
            found = tx.execute(
                text(
                    "SELECT plan_identifier FROM plans"
                    " WHERE environment = :environment AND database = :database AND digest = :digest"
                ),
                {
                    "environment": change.environment,
                    "database": change.database,
                    "digest": plan_digest(change.database_type, change.changes),
                },
            ).scalar_one_or_none()
            return None if found is None else PlanId(found)


def check_size(plan: UnkeptPlan) -> None:
    """Raises Refused for one without changes, or with more than an engine takes."""
    if not plan.changes:
        message = "a plan without changes was refused"
        raise Refused(message, reason="PLAN_EMPTY")
    size = sum(len(change.ddl.encode()) for change in plan.changes)
    if size > LARGEST_PLAN_BYTES:
        message = f"a plan of {size} bytes of DDL was refused"
        why = (f"an engine takes {LARGEST_PLAN_BYTES} bytes in one request",)
        raise Refused(message, why=why, next_step="Divide it into several plans.", reason="PLAN_TOO_LARGE")


def keep_plan(tx: Connection, plan: UnkeptPlan, caller: str) -> PlanId:
    """The same content is the same plan."""
    how = None if plan.policy is None else plan.policy.as_json()
    digest = plan_digest(plan.database_type, plan.changes, plan.targets, how)
    plan_pk = tx.execute(
        text(
            "INSERT INTO plans"
            " (plan_identifier, environment, database, database_type, targets, policy, digest, caller)"
            " VALUES (:identifier, :environment, :database, :type, CAST(:targets AS jsonb),"
            " CAST(:policy AS jsonb), :digest, :caller)"
            " ON CONFLICT DO NOTHING RETURNING id"
        ),
        {
            "identifier": new_identifier("pln"),
            "environment": plan.environment,
            "database": plan.database,
            "type": plan.database_type,
            "targets": json.dumps([target.as_json() for target in plan.targets]),
            "policy": None if how is None else json.dumps(how),
            "digest": digest,
            "caller": caller,
        },
    ).scalar_one_or_none()
    if plan_pk is not None:
        tx.execute(
            text(
                "INSERT INTO plan_changes"
                " (plan_id, ordinal, namespace, table_name, ddl, action, unsafe_reason)"
                " VALUES (:plan, :ordinal, :namespace, :table_name, :ddl, :action, :unsafe_reason)"
            ),
            [
                {
                    "plan": plan_pk,
                    "ordinal": ordinal,
                    "namespace": change.namespace,
                    "table_name": change.table_name,
                    "ddl": change.ddl,
                    "action": change.action.value,
                    "unsafe_reason": change.unsafe_reason,
                }
                for ordinal, change in enumerate(plan.changes)
            ],
        )
    # A second plan of the same content has waited for the first, and this statement sees it.
    return PlanId(
        tx.execute(
            text(
                "SELECT plan_identifier FROM plans"
                " WHERE environment = :environment AND database = :database AND digest = :digest"
            ),
            {"environment": plan.environment, "database": plan.database, "digest": digest},
        ).scalar_one()
    )


def new_identifier(prefix: str) -> str:
    """A public id: the prefix and 64 random bits."""
    return f"{prefix}-{secrets.token_hex(8)}"


def load_plan(tx: Connection, plan_id: PlanId) -> tuple[int, Plan]:
    """The plan and its key; raises NotFound."""
    row = tx.execute(text("SELECT * FROM plans WHERE plan_identifier = :id"), {"id": plan_id}).one_or_none()
    if row is None:
        message = f"there is no plan {plan_id}"
        raise NotFound(message, next_step="`tern plan` makes one.")
    changes = tx.execute(
        text("SELECT * FROM plan_changes WHERE plan_id = :id ORDER BY ordinal"), {"id": row.id}
    )
    return row.id, Plan(
        plan_id=PlanId(row.plan_identifier),
        environment=row.environment,
        database=row.database,
        database_type=row.database_type,
        digest=row.digest,
        changes=tuple(
            PlannedChange(c.namespace, c.table_name, c.ddl, Action(c.action), c.unsafe_reason)
            for c in changes
        ),
        targets=tuple(ReviewedTarget(**target) for target in row.targets),
        policy=row.policy,
    )
