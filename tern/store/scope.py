"""Loading what an operation's scope is validated from, and the SQL side of where a remote id lives (G1, G7)."""

from collections.abc import Mapping

from tern.domain.errors import NotFound, ScopeRefused
from tern.domain.identity import ApplyId, PlanId, RemoteId, RemoteIdHome, ScopeName, home_of_remote_id
from tern.domain.model import (
    Action,
    Capabilities,
    Credentials,
    Deployment,
    OperationScope,
    PlannedChange,
    TableChange,
)
from tern.domain.policy import Policy
from tern.domain.scope import FoundOperation, validate
from tern.store.sql import Connection, Row, text

REMOTE_ID = "(CASE WHEN a.operation_count = 1 THEN a.external_id ELSE o.engine_resume_context END)"
"""The remote id of operation o of apply a. tern.domain.identity decides which column; this is its SQL."""

HOLDS_ITS_ID = (
    # Of one row by its key; for an EXISTS beside an OR PostgreSQL would read the whole table.
    "coalesce((SELECT i.operation_id = o.id FROM remote_ids i WHERE i.engine_number = o.engine_number"
    f" AND i.remote_id = {REMOTE_ID}), false)"
)
"""The remote id of operation o of apply a is its own at its engine: without that nothing is sent with it (G2)."""

SCOPE_COLUMNS = (
    "a.apply_identifier, a.external_id, a.operation_count, a.environment, a.database, a.policy, a.options, a.caller,"
    " p.plan_identifier, p.database_type,"
    # The set is counted only where something does not fit: a position beyond it, or a count that is another one.
    " CASE WHEN a.operation_count = (SELECT sum(n) FROM operation_counts c WHERE c.apply_id = a.id)"
    "   AND a.operation_count = 1 + (SELECT max(s.position) FROM apply_operations s WHERE s.apply_id = a.id)"
    "   THEN a.operation_count"
    "   ELSE (SELECT count(*) FROM apply_operations s WHERE s.apply_id = a.id) END AS counted,"
    " (SELECT count(*) FROM table_changes c WHERE c.operation_id = o.id AND c.apply_id <> a.id) AS foreign_changes,"
    " (SELECT jsonb_agg(jsonb_build_array(c.id, c.namespace, c.table_name, c.ddl, c.action, c.unsafe_reason)"
    "   ORDER BY c.ordinal) FROM table_changes c WHERE c.operation_id = o.id) AS changes,"
    " d.name AS d_name, d.environment AS d_environment, d.database AS d_database, d.address, d.labels,"
    " d.position AS d_position, d.credentials, d.capabilities, d.deduplicates, d.engine_number AS d_engine_number,"
    " d.probe_is_old, d.engine_identity, coalesce(d.drained, false) AS drained,"
    # For what is finished nothing is sent any more, so its scope is a whole one without.
    f" o.completed_at IS NOT NULL OR {HOLDS_ITS_ID} AS holds_remote_id"
)
SCOPE_ROWS = (
    "apply_operations o JOIN applies a ON a.id = o.apply_id JOIN plans p ON p.id = a.plan_id"
    " LEFT JOIN deployments d ON d.name = o.deployment"
)
"""What the scope rules look at, beside the columns of operation o."""

_FIND_NAMED = text(
    "SELECT o.id FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " WHERE a.apply_identifier = :apply AND o.deployment = :deployment"
)
_FIND = text(
    f"SELECT o.id, o.apply_id, o.deployment, o.target, o.change_digest, o.engine_resume_context, {SCOPE_COLUMNS}"
    f" FROM {SCOPE_ROWS} WHERE o.id = :id"
)


def deployment_from(
    row: Mapping[str, object], *, name: str, environment: str, database: str, target: str
) -> Deployment:
    """A deployment from a row's columns."""
    labels, credentials, capabilities = row["labels"], row["credentials"], row["capabilities"]
    assert isinstance(labels, dict)  # noqa: S101 - jsonb objects by their column's default
    assert isinstance(credentials, dict)  # noqa: S101
    assert isinstance(capabilities, dict)  # noqa: S101
    return Deployment(
        name=name,
        environment=environment,
        database=database,
        address=str(row["address"]),
        target=target,
        labels={str(key): str(value) for key, value in labels.items()},
        position=int(str(row["position"])),
        credentials=Credentials(**credentials),
        capabilities=Capabilities.from_json(capabilities),
        idempotent_dispatch=bool(row["deduplicates"]),
        drained=bool(row["drained"]),
        engine_number=None if (number := row["engine_number"]) is None else int(str(number)),
        probe_is_old=bool(row["probe_is_old"]),
        engine_identity=str(row["engine_identity"]),
    )


def find_operation(tx: Connection, operation_id: int) -> FoundOperation | None:
    """Everything that the scope rules look at, contradictions included; None when there is no such row."""
    row = tx.execute(_FIND, {"id": operation_id}).one_or_none()
    return None if row is None else found_in(row)


def found_in(row: Row) -> FoundOperation:
    """The same from a row with the operation's own columns and those of SCOPE_COLUMNS."""
    deployment = None
    if row.d_name is not None:
        deployment = Deployment(
            name=row.d_name,
            environment=row.d_environment,
            database=row.d_database,
            address=row.address,
            target=row.target,
            labels=row.labels,
            position=row.d_position,
            credentials=Credentials(**row.credentials),
            capabilities=Capabilities.from_json(row.capabilities),
            idempotent_dispatch=row.deduplicates,
            drained=row.drained,
            engine_number=row.d_engine_number,
            probe_is_old=row.probe_is_old,
            engine_identity=row.engine_identity,
        )
    return FoundOperation(
        operation_id=row.id,
        apply_pk=row.apply_id,
        apply_id=ApplyId(row.apply_identifier),
        deployment_name=row.deployment,
        operation_count=row.operation_count,
        counted_operations=row.counted,
        external_id=row.external_id,
        engine_resume_context=row.engine_resume_context,
        deployment=deployment,
        plan_id=PlanId(row.plan_identifier),
        environment=row.environment,
        database=row.database,
        database_type=row.database_type,
        changes=tuple(
            TableChange(number, PlannedChange(namespace, table, ddl, Action(action), unsafe))
            for number, namespace, table, ddl, action, unsafe in row.changes or ()
        ),
        foreign_changes=row.foreign_changes,
        policy=Policy.from_json(row.policy),
        allow_unsafe=bool(row.options.get("allow_unsafe", False)),
        caller=row.caller,
        change_digest=row.change_digest,
        holds_remote_id=row.holds_remote_id,
    )


def find_named(tx: Connection, name: ScopeName) -> int:
    """The operation's key; raises NotFound."""
    found = tx.execute(
        _FIND_NAMED, {"apply": name.apply_id, "deployment": name.deployment}
    ).scalar_one_or_none()
    if found is None:
        message = f"there is no operation {name}"
        raise NotFound(message)
    return int(found)


def load_scope(tx: Connection, operation_id: int, name: ScopeName) -> OperationScope:
    """The validated scope; raises ScopeRefused."""
    return validate(name, operation_id, find_operation(tx, operation_id))


def store_remote_id(
    tx: Connection, *, apply_pk: int, operation_id: int, operation_count: int, remote_id: RemoteId
) -> None:
    """Writes the id to its one home, where the caller has seen that none stands; the triggers see it too (G5)."""
    if not remote_id:
        message = "an empty remote id is never stored"
        raise ScopeRefused(message, reason="REMOTE_ID_EMPTY")
    match home_of_remote_id(operation_count):
        case RemoteIdHome.APPLY:
            statement = text("UPDATE applies SET external_id = :remote_id WHERE id = :id")
            tx.execute(statement, {"remote_id": remote_id, "id": apply_pk})
        case RemoteIdHome.OPERATION:
            statement = text("UPDATE apply_operations SET engine_resume_context = :remote_id WHERE id = :id")
            tx.execute(statement, {"remote_id": remote_id, "id": operation_id})
