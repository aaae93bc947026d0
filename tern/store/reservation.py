"""Targets held by live applies: one per (environment, database, deployment), by a primary key (G13)."""

from collections.abc import Sequence

from tern.store.sql import Connection, text


def take(
    tx: Connection, *, apply_pk: int, environment: str, database: str, deployments: Sequence[str]
) -> bool:
    """Takes all targets for the apply, in one order for everybody so that two takers can't deadlock; what it holds
    already counts as taken. False when another apply holds one: the caller rolls back or refuses.
    """
    held = tx.execute(
        text(
            "WITH wanted AS (SELECT name FROM unnest(CAST(:names AS text[])) AS name),"
            " taken AS (INSERT INTO target_reservations (environment, database, deployment, apply_id)"
            "   SELECT :environment, :database, name, :apply FROM wanted ORDER BY name"
            "   ON CONFLICT DO NOTHING RETURNING deployment)"
            " SELECT (SELECT count(*) FROM taken) + (SELECT count(*) FROM target_reservations t JOIN wanted w"
            "   ON w.name = t.deployment WHERE t.environment = :environment AND t.database = :database"
            "   AND t.apply_id = :apply)"
        ),
        {
            "names": list(deployments),
            "environment": environment,
            "database": database,
            "apply": apply_pk,
        },
    ).scalar_one()
    return bool(held == len(deployments))


def take_each(
    tx: Connection, *, apply_pk: int, environment: str, database: str, deployments: Sequence[str]
) -> frozenset[str]:
    """Takes those targets that nobody else holds, in the same order; which of them the apply holds now."""
    given = {
        "names": list(deployments),
        "environment": environment,
        "database": database,
        "apply": apply_pk,
    }
    tx.execute(
        text(
            "INSERT INTO target_reservations (environment, database, deployment, apply_id)"
            " SELECT :environment, :database, name, :apply FROM unnest(CAST(:names AS text[])) AS name ORDER BY name"
            " ON CONFLICT DO NOTHING"
        ),
        given,
    )
    # In a statement of its own: one that waited for another taker sees who has won.
    held = text(
        "SELECT deployment FROM target_reservations WHERE environment = :environment AND database = :database"
        " AND deployment = ANY(:names) AND apply_id = :apply"
    )
    return frozenset(tx.execute(held, given).scalars())


def holder_of(tx: Connection, environment: str, database: str, deployment: str) -> str:
    """Who holds a target and how far it is, in words."""
    row = tx.execute(
        text(
            "SELECT a.apply_identifier, a.state, a.operation_count,"
            " (SELECT count(*) FROM apply_operations o WHERE o.apply_id = a.id AND o.state = 'completed') AS done"
            " FROM target_reservations t JOIN applies a ON a.id = t.apply_id"
            " WHERE t.environment = :environment AND t.database = :database AND t.deployment = :deployment"
        ),
        {"environment": environment, "database": database, "deployment": deployment},
    ).one_or_none()
    if row is None:
        return "another apply"
    return f"{row.apply_identifier} ({row.state}, {row.done} of {row.operation_count} completed)"
