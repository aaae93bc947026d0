"""Durable steps of the register of deployments. Each method is one transaction."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from psycopg import IntegrityError

from tern.domain.errors import NotFound, Refused
from tern.domain.identity import DEPLOYMENT_NAME
from tern.domain.model import Capabilities, Deployment
from tern.store.event import Happening, append_all
from tern.store.scope import deployment_from
from tern.store.session import single, transaction
from tern.store.sql import Connection, Row, text
from tern.store.step import Steps

_USERS_NAMED = 5

_SET_DRAINED = text(
    # When it was is written by the database, which also forgets all of it where one is opened.
    "UPDATE deployments SET drained = :drained,"
    " drained_by = CASE WHEN drained THEN drained_by ELSE :caller END,"
    " drained_reason = CASE WHEN drained THEN drained_reason ELSE :reason END WHERE name = :name"
)
_COME_BACK = text(
    # Nobody's operation moves when a deployment is opened again, so who waits for it is told to look.
    "UPDATE applies SET next_advance_at = tern_clock() WHERE id IN (SELECT id FROM applies"
    " WHERE id IN (SELECT apply_id FROM target_reservations WHERE deployment = :name)"
    " ORDER BY id FOR NO KEY UPDATE)"
)
_DUE_AGAIN = (
    text(
        "UPDATE control_deliveries d SET next_attempt_at = tern_clock() FROM apply_operations o"
        " WHERE o.id = d.operation_id AND o.deployment = :name AND d.verb = 'start' AND d.state = 'pending'"
    ),
    text(
        # Of one that is being driven the claim says when it is due.
        "UPDATE apply_operations SET next_attempt_at = tern_clock() WHERE deployment = :name"
        " AND state = 'failed_retryable' AND claim_token IS NULL AND next_attempt_at IS NULL"
    ),
)
"""What waited for the deployment: starts, and dispatches that its engine can't settle."""
_OUTSTANDING = text(
    "SELECT DISTINCT a.apply_identifier || '/' || c.deployment FROM outstanding_calls c"
    " JOIN applies a ON a.id = c.apply_id WHERE c.deployment = :name AND c.settled_at IS NULL ORDER BY 1"
)
_WORK = (
    "SELECT o.id, o.apply_id, a.apply_identifier FROM apply_operations o JOIN applies a ON a.id = o.apply_id"
    " WHERE o.deployment = :name"
)
_AT_WORK = text(f"{_WORK} AND o.completed_at IS NULL ORDER BY o.id FOR NO KEY UPDATE OF o")
_LAST_AT_WORK = text(
    f"{_WORK} AND o.completed_at IS NOT NULL ORDER BY o.completed_at DESC, o.id DESC LIMIT 1 FOR NO KEY UPDATE OF o"
)
_IS_THAT_TARGET = text(
    "SELECT (environment, database, target) = (:environment, :database, :target) FROM deployments WHERE name = :name"
)
_PROBED = text(
    # In the order of their names, so that two who write down what they found don't wait for each other in a ring.
    "UPDATE deployments d SET capabilities = coalesce(f.offers, d.capabilities),"
    " probed_at = CASE WHEN f.offers IS NULL THEN d.probed_at ELSE tern_clock() END, probe_is_old = f.offers IS NULL"
    " FROM (SELECT n.name, nullif(l.offers, 'null') AS offers"
    "   FROM jsonb_to_recordset(CAST(:found AS jsonb)) AS l(name text, offers jsonb)"
    "   JOIN deployments n ON n.name = l.name ORDER BY n.name FOR NO KEY UPDATE OF n) f"
    " WHERE d.name = f.name"
)


class DeploymentSteps(Steps):
    """ports.DeploymentStore on PostgreSQL."""

    def save_deployment(self, deployment: Deployment) -> None:
        """See ports.DeploymentStore."""
        if DEPLOYMENT_NAME.fullmatch(deployment.name) is None:
            message = f"{deployment.name!r} is not a deployment's name"
            raise Refused(
                message, why=("letters, digits, '.', '_', '-', at most 63, a letter or digit first",)
            )
        try:
            with transaction(self.engine) as tx:
                tx.execute(
                    text(
                        "INSERT INTO deployments (name, environment, database, address, target, labels, position,"
                        " credentials, capabilities, probed_at, deduplicates, idempotent_dispatch, drained)"
                        " VALUES (:name, :environment, :database, :address, :target, CAST(:labels AS jsonb),"
                        " :position, CAST(:credentials AS jsonb), CAST(:capabilities AS jsonb),"
                        " CASE WHEN :is_probed THEN tern_clock() END, :deduplicates, :deduplicates, :drained)"
                    ),
                    _values(deployment),
                )
        except IntegrityError as error:
            raise _refusal(deployment, error.diag.constraint_name or "") from None

    def replace_deployment(self, deployment: Deployment) -> None:
        """See ports.DeploymentStore."""
        try:
            with transaction(self.engine) as tx:
                _refuse_while_used(tx, deployment.name, "replaced")
                _refuse_another_target(tx, deployment)
                _exactly_one(
                    tx.execute(
                        text(
                            "UPDATE deployments SET environment = :environment, database = :database,"
                            " address = :address, target = :target, labels = CAST(:labels AS jsonb),"
                            " position = :position, credentials = CAST(:credentials AS jsonb),"
                            " capabilities = CAST(:capabilities AS jsonb), probe_is_old = false,"
                            " probed_at = CASE WHEN :is_probed THEN tern_clock() END,"
                            # What was declared of another engine says nothing about this one.
                            " deduplicates = :deduplicates, idempotent_dispatch = :deduplicates"
                            " WHERE name = :name"
                        ),
                        _values(deployment),
                    ).rowcount,
                    deployment.name,
                )
        except IntegrityError as error:
            raise _refusal(deployment, error.diag.constraint_name or "") from None

    def load_deployments(self, names: Sequence[str] | None = None) -> tuple[Deployment, ...]:
        """See ports.DeploymentStore."""
        with transaction(self.engine) as tx:
            if names is None:
                rows = tx.execute(text("SELECT * FROM deployments ORDER BY position, name")).all()
                return tuple(deployment_in(row) for row in rows)
            found = {deployment.name: deployment for deployment in load_named(tx, names)}
        unknown = [name for name in names if name not in found]
        if unknown:
            message = f"there is no deployment {', '.join(repr(name) for name in unknown)}"
            raise NotFound(message, next_step="`tern deployments ls` lists them.")
        return tuple(found[name] for name in names)

    def set_drained(self, name: str, *, drained: bool, caller: str = "", reason: str = "") -> None:
        """See ports.DeploymentStore."""
        with transaction(self.engine) as tx:
            given = {"drained": drained, "name": name, "caller": caller, "reason": reason}
            _exactly_one(tx.execute(_SET_DRAINED, given).rowcount, name)
            if not drained:
                for statement in (_COME_BACK, *_DUE_AGAIN):
                    tx.execute(statement, {"name": name})

    def remove_deployment(self, name: str) -> None:
        """See ports.DeploymentStore."""
        with transaction(self.engine) as tx:
            _refuse_while_used(tx, name, "removed")
            refuse_while_outstanding(tx, name, "removed")
            _exactly_one(
                tx.execute(text("DELETE FROM deployments WHERE name = :name"), {"name": name}).rowcount, name
            )

    def record_register(self, name: str, event: str, caller: str, reason: str) -> tuple[str, ...]:
        """See ports.DeploymentStore."""
        with transaction(self.engine) as tx:
            given = {"name": name}
            rows = tx.execute(_AT_WORK, given).all() or tx.execute(_LAST_AT_WORK, given).all()
            detail = {"deployment": name, "reason": reason}
            append_all(
                tx, [Happening(row.apply_id, event, caller, row.id, reason, detail=detail) for row in rows]
            )
            return tuple(f"{row.apply_identifier}/{name}" for row in rows)

    def record_probes(self, found: Mapping[str, Capabilities | None]) -> None:
        """See ports.DeploymentStore."""
        with single(self.engine) as tx:
            tx.execute(
                _PROBED,
                {
                    "found": json.dumps(
                        [
                            {"name": name, "offers": None if offers is None else offers.as_json()}
                            for name, offers in sorted(found.items())
                        ]
                    )
                },
            )

    def declare(self, name: str, *, deduplicates: bool) -> None:
        """See ports.DeploymentStore."""
        with transaction(self.engine) as tx:
            _exactly_one(
                tx.execute(
                    text(
                        "UPDATE deployments SET deduplicates = :deduplicates, idempotent_dispatch = :deduplicates"
                        " WHERE name = :name"
                    ),
                    {"deduplicates": deduplicates, "name": name},
                ).rowcount,
                name,
            )


def load_named(tx: Connection, names: Sequence[str]) -> tuple[Deployment, ...]:
    """Those of the named that exist; held so that none is removed before the caller's commit."""
    rows = tx.execute(
        text("SELECT * FROM deployments WHERE name = ANY(:names) ORDER BY name FOR KEY SHARE"),
        {"names": list(names)},
    )
    return tuple(deployment_in(row) for row in rows)


def deployment_in(row: Row) -> Deployment:
    """From a row of the register."""
    return deployment_from(
        dict(row._mapping),  # noqa: SLF001 - our Row's own; no column can be called so
        name=row.name,
        environment=row.environment,
        database=row.database,
        target=row.target,
    )


def _values(deployment: Deployment) -> dict[str, object]:
    return {
        "name": deployment.name,
        "environment": deployment.environment,
        "database": deployment.database,
        "address": deployment.address,
        "target": deployment.target,
        "labels": json.dumps(dict(deployment.labels)),
        "position": deployment.position,
        "credentials": json.dumps(asdict(deployment.credentials)),
        "capabilities": json.dumps(deployment.capabilities.as_json()),
        "is_probed": deployment.capabilities.resolve is not None,
        "deduplicates": deployment.idempotent_dispatch,
        "drained": deployment.drained,
    }


def users_of(tx: Connection, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The applies with work that goes on at each of these, or may be started again: it is reached by what stands in
    the register. A few of each are enough.
    """
    rows = tx.execute(
        text(
            # Once through what is live, and not once for each name: there may be ten thousand of these.
            "SELECT t.deployment, a.apply_identifier FROM target_reservations t JOIN applies a ON a.id = t.apply_id"
            " WHERE t.deployment = ANY(:names)"
            " UNION SELECT o.deployment, a.apply_identifier FROM apply_operations o JOIN applies a"
            " ON a.id = o.apply_id WHERE o.completed_at IS NULL AND o.deployment = ANY(:names)"
            " ORDER BY deployment, apply_identifier"
        ),
        {"names": list(names)},
    )
    users: dict[str, list[str]] = {}
    for row in rows:
        of_one = users.setdefault(row.deployment, [])
        if len(of_one) < _USERS_NAMED:
            of_one.append(row.apply_identifier)
    return users


def outstanding_of(tx: Connection, names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The operations of which something is outstanding at each of these, which is reached by what stands there too."""
    rows = tx.execute(
        text(
            "SELECT c.deployment, array_agg(DISTINCT a.apply_identifier || '/' || c.deployment) AS scopes"
            " FROM outstanding_calls c JOIN applies a ON a.id = c.apply_id"
            " WHERE c.deployment = ANY(:names) AND c.settled_at IS NULL GROUP BY c.deployment"
        ),
        {"names": list(names)},
    )
    return {row.deployment: row.scopes[:_USERS_NAMED] for row in rows}


def _refuse_while_used(tx: Connection, name: str, done: str) -> None:
    # Before the look: a rollout that is just being accepted has read the old one, and holds it (load_named).
    tx.execute(text("SELECT 1 FROM deployments WHERE name = :name FOR UPDATE"), {"name": name})
    if used := users_of(tx, [name]).get(name):
        message = f"deployment {name} was not {done}"
        raise Refused(message, why=(f"it is used by {', '.join(used)}",), reason="DEPLOYMENT_IN_USE")


def refuse_while_outstanding(tx: Connection, name: str, done: str) -> None:
    """Raises Refused: what may still act there is asked for by this name, and holds whoever comes to its target."""
    found = tx.execute(_OUTSTANDING, {"name": name}).scalars().all()
    if not found:
        return
    message = f"deployment {name} was not {done}"
    raise Refused(
        message,
        why=(f"what was sent there by {', '.join(found[:_USERS_NAMED])} is outstanding, and may still act",),
        next_step=f"tern explain {found[0]} says what leads out; tern deployments drain {name} keeps new work away.",
        reason="DEPLOYMENT_IN_USE",
    )


def _refuse_another_target(tx: Connection, deployment: Deployment) -> None:
    """A new engine may take the place of one that is gone, for the same target; its name stands for no other one."""
    given = {
        "name": deployment.name,
        "environment": deployment.environment,
        "database": deployment.database,
        "target": deployment.target,
    }
    if tx.execute(_IS_THAT_TARGET, given).scalar_one_or_none() is False:
        refuse_while_outstanding(tx, deployment.name, "replaced")


def _exactly_one(count: int, name: str) -> None:
    if count != 1:
        message = f"there is no deployment {name!r}"
        raise NotFound(message, next_step="`tern deployments ls` lists them.")


def _refusal(deployment: Deployment, rule: str) -> Refused:
    why = {
        "deployments_are_named": "the name is taken",
        "deployments_one_per_target": "another deployment has the same address and target",
        "deployments_address_has_no_password": "a password stands in the address; name it by reference instead",
    }.get(rule, f"it breaks the rule {rule}")
    message = f"deployment {deployment.name} was not added"
    return Refused(message, why=(why,), reason="DEPLOYMENT_REFUSED")
