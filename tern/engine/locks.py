"""Looking before locking: who holds a lock that we would have to wait for, and for how long already.

A queued ACCESS EXCLUSIVE makes every later reader wait behind it, so an attempt that can't succeed isn't made.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from tern.engine.names import Name
from tern.engine.recipes.model import CONFLICTS, LockMode, TableLock
from tern.engine.session import Connection, rows

# An attempt waits for its lock this long at first; each failed one allows the next twice as much.
FIRST_BUDGET_MS = 50
LONGEST_BUDGET_MS = 250
# Weaker locks stop writers only, or nobody.
WEAK_BUDGET_MS = 500
# How long the statement may run once it has its locks. A server too busy for that gets more on the next attempt.
FIRST_HOLD_MS = 500
LONGEST_HOLD_MS = 4_000
# A transaction that is older than this won't end within an attempt's budget; a younger one may well.
OLD_SECONDS = 1.0
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0


@dataclass(frozen=True)
class Blocker:
    """One session that stands in the way; no text of its query, which may hold data."""

    pid: int | None
    application: str
    backend: str
    age_seconds: float | None
    query_start: str

    def __str__(self) -> str:
        if self.pid is None:
            return "a prepared transaction"
        age = "of unknown age" if self.age_seconds is None else f"open for {self.age_seconds:.0f} s"
        kind = "" if self.backend == "client backend" else f", {self.backend}"
        since = f", query since {self.query_start}" if self.query_start else ""
        return f"pid {self.pid} ({self.application or 'unnamed'}{kind}, {age}{since})"


def blockers(connection: Connection, locks: Iterable[TableLock]) -> list[Blocker]:
    """The sessions whose locks conflict with the wanted ones, the oldest first.

    Without pg_read_all_stats the age of other roles' transactions is hidden.
    """
    wanted = list(locks)
    found = rows(
        connection,
        "WITH wanted AS ("
        "    SELECT pg_catalog.to_regclass(name)::oid AS relation, mode"
        "      FROM unnest(%s::text[], %s::text[]) AS w(name, mode))"
        "SELECT DISTINCT ON (held.pid) held.pid, activity.application_name, activity.backend_type,"
        "       extract(epoch FROM clock_timestamp() - activity.xact_start)::float8 AS age,"
        "       coalesce(to_char(activity.query_start AT TIME ZONE 'UTC', 'HH24:MI:SS\"Z\"'), '') AS query_start"
        "  FROM wanted JOIN pg_locks AS held USING (relation, mode)"
        "  LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid"
        " WHERE held.locktype = 'relation' AND held.granted"
        "   AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND held.pid IS DISTINCT FROM pg_backend_pid()",
        (
            [lock.relation.sql() for lock in wanted for _ in CONFLICTS[lock.mode]],
            [mode.catalog_name for lock in wanted for mode in CONFLICTS[lock.mode]],
        ),
    )
    listed = [
        Blocker(
            each["pid"],
            each["application_name"] or "",
            each["backend_type"] or "",
            each["age"],
            each["query_start"],
        )
        for each in found
    ]
    return sorted(listed, key=lambda blocker: -(blocker.age_seconds or 0.0))


def in_the_way(found: Iterable[Blocker]) -> list[Blocker]:
    """Those that won't be gone within an attempt: old transactions and prepared ones."""
    return [each for each in found if each.pid is None or (each.age_seconds or 0.0) > OLD_SECONDS]


def listing(found: list[Blocker], *, shown: int = 5) -> str:
    """The blockers in words."""
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return "; ".join(str(each) for each in found[:shown]) + more


@dataclass
class Patience:
    """How long the next attempt may wait and hold, and how long to pause before it; never ends."""

    attempts: int = 0
    _pause: float = FIRST_PAUSE
    _hold_ms: int = FIRST_HOLD_MS

    def budget_ms(self, mode: LockMode) -> int:
        """The wait that the next attempt may impose on those who queue behind it."""
        if mode < LockMode.EXCLUSIVE:
            return WEAK_BUDGET_MS
        return min(FIRST_BUDGET_MS << min(self.attempts, 10), LONGEST_BUDGET_MS)

    @property
    def hold_ms(self) -> int:
        """The time that the next attempt's statement may take once it has its locks."""
        return self._hold_ms

    def lengthen_hold(self) -> None:
        """After a statement that had its locks and still ran out of time."""
        self._hold_ms = min(self._hold_ms * 2, LONGEST_HOLD_MS)

    def pause(self) -> float:
        """Seconds until the next attempt, with jitter so that several engines don't march in step."""
        self.attempts += 1
        seconds = self._pause * random.uniform(0.7, 1.3)  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return seconds


def lock_statements(locks: Iterable[TableLock], order: dict[Name, int]) -> list[str]:
    """LOCK TABLE for several relations, in the order of their oids: two engines never wait for each other."""
    wanted = sorted((lock for lock in locks if lock.relation in order), key=lambda lock: order[lock.relation])
    statements: list[str] = []
    for lock in wanted:
        if statements and statements[-1].endswith(f" IN {lock.mode.sql} MODE"):
            head = statements[-1].removesuffix(f" IN {lock.mode.sql} MODE")
            statements[-1] = f"{head}, ONLY {lock.relation.sql()} IN {lock.mode.sql} MODE"
        else:
            statements.append(f"LOCK TABLE ONLY {lock.relation.sql()} IN {lock.mode.sql} MODE")
    return statements
