"""What was sent and given up is looked at until it is settled, and nothing new leaves for its target before that.

Workers of the version before neither look nor hold. What they write is looked at by the others all the same: a line is
due when it is written. An id that is still looked at stays its operation's, whoever settles the line.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

COLUMNS = """
-- unheard_since, unheard_tries: of an operation, since when and how often in a row its engine gave no usable answer;
-- unheard_look: the number of its looks when that began, so that a good sample since can be told, whoever wrote it.
ALTER TABLE apply_operations
    ADD COLUMN unheard_since timestamptz,
    ADD COLUMN unheard_tries integer NOT NULL DEFAULT 0,
    ADD COLUMN unheard_look bigint NOT NULL DEFAULT 0;

-- proven_address: where the same engine was proven to be since, by a key; silent_looks: looks in a row without a usable
-- answer; cancel_…: who wants it ended, and what came of the calls. What is there already was left by the way down.
ALTER TABLE outstanding_calls
    ADD COLUMN IF NOT EXISTS proven_address text NOT NULL DEFAULT '',
    ADD COLUMN silent_looks integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS settled_reason text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS cancel_asked_at timestamptz,
    ADD COLUMN IF NOT EXISTS cancel_caller text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS cancel_reason text NOT NULL DEFAULT '',
    ADD COLUMN IF NOT EXISTS cancel_calls integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS cancel_words text NOT NULL DEFAULT '',
    DROP CONSTRAINT outstanding_calls_why_is_known,
    ADD CONSTRAINT outstanding_calls_why_is_known
        CHECK (why IN ('given_up', 'not_stored', 'contradicted', 'address_changed', 'let_go'));
CREATE INDEX outstanding_calls_of_operation ON outstanding_calls (operation_id);
"""

RULES = """
CREATE FUNCTION tern_outstanding(environment text, database text, deployment text) RETURNS TABLE (id bigint)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT c.id FROM tern_targets($1, $2, $3) AS n
    -- By LIMIT each name is looked up: for as many as a planner expects it would read the whole table.
    CROSS JOIN LATERAL (SELECT o.id FROM outstanding_calls o WHERE o.environment = n.environment
        AND o.database = n.database AND o.deployment = n.deployment AND o.settled_at IS NULL LIMIT 1000) c
    -- Asked once a statement: mostly there is none anywhere.
    WHERE EXISTS (SELECT FROM outstanding_calls WHERE settled_at IS NULL)
$$;
COMMENT ON FUNCTION tern_outstanding IS
    'What was sent to this target, under whatever name, and may still act although no operation follows it: until it is
settled, no Apply and no Start leaves for that target.';

-- Whoever claims a first dispatch, in whatever version: workers of the version before look for nothing outstanding.
CREATE OR REPLACE FUNCTION apply_operations_begin_nothing() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    IF EXISTS (SELECT FROM applies a CROSS JOIN LATERAL tern_outstanding(a.environment, a.database, NEW.deployment)
            WHERE a.id = NEW.apply_id) THEN
        RAISE EXCEPTION 'something is outstanding at the target of %', NEW.deployment
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_begin_nothing';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER apply_operations_begin_nothing BEFORE UPDATE OF dispatch_key ON apply_operations
    FOR EACH ROW WHEN (OLD.dispatch_key IS NULL AND NEW.dispatch_key IS NOT NULL)
    EXECUTE FUNCTION apply_operations_begin_nothing();

-- What was given up is append-only: only what was seen of it, how it was settled, and that somebody wants it ended are
-- written to it. What is settled is looked at for a while all the same.
CREATE OR REPLACE FUNCTION outstanding_calls_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE'
        OR (NEW.apply_id, NEW.operation_id, NEW.environment, NEW.database, NEW.deployment, NEW.generation, NEW.fence,
            NEW.address, NEW.why, NEW.caller, NEW.reason, NEW.opened_at)
        <> (OLD.apply_id, OLD.operation_id, OLD.environment, OLD.database, OLD.deployment, OLD.generation, OLD.fence,
            OLD.address, OLD.why, OLD.caller, OLD.reason, OLD.opened_at)
        OR NEW.dispatch_key IS DISTINCT FROM OLD.dispatch_key OR NEW.remote_id IS DISTINCT FROM OLD.remote_id
        OR OLD.settled_at IS NOT NULL
            AND (NEW.settled_at, NEW.settled_by, NEW.settled_as, NEW.settled_reason)
            IS DISTINCT FROM (OLD.settled_at, OLD.settled_by, OLD.settled_as, OLD.settled_reason) THEN
        RAISE EXCEPTION 'outstanding call % is append-only', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'outstanding_calls_are_kept';
    END IF;
    RETURN NEW;
END $$;

-- An id is free again once its operation is finished, its target given back, and nobody looks at it any more.
CREATE OR REPLACE FUNCTION remote_ids_are_let_go() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
DECLARE
    changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    operation bigint := CASE TG_TABLE_NAME WHEN 'apply_operations' THEN (changed ->> 'id')::bigint
                                           ELSE (changed ->> 'operation_id')::bigint END;
BEGIN
    IF NOT EXISTS (SELECT FROM remote_ids WHERE operation_id = operation) THEN
        RETURN NULL;
    END IF;
    DELETE FROM remote_ids r USING apply_operations o WHERE r.operation_id = operation AND o.id = operation
        AND o.completed_at IS NOT NULL AND o.unanswered_since IS NULL
        AND NOT EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = operation)
        AND NOT EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = operation
            AND (c.settled_at IS NULL OR c.next_look_at IS NOT NULL));
    RETURN NULL;
END $$;
DROP TRIGGER remote_ids_are_let_go ON outstanding_calls;
CREATE TRIGGER remote_ids_are_let_go AFTER UPDATE OF settled_at, next_look_at ON outstanding_calls
    FOR EACH ROW WHEN (NEW.settled_at IS NOT NULL AND NEW.next_look_at IS NULL)
    EXECUTE FUNCTION remote_ids_are_let_go();
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (COLUMNS, RULES):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    # A person's words and proofs stay with their lines, and so does what keeps a first dispatch from a target that was
    # freed by such a word: in the version before nobody looks at what was given up there.
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER remote_ids_are_let_go ON outstanding_calls;
        CREATE TRIGGER remote_ids_are_let_go AFTER UPDATE OF settled_at ON outstanding_calls
            FOR EACH ROW WHEN (OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL)
            EXECUTE FUNCTION remote_ids_are_let_go();
        CREATE OR REPLACE FUNCTION remote_ids_are_let_go() RETURNS trigger LANGUAGE plpgsql
            SET enable_seqscan = off AS $$
        DECLARE
            changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
            operation bigint := CASE TG_TABLE_NAME WHEN 'apply_operations' THEN (changed ->> 'id')::bigint
                                                   ELSE (changed ->> 'operation_id')::bigint END;
        BEGIN
            IF NOT EXISTS (SELECT FROM remote_ids WHERE operation_id = operation) THEN
                RETURN NULL;
            END IF;
            DELETE FROM remote_ids r USING apply_operations o WHERE r.operation_id = operation AND o.id = operation
                AND o.completed_at IS NOT NULL AND o.unanswered_since IS NULL
                AND NOT EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = operation)
                AND NOT EXISTS (SELECT FROM outstanding_calls c
                    WHERE c.operation_id = operation AND c.settled_at IS NULL);
            RETURN NULL;
        END $$;
        -- What was only looked at for a while is nobody's any more.
        DELETE FROM remote_ids r USING apply_operations o WHERE o.id = r.operation_id
            AND o.completed_at IS NOT NULL AND o.unanswered_since IS NULL
            AND NOT EXISTS (SELECT FROM target_reservations t WHERE t.operation_id = o.id)
            AND NOT EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = o.id AND c.settled_at IS NULL);
        DROP TRIGGER outstanding_calls_are_kept ON outstanding_calls;
        UPDATE outstanding_calls SET next_look_at = NULL WHERE settled_at IS NOT NULL;
        UPDATE outstanding_calls SET why = 'given_up' WHERE why = 'let_go';
        CREATE OR REPLACE FUNCTION outstanding_calls_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'DELETE' OR OLD.settled_at IS NOT NULL
                OR (NEW.apply_id, NEW.operation_id, NEW.environment, NEW.database, NEW.deployment, NEW.generation,
                    NEW.fence, NEW.address, NEW.why, NEW.caller, NEW.reason, NEW.opened_at)
                <> (OLD.apply_id, OLD.operation_id, OLD.environment, OLD.database, OLD.deployment, OLD.generation,
                    OLD.fence, OLD.address, OLD.why, OLD.caller, OLD.reason, OLD.opened_at)
                OR NEW.dispatch_key IS DISTINCT FROM OLD.dispatch_key
                OR NEW.remote_id IS DISTINCT FROM OLD.remote_id THEN
                RAISE EXCEPTION 'outstanding call %% is append-only', OLD.id
                    USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'outstanding_calls_are_kept';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER outstanding_calls_are_kept BEFORE UPDATE OR DELETE ON outstanding_calls
            FOR EACH ROW EXECUTE FUNCTION outstanding_calls_are_kept();
        CREATE OR REPLACE FUNCTION apply_operations_begin_nothing() RETURNS trigger LANGUAGE plpgsql
            SET enable_seqscan = off AS $$
        BEGIN
            -- Ids that could not be stored are not among it: the version before leaves those for ever, and goes on.
            IF EXISTS (SELECT FROM applies a JOIN outstanding_calls c ON c.environment = a.environment
                    AND c.database = a.database AND c.deployment = NEW.deployment AND c.settled_at IS NULL
                    WHERE a.id = NEW.apply_id AND c.why = 'given_up') THEN
                RAISE EXCEPTION 'something that was given up may still act at the target of %%', NEW.deployment
                    USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_begin_nothing';
            END IF;
            RETURN NEW;
        END $$;
        DROP FUNCTION tern_outstanding;
        DROP INDEX outstanding_calls_of_operation;
        ALTER TABLE outstanding_calls DROP COLUMN silent_looks,
            DROP CONSTRAINT outstanding_calls_why_is_known,
            ADD CONSTRAINT outstanding_calls_why_is_known
                CHECK (why IN ('given_up', 'not_stored', 'contradicted', 'address_changed'));
        ALTER TABLE apply_operations DROP COLUMN unheard_since, DROP COLUMN unheard_tries, DROP COLUMN unheard_look;
        """
    )
