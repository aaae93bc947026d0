"""Workers of a version that knows nothing of outstanding calls neither forget a key that was given up, nor send one
again or start a job where something is outstanding; and what an engine answers them is an answer.

Version 0008 puts an operation whose engine was given up back in line as if its engine had refused it: the key is
forgotten, and the same one is sent again as the first. Which version writes makes no difference from here on.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

RULES = """
CREATE OR REPLACE FUNCTION apply_operations_keep_what_was_sent() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    -- Also of a line that is settled: what became of the key is known then, and is found again by asking for it. Of an
    -- id that could not be stored the generation says by which key it came.
    IF EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = OLD.id
            AND (c.dispatch_key = OLD.dispatch_key OR c.generation = OLD.dispatch_generation)) THEN
        NEW.dispatch_key := OLD.dispatch_key;
        NEW.dispatch_intent_at := coalesce(NEW.dispatch_intent_at, tern_clock());
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION apply_operations_keep_what_was_sent IS
    'A key that was outstanding, or that brought an id which was, stands until the next generation: what it started is
asked for first, and it is never sent again as if for the first time.';
CREATE OR REPLACE TRIGGER apply_operations_keep_what_was_sent BEFORE UPDATE OF dispatch_key ON apply_operations
    FOR EACH ROW WHEN (OLD.dispatch_key IS NOT NULL AND NEW.dispatch_key IS DISTINCT FROM OLD.dispatch_key
        AND NEW.dispatch_generation = OLD.dispatch_generation)
    EXECUTE FUNCTION apply_operations_keep_what_was_sent();

-- A repetition and a Start are written down before they are sent, in each version. The job that is started may be
-- outstanding itself: then it is what the start is about. A first dispatch is another trigger's, which refuses alike.
CREATE OR REPLACE FUNCTION apply_operations_send_nothing() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    -- Mostly there is none anywhere, and to ask for that alone costs a tenth.
    IF NOT EXISTS (SELECT FROM outstanding_calls WHERE settled_at IS NULL) THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM applies a CROSS JOIN LATERAL tern_outstanding(a.environment, a.database, NEW.deployment) k
            JOIN outstanding_calls c ON c.id = k.id WHERE a.id = NEW.apply_id
            AND NOT coalesce(c.operation_id = NEW.id AND c.remote_id = CASE WHEN a.operation_count = 1
                THEN a.external_id ELSE NEW.engine_resume_context END, false)) THEN
        RAISE EXCEPTION 'something is outstanding at the target of %', NEW.deployment
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_begin_nothing';
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER apply_operations_send_nothing BEFORE UPDATE OF unanswered_call ON apply_operations
    FOR EACH ROW WHEN (NEW.claim_token IS NOT NULL AND NEW.unanswered_since IS DISTINCT FROM OLD.unanswered_since
        AND (NEW.unanswered_call = 'start' OR NEW.unanswered_call = 'apply' AND OLD.dispatch_key IS NOT NULL))
    EXECUTE FUNCTION apply_operations_send_nothing();

-- What an engine said of a key, to whatever version: it is there, so the count of tries without an answer begins anew.
CREATE FUNCTION apply_operations_are_heard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.unheard_tries := 0;
    NEW.unheard_since := NULL;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION apply_operations_are_heard IS
    'An engine is called gone after tries in a row without an answer. A key that is dead, the next generation and a
refusal are answers.';
CREATE TRIGGER apply_operations_are_heard
    BEFORE UPDATE OF dispatch_generation, dispatch_key_is_dead, state ON apply_operations
    FOR EACH ROW WHEN (OLD.unheard_tries > 0 AND NEW.unheard_tries = OLD.unheard_tries
        AND (NEW.dispatch_generation > OLD.dispatch_generation OR NEW.dispatch_key_is_dead > OLD.dispatch_key_is_dead
            OR OLD.state = 'running' AND NEW.state = 'failed'))
    EXECUTE FUNCTION apply_operations_are_heard();
"""

FILL = """
-- What was put back in line before, with its key forgotten. Nothing is sent by this, to whatever engine, so the rules
-- for what begins say nothing to it.
ALTER TABLE apply_operations DISABLE TRIGGER apply_operations_begin_nothing,
    DISABLE TRIGGER apply_operations_know_their_engine;
UPDATE apply_operations o SET dispatch_key = c.dispatch_key, dispatch_intent_at = tern_clock()
    FROM (SELECT DISTINCT operation_id, generation, dispatch_key FROM outstanding_calls
        WHERE dispatch_key IS NOT NULL) c
    WHERE o.id = c.operation_id AND o.dispatch_generation = c.generation AND o.dispatch_key IS NULL
        AND o.completed_at IS NULL;
ALTER TABLE apply_operations ENABLE TRIGGER apply_operations_begin_nothing,
    ENABLE TRIGGER apply_operations_know_their_engine;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (RULES, FILL):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    # The guards stay: it is in the versions before that they are needed. Of what those leave for ever, ids that could
    # not be stored, nothing waits there.
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER apply_operations_are_heard ON apply_operations;
        DROP FUNCTION apply_operations_are_heard;
        CREATE OR REPLACE FUNCTION apply_operations_send_nothing() RETURNS trigger LANGUAGE plpgsql
            SET enable_seqscan = off AS $$
        BEGIN
            IF EXISTS (SELECT FROM applies a JOIN outstanding_calls c ON c.environment = a.environment
                    AND c.database = a.database AND c.deployment = NEW.deployment AND c.settled_at IS NULL
                    WHERE a.id = NEW.apply_id AND c.why = 'given_up') THEN
                RAISE EXCEPTION 'something that was given up may still act at the target of %%', NEW.deployment
                    USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'apply_operations_begin_nothing';
            END IF;
            RETURN NEW;
        END $$;
        """
    )
