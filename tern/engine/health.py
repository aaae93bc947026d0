"""Whether the engine could do its work here: the words of the Health call."""

from tern.engine.session import MINIMUM_VERSION, Connection, row

OK = "ok"


def status(connection: Connection) -> str:
    """`ok`, or everything that is missing, in words."""
    found = row(
        connection,
        "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS standby,"
        "       has_database_privilege(current_database(), 'CREATE') AS may_create,"
        "       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_stats",
    )
    if found is None:
        return "the database answers nothing"
    missing: list[str] = []
    if found["version"] < MINIMUM_VERSION:
        missing.append("PostgreSQL 14 or newer is needed")
    if found["standby"]:
        missing.append("the server is a standby")
    if not found["may_create"]:
        missing.append("the role lacks CREATE on the database, so nothing can be previewed or applied")
    if missing:
        return "degraded: " + "; ".join(missing)
    if not found["sees_stats"]:
        return "ok, but without pg_read_all_stats the age of blocking sessions is unknown"
    return OK
