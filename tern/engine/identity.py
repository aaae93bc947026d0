"""Who an engine is: the one environment, database and target that it works for, and the database it works at."""

from dataclasses import dataclass

import psycopg
import structlog

from tern.engine.session import Connection, value

# What a server calls itself is an unsigned number, which the function returns as a signed one.
_UNSIGNED = 2**64
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class EngineIdentity:
    """What `tern engine serve` was told; work for anyone else is refused."""

    environment: str
    database: str
    target: str

    def mismatch(self, *, environment: str, database: str = "", target: str = "") -> str:
        """Says in words how a request differs from us; empty when it is for us.

        A foreign client may leave fields empty; an empty field claims nothing and so contradicts nothing.
        """
        asked = {"environment": environment, "database": database, "target": target}
        ours = {"environment": self.environment, "database": self.database, "target": self.target}
        wrong = [
            f"{name} {asked[name]!r}, not {ours[name]!r}"
            for name in ours
            if asked[name] not in {"", ours[name]}
        ]
        return f"the request is for {', '.join(wrong)}" if wrong else ""


def read_identity(connection: Connection) -> str:
    """SYSTEM-IDENTIFIER/DATABASE-OID: made with the server, and unlike its address the same from everywhere.

    '' where it may not be read (some hosters take the right away): answers then name no database, and whoever asks
    does without. A copy of a server has the same one, so it can tell two databases apart, never prove that two are one.
    """
    try:
        server = value(connection, "SELECT system_identifier FROM pg_catalog.pg_control_system()")
        database = value(
            connection,
            "SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
        )
    except psycopg.errors.InsufficientPrivilege as error:
        log.warning("engine.identity.unreadable", error=str(error.diag.message_primary))
        return ""
    return f"{int(server) % _UNSIGNED}/{int(database)}"
