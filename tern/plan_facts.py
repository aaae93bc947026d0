"""What is known of a kept plan: its content, who kept it, what engines said, which applies rolled it out."""

from dataclasses import dataclass
from datetime import datetime

from tern.domain.drift import Foretold
from tern.domain.identity import ApplyId, PlanId
from tern.domain.model import Plan
from tern.domain.states import ApplyState


@dataclass(frozen=True, slots=True)
class PlanUse:
    """An apply of the plan."""

    apply_id: ApplyId
    state: ApplyState
    operation_count: int
    caller: str
    age_s: float


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """One plan. previews: what each target's engine said last, in the targets' order. uses: newest first, the first
    few of use_count.
    """

    plan: Plan
    caller: str
    created_at: datetime
    age_s: float
    previews: tuple[Foretold, ...]
    previewed_s_ago: float | None
    uses: tuple[PlanUse, ...]
    use_count: int
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One plan in a list."""

    plan_id: PlanId
    environment: str
    database: str
    caller: str
    age_s: float
    created_at: datetime
    first_ddl: str
    change_count: int
    target_count: int
    use_count: int
