"""What somebody should look at, for `tern doctor`: by name, the worst first, in statements that follow what is live."""

from dataclasses import dataclass

from tern.domain.outstanding import Outstanding
from tern.store.database import Database
from tern.store.outstanding_hold import SELECTED, outstanding_in
from tern.store.reading import snapshot
from tern.store.sql import text

MOST_NAMED = 5

_UNCERTAIN = text(
    "SELECT a.apply_identifier || '/' || o.deployment FROM applies a JOIN apply_operations o ON o.apply_id = a.id"
    " WHERE a.state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped') AND o.state = 'uncertain'"
    " ORDER BY a.id, o.position LIMIT :limit"
)
_OLD_HALTS = text(
    "SELECT d.verb, a.apply_identifier || '/' || o.deployment AS scope, d.state, d.engine_words,"
    " extract(epoch FROM tern_clock() - d.created_at)::float AS age_s FROM control_deliveries d"
    " JOIN apply_operations o ON o.id = d.operation_id JOIN applies a ON a.id = d.apply_id"
    " WHERE d.state IN ('pending', 'sent') AND d.verb IN ('stop', 'cancel')"
    " AND d.created_at < tern_clock() - make_interval(secs => :after_s) ORDER BY d.created_at LIMIT :limit"
)
_OUTSTANDING = text(
    f"SELECT {SELECTED} FROM outstanding_calls c JOIN applies ca ON ca.id = c.apply_id WHERE c.settled_at IS NULL"
    " ORDER BY c.opened_at LIMIT :limit"
)
_LIES_AHEAD = text(
    # The newest events, whatever their times say; the first ones after the clock was set back have earlier ones again.
    "SELECT greatest(0, extract(epoch FROM greatest((SELECT max(at) FROM"
    "   (SELECT at FROM apply_events ORDER BY id DESC LIMIT 1000) newest),"
    "   (SELECT max(began_at) FROM sweep_leases), (SELECT max(finished_at) FROM sweep_leases)) - tern_clock()))::float"
)
_SERVER = text(
    "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS is_replica,"
    " current_setting('default_transaction_read_only') = 'on' AS is_read_only,"
    " current_setting('fsync') = 'off' OR current_setting('full_page_writes') = 'off' AS forgets,"
    # Said by every connection of ours as it begins, and dropped by a pooler that ignores such options.
    " current_setting('idle_in_transaction_session_timeout') = '0' AS is_unbounded,"
    " current_setting('max_connections')::int AS most_connections,"
    " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()) AS connections,"
    " tern_clock() AS clock"
)


@dataclass(frozen=True, slots=True)
class OldHalt:
    """A stop or cancel that is still open. age_s: since it was asked for."""

    verb: str
    scope: str
    state: str
    engine_words: str
    age_s: float


@dataclass(frozen=True, slots=True)
class Server:
    """What kind of PostgreSQL this is. clock_s: seconds since the epoch by its clock; forgets: a power cut loses
    what was committed; is_unbounded: what a connection sets for itself doesn't reach it.
    """

    version: int
    is_replica: bool
    is_read_only: bool
    forgets: bool
    is_unbounded: bool
    connections: int
    most_connections: int
    clock_s: float


def uncertain_operations(database: Database) -> tuple[str, ...]:
    """The first of them, as `apl-…/DEPLOYMENT`. Raises StorageUnavailable."""
    with snapshot(database) as tx:
        return tuple(tx.execute(_UNCERTAIN, {"limit": MOST_NAMED}).scalars().all())


def outstanding_calls(database: Database) -> tuple[Outstanding, ...]:
    """What was sent and may still act although no operation follows it, the oldest first. Raises StorageUnavailable."""
    with snapshot(database) as tx:
        return tuple(outstanding_in(row) for row in tx.execute(_OUTSTANDING, {"limit": MOST_NAMED}))


def old_halts(database: Database, after_s: float) -> tuple[OldHalt, ...]:
    """Stops and cancels that have been open for so long, the oldest first. Raises StorageUnavailable."""
    with snapshot(database) as tx:
        return tuple(
            OldHalt(row.verb, row.scope, row.state, row.engine_words, row.age_s)
            for row in tx.execute(_OLD_HALTS, {"after_s": after_s, "limit": MOST_NAMED})
        )


def lies_ahead_s(database: Database) -> float:
    """By how much the newest of what was written lies ahead of the clock: it was set back; 0 where nothing does. Raises
    StorageUnavailable.
    """
    with snapshot(database) as tx:
        return float(tx.execute(_LIES_AHEAD).scalar_one())


def server(database: Database) -> Server:
    """Raises StorageUnavailable."""
    with snapshot(database) as tx:
        row = tx.execute(_SERVER).one()
        return Server(
            version=row.version,
            is_replica=row.is_replica,
            is_read_only=row.is_read_only,
            forgets=row.forgets,
            is_unbounded=row.is_unbounded,
            connections=row.connections,
            most_connections=row.most_connections,
            clock_s=row.clock.timestamp(),
        )
