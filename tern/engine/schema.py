"""The engine's tables in the target database: schema `_tern`, created on first use, versioned.

They live beside the data they are about so that a statement and the note that it was done commit together.
"""

import psycopg

from tern.engine.errors import Reason, precondition
from tern.engine.session import Connection, row, set_local, value

VERSION = 1
# Two keys of pg_advisory_lock: the class is ours ("tern" in ASCII), the object 0 guards the creation of the schema,
# a job's number its runner.
LOCK_CLASS = 0x7465726E
CREATION = 0

TABLES = """
CREATE TABLE _tern.meta (
    version     integer NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE _tern.job (
    id              text PRIMARY KEY,
    -- The object of the runner's advisory lock.
    num             integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    operation       text,
    environment     text NOT NULL,
    database        text NOT NULL,
    target          text NOT NULL,
    plan_id         text NOT NULL,
    caller          text NOT NULL,
    options         jsonb NOT NULL,
    -- What `timestamp` columns and literals meant when the change was judged.
    time_zone       text NOT NULL,
    defer_cutover   boolean NOT NULL,
    cutover_allowed boolean NOT NULL DEFAULT false,
    state           text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running',
                        'waiting_for_cutover', 'cutting_over', 'stopped', 'completed', 'failed', 'cancelled')),
    -- What the runner has been asked to do and hasn't done yet.
    control         text CHECK (control IN ('stop', 'cancel')),
    -- The verdict that holds once the leftovers are removed.
    ending          text CHECK (ending IN ('failed', 'cancelled')),
    error           text NOT NULL DEFAULT '',
    note            text NOT NULL DEFAULT '',
    -- Rises with every runner; a transaction of an earlier one can't commit.
    epoch           bigint NOT NULL DEFAULT 0,
    -- Rises with everything that a look from outside could notice.
    revision        bigint NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at      timestamptz,
    completed_at    timestamptz,
    CONSTRAINT settled_has_time
        CHECK ((completed_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled')))
);
CREATE INDEX job_live ON _tern.job (num) WHERE state NOT IN ('completed', 'failed', 'cancelled');

-- One table for keys and tombstones, or an Apply and a Resolve with forbid could both win.
CREATE TABLE _tern.dispatch_key (
    key             text PRIMARY KEY,
    job             text REFERENCES _tern.job DEFERRABLE INITIALLY DEFERRED,
    request_hash    bytea,
    forbidden       boolean NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT started_or_forbidden CHECK ((job IS NULL) = forbidden)
);

-- The highest fence seen per operation; it is there before the operation's first job is.
CREATE TABLE _tern.fence (
    operation       text PRIMARY KEY,
    fence           bigint NOT NULL
);

-- Which tables a job is about. A table belongs to one unfinished job at most.
CREATE TABLE _tern.tbl (
    job             text NOT NULL REFERENCES _tern.job,
    namespace       text NOT NULL,
    table_name      text NOT NULL,
    active          boolean NOT NULL DEFAULT true,
    PRIMARY KEY (job, namespace, table_name)
);
CREATE UNIQUE INDEX one_active_job_per_table ON _tern.tbl (namespace, table_name) WHERE active;

CREATE TABLE _tern.change (
    job             text NOT NULL REFERENCES _tern.job,
    n               integer NOT NULL,
    namespace       text NOT NULL,
    table_name      text NOT NULL,
    ddl             text NOT NULL,
    change_type     integer NOT NULL,
    class           text NOT NULL,
    recipe          text NOT NULL,
    status          text NOT NULL DEFAULT 'pending',
    detail          text NOT NULL DEFAULT '',
    rows_done       bigint NOT NULL DEFAULT 0,
    rows_total      bigint NOT NULL DEFAULT 0,
    percent         integer NOT NULL DEFAULT 0 CHECK (percent BETWEEN 0 AND 100),
    eta_seconds     bigint NOT NULL DEFAULT 0,
    is_instant      boolean NOT NULL,
    PRIMARY KEY (job, n)
);

CREATE TABLE _tern.step (
    job             text NOT NULL,
    n               integer NOT NULL,
    change          integer NOT NULL,
    -- Steps of one atom belong together: an atom that can't be finished is undone.
    atom            integer NOT NULL,
    body            jsonb NOT NULL,
    status          text NOT NULL DEFAULT 'pending'
                        CHECK (status IN ('pending', 'started', 'done', 'undone')),
    attempts        integer NOT NULL DEFAULT 0,
    finished_at     timestamptz,
    PRIMARY KEY (job, n),
    FOREIGN KEY (job, change) REFERENCES _tern.change (job, n)
);

CREATE TABLE _tern.event (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job             text NOT NULL REFERENCES _tern.job,
    change          integer,
    level           text NOT NULL,
    event_type      text NOT NULL,
    message         text NOT NULL,
    old_state       text NOT NULL DEFAULT '',
    new_state       text NOT NULL DEFAULT '',
    metadata        jsonb NOT NULL DEFAULT '{}',
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX event_of_job ON _tern.event (job, id);
"""


def ensure_schema(connection: Connection) -> None:
    """Creates `_tern` unless it is there, and refuses one that another version or another owner made."""
    with connection.transaction():
        # Excludes another process that starts at the same moment: it waits, and then finds the tables.
        set_local(connection, lock_timeout="10s")
        connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, CREATION))
        _refuse_a_stranger(connection)
        if value(connection, "SELECT pg_catalog.to_regclass('_tern.meta')") is None:
            _create(connection)
        found = value(connection, "SELECT version FROM _tern.meta")
    if found != VERSION:
        message = f"schema _tern has version {found}, this engine knows version {VERSION}"
        raise precondition(Reason.STATE_VERSION, message)


def _refuse_a_stranger(connection: Connection) -> None:
    """Somebody else's `_tern` could hold triggers of theirs, which would run with our rights."""
    found = row(
        connection,
        "SELECT pg_catalog.pg_get_userbyid(nspowner) AS owner,"
        "       pg_catalog.pg_has_role(current_user, nspowner, 'MEMBER') AS ours"
        "  FROM pg_catalog.pg_namespace WHERE nspname = '_tern'",
    )
    if found is not None and not found["ours"]:
        message = f"schema _tern belongs to {found['owner']}, and the engine's role is no member of it"
        raise precondition(Reason.STATE_VERSION, message)


def _create(connection: Connection) -> None:
    try:
        if value(connection, "SELECT pg_catalog.to_regnamespace('_tern')") is None:
            # A schema that an administrator made beforehand spares us the right to CREATE in the database.
            connection.execute("CREATE SCHEMA _tern")
        connection.execute("REVOKE ALL ON SCHEMA _tern FROM PUBLIC")
        connection.execute(TABLES)
        connection.execute("REVOKE ALL ON ALL TABLES IN SCHEMA _tern FROM PUBLIC")
        connection.execute("INSERT INTO _tern.meta (version) VALUES (%s)", (VERSION,))
    except psycopg.errors.InsufficientPrivilege as error:
        message = (
            f"the engine's role can't create its schema _tern ({error.diag.message_primary}): grant it CREATE on the"
            " database, or create the schema with this role as its owner"
        )
        raise precondition(Reason.STATE_VERSION, message) from error
