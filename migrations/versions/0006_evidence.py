"""The rules of evidence, kept by the database whoever writes: which engine a deployment has, whose an id is, and how
long what may still act is looked at.

Workers of the version before write none of the columns that this stands on: the triggers fill them in.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ENGINES = """
-- A deployment's engine: the one with the same address and environment, else a new one. Two that are added at the same
-- instant must not make two numbers of one engine, so whoever needs a new one waits for the other. An engine that moves
-- keeps its number where its own row is given the new address first.
CREATE FUNCTION deployments_have_an_engine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.engine_number IS NOT NULL AND (TG_OP = 'INSERT' OR NEW.engine_number IS DISTINCT FROM OLD.engine_number
        OR (NEW.address, NEW.environment) = (OLD.address, OLD.environment)) THEN
        RETURN NEW;
    END IF;
    SELECT min(number) INTO NEW.engine_number FROM engines
        WHERE environment = NEW.environment AND address = NEW.address;
    IF NEW.engine_number IS NULL THEN
        LOCK TABLE engines IN SHARE ROW EXCLUSIVE MODE;
        SELECT min(number) INTO NEW.engine_number FROM engines
            WHERE environment = NEW.environment AND address = NEW.address;
    END IF;
    IF NEW.engine_number IS NULL THEN
        INSERT INTO engines (address, environment) VALUES (NEW.address, NEW.environment)
            RETURNING number INTO NEW.engine_number;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deployments_have_an_engine BEFORE INSERT OR UPDATE OF address, environment, engine_number ON deployments
    FOR EACH ROW EXECUTE FUNCTION deployments_have_an_engine();
UPDATE deployments SET engine_number = engine_number WHERE engine_number IS NULL;

-- Until now one column said what was declared and what was found. Whoever still writes only that one has declared
-- something where its engine was not found to offer Resolve.
CREATE FUNCTION deployments_declare() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.idempotent_dispatch AND NOT NEW.deduplicates
        OR TG_OP = 'UPDATE' AND NEW.idempotent_dispatch <> OLD.idempotent_dispatch
            AND NEW.deduplicates = OLD.deduplicates THEN
        NEW.deduplicates :=
            NEW.idempotent_dispatch AND NOT coalesce((NEW.capabilities ->> 'resolve')::boolean, false);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deployments_declare BEFORE INSERT OR UPDATE OF idempotent_dispatch ON deployments
    FOR EACH ROW EXECUTE FUNCTION deployments_declare();
UPDATE deployments SET idempotent_dispatch = deduplicates WHERE idempotent_dispatch <> deduplicates;
"""

GUARDS = """
-- The engine and the address that an intent was written for. They are read under a lock of the deployment's row, so
-- that two numbers which just turn out to be one engine are one here too; KEY SHARE, so that it can be drained then.
CREATE FUNCTION apply_operations_know_their_engine() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT engine_number, address INTO NEW.engine_number, NEW.dispatched_to FROM deployments
        WHERE name = NEW.deployment FOR KEY SHARE;
    IF NOT FOUND THEN
        NEW.engine_number := OLD.engine_number;
        NEW.dispatched_to := OLD.dispatched_to;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_know_their_engine BEFORE UPDATE ON apply_operations
    FOR EACH ROW WHEN (OLD.dispatch_key IS NULL AND NEW.dispatch_key IS NOT NULL
        OR OLD.engine_resume_context IS NULL AND NEW.engine_resume_context IS NOT NULL AND NEW.engine_number IS NULL)
    EXECUTE FUNCTION apply_operations_know_their_engine();

-- Wherever an id is stored it is written down whose it is, and the primary key refuses to give it to a second one.
CREATE FUNCTION remote_ids_are_guarded() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    given text;
    operation bigint;
    engine bigint;
BEGIN
    IF TG_TABLE_NAME = 'applies' THEN
        given := NEW.external_id;
        SELECT id, engine_number INTO operation, engine FROM apply_operations WHERE apply_id = NEW.id;
        IF engine IS NULL THEN
            UPDATE apply_operations o SET engine_number = d.engine_number, dispatched_to = d.address
                FROM deployments d WHERE o.id = operation AND d.name = o.deployment
                RETURNING d.engine_number INTO engine;
        END IF;
    ELSE
        given := NEW.engine_resume_context;
        operation := NEW.id;
        engine := NEW.engine_number;
    END IF;
    -- Without an engine nobody can say whose it is, and without a row here nothing is ever sent with it.
    IF engine IS NOT NULL AND operation IS NOT NULL AND NOT EXISTS (SELECT FROM remote_ids
        WHERE engine_number = engine AND remote_id = given AND operation_id = operation) THEN
        INSERT INTO remote_ids (engine_number, remote_id, operation_id) VALUES (engine, given, operation);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER remote_ids_are_guarded AFTER UPDATE OF external_id ON applies
    FOR EACH ROW WHEN (OLD.external_id IS NULL AND NEW.external_id IS NOT NULL)
    EXECUTE FUNCTION remote_ids_are_guarded();
CREATE TRIGGER remote_ids_are_guarded AFTER UPDATE OF engine_resume_context ON apply_operations
    FOR EACH ROW WHEN (OLD.engine_resume_context IS NULL AND NEW.engine_resume_context IS NOT NULL)
    EXECUTE FUNCTION remote_ids_are_guarded();

-- An id is free again once its operation is finished and nothing of it may act any more.
CREATE FUNCTION remote_ids_are_let_go() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    operation bigint := CASE TG_TABLE_NAME WHEN 'apply_operations' THEN (to_jsonb(NEW) ->> 'id')::bigint
                                           ELSE (to_jsonb(NEW) ->> 'operation_id')::bigint END;
BEGIN
    DELETE FROM remote_ids r USING apply_operations o WHERE r.operation_id = operation AND o.id = operation
        AND o.completed_at IS NOT NULL AND o.unanswered_since IS NULL
        AND NOT EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = operation AND c.settled_at IS NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER remote_ids_are_let_go AFTER UPDATE ON apply_operations
    FOR EACH ROW WHEN (NEW.completed_at IS NOT NULL AND NEW.engine_number IS NOT NULL
        AND (OLD.completed_at IS NULL OR OLD.unanswered_since IS NOT NULL AND NEW.unanswered_since IS NULL))
    EXECUTE FUNCTION remote_ids_are_let_go();
CREATE TRIGGER remote_ids_are_let_go AFTER UPDATE OF settled_at ON outstanding_calls
    FOR EACH ROW WHEN (OLD.settled_at IS NULL AND NEW.settled_at IS NOT NULL)
    EXECUTE FUNCTION remote_ids_are_let_go();

-- A call without an answer may act for a minute. For so long its job is looked at every second, whatever state its
-- operation is in and whoever writes it; then the call is forgotten. What has no id is looked at by its key, by those
-- who know that its engine can be asked.
CREATE FUNCTION apply_operations_are_looked_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.unanswered_since <= tern_clock() - interval '60 s' THEN
        NEW.unanswered_call := '';
        NEW.unanswered_since := NULL;
        IF NOT EXISTS (SELECT FROM remote_ids WHERE operation_id = NEW.id) THEN
            NEW.next_poll_at := NULL;
        END IF;
    ELSIF EXISTS (SELECT FROM remote_ids WHERE operation_id = NEW.id) THEN
        NEW.next_poll_at := least(NEW.next_poll_at, tern_clock() + interval '1 s');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apply_operations_are_looked_at BEFORE UPDATE ON apply_operations
    FOR EACH ROW WHEN (NEW.unanswered_since IS NOT NULL) EXECUTE FUNCTION apply_operations_are_looked_at();

-- What was given up is append-only: only what was seen of it, and how it was settled, are written to it.
CREATE FUNCTION outstanding_calls_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.settled_at IS NOT NULL
        OR (NEW.apply_id, NEW.operation_id, NEW.environment, NEW.database, NEW.deployment, NEW.generation, NEW.fence,
            NEW.address, NEW.why, NEW.caller, NEW.reason, NEW.opened_at)
        <> (OLD.apply_id, OLD.operation_id, OLD.environment, OLD.database, OLD.deployment, OLD.generation, OLD.fence,
            OLD.address, OLD.why, OLD.caller, OLD.reason, OLD.opened_at)
        OR NEW.dispatch_key IS DISTINCT FROM OLD.dispatch_key OR NEW.remote_id IS DISTINCT FROM OLD.remote_id THEN
        RAISE EXCEPTION 'outstanding call % is append-only', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'outstanding_calls_are_kept';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER outstanding_calls_are_kept BEFORE UPDATE OR DELETE ON outstanding_calls
    FOR EACH ROW EXECUTE FUNCTION outstanding_calls_are_kept();
"""

FILL = """
-- The ids in use. One that stands twice at one engine stays with the operation that had it first; the second gets an
-- engine number of its own, and of both only a person can say whose job it is.
DO $$
DECLARE
    one record;
    holder record;
    words text;
    own bigint;
BEGIN
    FOR one IN SELECT o.id, o.apply_id, o.deployment, o.state, coalesce(o.engine_number, d.engine_number) AS engine,
            coalesce(d.address, '') AS address, a.environment, a.apply_identifier,
            CASE WHEN a.operation_count = 1 THEN a.external_id ELSE o.engine_resume_context END AS remote_id
        FROM apply_operations o JOIN applies a ON a.id = o.apply_id LEFT JOIN deployments d ON d.name = o.deployment
        WHERE o.completed_at IS NULL
        AND CASE WHEN a.operation_count = 1 THEN a.external_id ELSE o.engine_resume_context END IS NOT NULL
        ORDER BY o.id
    LOOP
        SELECT o.id, o.apply_id, o.deployment, o.state, a.apply_identifier INTO holder FROM remote_ids r
            JOIN apply_operations o ON o.id = r.operation_id JOIN applies a ON a.id = o.apply_id
            WHERE r.engine_number = one.engine AND r.remote_id = one.remote_id;
        own := one.engine;
        IF own IS NULL OR holder.id IS NOT NULL THEN
            INSERT INTO engines (address, environment) VALUES (one.address, one.environment)
                RETURNING number INTO own;
        END IF;
        UPDATE apply_operations SET engine_number = own,
            dispatched_to = CASE WHEN dispatched_to = '' THEN one.address ELSE dispatched_to END
            WHERE id = one.id AND (engine_number IS DISTINCT FROM own OR dispatched_to = '');
        INSERT INTO remote_ids (engine_number, remote_id, operation_id) VALUES (own, one.remote_id, one.id);
        IF holder.id IS NOT NULL THEN
            words := 'the remote id ' || one.remote_id || ' stands at ' || holder.apply_identifier || '/'
                || holder.deployment || ' and at ' || one.apply_identifier || '/' || one.deployment
                || ', and one engine gives an id once';
            INSERT INTO apply_events (apply_id, operation_id, event, who, why, before, after)
                SELECT o.apply_id, o.id, 'lose_track', 'migration', words, o.state, 'uncertain'
                FROM apply_operations o WHERE o.id IN (one.id, holder.id) AND o.doubt = '' ORDER BY o.id;
            UPDATE apply_operations SET state = 'uncertain', doubt = 'taken', state_changed_at = tern_clock(),
                claim_token = NULL, claim_owner = NULL, claim_expires_at = NULL, fence = fence + 1,
                next_attempt_at = NULL, next_poll_at = tern_clock(),
                error_reason = 'REMOTE_ID_TAKEN', error_message = words
                WHERE id IN (one.id, holder.id) AND doubt = '';
            -- The projection is the sweep's: it finds what is due.
            UPDATE applies SET next_advance_at = tern_clock() WHERE id IN (one.apply_id, holder.apply_id);
        END IF;
    END LOOP;
END $$;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (ENGINES, GUARDS, FILL):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        DROP TRIGGER outstanding_calls_are_kept ON outstanding_calls;
        DROP TRIGGER apply_operations_are_looked_at ON apply_operations;
        DROP TRIGGER remote_ids_are_let_go ON outstanding_calls;
        DROP TRIGGER remote_ids_are_let_go ON apply_operations;
        DROP TRIGGER remote_ids_are_guarded ON apply_operations;
        DROP TRIGGER remote_ids_are_guarded ON applies;
        DROP TRIGGER apply_operations_know_their_engine ON apply_operations;
        DROP TRIGGER deployments_declare ON deployments;
        DROP TRIGGER deployments_have_an_engine ON deployments;
        DROP FUNCTION outstanding_calls_are_kept, apply_operations_are_looked_at, remote_ids_are_let_go,
            remote_ids_are_guarded, apply_operations_know_their_engine, deployments_declare,
            deployments_have_an_engine;
        -- As it was read before: declared, or found to be askable. The ids themselves stay where they live.
        UPDATE deployments SET idempotent_dispatch =
            deduplicates OR coalesce((capabilities ->> 'resolve')::boolean, false);
        DELETE FROM remote_ids;
        """
    )
