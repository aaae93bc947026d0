"""Looking before locking: who holds a lock that we would have to wait for, and for how long already.

A queued ACCESS EXCLUSIVE makes every later reader wait behind it, so an attempt that can't succeed isn't made.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from tern.engine.grammar import without_constants
from tern.engine.names import Name
from tern.engine.recipes.model import CONFLICTS, LockMode, TableLock
from tern.engine.session import Connection, Row, row, rows

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


_SESSION = (
    "activity.pid, activity.usename AS user, activity.datname AS database, activity.application_name AS application,"
    " activity.backend_type AS backend, coalesce(host(activity.client_addr), '') AS client, activity.state,"
    " activity.query, extract(epoch FROM clock_timestamp() - activity.xact_start)::float8 AS age"
)
LONGEST_QUERY = 80


@dataclass(frozen=True)
class Blocker:
    """One session that stands in the way, or a prepared transaction, which has none. query: without its constants,
    which are the application's data.
    """

    pid: int | None
    age_seconds: float | None = None
    user: str = ""
    application: str = ""
    client: str = ""
    database: str = ""
    backend: str = ""
    state: str = ""
    query: str = ""
    prepared: str = ""

    @property
    def end(self) -> str:
        """The statement that ends it, ready to be copied; empty where none would."""
        if self.pid is not None:
            return f"SELECT pg_terminate_backend({self.pid})"
        quoted = self.prepared.replace("'", "''")
        return f"ROLLBACK PREPARED '{quoted}'" if quoted else ""

    def __str__(self) -> str:
        age = "of unknown age" if self.age_seconds is None else f"open for {_length(self.age_seconds)}"
        end = f"; to end it: {self.end}" if self.end else ""
        if self.pid is None:
            by = f" of {self.user}" if self.user else ""
            return f"a prepared transaction{by}{f', {age}' if self.prepared else ''}{end}"
        who = [self.user or "nobody known", self.application or "unnamed"]
        where = f" from {self.client}" if self.client else " from the same machine"
        kind = "" if self.backend == "client backend" else f", {self.backend}"
        does = f", {self.state}" if self.state else ""
        query = f": {self.query}" if self.query else ""
        database = f", in {self.database}" if self.database else ""
        return f"pid {self.pid} ({', '.join(who)}{where}{database}{kind}, {age}{does}{query}{end})"


def _blocker(found: Row) -> Blocker:
    return Blocker(
        found["pid"],
        found["age"],
        found["user"] or "",
        found["application"] or "",
        found["client"] or "",
        found["database"] or "",
        found["backend"] or "",
        found["state"] or "",
        without_constants(found["query"] or "", LONGEST_QUERY),
        found.get("prepared") or "",
    )


def _length(seconds: float) -> str:
    """Exact while it is short."""
    whole = int(seconds)
    if whole < 120:  # noqa: PLR2004 - two minutes
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7_200 else f"{whole // 3_600} h {whole % 3_600 // 60:02} min"  # noqa: PLR2004


def session(connection: Connection, pid: int) -> Blocker:
    """One session as it is now; only its number where it is gone, or hidden."""
    found = row(connection, f"SELECT {_SESSION} FROM pg_stat_activity AS activity WHERE pid = %s", (pid,))
    return Blocker(pid) if found is None else _blocker(found)


def blockers(connection: Connection, locks: Iterable[TableLock]) -> list[Blocker]:
    """The sessions whose locks conflict with the wanted ones, the oldest first.

    Without pg_read_all_stats the age of other roles' transactions is hidden, and so is what they do.
    """
    wanted = list(locks)
    found = rows(
        connection,
        "WITH wanted AS ("
        "    SELECT pg_catalog.to_regclass(name)::oid AS relation, mode"
        "      FROM unnest(%s::text[], %s::text[]) AS w(name, mode))"
        f"SELECT DISTINCT ON (held.pid, prepared.gid) {_SESSION.replace('activity.pid', 'held.pid', 1)},"
        "       prepared.gid AS prepared, prepared.owner AS owner,"
        "       extract(epoch FROM clock_timestamp() - prepared.prepared)::float8 AS prepared_age"
        "  FROM wanted JOIN pg_locks AS held USING (relation, mode)"
        "  LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid"
        # What is prepared has no session; the lock on its own number leads to its name.
        "  LEFT JOIN pg_locks AS own ON held.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'"
        "   AND own.virtualtransaction = held.virtualtransaction"
        "  LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid"
        " WHERE held.locktype = 'relation' AND held.granted"
        "   AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        "   AND held.pid IS DISTINCT FROM pg_backend_pid()",
        (
            [lock.relation.sql() for lock in wanted for _ in CONFLICTS[lock.mode]],
            [mode.catalog_name for lock in wanted for mode in CONFLICTS[lock.mode]],
        ),
    )
    listed = [
        _blocker(each)
        if each["prepared"] is None
        else Blocker(None, each["prepared_age"], each["owner"], prepared=each["prepared"])
        for each in found
    ]
    return sorted(listed, key=lambda blocker: -(blocker.age_seconds or 0.0))


def in_the_way(found: Iterable[Blocker]) -> list[Blocker]:
    """Those that won't be gone within an attempt: old transactions and prepared ones."""
    return [each for each in found if each.pid is None or (each.age_seconds or 0.0) > OLD_SECONDS]


def listing(found: list[Blocker], *, shown: int = 2) -> str:
    """The blockers in words, the first in full: a control plane keeps a line of what is said of a statement."""
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
