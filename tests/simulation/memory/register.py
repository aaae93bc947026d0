"""Deployments and plans; the twin of tern/store/deployment.py and plan.py."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from tern.domain.drift import Foretold
from tern.domain.enqueue import NewChange
from tern.domain.errors import NotFound, Refused
from tern.domain.identity import DEPLOYMENT_NAME, PlanId
from tern.domain.model import Capabilities, Deployment, Plan, PlannedChange, ReviewedTarget
from tern.domain.policy import Policy
from tern.domain.review import plan_digest
from tests.simulation.memory.database import Database
from tests.simulation.memory.rows import DeploymentRow, PlanRow
from tests.simulation.memory.scope import Steps, deployment_from


class RegisterSteps(Steps):
    """ports.DeploymentStore, and the plans of ports.ApplyStore, in memory."""

    def identifier(self, prefix: str) -> str:
        """A public id; random ones would make no two runs alike."""
        return f"{prefix}-{self.db.next_id('identifier'):016x}"

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
        """See ports.ApplyStore."""
        if not changes:
            message = "a plan without changes was refused"
            raise Refused(message, reason="PLAN_EMPTY")
        db = self.db
        assert not targets, "no scenario reviews targets"
        assert policy is None, "nor a policy"
        digest = plan_digest(database_type, changes)
        with db.transaction():
            identifier = self.identifier("pln")
            for row in db.plans.values():
                if (row.environment, row.database, row.digest) == (environment, database, digest):
                    return plan_named(db, PlanId(row.plan_identifier))[1]
            number = db.next_id("plans")
            db.insert(
                PlanRow(number, identifier, environment, database, database_type, digest, caller, db.now)
            )
            db.plan_changes[number] = tuple(changes)
            return plan_named(db, PlanId(identifier))[1]

    def load_plan(self, plan_id: PlanId) -> Plan:
        """See ports.ApplyStore."""
        with self.db.transaction():
            return plan_named(self.db, plan_id)[1]

    def find_plan(self, change: NewChange) -> PlanId | None:
        """See ports.ApplyStore."""
        place = (change.environment, change.database, plan_digest(change.database_type, change.changes))
        with self.db.transaction():
            for row in self.db.plans.values():
                if (row.environment, row.database, row.digest) == place:
                    return PlanId(row.plan_identifier)
            return None

    def record_previews(self, plan_id: PlanId, found: Sequence[Foretold], caller: str) -> None:
        """See ports.ApplyStore."""
        del found, caller
        self.load_plan(plan_id)

    def reviewed_previews(self, plan_id: PlanId, deployments: Sequence[str]) -> Mapping[str, Foretold]:
        """See ports.ApplyStore."""
        del plan_id, deployments
        return {}

    def save_deployment(self, deployment: Deployment) -> None:
        """See ports.DeploymentStore."""
        if DEPLOYMENT_NAME.fullmatch(deployment.name) is None:
            message = f"{deployment.name!r} is not a deployment's name"
            raise Refused(message)
        db = self.db
        with db.transaction():
            place = (deployment.address, deployment.target)
            taken = any((row.address, row.target) == place for row in db.deployments.values())
            if taken or deployment.name in db.deployments:
                message = f"deployment {deployment.name} was not added"
                raise Refused(message, reason="DEPLOYMENT_REFUSED")
            db.insert(
                DeploymentRow(
                    deployment.name,
                    deployment.environment,
                    deployment.database,
                    deployment.address,
                    deployment.target,
                    dict(deployment.labels),
                    deployment.position,
                    asdict(deployment.credentials),
                    deployment.capabilities.as_json(),
                    deployment.idempotent_dispatch,
                    deployment.drained,
                    db.now,
                )
            )

    def load_deployments(self, names: Sequence[str] | None = None) -> tuple[Deployment, ...]:
        """See ports.DeploymentStore."""
        with self.db.transaction():
            rows = self.db.deployments
            if names is None:
                ordered = sorted(rows.values(), key=lambda row: (row.position, row.name))
                return tuple(deployment_from(row) for row in ordered)
            return tuple(deployment_from(self._named(name)) for name in names)

    def set_drained(self, name: str, *, drained: bool) -> None:
        """See ports.DeploymentStore."""
        with self.db.transaction():
            self.db.write(self._named(name), drained=drained)
            holders = {row.apply_id for row in self.db.reservations.values() if row.deployment == name}
            for apply_pk in () if drained else sorted(holders):
                self.db.write(self.db.applies[apply_pk], next_advance_at=self.db.now)

    def remove_deployment(self, name: str) -> None:
        """See ports.DeploymentStore."""
        db = self.db
        with db.transaction():
            held = any(row.deployment == name for row in db.reservations.values())
            used = any(
                row.deployment == name and (row.state == "stopped" or row.completed_at is None)
                for row in db.operations.values()
            )
            if held or used:
                message = f"deployment {name} was not removed"
                raise Refused(message, reason="DEPLOYMENT_IN_USE")
            db.delete(self._named(name))

    def record_capabilities(self, name: str, capabilities: Capabilities, *, deduplicates: bool) -> None:
        """See ports.DeploymentStore."""
        with self.db.transaction():
            row = self._named(name)
            self.db.write(row, capabilities=capabilities.as_json(), idempotent_dispatch=deduplicates)

    def _named(self, name: str) -> DeploymentRow:
        row = self.db.deployments.get(name)
        if row is None:
            message = f"there is no deployment {name!r}"
            raise NotFound(message)
        return row


def plan_named(db: Database, plan_id: PlanId) -> tuple[int, Plan]:
    """The plan and its key; raises NotFound."""
    row = next((one for one in db.plans.values() if one.plan_identifier == plan_id), None)
    if row is None:
        message = f"there is no plan {plan_id}"
        raise NotFound(message)
    changes = db.plan_changes[row.id]
    return row.id, Plan(plan_id, row.environment, row.database, row.database_type, row.digest, changes)
