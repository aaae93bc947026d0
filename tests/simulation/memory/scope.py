"""Loading and validating an operation's scope (G7), the gates before a claim, and proving a claim (S7)."""

from dataclasses import replace

from tern.domain.errors import ScopeRefused
from tern.domain.holds import Hold, HoldKind, OperationFacts, holds
from tern.domain.identity import ApplyId, PlanId, RemoteIdHome, ScopeName, home_of_remote_id
from tern.domain.model import (
    Action,
    Capabilities,
    Claim,
    Credentials,
    Deployment,
    OperationScope,
    PlannedChange,
    TableChange,
)
from tern.domain.scope import FoundOperation, validate
from tern.domain.states import State
from tern.domain.timing import LEASE_S, PollPace
from tests.simulation.memory.database import Database
from tests.simulation.memory.parent import project_parent
from tests.simulation.memory.rows import DeploymentRow, OperationRow
from tests.simulation.memory.tally import is_drained, is_stuck, tally

_LETS_OTHERS_GO = {
    HoldKind.DRAINED,
    HoldKind.RESERVATION,
    HoldKind.FAILURES,
    HoldKind.STRICT,
    HoldKind.WAVE,
    HoldKind.BAKE,
    HoldKind.ORDER,
    HoldKind.SLOTS,
}
"""Holds of which a projection knows when they are gone; whoever opens a deployment again asks for one."""


class Steps:
    """A process's way into the store; the twin of tern/store/step.py."""

    def __init__(self, db: Database, owner: str = "tern", lease_s: float = LEASE_S) -> None:
        self.db = db
        self.owner = owner
        self.lease_s = lease_s
        self.pace = PollPace()


def new_token(db: Database) -> str:
    """A fresh proof for one claim; random ones would make no two runs alike."""
    return f"{db.next_id('token'):024x}"


def deployment_from(row: DeploymentRow) -> Deployment:
    """A deployment from its row."""
    return Deployment(
        name=row.name,
        environment=row.environment,
        database=row.database,
        address=row.address,
        target=row.target,
        labels=row.labels,
        position=row.position,
        credentials=Credentials(**row.credentials),
        capabilities=Capabilities.from_json(row.capabilities),
        idempotent_dispatch=row.idempotent_dispatch,
        drained=row.drained,
    )


def load_scope(db: Database, operation_id: int, name: ScopeName) -> OperationScope:
    """The validated scope; raises ScopeRefused."""
    return validate(name, operation_id, _find(db, operation_id))


def _find(db: Database, operation_id: int) -> FoundOperation | None:
    row = db.operations.get(operation_id)
    if row is None:
        return None
    apply = db.applies[row.apply_id]
    plan = db.plans[apply.plan_id]
    changes = db.changes_of[operation_id]
    return FoundOperation(
        operation_id=operation_id,
        apply_pk=apply.id,
        apply_id=ApplyId(apply.apply_identifier),
        deployment_name=row.deployment,
        operation_count=apply.operation_count,
        counted_operations=len(db.operations_of[apply.id]),
        external_id=apply.external_id,
        engine_resume_context=row.engine_resume_context,
        deployment=_place(db, row),
        plan_id=PlanId(plan.plan_identifier),
        environment=apply.environment,
        database=apply.database,
        database_type=plan.database_type,
        changes=_statements(db, operation_id),
        foreign_changes=sum(change.apply_id != apply.id for change in changes),
        policy=db.policy(apply.id),
        allow_unsafe=bool(apply.options.get("allow_unsafe", False)),
        caller=apply.caller,
        change_digest=row.change_digest,
    )


def _place(db: Database, row: OperationRow) -> Deployment | None:
    """The operation's deployment, with the target that it had when the rollout was accepted."""
    found = db.deployments.get(row.deployment)
    if found is None:
        return None
    key = (row.deployment, row.target)
    if key not in db.places:
        db.places[key] = replace(deployment_from(found), target=row.target)
    return db.places[key]


def _statements(db: Database, operation_id: int) -> tuple[TableChange, ...]:
    if operation_id not in db.statements:
        db.statements[operation_id] = tuple(
            TableChange(
                row.id,
                PlannedChange(row.namespace, row.table_name, row.ddl, Action(row.action), row.unsafe_reason),
            )
            for row in db.changes_of[operation_id]
        )
    return db.statements[operation_id]


def store_remote_id(db: Database, operation: OperationRow, remote_id: str) -> None:
    """Writes the id to its one home."""
    if not remote_id:
        message = "an empty remote id is never stored"
        raise ScopeRefused(message, reason="REMOTE_ID_EMPTY")
    apply = db.applies[operation.apply_id]
    match home_of_remote_id(apply.operation_count):
        case RemoteIdHome.APPLY:
            db.write(apply, external_id=remote_id)
        case RemoteIdHome.OPERATION:
            db.write(operation, engine_resume_context=remote_id)


def hold(db: Database, claim: Claim) -> OperationRow | None:
    """The operation, if the claim is still ours."""
    row = db.operations.get(claim.operation_id)
    return row if row is not None and row.claim_token == claim.token else None


# The gates


def is_echo(db: Database, operation_id: int, name: ScopeName) -> bool:
    """A bell for something that is long done."""
    row = db.operations.get(operation_id)
    if row is None or row.next_attempt_at is not None or row.state == "pending":
        return False
    apply = db.applies[row.apply_id]
    return apply.apply_identifier == name.apply_id and row.deployment == name.deployment


def claim_runs_for_s(db: Database, row: OperationRow, lease_s: float) -> float:
    """Seconds that somebody's claim still runs; one too far in the future counts as expired."""
    if row.claim_token is None or row.claim_expires_at is None:
        return 0.0
    left = row.claim_expires_at - db.now
    return 0.0 if left > 2 * lease_s else max(0.0, left)


def gather_holds(db: Database, row: OperationRow, scope: OperationScope, lease_s: float) -> tuple[Hold, ...]:
    """Every reason against dispatching this operation now."""
    apply = db.applies[row.apply_id]
    holder = db.holder(apply.environment, apply.database, row.deployment)
    name = None if holder is None else holder.apply_identifier
    waits = State(row.state) is State.FAILED_RETRYABLE and row.next_attempt_at is not None
    is_outside = row.state == "pending" and row.next_attempt_at is None
    before = _those_before(db, row) if is_outside else []
    stuck = [one for one in before if is_stuck(db, one)]
    facts = OperationFacts(
        state=State(row.state),
        tally=tally(db, row.apply_id),
        position=row.position,
        wave=row.wave,
        is_admitted=row.next_attempt_at is not None,
        ahead=len(before) - len(stuck),
        stuck_ahead=stuck[0].deployment if stuck else "",
        stop_in_force=db.stop_in_force(row.id),
        wait_s=(row.next_attempt_at or 0.0) - db.now if waits else 0.0,
        claimed_for_s=claim_runs_for_s(db, row, lease_s),
        drained=is_drained(db, row.deployment),
        holds_target=name == apply.apply_identifier,
        target_holder=name,
    )
    return holds(scope.policy, facts)


def _those_before(db: Database, row: OperationRow) -> list[OperationRow]:
    """Of its wave, outside too, and before it in the order."""
    return [
        one
        for one in sorted(db.operations_of[row.apply_id], key=lambda one: one.position)
        if one.wave == row.wave
        and one.state == "pending"
        and one.next_attempt_at is None
        and one.position < row.position
    ]


def step_back(db: Database, row: OperationRow, kinds: set[HoldKind], who: str) -> None:
    """An admitted operation that may not go after all would stand before others (CL4)."""
    if row.state != "pending" or row.next_attempt_at is None:
        return
    if kinds & _LETS_OTHERS_GO:
        all_of_them = HoldKind.FAILURES in kinds
        for other in db.operations_of[row.apply_id]:
            if other is row or (all_of_them and other.state == "pending"):
                db.write(other, next_attempt_at=None)
        project_parent(db, row.apply_id, who)
