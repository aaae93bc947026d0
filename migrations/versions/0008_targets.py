"""Targets belong to operations: what is finished holds nothing, and a target under several names is one target.

The rules stand in the database, so that workers of the version before keep them too: they go on deleting at an apply's
verdict and inserting without an operation, and both come out right.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

RULES = """
-- The same as before, in a form that looks each name up: pairs of copies, which are two, may be many.
CREATE OR REPLACE FUNCTION tern_names_of_target(deployment text) RETURNS SETOF text LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    WITH RECURSIVE named (name) AS (
        SELECT deployment
        UNION
        SELECT s.name FROM named n CROSS JOIN LATERAL (
            SELECT other FROM same_targets WHERE one = n.name AND finding <> 'two'
            UNION ALL SELECT one FROM same_targets WHERE other = n.name AND finding <> 'two') s (name)
    )
    SELECT name FROM named
$$;

-- Names alone are not enough: two names of one target may stand in two environments.
CREATE FUNCTION tern_targets(of_environment text, of_database text, of_deployment text)
    RETURNS TABLE (environment text, database text, deployment text)
    -- A planner that expects a thousand would rather read whole tables than look each up.
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT $1, $2, $3
    UNION ALL
    -- By LIMIT each is looked up by its key: for a hundred names, as many as a planner expects here, it would read the
    -- whole register, once for each of ten thousand operations.
    SELECT d.environment, d.database, d.name FROM tern_names_of_target($3) AS n (name)
        CROSS JOIN LATERAL (SELECT * FROM deployments WHERE name = n.name LIMIT 1) d WHERE n.name <> $3
        -- Asked once a statement: most registers have no target of two names.
        AND EXISTS (SELECT FROM same_targets WHERE finding <> 'two')
$$;
COMMENT ON FUNCTION tern_targets IS
    'Under which names an operation reserves its target: its own, and those that are, or may be, the same.';

CREATE FUNCTION tern_holds_target(o apply_operations) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT o.completed_at IS NULL AND (o.state <> 'stopped' OR o.engine_resume_context IS NOT NULL
        OR (o.dispatch_key IS NOT NULL AND NOT o.dispatch_key_is_dead)
        OR EXISTS (SELECT FROM applies a WHERE a.id = o.apply_id AND a.external_id IS NOT NULL))
$$;
COMMENT ON FUNCTION tern_holds_target IS
    'What may still act holds its target: what is not finished, but for a stopped operation that nothing was sent of.';

CREATE FUNCTION tern_wait_is_over(held_since timestamptz, held_for_s double precision, at timestamptz)
    RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    -- One that began ahead of the clock, which was set back, is never over by that.
    SELECT coalesce(held_since <= at AND held_since + make_interval(secs => held_for_s) <= at, false)
$$;
COMMENT ON FUNCTION tern_wait_is_over IS
    'Whether a finished operation has kept its target long enough for the last call to have acted.';

CREATE FUNCTION tern_blocked_by(operation bigint, environment text, database text, deployment text, was_sent boolean,
    at timestamptz) RETURNS TABLE (name text, operation_id bigint, wait_s double precision)
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT t.deployment, t.operation_id, extract(epoch FROM t.held_since - $6)::double precision + t.held_for_s
    FROM tern_targets($2, $3, $4) AS n JOIN target_reservations t ON t.environment = n.environment
        AND t.database = n.database AND t.deployment = n.deployment
    JOIN apply_operations b ON b.id = t.operation_id
    WHERE t.operation_id <> $1 AND NOT tern_wait_is_over(t.held_since, t.held_for_s, $6)
        AND (n.deployment = $4
            OR (b.state <> 'pending' OR b.dispatch_key IS NOT NULL, -b.id) > ($5, -$1))
    ORDER BY n.deployment <> $4, n.deployment LIMIT 1
$$;
COMMENT ON FUNCTION tern_blocked_by IS
    'Who keeps an operation from its target: whoever holds its own name; of two that hold one target under two names,
which were found to be one only later, the one that was sent, then the older.';
"""

IDENTITIES = """
-- Pairs of copies, which are two, may be many; those that count as one are few, and asked for all the time.
CREATE INDEX same_targets_are_one ON same_targets (one, other) WHERE finding <> 'two';
CREATE INDEX deployments_by_identity ON deployments (engine_identity) WHERE engine_identity <> '';

-- Whoever writes down what a probe found: the first identity, or that of another address, is the deployment's. Another
-- one later is not taken over by itself: a person says that it is meant.
CREATE FUNCTION deployments_name_their_database() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found text := coalesce(NEW.capabilities ->> 'identity', '');
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.engine_identity := CASE WHEN NEW.engine_identity = '' THEN found ELSE NEW.engine_identity END;
    ELSIF NEW.engine_identity = OLD.engine_identity AND (OLD.engine_identity = '' OR NEW.address <> OLD.address) THEN
        NEW.engine_identity := found;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deployments_name_their_database BEFORE INSERT OR UPDATE OF capabilities, address, engine_identity
    ON deployments FOR EACH ROW EXECUTE FUNCTION deployments_name_their_database();

-- What was found about it was found at another address, or of another database.
CREATE FUNCTION deployments_are_compared_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM same_targets WHERE one = NEW.name OR other = NEW.name;
    RETURN NULL;
END $$;
CREATE TRIGGER deployments_are_compared_anew AFTER UPDATE OF address, capabilities, engine_identity ON deployments
    FOR EACH ROW WHEN (NEW.address <> OLD.address OR NEW.engine_identity <> OLD.engine_identity)
    EXECUTE FUNCTION deployments_are_compared_anew();
"""

RESERVATIONS = """
CREATE INDEX target_reservations_of_name ON target_reservations (deployment);
-- Nobody asks for an apply's targets any more, each is asked for by its operation.
DROP INDEX target_reservations_of_apply;

-- Without sequential scans, all of these: a connection keeps the plan that it made while the table was small, and ten
-- thousand operations are accepted in one statement.

-- Whoever takes a target, in whatever version: which operation of the apply does; and whose time is over makes room.
CREATE FUNCTION target_reservations_are_taken() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    IF NEW.operation_id IS NULL THEN
        SELECT o.id INTO NEW.operation_id FROM apply_operations o
            WHERE o.apply_id = NEW.apply_id AND o.deployment = NEW.deployment;
    END IF;
    -- Here, name by name and before the conflict is looked for: two that first cleared away and then took, each in
    -- order, could wait for each other.
    DELETE FROM target_reservations t
        WHERE t.environment = NEW.environment AND t.database = NEW.database AND t.deployment = NEW.deployment
        AND tern_wait_is_over(t.held_since, t.held_for_s, tern_clock());
    RETURN NEW;
END $$;
CREATE TRIGGER target_reservations_are_taken BEFORE INSERT ON target_reservations
    FOR EACH ROW EXECUTE FUNCTION target_reservations_are_taken();

-- A target is given back by the operation that holds it and by nobody else: the version before deletes, at an apply's
-- verdict, what a stopped operation of it still holds.
CREATE FUNCTION target_reservations_are_kept() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
BEGIN
    IF OLD.held_since IS NOT NULL AND NOT tern_wait_is_over(OLD.held_since, OLD.held_for_s, tern_clock())
        OR EXISTS (SELECT FROM apply_operations o WHERE o.id = OLD.operation_id AND tern_holds_target(o)) THEN
        RETURN NULL;
    END IF;
    RETURN OLD;
END $$;
-- The triggers here have asked already.
CREATE TRIGGER target_reservations_are_kept BEFORE DELETE ON target_reservations
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION target_reservations_are_kept();

-- An operation gives its target back in the transaction that finishes it. A call that may still act, and an engine that
-- offers no Resolve and calls a change failed (some try again by themselves), keep it for a while.
CREATE FUNCTION apply_operations_give_back() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off AS $$
DECLARE
    o apply_operations;
    at timestamptz := tern_clock();
    since timestamptz;
    for_s double precision;
BEGIN
    -- As it is at the end of the transaction, whatever else happened to it there.
    SELECT * INTO o FROM apply_operations WHERE id = NEW.id;
    IF tern_holds_target(o) THEN
        RETURN NULL;
    END IF;
    IF o.state = 'failed' AND o.error_reason = 'ENGINE_FAILED' AND NOT EXISTS (SELECT FROM deployments d
            WHERE d.name = o.deployment AND coalesce((d.capabilities ->> 'resolve')::boolean, false)) THEN
        since := at;
        for_s := 600;
    ELSIF o.unanswered_since > at - interval '60 s'
            -- Of an Apply that was withdrawn, or whose key is dead, nothing can come any more.
            AND (o.unanswered_call <> 'apply' OR o.dispatch_key IS NOT NULL AND NOT o.dispatch_key_is_dead) THEN
        since := least(o.unanswered_since, at);
        for_s := 60;
    END IF;
    IF since IS NULL THEN
        DELETE FROM target_reservations WHERE operation_id = o.id;
    ELSE
        UPDATE target_reservations SET held_since = since, held_for_s = for_s WHERE operation_id = o.id;
    END IF;
    RETURN NULL;
END $$;
-- By WHEN, so that what only moves on pays nothing for it. At the end of the transaction, because targets come last in
-- the order of locks.
CREATE CONSTRAINT TRIGGER apply_operations_give_back AFTER UPDATE ON apply_operations
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (
    NEW.completed_at IS NOT NULL AND OLD.completed_at IS NULL
    OR NEW.state = 'stopped' AND NEW.engine_resume_context IS NULL
        AND (NEW.dispatch_key IS NULL OR NEW.dispatch_key_is_dead)
        AND (OLD.state <> 'stopped' OR OLD.dispatch_key IS NOT NULL AND NOT OLD.dispatch_key_is_dead))
    EXECUTE FUNCTION apply_operations_give_back();
"""

IDS = """
-- An id is followed as long as its operation keeps its target: what was called failed may turn out to work again.
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
        AND NOT EXISTS (SELECT FROM outstanding_calls c WHERE c.operation_id = operation AND c.settled_at IS NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER remote_ids_are_let_go AFTER DELETE ON target_reservations
    FOR EACH ROW EXECUTE FUNCTION remote_ids_are_let_go();
"""

FILL = """
-- Until now an apply held all its targets until its verdict, and none after it.
DELETE FROM target_reservations t WHERE NOT EXISTS (SELECT FROM apply_operations o
    WHERE o.id = t.operation_id AND tern_holds_target(o));
-- A stopped one whose target another apply has taken meanwhile goes without, and its start is refused.
INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)
    SELECT a.environment, a.database, o.deployment, a.id, o.id
    FROM apply_operations o JOIN applies a ON a.id = o.apply_id WHERE o.state = 'stopped' AND tern_holds_target(o)
    ORDER BY a.environment, a.database, o.deployment, o.id DESC ON CONFLICT DO NOTHING;
"""


def upgrade() -> None:
    connection = op.get_bind()
    for part in (RULES, IDENTITIES, RESERVATIONS, IDS, FILL):
        # psycopg reads a single % as the start of a placeholder.
        connection.exec_driver_sql(part.replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(
        """
        CREATE OR REPLACE FUNCTION tern_names_of_target(deployment text) RETURNS SETOF text
            LANGUAGE sql STABLE PARALLEL SAFE AS $$
            WITH RECURSIVE named (name) AS (
                SELECT deployment
                UNION
                SELECT CASE WHEN s.one = n.name THEN s.other ELSE s.one END
                FROM named n JOIN same_targets s ON (s.one = n.name OR s.other = n.name) AND s.finding <> 'two'
            )
            SELECT name FROM named
        $$;
        DROP TRIGGER deployments_are_compared_anew ON deployments;
        DROP TRIGGER deployments_name_their_database ON deployments;
        DROP INDEX deployments_by_identity, same_targets_are_one;
        DROP TRIGGER remote_ids_are_let_go ON target_reservations;
        CREATE OR REPLACE FUNCTION remote_ids_are_let_go() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            operation bigint := CASE TG_TABLE_NAME WHEN 'apply_operations' THEN (to_jsonb(NEW) ->> 'id')::bigint
                                                   ELSE (to_jsonb(NEW) ->> 'operation_id')::bigint END;
        BEGIN
            DELETE FROM remote_ids r USING apply_operations o WHERE r.operation_id = operation AND o.id = operation
                AND o.completed_at IS NOT NULL AND o.unanswered_since IS NULL
                AND NOT EXISTS (SELECT FROM outstanding_calls c
                    WHERE c.operation_id = operation AND c.settled_at IS NULL);
            RETURN NULL;
        END $$;
        DROP TRIGGER apply_operations_give_back ON apply_operations;
        DROP TRIGGER target_reservations_are_kept ON target_reservations;
        DROP TRIGGER target_reservations_are_taken ON target_reservations;
        DROP INDEX target_reservations_of_name;
        CREATE INDEX target_reservations_of_apply ON target_reservations (apply_id);
        DROP FUNCTION deployments_are_compared_anew, deployments_name_their_database;
        DROP FUNCTION apply_operations_give_back, target_reservations_are_kept, target_reservations_are_taken,
            tern_blocked_by, tern_wait_is_over, tern_holds_target, tern_targets;
        -- An apply holds all its targets until its verdict again, each under its own name, and none after it.
        DELETE FROM target_reservations t USING applies a WHERE a.id = t.apply_id
            AND (a.state IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped') OR NOT EXISTS (
                SELECT FROM apply_operations o WHERE o.id = t.operation_id AND o.deployment = t.deployment));
        INSERT INTO target_reservations (environment, database, deployment, apply_id, operation_id)
            SELECT a.environment, a.database, o.deployment, a.id, o.id
            FROM apply_operations o JOIN applies a ON a.id = o.apply_id
            WHERE a.state NOT IN ('completed', 'failed', 'cancelled', 'reverted', 'stopped')
            ORDER BY a.environment, a.database, o.deployment, o.id ON CONFLICT DO NOTHING;
        """
    )
