"""What accepting an apply would refuse as things stand, told to whoever only makes the plan. Writes nothing.

The rules are those of acceptance itself (apply.py, half_done.py): there is no second opinion.
"""

from collections.abc import Sequence

from tern.domain.errors import Refused
from tern.domain.identity import PlanId
from tern.domain.policy import Policy
from tern.ports import NewApply
from tern.store.apply import check, target_refusal
from tern.store.half_done import half_done, refuse_half_done
from tern.store.plan import load_plan
from tern.store.reservation import holders
from tern.store.session import transaction
from tern.store.step import Steps


class ForeseeSteps(Steps):
    """plan_port.ForeseeingStore on PostgreSQL."""

    def foresee(self, plan_id: PlanId, deployments: Sequence[str], policy: Policy) -> tuple[Refused, ...]:
        """See plan_port.ForeseeingStore."""
        found: list[Refused] = []
        with transaction(self.engine) as tx:
            _, plan = load_plan(tx, plan_id)
            supposed = NewApply(
                plan_id=plan_id,
                environment=plan.environment,
                deployments=tuple(deployments),
                policy=policy,
                caller="",
                reason="supposed",
                idempotency_key="supposed",
                allow_unsafe=True,
            )
            try:
                check(tx, supposed, plan)
            except Refused as refusal:
                found.append(refusal)
            if held := holders(tx, plan.environment, plan.database, deployments):
                found.append(target_refusal(held))
            try:
                refuse_half_done(half_done(tx, deployments))
            except Refused as refusal:
                found.append(refusal)
        return tuple(found)
