"""What became of each statement is known by its own evidence, and what was left is carried on by a follow-up.

Workers of the version before write an operation's end over all of its statements, and know of no follow-up: triggers
keep what they write to what is known, and keep them from making live what was carried on elsewhere.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = """
-- What is there already was left by the way down.
ALTER TABLE table_changes ADD COLUMN settled_by text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS origin_id bigint REFERENCES table_changes (id);
ALTER TABLE apply_operations ADD COLUMN IF NOT EXISTS carries_on bigint REFERENCES apply_operations (id);
-- Of a follow-up the first apply, for whoever lists them.
ALTER TABLE applies ADD COLUMN IF NOT EXISTS carries_on bigint REFERENCES applies (id);
CREATE INDEX IF NOT EXISTS applies_carrying_on ON applies (carries_on) WHERE carries_on IS NOT NULL;
-- Who carries an operation on is asked before it may run again; and which of an operation's statements were done since.
CREATE INDEX IF NOT EXISTS apply_operations_carrying_on ON apply_operations (carries_on) WHERE carries_on IS NOT NULL;
CREATE INDEX table_changes_by_origin ON table_changes (origin_id) WHERE origin_id IS NOT NULL;
-- A new rollout asks what was done last at each of its deployments.
CREATE INDEX apply_operations_finished_of_deployment ON apply_operations (deployment, id)
    WHERE completed_at IS NOT NULL;

-- What carries on what is written once (G15).
CREATE OR REPLACE TRIGGER apply_operations_carries_on_stays BEFORE UPDATE OF carries_on ON apply_operations
    FOR EACH ROW WHEN (NEW.carries_on IS DISTINCT FROM OLD.carries_on) EXECUTE FUNCTION rows_are_append_only();
CREATE OR REPLACE TRIGGER applies_carries_on_stays BEFORE UPDATE OF carries_on ON applies
    FOR EACH ROW WHEN (NEW.carries_on IS DISTINCT FROM OLD.carries_on) EXECUTE FUNCTION rows_are_append_only();
CREATE OR REPLACE TRIGGER table_changes_origin_stays BEFORE UPDATE OF origin_id ON table_changes
    FOR EACH ROW WHEN (NEW.origin_id IS DISTINCT FROM OLD.origin_id) EXECUTE FUNCTION rows_are_append_only();
"""

RULES = """
CREATE FUNCTION tern_nothing_began(o apply_operations) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT o.engine_resume_context IS NULL AND o.error_reason <> 'ENDED'
        AND NOT EXISTS (SELECT FROM applies a WHERE a.id = o.apply_id AND a.external_id IS NOT NULL)
$$;
COMMENT ON FUNCTION tern_nothing_began IS
    'Of an operation that is settled: it has no work at its engine, and nobody but the engine or Tern itself says so.';

CREATE OR REPLACE FUNCTION tern_carried_on_by(operation bigint) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH RECURSIVE following (id) AS (
        SELECT o.id FROM apply_operations o WHERE o.carries_on = $1
        UNION
        SELECT o.id FROM following f JOIN apply_operations o ON o.carries_on = f.id
    )
    SELECT o.id FROM following f JOIN apply_operations o ON o.id = f.id
    WHERE o.completed_at IS NULL OR o.state = 'completed' OR EXISTS (SELECT FROM table_changes c
        WHERE c.operation_id = o.id AND c.state NOT IN ('pending', 'skipped', 'failed', 'cancelled', 'reverted'))
    ORDER BY o.id DESC LIMIT 1
$$;
COMMENT ON FUNCTION tern_carried_on_by IS
    'The newest follow-up of an operation, or of its follow-ups, that may act, has completed, or has changed something:
as long as there is one, the operation is not run again.';

-- A worker of the version before drives a retry or a start of what was carried on elsewhere.
CREATE OR REPLACE FUNCTION apply_operations_are_carried_on_once() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM apply_operations WHERE carries_on = NEW.id)
            AND tern_carried_on_by(NEW.id) IS NOT NULL THEN
        RAISE EXCEPTION 'operation % is carried on by operation %', NEW.id, tern_carried_on_by(NEW.id)
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_are_carried_on_once';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER apply_operations_are_carried_on_once BEFORE UPDATE OF state ON apply_operations FOR EACH ROW
    WHEN (OLD.state IN ('failed', 'stopped') AND NEW.state IN ('pending', 'resuming'))
    EXECUTE FUNCTION apply_operations_are_carried_on_once();
"""

OLD_WRITERS = """
-- The version before writes where an operation ended over each of its statements that was not settled, without a word
-- of who knows it. What an engine says of a statement it writes before, while the operation is still live.
CREATE FUNCTION table_changes_keep_to_evidence() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
DECLARE
    o apply_operations;
BEGIN
    SELECT * INTO o FROM apply_operations WHERE id = NEW.operation_id;
    IF NEW.state <> o.state THEN
        RETURN NEW;
    END IF;
    IF o.completed_at IS NOT NULL THEN
        NEW.state := CASE WHEN OLD.state <> 'unknown' AND tern_nothing_began(o) THEN 'skipped' ELSE 'unknown' END;
    ELSIF OLD.state IN ('pending', 'unknown') THEN
        NEW.state := OLD.state;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER table_changes_keep_to_evidence BEFORE UPDATE OF state ON table_changes FOR EACH ROW
    WHEN (NEW.state IN ('failed', 'cancelled', 'stopped') AND NEW.state <> OLD.state
        AND NEW.settled_by = OLD.settled_by)
    EXECUTE FUNCTION table_changes_keep_to_evidence();

-- Nor does it know that what was never begun waits again once its operation does.
CREATE FUNCTION apply_operations_wait_again() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    UPDATE table_changes SET state = 'pending', settled_by = '' WHERE operation_id = NEW.id AND state = 'skipped';
    RETURN NULL;
END $$;
CREATE TRIGGER apply_operations_wait_again AFTER UPDATE OF state ON apply_operations FOR EACH ROW
    WHEN (OLD.state IN ('failed', 'stopped') AND NEW.state IN ('pending', 'resuming'))
    EXECUTE FUNCTION apply_operations_wait_again();
"""

FILL = """
-- Until now an operation's end was written over every statement that was not done. Which of them its engine had spoken
-- of, nobody can tell any more.
ALTER TABLE table_changes DISABLE TRIGGER table_changes_keep_to_evidence;
UPDATE table_changes c SET state = CASE WHEN o.state = 'stopped' THEN 'pending'
        WHEN tern_nothing_began(o) THEN 'skipped' ELSE 'unknown' END
    FROM apply_operations o WHERE o.id = c.operation_id AND c.state = o.state
    AND (o.state IN ('failed', 'cancelled') OR o.state = 'stopped' AND tern_nothing_began(o));
ALTER TABLE table_changes ENABLE TRIGGER table_changes_keep_to_evidence;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (COLUMNS, RULES, OLD_WRITERS, FILL):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    # What carries on what stays, and so does the guard that reads it: the version before knows of no follow-up, and
    # would run again what one has done. What was said of a single statement goes, but for that it is completed: on the
    # way up again the others are of unknown effect, and a person is asked once more.
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER apply_operations_wait_again ON apply_operations;
        DROP TRIGGER table_changes_keep_to_evidence ON table_changes;
        DROP FUNCTION apply_operations_wait_again, table_changes_keep_to_evidence, tern_nothing_began;
        -- Each statement shares the end of its operation again.
        UPDATE table_changes c SET state = o.state FROM apply_operations o
            WHERE o.id = c.operation_id AND (c.state = 'unknown' AND o.completed_at IS NOT NULL
                OR c.state = 'skipped' AND o.state <> 'skipped' AND o.completed_at IS NOT NULL
                OR c.state = 'pending' AND o.state = 'stopped');
        DROP INDEX apply_operations_finished_of_deployment, table_changes_by_origin;
        ALTER TABLE table_changes DROP COLUMN settled_by;
        """
    )
