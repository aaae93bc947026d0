"""What the tests of the wire start from: one operation at one fake engine."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tern.domain.identity import ApplyId, DispatchKey, PlanId, RemoteId, ScopeName, dispatch_key
from tern.domain.model import (
    Action,
    Claim,
    Credentials,
    Deployment,
    OperationScope,
    PlannedChange,
    RemoteCall,
    TableChange,
)
from tern.domain.policy import Cutover, Policy
from tern.domain.review import changes_digest, operation_digest, sent_options
from tern.ports import Cursor, Engine
from tern.wire.routing import EngineDirectory
from tests.faults.fake_engine import FakeEngine

NAME = ScopeName(ApplyId("apl-one"), "us-east")
CHANGE = PlannedChange("public", "orders", "ALTER TABLE orders ADD note text", Action.ALTER)
DEADLINE_S = 5.0


def deployment_at(
    address: str, *, name: str = "us-east", credentials: Credentials | None = None
) -> Deployment:
    return Deployment(
        name=name,
        environment="production",
        database="shop",
        address=address,
        target=f"shop-{name}",
        credentials=credentials or Credentials(),
    )


def scope_at(
    deployment: Deployment,
    *,
    name: ScopeName = NAME,
    remote_id: RemoteId | None = None,
    changes: tuple[PlannedChange, ...] = (CHANGE,),
    cutover: Cutover = Cutover.AUTO,
    allow_unsafe: bool = False,
) -> OperationScope:
    scope = OperationScope(
        operation_id=7,
        apply_pk=3,
        name=name,
        operation_count=3,
        remote_id=remote_id,
        deployment=deployment,
        plan_id=PlanId("pln-one"),
        environment="production",
        database="shop",
        database_type="postgres",
        changes=tuple(TableChange(number, change) for number, change in enumerate(changes, start=1)),
        policy=Policy(cutover=cutover),
        allow_unsafe=allow_unsafe,
        caller="ann",
    )
    return accepted(scope)


def accepted(scope: OperationScope) -> OperationScope:
    """The operation under the digest with which a rollout of just this is accepted (store/apply.py)."""
    changes = [item.change for item in scope.changes]
    digest = operation_digest(
        environment=scope.environment,
        database=scope.database,
        database_type=scope.database_type,
        target=scope.deployment.target,
        options=sent_options(scope.policy, allow_unsafe=scope.allow_unsafe),
        changes=changes_digest((c.namespace, c.table_name, c.ddl, c.action.value) for c in changes),
    )
    return replace(scope, change_digest=digest)


def claim_on(scope: OperationScope, *, fence: int = 4, key: str | None = None) -> Claim:
    chosen = dispatch_key(scope.name, 1) if key is None else DispatchKey(key)
    return Claim(operation_id=scope.operation_id, token="t", fence=fence, generation=1, key=chosen)


def call_for(remote_id: str, *, name: ScopeName = NAME, fence: int = 4) -> RemoteCall:
    return RemoteCall(name, RemoteId(remote_id), "production", fence)


def cursor_for(number: int, remote_id: str, *, revision: int = 0, name: ScopeName = NAME) -> Cursor:
    return Cursor(number, call_for(remote_id, name=name), revision)


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    with FakeEngine("R") as engine:
        yield engine


@pytest.fixture
def directory() -> Iterator[EngineDirectory]:
    found = EngineDirectory(deadline_s=DEADLINE_S)
    yield found
    found.close()


@pytest.fixture
def impatient() -> Iterator[EngineDirectory]:
    """Gives up after a third of a second."""
    found = EngineDirectory(deadline_s=0.3)
    yield found
    found.close()


@pytest.fixture
def deployment(fake: FakeEngine) -> Deployment:
    return deployment_at(fake.address)


@pytest.fixture
def scope(deployment: Deployment) -> OperationScope:
    return scope_at(deployment)


@pytest.fixture
def claim(scope: OperationScope) -> Claim:
    return claim_on(scope)


@pytest.fixture
def engine(directory: EngineDirectory, deployment: Deployment) -> Engine:
    return directory.of(deployment)


@pytest.fixture
def started(engine: Engine, scope: OperationScope, claim: Claim) -> RemoteId:
    """The id of the operation's work, already accepted by the fake engine."""
    outcome = engine.apply(scope, claim)
    return outcome.value  # type: ignore[union-attr] # anything but Ok fails the test here
