"""A rollout as any door takes it in, before anybody looked at plans, deployments and engines. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeGuard

from tern.domain.choice import Choice, shortened
from tern.domain.errors import Refused, UsageError
from tern.domain.identity import PlanId
from tern.domain.model import Plan, PlannedChange
from tern.domain.policy import Policy
from tern.domain.text import is_name, is_storable

LONGEST_KEY = 200
"""Of characters; an index holds it."""


@dataclass(frozen=True, slots=True)
class NewChange:
    """A change that came with the request; the same content for the same place is the same plan."""

    environment: str
    database: str
    database_type: str
    changes: tuple[PlannedChange, ...]

    def __post_init__(self) -> None:
        missing = [
            name
            for name, value in (("environment", self.environment), ("database", self.database))
            if not is_name(value)
        ]
        if missing:
            what = f"a new change says what it is for: {' and '.join(missing)} is missing or unprintable"
            raise UsageError(what)

    @classmethod
    def of(cls, plan: Plan) -> "NewChange":
        """What a kept plan changes."""
        return cls(plan.environment, plan.database, plan.database_type, plan.changes)


@dataclass(frozen=True, slots=True)
class Enqueue:
    """What somebody asks for. Raises UsageError for one without a reason or a key, or that contradicts itself.

    change: a plan that was kept, by its id, or a new one. environment, database: what the asker thinks that a kept
    plan is for; digest: what they were told that it is; empty where they don't say. policy: None where they don't
    say, which means that of the plan, or the default. previews: the engines are asked first what the change would do
    there; accept_drift: and whatever they say, the rollout begins. known_as: the operation that the asker calls it.
    """

    change: PlanId | NewChange
    choice: Choice
    caller: str
    reason: str
    key: str
    policy: Policy | None = None
    environment: str = ""
    database: str = ""
    allow_unsafe: bool = False
    previews: bool = True
    accept_drift: bool = False
    digest: str = ""
    known_as: str = ""

    def __post_init__(self) -> None:
        why = [
            f"{name} is missing"
            for name, value in (("the reason", self.reason), ("the idempotency key", self.key))
            if not value.strip()
        ]
        if len(self.key) > LONGEST_KEY:
            why.append(f"the idempotency key has {len(self.key)} characters, more than {LONGEST_KEY}")
        if why:
            what = "a rollout needs a reason, which stands in the record, and an idempotency key"
            raise UsageError(what, why=tuple(why), next_step="Say why, and repeat a request with its key.")
        if self.digest and isinstance(self.change, NewChange):
            what = "a digest says which plan is meant, and the change came with the request"
            raise UsageError(what, next_step="Keep it with `tern plan`, and name the plan.")
        if self.policy is not None and (contradictions := self.policy.contradictions()):
            what = "the rollout policy contradicts itself"
            raise UsageError(what, why=contradictions)


def is_usable_key(value: object) -> TypeGuard[str]:
    """A request can be found again by it."""
    return is_storable(value) and bool(value.strip()) and len(value) <= LONGEST_KEY


def check_place(asked: Enqueue, plan: Plan) -> None:
    """Raises Refused where the asker thinks that the kept plan is for another place."""
    why = [
        f"the plan is for {name} {its}, not {said}"
        for name, its, said in (
            ("environment", plan.environment, asked.environment),
            ("database", plan.database, asked.database),
        )
        if said and said != its
    ]
    if why:
        what = f"{plan.plan_id} is for another place"
        raise Refused(what, why=tuple(why), reason="PLAN_MISMATCH")


def refuse_unsafe(why: Sequence[str]) -> None:
    """Raises Refused with everything that a person must agree to; nothing to agree to passes."""
    if why:
        what = "the change is unsafe, and nobody has agreed to that"
        step = "Add --allow-unsafe if that is what you want."
        raise Refused(what, why=shortened(why), next_step=step, reason="UNSAFE_CHANGE")


def losses(changes: Sequence[PlannedChange]) -> tuple[str, ...]:
    """What the statements themselves lose, in words."""
    return tuple(
        f"{change.namespace}.{change.table_name}: {change.unsafe_reason}"
        for change in changes
        if change.is_unsafe
    )
