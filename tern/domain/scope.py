"""Which operation a call is about, and whether everything that was found really belongs to it (G7).

Loads nothing. The store hands over what it found, contradictions included; validate() returns the one scope that
all later steps use, or says which rule refused.
"""

from dataclasses import dataclass

from tern.domain.errors import ScopeRefused
from tern.domain.identity import APPLY_ID, DEPLOYMENT_NAME, ApplyId, PlanId, RemoteIdentity, ScopeName
from tern.domain.model import Deployment, OperationScope, TableChange
from tern.domain.policy import Policy


@dataclass(frozen=True, slots=True)
class FoundOperation:
    """An operation with its apply, as the rows say it; validated by nobody yet."""

    operation_id: int
    apply_pk: int
    apply_id: ApplyId
    deployment_name: str
    operation_count: int
    counted_operations: int
    external_id: str | None
    engine_resume_context: str | None
    deployment: Deployment | None
    plan_id: PlanId
    environment: str
    database: str
    database_type: str
    changes: tuple[TableChange, ...]
    foreign_changes: int
    policy: Policy
    allow_unsafe: bool
    caller: str
    change_digest: str = ""
    holds_remote_id: bool = False
    """The id that stands with it is this operation's and no other's at that engine, and may be called."""


POISON = frozenset(
    {
        "OPERATION_NOT_IN_SET",
        "NO_TABLE_CHANGES",
        "TABLE_CHANGE_OF_ANOTHER_APPLY",
        "DEPLOYMENT_UNKNOWN",
        "REMOTE_ID_MISPLACED",
        "REMOTE_ID_NOT_HELD",
        "REST_CHANGED",
    }
)
"""Rules that the rows themselves break, whoever asks: such an operation can never run and is settled (G7)."""


def refuse(rule: str, name: ScopeName | str, detail: str) -> ScopeRefused:
    """The refusal by one scope rule, in the words that every door shows."""
    return ScopeRefused(
        f"{name} was refused",
        why=(detail,),
        unchanged="Nothing was sent to any engine and nothing was written.",
        reason=rule,
    )


def parse_message(operation_id: object, scope: object) -> tuple[int, ScopeName]:
    """What every operation message carries, checked before any row is read; raises ScopeRefused."""
    name = ScopeName.parse(scope) if isinstance(scope, str) else None
    if name is None:
        msg = "SCOPE_MALFORMED"
        raise refuse(msg, repr(scope), "a scope is a text like apl-…/DEPLOYMENT")
    if isinstance(operation_id, bool) or not isinstance(operation_id, int | str):
        msg = "OPERATION_MALFORMED"
        raise refuse(msg, name, f"{operation_id!r} is not an operation id")
    try:
        number = int(operation_id)
    except ValueError:
        msg = "OPERATION_MALFORMED"
        raise refuse(msg, name, f"{operation_id!r} is not an operation id") from None
    if not 0 < number < 2**63:
        msg = "OPERATION_UNKNOWN"
        raise refuse(msg, name, f"there is no operation {number}")
    return number, name


def parse_deployment(name: object) -> str:
    """What a message about a deployment carries; raises ScopeRefused."""
    if not isinstance(name, str) or DEPLOYMENT_NAME.fullmatch(name) is None:
        msg = "DEPLOYMENT_MALFORMED"
        raise refuse(msg, ascii(name)[:80], "it is not a deployment's name")
    return name


def parse_apply_id(apply_id: object) -> ApplyId:
    """What a message about a whole apply carries; raises ScopeRefused."""
    if not isinstance(apply_id, str) or APPLY_ID.fullmatch(apply_id) is None:
        msg = "APPLY_MALFORMED"
        raise refuse(msg, ascii(apply_id)[:80], "an apply is written apl-…")
    return ApplyId(apply_id)


def validate(asked: ScopeName, operation_id: int, found: FoundOperation | None) -> OperationScope:
    """The scope of the operation asked for; raises ScopeRefused with the rule that does not hold.

    OPERATION_UNKNOWN, OPERATION_OF_ANOTHER_APPLY, DEPLOYMENT_EMPTY, DEPLOYMENT_MISMATCH, OPERATION_NOT_IN_SET,
    NO_TABLE_CHANGES, TABLE_CHANGE_OF_ANOTHER_APPLY, DEPLOYMENT_UNKNOWN, REMOTE_ID_MISPLACED, REMOTE_ID_NOT_HELD.
    """
    if found is None:
        msg = "OPERATION_UNKNOWN"
        raise refuse(msg, asked, f"there is no operation {operation_id}")
    if found.apply_id != asked.apply_id:
        msg = "OPERATION_OF_ANOTHER_APPLY"
        raise refuse(msg, asked, f"operation {operation_id} is {found.apply_id}'s")
    if not found.deployment_name:
        msg = "DEPLOYMENT_EMPTY"
        raise refuse(msg, asked, f"operation {operation_id} has no deployment")
    if found.deployment_name != asked.deployment:
        detail = f"operation {operation_id} is for {found.deployment_name}"
        msg = "DEPLOYMENT_MISMATCH"
        raise refuse(msg, asked, detail)
    if found.counted_operations != found.operation_count:
        detail = f"the apply says {found.operation_count} operations, its set has {found.counted_operations}"
        msg = "OPERATION_NOT_IN_SET"
        raise refuse(msg, asked, detail)
    if found.foreign_changes:
        detail = f"{found.foreign_changes} of its table changes belong to another apply"
        msg = "TABLE_CHANGE_OF_ANOTHER_APPLY"
        raise refuse(msg, asked, detail)
    if not found.changes:
        msg = "NO_TABLE_CHANGES"
        raise refuse(msg, asked, "it has no table changes, so there is nothing to dispatch")
    if found.deployment is None:
        msg = "DEPLOYMENT_UNKNOWN"
        raise refuse(msg, asked, f"there is no deployment {found.deployment_name}")
    identity = RemoteIdentity(found.operation_count, found.external_id, found.engine_resume_context)
    if identity.remote_id is not None and not found.holds_remote_id:
        # Its work is over and the id may be another's by now, or was another's all along: nothing is sent with it (G2).
        msg = "REMOTE_ID_NOT_HELD"
        raise refuse(msg, asked, f"its remote id {identity.remote_id} is not its own to use any more")
    return OperationScope(
        operation_id=operation_id,
        apply_pk=found.apply_pk,
        name=asked,
        operation_count=found.operation_count,
        remote_id=identity.remote_id,
        deployment=found.deployment,
        plan_id=found.plan_id,
        environment=found.environment,
        database=found.database,
        database_type=found.database_type,
        changes=found.changes,
        policy=found.policy,
        allow_unsafe=found.allow_unsafe,
        caller=found.caller,
        change_digest=found.change_digest,
    )


def require_single(apply_id: ApplyId, operation_count: int, verb: str) -> None:
    """A call that names an apply and no operation is legal on a single apply only; raises ScopeRefused (G7)."""
    if operation_count == 1:
        return
    detail = f"it has {operation_count} operations, and a {verb} for all of them would have no id of its own to carry"
    msg = "APPLY_SCOPED_CALL_ON_MULTI"
    raise refuse(msg, apply_id, detail)
