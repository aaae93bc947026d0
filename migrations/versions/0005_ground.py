"""What evidence stands on: engines by number, the ids they gave, calls that may still act, and targets that are one.

Only tables and columns; whoever needs a rule about them makes it in a later migration. Workers of the version before
read and write none of these, and lose nothing by their being there.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
-- One engine, however many deployments it serves. A number is given once and never used again.
CREATE TABLE engines (
    number bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT engines_are_numbered PRIMARY KEY,
    address text NOT NULL,
    environment text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT tern_clock()
);
CREATE INDEX engines_by_address ON engines (environment, address, number);

-- Which operation an engine's id belongs to, as long as that operation may still be called with it. The database
-- refuses to give one id of one engine to two operations, whoever writes.
CREATE TABLE remote_ids (
    engine_number bigint NOT NULL REFERENCES engines (number),
    remote_id text NOT NULL CONSTRAINT remote_ids_are_not_empty CHECK (remote_id <> ''),
    operation_id bigint NOT NULL REFERENCES apply_operations (id),
    stored_at timestamptz NOT NULL DEFAULT tern_clock(),
    CONSTRAINT remote_ids_belong_to_one_operation PRIMARY KEY (engine_number, remote_id)
);
CREATE INDEX remote_ids_of_operation ON remote_ids (operation_id);

-- What was sent and may still act although no operation follows it: a key nobody has settled, or an id that could not
-- be stored or was given up. Append-only but for what was seen of it and how it was settled.
CREATE TABLE outstanding_calls (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    apply_id bigint NOT NULL REFERENCES applies (id),
    operation_id bigint NOT NULL REFERENCES apply_operations (id),
    environment text NOT NULL,
    database text NOT NULL,
    deployment text NOT NULL,
    dispatch_key text,
    remote_id text,
    generation integer NOT NULL DEFAULT 0,
    fence bigint NOT NULL,
    engine_number bigint REFERENCES engines (number),
    address text NOT NULL,
    why text NOT NULL CONSTRAINT outstanding_calls_why_is_known
        CHECK (why IN ('given_up', 'not_stored', 'contradicted', 'address_changed')),
    caller text NOT NULL,
    reason text NOT NULL DEFAULT '',
    opened_at timestamptz NOT NULL DEFAULT tern_clock(),
    next_look_at timestamptz DEFAULT tern_clock(),
    looks integer NOT NULL DEFAULT 0,
    last_seen text NOT NULL DEFAULT '',
    last_seen_at timestamptz,
    settled_at timestamptz,
    settled_by text NOT NULL DEFAULT '',
    settled_as text NOT NULL DEFAULT '',
    CONSTRAINT outstanding_calls_are_a_key_or_an_id CHECK ((dispatch_key IS NULL) <> (remote_id IS NULL))
);
CREATE UNIQUE INDEX outstanding_calls_once ON outstanding_calls
    (operation_id, coalesce(dispatch_key, ''), coalesce(remote_id, ''), address) WHERE settled_at IS NULL;
CREATE INDEX outstanding_calls_of_target ON outstanding_calls (environment, database, deployment)
    WHERE settled_at IS NULL;
CREATE INDEX outstanding_calls_due ON outstanding_calls (next_look_at) WHERE next_look_at IS NOT NULL;

-- What is known about two deployments whose engines name the same server and database. 'same' and 'suspected' count as
-- one target; 'two' only after each answered and neither knew the other's key.
CREATE TABLE same_targets (
    one text NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    other text NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    finding text NOT NULL CONSTRAINT same_targets_finding_is_known CHECK (finding IN ('same', 'two', 'suspected')),
    identity text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT tern_clock(),
    CONSTRAINT same_targets_are_pairs PRIMARY KEY (one, other),
    CONSTRAINT same_targets_are_ordered CHECK (one < other)
);
CREATE INDEX same_targets_by_other ON same_targets (other);

-- All names of one target: the deployment's own first, and those that are, or may be, the same.
CREATE FUNCTION tern_names_of_target(deployment text) RETURNS SETOF text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE named (name) AS (
        SELECT deployment
        UNION
        SELECT CASE WHEN s.one = n.name THEN s.other ELSE s.one END
        FROM named n JOIN same_targets s ON (s.one = n.name OR s.other = n.name) AND s.finding <> 'two'
    )
    SELECT name FROM named
$$;
"""

COLUMNS = """
-- deduplicates: what a person declared. What a probe found stands in capabilities, with when it was found; a probe
-- that failed leaves the finding standing and marks it old.
ALTER TABLE deployments
    ADD COLUMN deduplicates boolean NOT NULL DEFAULT false,
    ADD COLUMN engine_number bigint REFERENCES engines (number),
    ADD COLUMN engine_identity text NOT NULL DEFAULT '',
    ADD COLUMN probed_at timestamptz,
    ADD COLUMN probe_is_old boolean NOT NULL DEFAULT false;

-- Whoever holds a target: an operation, no longer an apply. held_since and held_for_s: a finished one still holds it
-- for so long, because a call may still act.
ALTER TABLE target_reservations
    ADD COLUMN operation_id bigint REFERENCES apply_operations (id),
    ADD COLUMN held_since timestamptz,
    ADD COLUMN held_for_s double precision,
    ADD CONSTRAINT target_reservations_waits_are_whole CHECK ((held_since IS NULL) = (held_for_s IS NULL));
CREATE INDEX target_reservations_of_operation ON target_reservations (operation_id);
CREATE INDEX target_reservations_held ON target_reservations (held_since) WHERE held_since IS NOT NULL;

-- engine_number, dispatched_to: the engine and its address when the change was handed over; they never follow the
-- deployment. unanswered_call, unanswered_since: an Apply, Start or Cutover that was begun and has no answer.
-- remote_identity, remote_started_at: kept with the id's first sample; another one is another job.
-- doubt: why only a person ends its uncertainty; same_work_at: when a person said that the id is its work all the same.
ALTER TABLE apply_operations
    ADD COLUMN engine_number bigint REFERENCES engines (number),
    ADD COLUMN dispatched_to text NOT NULL DEFAULT '',
    ADD COLUMN unanswered_call text NOT NULL DEFAULT ''
        CONSTRAINT apply_operations_unanswered_call_is_known
        CHECK (unanswered_call IN ('', 'apply', 'start', 'cutover')),
    ADD COLUMN unanswered_since timestamptz,
    ADD COLUMN remote_identity text NOT NULL DEFAULT '',
    ADD COLUMN remote_started_at text NOT NULL DEFAULT '',
    ADD COLUMN doubt text NOT NULL DEFAULT ''
        CONSTRAINT apply_operations_doubt_is_known CHECK (doubt IN ('', 'taken', 'foreign')),
    ADD COLUMN same_work_at timestamptz,
    ADD CONSTRAINT apply_operations_unanswered_calls_are_whole
        CHECK ((unanswered_since IS NULL) = (unanswered_call = ''));
CREATE INDEX apply_operations_unanswered ON apply_operations (unanswered_since) WHERE unanswered_since IS NOT NULL;
"""

FILL = """
INSERT INTO engines (address, environment)
    SELECT address, environment FROM deployments GROUP BY address, environment ORDER BY min(created_at), address;
UPDATE deployments d SET engine_number = e.number FROM engines e
    WHERE e.address = d.address AND e.environment = d.environment;
-- Until now a finding was written down as if somebody had declared it. Where an engine was found to offer Resolve
-- nobody had to declare anything, so only the others count as declared.
UPDATE deployments SET deduplicates =
    idempotent_dispatch AND NOT coalesce((capabilities ->> 'resolve')::boolean, false);
UPDATE target_reservations t SET operation_id = o.id FROM apply_operations o
    WHERE o.apply_id = t.apply_id AND o.deployment = t.deployment;
UPDATE apply_operations o SET engine_number = d.engine_number, dispatched_to = d.address FROM deployments d
    WHERE d.name = o.deployment AND o.dispatch_key IS NOT NULL AND o.completed_at IS NULL;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (TABLES, COLUMNS, FILL):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        -- Guards that the ways down from 0013, 0010 and 0009 leave in place.
        DROP TRIGGER IF EXISTS apply_operations_keep_what_was_sent ON apply_operations;
        DROP TRIGGER IF EXISTS apply_operations_send_nothing ON apply_operations;
        DROP TRIGGER IF EXISTS apply_operations_are_carried_on_once ON apply_operations;
        DROP TRIGGER IF EXISTS apply_operations_begin_nothing ON apply_operations;
        DROP FUNCTION IF EXISTS apply_operations_are_carried_on_once, tern_carried_on_by,
            apply_operations_begin_nothing, apply_operations_keep_what_was_sent, apply_operations_send_nothing;
        DROP FUNCTION tern_names_of_target;
        ALTER TABLE apply_operations DROP COLUMN engine_number, DROP COLUMN dispatched_to,
            DROP COLUMN unanswered_call, DROP COLUMN unanswered_since, DROP COLUMN remote_identity,
            DROP COLUMN remote_started_at, DROP COLUMN doubt, DROP COLUMN same_work_at;
        -- A target that has several names, or that waits, is held under its own name by its apply again, or not at all.
        DELETE FROM target_reservations t WHERE held_since IS NOT NULL OR NOT EXISTS (SELECT FROM apply_operations o
            WHERE o.apply_id = t.apply_id AND o.deployment = t.deployment);
        ALTER TABLE target_reservations DROP COLUMN operation_id, DROP COLUMN held_since, DROP COLUMN held_for_s;
        ALTER TABLE deployments DROP COLUMN deduplicates, DROP COLUMN engine_number, DROP COLUMN engine_identity,
            DROP COLUMN probed_at, DROP COLUMN probe_is_old;
        DROP TABLE same_targets, outstanding_calls, remote_ids, engines;
        """
    )
