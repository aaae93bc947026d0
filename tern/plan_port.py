"""The plans' part of the ports: what would speak against rolling one out as things stand."""

from collections.abc import Sequence
from typing import Protocol

from tern.domain.errors import Refused
from tern.domain.identity import PlanId
from tern.domain.policy import Policy


class ForeseeingStore(Protocol):
    """Looks at what accepting an apply would look at, and writes nothing."""

    def foresee(self, plan_id: PlanId, deployments: Sequence[str], policy: Policy) -> tuple[Refused, ...]:
        """Each refusal that an apply of this plan to these deployments would meet now, consent to what is unsafe
        supposed. Raises NotFound.
        """
